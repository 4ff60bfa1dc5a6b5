//! `[keystone]` and `[heat]`: the services of the cloud that the relay asks and serves.
//!
//! Without the first, only fixed tokens are good; without the second, no signal is forwarded to Heat. What
//! is forwarded has been checked at Keystone, so the second needs the first.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::metadata::read_secret;
use crate::config::{ConfigError, Secret};
use crate::forward::upstream::HeatSettings;
use crate::keystone::KeystoneSettings;
use crate::outbound::ServiceUrl;

/// The domain of users and projects in a cloud that has but one.
const DEFAULT_DOMAIN: &str = "Default";

/// The password of the relay's user. A flag would show it to everybody who can list processes.
pub(crate) const PASSWORD_VARIABLE: &str = "HELIOGRAPH_KEYSTONE_PASSWORD";

/// The flags of `serve` that name services of the cloud.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CloudArgs {
    /// Keystone, which says whose token it is
    #[arg(long, env = "HELIOGRAPH_KEYSTONE_AUTH_URL", value_name = "URL")]
    pub keystone_auth_url: Option<ServiceUrl>,

    /// The relay's own user; has the role service
    #[arg(long, env = "HELIOGRAPH_KEYSTONE_USERNAME", value_name = "NAME")]
    pub keystone_username: Option<String>,

    /// File with the password of the relay's user, unless HELIOGRAPH_KEYSTONE_PASSWORD holds it
    #[arg(long, env = "HELIOGRAPH_KEYSTONE_PASSWORD_FILE", value_name = "FILE")]
    pub keystone_password_file: Option<PathBuf>,

    /// The project in which the relay's user has its role
    #[arg(long, env = "HELIOGRAPH_KEYSTONE_PROJECT", value_name = "NAME")]
    pub keystone_project: Option<String>,

    /// heat-api, to which signals are forwarded
    #[arg(long, env = "HELIOGRAPH_HEAT_API_URL", value_name = "URL")]
    pub heat_api_url: Option<ServiceUrl>,

    /// heat-api-cfn, to which signals are forwarded
    #[arg(long, env = "HELIOGRAPH_HEAT_CFN_URL", value_name = "URL")]
    pub heat_cfn_url: Option<ServiceUrl>,
}

/// The table `[keystone]` as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeystoneSection {
    auth_url: Option<ServiceUrl>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    project: Option<String>,
    user_domain: Option<String>,
    project_domain: Option<String>,
    ca_file: Option<PathBuf>,
}

/// The table `[heat]` as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeatSection {
    api_url: Option<ServiceUrl>,
    cfn_url: Option<ServiceUrl>,
    ca_file: Option<PathBuf>,
}

/// Keystone's settings, valid; nothing where there is neither a table nor an address.
pub(crate) fn resolve_keystone(
    args: &CloudArgs,
    section: Option<&KeystoneSection>,
    password: Option<Secret>,
) -> Result<Option<KeystoneSettings>, ConfigError> {
    if section.is_none() && args.keystone_auth_url.is_none() {
        return Ok(None);
    }
    let args = args.clone();
    let section = section.cloned().unwrap_or_default();
    let password_file = args.keystone_password_file.or(section.password_file);
    let required = |key| ConfigError::Missing { key };
    Ok(Some(KeystoneSettings {
        auth_url: args
            .keystone_auth_url
            .or(section.auth_url)
            .ok_or(required("keystone.auth_url"))?,
        username: args
            .keystone_username
            .or(section.username)
            .ok_or(required("keystone.username"))?,
        password: resolve_password(password, password_file.as_deref())?,
        project: args.keystone_project.or(section.project).ok_or(required("keystone.project"))?,
        user_domain: section.user_domain.unwrap_or(DEFAULT_DOMAIN.to_owned()),
        project_domain: section.project_domain.unwrap_or(DEFAULT_DOMAIN.to_owned()),
        ca_file: section.ca_file,
    }))
}

fn resolve_password(password: Option<Secret>, file: Option<&Path>) -> Result<Secret, ConfigError> {
    match (password, file) {
        (Some(password), _) => Ok(password),
        (None, Some(path)) => read_secret(path),
        (None, None) => Err(ConfigError::Missing { key: "keystone.password_file" }),
    }
}

/// Heat's settings, valid; nothing where there is neither a table nor an address.
pub(crate) fn resolve_heat(
    args: &CloudArgs,
    section: Option<&HeatSection>,
    has_keystone: bool,
) -> Result<Option<HeatSettings>, ConfigError> {
    if section.is_none() && args.heat_api_url.is_none() && args.heat_cfn_url.is_none() {
        return Ok(None);
    }
    let args = args.clone();
    let section = section.cloned().unwrap_or_default();
    let settings = HeatSettings {
        api_url: args.heat_api_url.or(section.api_url),
        cfn_url: args.heat_cfn_url.or(section.cfn_url),
        ca_file: section.ca_file,
    };
    if settings.api_url.is_none() && settings.cfn_url.is_none() {
        return Err(ConfigError::Missing { key: "heat.api_url" });
    }
    if !has_keystone {
        return Err(ConfigError::HeatWithoutKeystone);
    }
    Ok(Some(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves the two tables of a file; `PASSWORD` stands for a file that holds one.
    fn check(file: &str, args: &CloudArgs, password: Option<&str>, expect: &str) {
        #[derive(Deserialize)]
        struct File {
            keystone: Option<KeystoneSection>,
            heat: Option<HeatSection>,
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("password");
        std::fs::write(&path, "correct horse\n").expect("written");
        let text = file.replace("PASSWORD", &path.display().to_string());
        let file: File = toml::from_str(&text).expect("a file");
        let password = password.map(|password| Secret::new(password.to_owned()));
        let resolved =
            resolve_keystone(args, file.keystone.as_ref(), password).and_then(|keystone| {
                let heat = resolve_heat(args, file.heat.as_ref(), keystone.is_some())?;
                Ok((keystone, heat))
            });
        let seen = match resolved {
            Ok((keystone, heat)) => {
                let keystone = keystone.map(|keystone| {
                    let domains = format!("{} {}", keystone.user_domain, keystone.project_domain);
                    let password = keystone.password.expose();
                    format!(
                        "{} {} {password} {} {domains}",
                        keystone.auth_url, keystone.username, keystone.project
                    )
                });
                let heat = heat.map(|heat| {
                    [heat.api_url, heat.cfn_url]
                        .map(|url| url.map_or("-".to_owned(), String::from))
                        .join(" ")
                });
                [keystone, heat].map(|part| part.unwrap_or("none".to_owned())).join("; ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(seen, expect, "{text}");
    }

    const WHOLE: &str = "[keystone]\nauth_url = 'http://k:5000'\nusername = 'relay'\n\
                         password_file = 'PASSWORD'\nproject = 'service'\n";

    #[test]
    fn keystone_needs_a_user_and_its_project() {
        let none = CloudArgs::default();
        check("", &none, None, "none; none");
        check(
            WHOLE,
            &none,
            None,
            "http://k:5000 relay correct horse service Default Default; none",
        );
        check(WHOLE, &none, Some("x"), "http://k:5000 relay x service Default Default; none");
        for key in ["auth_url", "username", "password_file", "project"] {
            let without: Vec<&str> = WHOLE.lines().filter(|line| !line.starts_with(key)).collect();
            check(&without.join("\n"), &none, None, &format!("keystone.{key} is not set"));
        }
        let domains = format!("{WHOLE}user_domain = 'a'\nproject_domain = 'b'");
        check(&domains, &none, None, "http://k:5000 relay correct horse service a b; none");
    }

    #[test]
    fn the_environment_alone_is_enough() {
        let args = CloudArgs {
            keystone_auth_url: "http://other".parse().ok(),
            keystone_username: Some("u".to_owned()),
            keystone_project: Some("p".to_owned()),
            heat_api_url: "http://heat:8004".parse().ok(),
            ..CloudArgs::default()
        };
        let expect = "http://other u x p Default Default; http://heat:8004 -";
        check("", &args, Some("x"), expect);
        check(WHOLE, &args, Some("x"), expect);
    }

    #[test]
    fn heat_needs_an_address_and_keystone() {
        let none = CloudArgs::default();
        let heat = "[heat]\ncfn_url = 'http://heat:8000/'\n";
        check(
            heat,
            &none,
            None,
            "heat.api_url or heat.cfn_url is set, and keystone.auth_url is not: what is forwarded has to be checked",
        );
        check("[heat]", &none, None, "heat.api_url is not set");
        let both = format!("{WHOLE}{heat}");
        check(
            &both,
            &none,
            None,
            "http://k:5000 relay correct horse service Default Default; - http://heat:8000",
        );
    }
}
