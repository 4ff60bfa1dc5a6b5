//! How one member is connected to.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::store::etcd::client::settings::{EtcdError, EtcdTls};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a connection on which calls wait is tested. etcd refuses clients that do so more often
/// (`--grpc-keepalive-min-time`, 5 s).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);

/// How long the answer to such a test may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects with the first call.
pub(crate) fn channel(address: &str, tls: Option<&EtcdTls>) -> Result<Channel, EtcdError> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let bad =
        |source| EtcdError::BadEndpoint { endpoint: address.to_owned(), source: Box::new(source) };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(bad)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    if let Some(tls) = tls {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint
            .tls_config(config)
            .map_err(|source| EtcdError::Tls { source: Box::new(source) })?;
    }
    Ok(endpoint.connect_lazy())
}
