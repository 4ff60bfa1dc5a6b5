//! Networks and volumes over the Engine API.

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

use crate::engine::docker::{CHANGE_TIMEOUT, DockerEngine, LOOKUP_TIMEOUT};
use crate::engine::http::none_if_not_found;
use crate::engine::objects::{Objects, SharedObject};
use crate::engine::{EngineError, Operation, wire};

#[async_trait]
impl Objects for DockerEngine {
    async fn network(&self, name: &str) -> Result<Option<SharedObject>, EngineError> {
        self.shared_object(Operation::InspectNetwork, &["networks", name]).await
    }

    async fn networks(&self, label: &str) -> Result<Vec<SharedObject>, EngineError> {
        let filters = json!({ "label": [label] }).to_string();
        let query = [("filters", filters.as_str())];
        let request = self.http.request(Method::GET, &["networks"], &query);
        let rows: Vec<wire::ObjectAnswer> =
            self.http.send_for(Operation::InspectNetwork, request.timeout(LOOKUP_TIMEOUT)).await?;
        Ok(rows.into_iter().map(wire::ObjectAnswer::into_object).collect())
    }

    async fn create_network(&self, body: &Value) -> Result<(), EngineError> {
        let request = self.http.request(Method::POST, &["networks", "create"], &[]);
        let request = request.json(body).timeout(CHANGE_TIMEOUT);
        self.http.send(Operation::CreateNetwork, request).await.map(drop)
    }

    async fn connect(
        &self,
        network: &str,
        container: &str,
        endpoint: &Value,
    ) -> Result<(), EngineError> {
        let body = json!({ "Container": container, "EndpointConfig": endpoint });
        let request = self.http.request(Method::POST, &["networks", network, "connect"], &[]);
        let request = request.json(&body).timeout(CHANGE_TIMEOUT);
        self.http.send(Operation::Connect, request).await.map(drop)
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let request = self.http.request(Method::DELETE, &["networks", name], &[]);
        let sent = self.http.send(Operation::RemoveNetwork, request.timeout(CHANGE_TIMEOUT)).await;
        none_if_not_found(sent).map(drop)
    }

    async fn volume(&self, name: &str) -> Result<Option<SharedObject>, EngineError> {
        self.shared_object(Operation::InspectVolume, &["volumes", name]).await
    }

    async fn volumes(&self, label: &str) -> Result<Vec<SharedObject>, EngineError> {
        let filters = json!({ "label": [label] }).to_string();
        let query = [("filters", filters.as_str())];
        let request = self.http.request(Method::GET, &["volumes"], &query);
        let answer: wire::VolumesAnswer =
            self.http.send_for(Operation::InspectVolume, request.timeout(LOOKUP_TIMEOUT)).await?;
        Ok(answer.volumes.into_iter().map(wire::ObjectAnswer::into_object).collect())
    }

    async fn create_volume(&self, body: &Value) -> Result<(), EngineError> {
        let request = self.http.request(Method::POST, &["volumes", "create"], &[]);
        let request = request.json(body).timeout(CHANGE_TIMEOUT);
        self.http.send(Operation::CreateVolume, request).await.map(drop)
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let request = self.http.request(Method::DELETE, &["volumes", name], &[]);
        let sent = self.http.send(Operation::RemoveVolume, request.timeout(CHANGE_TIMEOUT)).await;
        none_if_not_found(sent).map(drop)
    }
}

impl DockerEngine {
    async fn shared_object(
        &self,
        operation: Operation,
        path: &[&str],
    ) -> Result<Option<SharedObject>, EngineError> {
        let request = self.http.request(Method::GET, path, &[]).timeout(LOOKUP_TIMEOUT);
        let answer: Option<wire::ObjectAnswer> =
            none_if_not_found(self.http.send_for(operation, request).await)?;
        Ok(answer.map(wire::ObjectAnswer::into_object))
    }
}
