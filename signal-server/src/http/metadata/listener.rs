//! The socket of the metadata surface: as the other listeners, but nothing is added to what passes, and
//! it may speak TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::app::Shutdown;
use crate::error::chain;
use crate::http::listener::{Answer, Drained, Serving, serve as serve_listener};
use crate::http::metadata::Gateway;
use crate::tls::Tls;

/// How many connections are served at once. Each hypervisor's agent opens one for each request and
/// serves some tens at once; a region has some hundreds of hypervisors.
const MAX_CONNECTIONS: usize = 8_192;

impl Answer for Arc<Gateway> {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        Gateway::answer(self, request).await
    }
}

/// Serves until the shutdown begins, then answers what is being asked for at most `grace`. When `renew`
/// is told so, certificates are read anew.
pub(crate) async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    renew: Arc<Notify>,
    shutdown: Shutdown,
    grace: Duration,
) {
    let mut http = http1::Builder::new();
    http.preserve_header_case(true);
    let tls = gateway.tls.clone();
    let serving = Serving {
        http,
        max_connections: MAX_CONNECTIONS,
        connections: gateway.app.metrics.http.connections.clone(),
        tls: tls.clone(),
        grace,
    };
    let drained = tokio::select! {
        drained = serve_listener(listener, gateway.clone(), serving, shutdown) => drained,
        () = gateway.probe() => return,
        () = renew_certificates(tls, renew) => return,
    };
    if let Drained::Cut { n_connections } = drained {
        tracing::warn!(n_connections, "the metadata surface stopped by force: the grace was over");
    }
}

/// Never returns.
async fn renew_certificates(tls: Option<Arc<Tls>>, renew: Arc<Notify>) {
    loop {
        renew.notified().await;
        let Some(tls) = &tls else { continue };
        match tls.reload() {
            Ok(()) => tracing::info!("certificates were read anew"),
            Err(error) => {
                tracing::error!(error = %chain(&error), "the new certificates cannot be used, the old ones are kept");
            }
        }
    }
}
