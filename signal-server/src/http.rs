//! HTTP: every route on one screen here, every layer in order in [`edge`].

mod admin;
pub(crate) mod body;
pub(crate) mod edge;
pub(crate) mod heat;
pub(crate) mod host;
pub(crate) mod listener;
pub(crate) mod metadata;
pub(crate) mod native;
pub(crate) mod permit;
pub(crate) mod swift;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{MethodRouter, get, post, put};

use crate::app::{AdminState, AppState};
use crate::error::ApiError;
use crate::http::native::{backup, events, forwards, handles, instances, openapi, stacks};
use crate::http::swift::{account, container, object};
use crate::metrics::Surface;

/// The native surface.
pub(crate) fn native_routes() -> Vec<(&'static str, MethodRouter<AppState>)> {
    vec![
        ("/api/v1/handles", post(handles::create).get(handles::list)),
        ("/api/v1/handles/{id}", get(handles::show).delete(handles::delete)),
        ("/api/v1/handles/{id}/signals", put(handles::signal).post(handles::signal)),
        ("/api/v1/handles/{id}/events", get(events::events)),
        ("/api/v1/instances/{id}", get(instances::show)),
        ("/api/v1/stacks/{id}", get(stacks::show)),
        ("/api/v1/forwards", get(forwards::list)),
        ("/api/v1/forwards/{id}", get(forwards::show)),
        ("/api/v1/backup", get(backup::take)),
        ("/api/v1/openapi.json", get(openapi::document)),
    ]
}

/// The swift surface. Some clients put a slash at the end of an account or a container.
fn swift_routes() -> Vec<(&'static str, MethodRouter<AppState>)> {
    let account = || get(account::get).head(account::head).post(account::post);
    let container = || {
        get(container::get)
            .head(container::head)
            .put(container::put)
            .post(container::post)
            .delete(container::delete)
    };
    vec![
        ("/v1/{account}", account()),
        ("/v1/{account}/", account()),
        ("/v1/{account}/{container}", container()),
        ("/v1/{account}/{container}/", container()),
        ("/v1/{account}/{container}/{*object}", object()),
    ]
}

fn object() -> MethodRouter<AppState> {
    get(object::get).head(object::head).put(object::put).delete(object::delete)
}

/// The heat surface. A path of heat-api is also that of an object in a container named `stacks`; the POST
/// is Heat's, for objects have none.
fn heat_routes() -> Vec<(&'static str, MethodRouter<AppState>)> {
    let resource = "/v1/{account}/stacks/{stack}/{stack_id}/resources/{resource}/signal";
    vec![
        (resource, object().post(heat::signal_resource)),
        ("/v1/waitcondition/{*arn}", put(heat::signal_signed)),
        ("/v1/signal/{*arn}", post(heat::signal_signed)),
    ]
}

/// The surfaces for instances and orchestrators.
pub(crate) fn public_router(state: AppState) -> Router {
    let mut routes = native_routes();
    routes.extend(swift_routes());
    routes.extend(heat_routes());
    router(routes, state)
}

/// The surface for operators.
pub(crate) fn admin_router(state: AdminState) -> Router {
    let routes: Vec<(&'static str, MethodRouter<AdminState>)> = vec![
        ("/healthz", get(admin::healthz)),
        ("/readyz", get(admin::readyz)),
        ("/metrics", get(admin::metrics)),
        ("/log-level", get(admin::log_level).put(admin::set_log_level)),
    ];
    router(routes, state)
}

fn router<S: Clone + Send + Sync + 'static>(
    routes: Vec<(&'static str, MethodRouter<S>)>,
    state: S,
) -> Router {
    routes
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

/// Which surface of the public listener a path belongs to.
pub(crate) fn public_surface(path: &str) -> Surface {
    let is_of_heat = path.starts_with("/v1/waitcondition/")
        || path.starts_with("/v1/signal/")
        || (path.ends_with("/signal") && path.split('/').nth(3) == Some("stacks"));
    if is_of_heat {
        return Surface::Heat;
    }
    if path.starts_with("/v1/") {
        return Surface::Swift;
    }
    if path.starts_with("/api/") {
        return Surface::Native;
    }
    Surface::Other
}

/// The admin listener has one surface.
pub(crate) fn admin_surface(_path: &str) -> Surface {
    Surface::Admin
}

async fn not_found(uri: Uri) -> ApiError {
    // The path goes back to whoever sent it; a path alone holds no secret.
    let path: String = uri.path().chars().take(100).collect();
    let message = format!("there is nothing at {path}");
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn method_not_allowed(method: Method) -> ApiError {
    let message = format!("{method} cannot be done here");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
