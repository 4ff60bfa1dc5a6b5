//! A backup as it arrives from a relay.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Response};
use tokio::time::timeout;

use crate::client::{Client, ClientError, host_of};

/// How long nothing may arrive: as long as the relay waits for a reader.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// The pieces of a backup.
#[derive(Debug)]
pub(crate) struct BackupReader {
    response: Response,
}

impl Client {
    /// Begins a backup of the relay's store.
    pub(crate) async fn backup(&self) -> Result<BackupReader, ClientError> {
        let url = self.url_below(&["api", "v1", "backup"])?;
        let host = host_of(&url);
        let sending = self.send(self.request(Method::GET, url));
        let response =
            timeout(MAX_SILENCE, sending).await.map_err(|_| ClientError::Silent { host })??;
        Ok(BackupReader { response })
    }
}

impl BackupReader {
    /// The next piece; nothing when no more will come.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let host = host_of(self.response.url());
        match timeout(MAX_SILENCE, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(source)) => Err(ClientError::Send { host, source: source.without_url() }),
            Err(_elapsed) => Err(ClientError::Silent { host }),
        }
    }
}
