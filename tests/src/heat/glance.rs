//! The Glance of a lab, for the scenes that ask for it.

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};

use crate::heat::{Lab, User};

/// What a member of a project gives an instance in the place of a password.
#[derive(Clone, Debug)]
pub struct ApplicationCredential {
    pub id: String,
    pub secret: String,
}

/// A Glance that the lab's catalog names.
#[derive(Clone, Debug)]
pub struct Glance {
    url: String,
}

impl Lab {
    /// The first time it is made, which takes some seconds.
    pub fn glance(&self) -> Result<Glance> {
        self.knob(&["start", "glance-api"])?;
        Ok(Glance { url: self.fact("glance_url")?.to_owned() })
    }

    /// Makes one with these of the user's roles in the project; a role that another implies is not
    /// in it by itself.
    pub fn application_credential(
        &self,
        user: &User,
        roles: &[&str],
    ) -> Result<ApplicationCredential> {
        let keystone = self.fact("keystone_url")?;
        let url = format!("{keystone}/v3/users/{}/application_credentials", user.id);
        let named: Vec<Value> = roles.iter().map(|role| json!({"name": role})).collect();
        let fields = json!({"name": roles.join(" and "), "roles": named});
        let request = user.client.post(url).json(&json!({"application_credential": fields}));
        let made = answer(user, request, 201)?;
        let text = |key: &str| made["application_credential"][key].as_str().map(str::to_owned);
        let both =
            text("id").zip(text("secret")).context("an application credential of nothing")?;
        Ok(ApplicationCredential { id: both.0, secret: both.1 })
    }
}

impl Glance {
    /// Puts in what `openstack image create` would, and gives its id. As that command does by
    /// default, it is seen by nobody outside of the project.
    pub fn upload(
        &self,
        user: &User,
        name: &str,
        container_format: &str,
        data: Vec<u8>,
    ) -> Result<String> {
        let fields =
            json!({"name": name, "container_format": container_format, "disk_format": "raw"});
        let url = format!("{}/v2/images", self.url);
        let made = answer(user, user.client.post(url).json(&fields), 201)?;
        let id = made["id"].as_str().context("an image without id")?.to_owned();
        let data_url = format!("{}/v2/images/{id}/file", self.url);
        let request = user.client.request(Method::PUT, data_url);
        let request = request.header("content-type", "application/octet-stream").body(data);
        answer(user, request, 204)?;
        Ok(id)
    }

    /// The images of that name.
    pub fn images(&self, user: &User, name: &str) -> Result<Vec<Value>> {
        let request = user.client.get(format!("{}/v2/images?name={name}", self.url));
        let listed = answer(user, request, 200)?;
        Ok(listed["images"].as_array().context("no list of images")?.clone())
    }
}

fn answer(user: &User, request: RequestBuilder, expected: u16) -> Result<Value> {
    let response = request.header("x-auth-token", &user.token).send()?;
    let (status, text) = (response.status(), response.text()?);
    ensure!(status == expected, "{status} instead of {expected}: {text}");
    if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}
