//! Stacks, as their owner sees them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::heat::User;
use crate::wait;

/// How long Heat may take for a step that waits for nobody, on two busy cores.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// A stack of a user's project.
#[derive(Clone, Debug)]
pub struct Stack {
    user: User,
    name: String,
    pub id: String,
}

/// Where a stack or a resource is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Such as `CREATE_COMPLETE`.
    pub word: String,
    pub reason: String,
}

impl User {
    /// Creates a stack, whose resources Heat then makes.
    pub fn create_stack(&self, name: &str, template: &str, parameters: &Value) -> Result<Stack> {
        self.create_stack_with(name, template, parameters, &json!({}), &json!({}))
    }

    /// Creates a stack with an environment and the files that it names.
    pub fn create_stack_with(
        &self,
        name: &str,
        template: &str,
        parameters: &Value,
        environment: &Value,
        files: &Value,
    ) -> Result<Stack> {
        let body = json!({
            "stack_name": name, "template": template, "parameters": parameters,
            "environment": environment, "files": files,
            "disable_rollback": true, "timeout_mins": 30,
        });
        let response = self.ask(Method::POST, "/stacks", Some(&body))?;
        let (status, text) = (response.status(), response.text()?);
        ensure!(status == 201, "Heat refused the stack {name} with {status}: {text}");
        let created: Value = serde_json::from_str(&text)?;
        let id = created["stack"]["id"].as_str().context("a stack without id")?.to_owned();
        Ok(Stack { user: self.clone(), name: name.to_owned(), id })
    }
}

impl Stack {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same stack in the hands of somebody else, or of the same user with another token.
    #[must_use]
    pub fn seen_by(&self, user: &User) -> Stack {
        Stack { user: user.clone(), ..self.clone() }
    }

    pub fn status(&self) -> Result<Status> {
        let shown = self.get("?resolve_outputs=False")?;
        let stack = &shown["stack"];
        Ok(Status {
            word: text(stack, "stack_status")?,
            reason: text(stack, "stack_status_reason")?,
        })
    }

    /// Waits for an end of the creation, and gives it.
    pub fn created(&self, limit: Duration) -> Result<Status> {
        wait::until(&format!("the end of {}", self.name), limit, || {
            let status = self.status()?;
            Ok((status.word != "CREATE_IN_PROGRESS").then_some(status))
        })
        .with_context(|| format!("resources: {:?}", self.resource_states()))
    }

    /// Waits for a good end of the creation.
    pub fn completed(&self, limit: Duration) -> Result<()> {
        let status = self.created(limit)?;
        ensure!(status.word == "CREATE_COMPLETE", "{} is {status:?}", self.name);
        Ok(())
    }

    /// Gives the stack another template, which Heat then changes it to.
    pub fn update(&self, template: &str) -> Result<()> {
        let body = json!({"template": template, "timeout_mins": 30});
        let response = self.user.ask(Method::PUT, &self.path(), Some(&body))?;
        let (status, text) = (response.status(), response.text()?);
        ensure!(status == 202, "Heat refused to update {} with {status}: {text}", self.name);
        Ok(())
    }

    /// Waits for a good end of an update.
    pub fn updated(&self, limit: Duration) -> Result<()> {
        let status = wait::until(&format!("the update of {}", self.name), limit, || {
            let status = self.status()?;
            Ok((status.word != "UPDATE_IN_PROGRESS").then_some(status))
        })?;
        ensure!(status.word == "UPDATE_COMPLETE", "{} is {status:?}", self.name);
        Ok(())
    }

    /// Waits until Heat is at a resource, such as a wait condition that begins to wait.
    pub fn reached(&self, resource: &str) -> Result<()> {
        let what = format!("{} to reach {resource}", self.name);
        wait::until(&what, STEP_LIMIT, || {
            let status = self.status()?;
            ensure!(status.word != "CREATE_FAILED", "{} is {status:?}", self.name);
            let status = self.resource_status(resource)?;
            Ok((status.word != "INIT_COMPLETE").then_some(()))
        })
    }

    /// Waits until Heat has made a resource.
    pub fn made(&self, resource: &str) -> Result<()> {
        wait::until(&format!("{} to make {resource}", self.name), STEP_LIMIT, || {
            let status = self.resource_status(resource)?;
            ensure!(!status.word.ends_with("_FAILED"), "{resource} of {} is {status:?}", self.name);
            Ok((status.word == "CREATE_COMPLETE").then_some(()))
        })
    }

    pub fn resource_status(&self, resource: &str) -> Result<Status> {
        let shown = self.get(&format!("/resources/{resource}"))?;
        let resource = &shown["resource"];
        Ok(Status {
            word: text(resource, "resource_status")?,
            reason: text(resource, "resource_status_reason")?,
        })
    }

    /// An attribute of a resource, as the API's reader gets it.
    pub fn attribute(&self, resource: &str, attribute: &str) -> Result<Value> {
        let shown = self.get(&format!("/resources/{resource}?with_attr={attribute}"))?;
        Ok(shown["resource"]["attributes"][attribute].clone())
    }

    /// The nested stack that a resource is.
    pub fn nested(&self, resource: &str) -> Result<Stack> {
        let shown = self.get(&format!("/resources/{resource}"))?;
        let id = text(&shown["resource"], "physical_resource_id")?;
        let response = self.user.ask(Method::GET, &format!("/stacks/{id}"), None)?;
        let shown: Value = response.error_for_status()?.json()?;
        let name = text(&shown["stack"], "stack_name")?;
        Ok(Stack { user: self.user.clone(), name, id })
    }

    /// An output, which must be a text.
    pub fn output(&self, key: &str) -> Result<String> {
        let value = self.output_value(key)?;
        Ok(value.as_str().with_context(|| format!("{key} of {} is {value}", self.name))?.to_owned())
    }

    pub fn output_value(&self, key: &str) -> Result<Value> {
        let shown = self.get(&format!("/outputs/{key}"))?;
        Ok(shown["output"]["output_value"].clone())
    }

    /// An output that is a text of JSON, as the `data` of a wait condition.
    pub fn json_output(&self, key: &str) -> Result<Value> {
        let output = self.output(key)?;
        serde_json::from_str(&output).with_context(|| format!("{key} is no JSON: {output}"))
    }

    /// Where to signal, from an output that is a handle's `signal` attribute.
    pub fn alarm_url(&self, key: &str) -> Result<String> {
        text(&self.json_output(key)?, "alarm_url")
    }

    /// What happened to a resource: status reasons of its events, oldest first.
    pub fn event_reasons(&self, resource: &str) -> Result<Vec<String>> {
        let shown = self.get(&format!("/resources/{resource}/events"))?;
        let events = shown["events"].as_array().context("no events")?;
        events.iter().map(|event| text(event, "resource_status_reason")).collect()
    }

    /// Deletes the stack and waits until it is gone.
    pub fn delete(&self) -> Result<()> {
        let response = self.user.ask(Method::DELETE, &self.path(), None)?;
        ensure!(response.status() == 204, "{} is not deleted: {}", self.name, response.status());
        let status = wait::until(&format!("{} to be deleted", self.name), STEP_LIMIT, || {
            let status = self.status()?;
            Ok((status.word.starts_with("DELETE_") && !status.word.ends_with("PROGRESS"))
                .then_some(status))
        })?;
        ensure!(status.word == "DELETE_COMPLETE", "{} is {status:?}", self.name);
        Ok(())
    }

    /// Everything in it, for the message of a failing scene.
    fn resource_states(&self) -> Result<Vec<String>> {
        let shown = self.get("/resources")?;
        let resources = shown["resources"].as_array().context("no resources")?;
        let state = |resource: &Value| {
            format!(
                "{} {} {}",
                resource["resource_name"],
                resource["resource_status"],
                resource["resource_status_reason"]
            )
        };
        Ok(resources.iter().map(state).collect())
    }

    fn path(&self) -> String {
        format!("/stacks/{}/{}", self.name, self.id)
    }

    fn get(&self, rest: &str) -> Result<Value> {
        let path = self.path();
        let response = self.user.ask(Method::GET, &format!("{path}{rest}"), None)?;
        let (status, text) = (response.status(), response.text()?);
        ensure!(status == 200, "Heat answered {status} to {path}{rest}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value[key].as_str().with_context(|| format!("no {key} in {value}"))?.to_owned())
}
