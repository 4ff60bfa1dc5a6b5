//! What is to be known of a cluster before it is spoken to.

/// Where the cluster is, and how it is spoken to.
#[derive(Clone, Debug, Default)]
pub struct EtcdSettings {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// What every key of the relay begins with.
    pub prefix: String,
    /// With this, members are spoken to over TLS.
    pub tls: Option<EtcdTls>,
    /// A user and the password.
    pub user: Option<EtcdUser>,
}

/// What TLS to etcd is made of, in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who may have signed the members' certificates.
    pub ca: Vec<u8>,
    /// The relay's own certificate and key, where members want one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Who the relay is for etcd.
#[derive(Clone)]
pub struct EtcdUser {
    pub name: String,
    pub password: String,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
    #[error("\"{endpoint}\" is not HOST:PORT of a member of etcd")]
    BadEndpoint { endpoint: String, source: Box<tonic::transport::Error> },
    #[error("the certificates for etcd cannot be used")]
    Tls { source: Box<tonic::transport::Error> },
    #[error("the prefix of keys in etcd is longer than {limit} bytes")]
    PrefixTooLong { limit: usize },
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("EtcdTls(..)")
    }
}

impl std::fmt::Debug for EtcdUser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}
