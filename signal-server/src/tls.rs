//! TLS: which files it is made of, the handshake, and how a listener's is renewed.
//!
//! The files are read when the relay starts, which fails if they are no good, and again when it is told
//! to (`SIGHUP`). What is read then and is no good changes nothing: connections go on with what was
//! there before, and the log says why. Connections that are open keep what they began with.
//!
//! Only HTTP/1.1 is offered, which is all that is served.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take. On a management network it is some milliseconds; who needs longer
/// only holds a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where certificates and key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and then those that lead to its root.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// With this, a client has to show a certificate that one of these has signed.
    pub client_ca: Option<PathBuf>,
}

/// The server's side of TLS.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    present: RwLock<Arc<ServerConfig>>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not PEM, or holds nothing of what it should", path.display())]
    Parse { path: PathBuf, source: pem::Error },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("a certificate in {} is not one that can sign others", path.display())]
    BadRoot { path: PathBuf, source: rustls::Error },
    #[error("no TLS can be spoken")]
    Protocol { source: rustls::Error },
    #[error("the certificates in {} cannot be used to check clients", path.display())]
    ClientVerifier { path: PathBuf, source: VerifierBuilderError },
    #[error("the key in {} and the certificate in {} cannot be used together", key.display(), certificate.display())]
    Pair { key: PathBuf, certificate: PathBuf, source: rustls::Error },
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let present = RwLock::new(Arc::new(server_config(&files)?));
        Ok(Tls { files, present })
    }

    /// Reads the files again. An error changes nothing.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let renewed = Arc::new(server_config(&self.files)?);
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    /// The handshake.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner).clone();
        let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(present).accept(stream));
        handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// The client's side of TLS: a server has to show a certificate that one of these has signed; without
/// any, no server is believed.
pub(crate) fn client_config(server_ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Protocol { source })?;
    let roots = server_ca.map_or_else(|| Ok(RootCertStore::empty()), roots)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pair_error = |source| TlsError::Pair {
        key: files.key.clone(),
        certificate: files.certificate.clone(),
        source,
    };
    let certificates = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|source| TlsError::Parse { path: files.key.clone(), source })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Protocol { source })?;
    let builder = match &files.client_ca {
        Some(path) => builder.with_client_cert_verifier(client_verifier(path, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(pair_error)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider)
        .build()
        .map_err(|source| TlsError::ClientVerifier { path: path.to_owned(), source })
}

/// At least one.
fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::BadRoot { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates =
        certificates.map_err(|source| TlsError::Parse { path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
