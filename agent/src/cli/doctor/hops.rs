//! Asking servers whether they are there: any answer is one, also a refusal.

use jiff::Timestamp;
use url::Url;

use crate::cli::doctor::{Finding, broken, good, notice};
use crate::error::chain;
use crate::fetch::{self, Trust, host_of};
use crate::plan::{ArchiveLocation, ContainerPlan, ImageSource, Plan, PullPolicy};
use crate::userdata::document::SignalTarget;

/// Where images without a registry in their name come from.
const DEFAULT_REGISTRY_HOST: &str = "registry-1.docker.io";

/// A server that answered.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) host: String,
    /// How far this machine's clock is ahead of the server's; None if it did not say.
    pub(super) skew_seconds: Option<i64>,
}

/// The URL in a handle that is asked first.
pub(super) fn url_of(target: &SignalTarget) -> Option<Url> {
    let text = match target {
        SignalTarget::Url(url) => url.as_str(),
        SignalTarget::Json(json) => {
            let keys = ["alarm_url", "endpoint", "auth_url"];
            keys.iter().find_map(|key| json.get(*key)?.as_str())?
        }
    };
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// Asks for the root of the URL's server: a handle's own path would be a signal, or its credential.
pub(super) async fn reach(url: &Url, trust: &Trust) -> Result<Reached, String> {
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    let client = fetch::client(&root, trust).map_err(|error| chain(&error))?;
    let host = host_of(&root);
    let response = client
        .head(root)
        .send()
        .await
        .map_err(|error| format!("{host} does not answer: {}", chain(&error.without_url())))?;
    let date = response.headers().get("date").and_then(|date| date.to_str().ok());
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let skew_seconds =
        theirs.map(|theirs| Timestamp::now().as_second() - theirs.timestamp().as_second());
    Ok(Reached { host, skew_seconds })
}

/// Whether an image that is not here could come.
pub(super) async fn image_source(
    plan: &Plan,
    container: &ContainerPlan,
    authorities: &[String],
) -> Finding {
    let image = &container.image;
    if container.pull == PullPolicy::Never {
        let what = format!("{image} is not here, and pull_policy is never");
        return broken("image", what, "preload it, or leave pull_policy out");
    }
    let registry = image.registry.clone().unwrap_or_else(|| DEFAULT_REGISTRY_HOST.to_owned());
    let url = match &container.source {
        ImageSource::Registry => {
            let access = plan.registries.get(image.registry.as_deref().unwrap_or("docker.io"));
            // What is insecure may speak either; that somebody listens is what can be seen.
            let scheme =
                if access.is_some_and(|access| access.insecure) { "http" } else { "https" };
            Url::parse(&format!("{scheme}://{registry}/")).ok()
        }
        ImageSource::Archive { location: ArchiveLocation::Url(url), .. } => Some(url.clone()),
        ImageSource::Archive { location: ArchiveLocation::Path(path), .. } if !path.exists() => {
            let what = format!("its archive {} is not there", path.display());
            return broken("image", what, "put the archive there, or correct image_archive");
        }
        ImageSource::Archive { .. } => None,
    };
    let Some(url) = url else {
        return notice("image", format!("{image} is not here yet"), "the next run gets it");
    };
    let ca = plan.registries.get(&registry).and_then(|access| access.ca.clone());
    let authorities = [authorities, &plan.certificate_authorities, &Vec::from_iter(ca)].concat();
    let trust = Trust { authorities, insecure: false, proxy: plan.proxy.clone() };
    match reach(&url, &trust).await {
        Ok(reached) => good("image", format!("{image} is not here yet; {} answers", reached.host)),
        Err(error) => broken(
            "image",
            format!("{image} is not here, and {error}"),
            "check name, route and firewall; on an isolated network preload it, or use image_archive or a mirror",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_asked_where_it_is() {
        let check = |json: serde_json::Value, expect: Option<&str>| {
            let serde_json::Value::Object(json) = json else { panic!("a map") };
            let url = url_of(&SignalTarget::Json(json));
            assert_eq!(url.as_ref().map(Url::as_str), expect);
        };
        check(serde_json::json!({"alarm_url": "http://h/x?s=1"}), Some("http://h/x?s=1"));
        check(serde_json::json!({"endpoint": "https://h/", "token": "t"}), Some("https://h/"));
        check(serde_json::json!({"alarm_url": ""}), None);
        check(serde_json::json!({}), None);
    }
}
