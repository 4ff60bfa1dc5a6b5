//! What a signal is for: the names in the paths of heat-api and heat-api-cfn.
//!
//! ```text
//! POST /v1/<tenant>/stacks/<stack>/<stack id>/resources/<resource>/signal            heat-api
//! PUT  /v1/waitcondition/arn:openstack:heat::<tenant>:stacks/<stack>/<stack id>/resources/<resource>
//! POST /v1/signal/arn:openstack:heat::<tenant>:stacks/<stack>/<stack id>/resources/<resource>
//! ```
//! In an ARN the names are percent-encoded once, and the ARN as part of a path once more
//! (`heat/common/identifier.py`). In heat-api's path the tenant is the project of the sender's token; in
//! an ARN it is the project of the stack.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use signal_protocol::percent;

/// The longest name that is taken, in bytes: that of Heat's database columns, four bytes to a character.
const MAX_NAME_BYTES: usize = 255 * 4;

/// A resource of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) stack_name: String,
    pub(crate) stack_id: String,
    pub(crate) resource: String,
}

/// Which of heat-api-cfn's two paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CfnPath {
    WaitCondition,
    Signal,
}

/// The path names no resource of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path names no resource of a stack")]
pub(crate) struct TargetError;

impl Target {
    /// The tenant and the resource in a path of heat-api.
    pub(crate) fn of_heat_path(path: &str) -> Result<(String, Target), TargetError> {
        let segments: Vec<&str> = path.split('/').collect();
        let ["", "v1", tenant, "stacks", stack_name, stack_id, "resources", resource, "signal"] =
            segments[..]
        else {
            return Err(TargetError);
        };
        let target = Target {
            stack_name: name(stack_name)?,
            stack_id: name(stack_id)?,
            resource: name(resource)?,
        };
        Ok((name(tenant)?, target))
    }

    /// The resource in a path of heat-api-cfn.
    pub(crate) fn of_cfn_path(path: &str) -> Result<(CfnPath, Target), TargetError> {
        let (cfn_path, arn) = if let Some(arn) = path.strip_prefix("/v1/waitcondition/") {
            (CfnPath::WaitCondition, arn)
        } else if let Some(arn) = path.strip_prefix("/v1/signal/") {
            (CfnPath::Signal, arn)
        } else {
            return Err(TargetError);
        };
        let arn = percent::decode_text(arn).ok_or(TargetError)?;
        let rest = arn.strip_prefix("arn:openstack:heat::").ok_or(TargetError)?;
        let (_tenant, rest) = rest.split_once(':').ok_or(TargetError)?;
        let segments: Vec<&str> = rest.split('/').collect();
        let ["stacks", stack_name, stack_id, "resources", resource] = segments[..] else {
            return Err(TargetError);
        };
        let target = Target {
            stack_name: name(stack_name)?,
            stack_id: name(stack_id)?,
            resource: name(resource)?,
        };
        Ok((cfn_path, target))
    }

    /// The path of heat-api that signals this resource with a token of `project`.
    pub(crate) fn heat_path(&self, project: &str) -> String {
        format!(
            "/v1/{}/stacks/{}/{}/resources/{}/signal",
            encode(project),
            encode(&self.stack_name),
            encode(&self.stack_id),
            encode(&self.resource),
        )
    }
}

/// A name that crossed the wire. Whoever joins it to an address must not be led elsewhere by it.
fn name(segment: &str) -> Result<String, TargetError> {
    let name = percent::decode_text(segment).ok_or(TargetError)?;
    let is_plain = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != "."
        && name != ".."
        && !name.contains('/')
        && !name.chars().any(char::is_control);
    if is_plain { Ok(name) } else { Err(TargetError) }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAT: &str = "/v1/q/stacks/s/i/resources/r/signal";

    fn target(stack_name: &str, stack_id: &str, resource: &str) -> Target {
        Target {
            stack_name: stack_name.to_owned(),
            stack_id: stack_id.to_owned(),
            resource: resource.to_owned(),
        }
    }

    #[test]
    fn a_path_of_heat_api_names_a_resource() {
        let parse = |path: &str| Target::of_heat_path(path);
        assert_eq!(parse(HEAT), Ok(("q".to_owned(), target("s", "i", "r"))));
        assert_eq!(
            parse("/v1/q/stacks/s/i/resources/a%20b%C3%BC/signal"),
            Ok(("q".to_owned(), target("s", "i", "a bü")))
        );
        for path in [
            "/v1/q/stacks/s/i/resources/r",
            "/v1/q/stacks/s/i/resources//signal",
            "/v1/q/stacks/s/i/resources/../signal",
            "/v1/q/stacks/s/i/resources/%2e%2E/signal",
            "/v1/q/stacks/s/i/resources/a%2Fb/signal",
            "/v1/q/stacks/s/i/resources/a%0Ab/signal",
            "/v1/q/stacks/s/i/resources/%zz/signal",
            "/v1/q/stacks/s/i/resources/r/signal/",
            "/v1/q/stacks/s/i/events/r/signal",
        ] {
            assert_eq!(parse(path), Err(TargetError), "{path}");
        }
        let long = format!("/v1/q/stacks/s/i/resources/{}/signal", "r".repeat(MAX_NAME_BYTES + 1));
        assert_eq!(parse(&long), Err(TargetError));
    }

    #[test]
    fn an_arn_names_a_resource() {
        let encoded = "/v1/waitcondition/arn%3Aopenstack%3Aheat%3A%3Ap%3Astacks/s/i/resources/r";
        let plain = "/v1/signal/arn:openstack:heat::p:stacks/s/i/resources/r";
        let twice = "/v1/signal/arn%3Aopenstack%3Aheat%3A%3Ap%3Astacks/s/i/resources/a%2520b";
        for (path, cfn_path, resource) in [
            (encoded, CfnPath::WaitCondition, "r"),
            (plain, CfnPath::Signal, "r"),
            (twice, CfnPath::Signal, "a b"),
        ] {
            assert_eq!(
                Target::of_cfn_path(path),
                Ok((cfn_path, target("s", "i", resource))),
                "{path}"
            );
        }
        for path in [
            HEAT,
            "/v1/signal/",
            "/v1/signal/arn:aws:heat::p:stacks/s/i/resources/r",
            "/v1/signal/arn:openstack:heat::p:stacks/s/i",
            "/v1/signal/arn:openstack:heat::p:stacks/s/i/resources/r/x",
            "/v1/signal/arn:openstack:heat::p:stacks/s/%252e%252e/resources/r",
            "/v1/signal/arn:openstack:heat::p:stacks/s%2F..%2F../i/resources/r",
        ] {
            assert_eq!(Target::of_cfn_path(path), Err(TargetError), "{path}");
        }
    }

    #[test]
    fn a_target_becomes_a_path_of_heat_api() {
        assert_eq!(target("s", "i", "r").heat_path("q"), HEAT);
        let odd = target("s", "i", "a b/?#%ü");
        assert_eq!(odd.heat_path("q"), "/v1/q/stacks/s/i/resources/a%20b%2F%3F%23%25%C3%BC/signal");
    }
}
