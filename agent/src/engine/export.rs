//! What leaves an engine: a container as an image, an image to a registry or as an archive.

use async_trait::async_trait;

use crate::engine::{Credentials, EngineError, ImageArchive};
use crate::plan::ImageReference;

/// An engine that gives images away.
///
/// A commit may be repeated and makes another image each time; the others may be repeated and change
/// nothing more.
#[async_trait]
pub trait Export: Send + Sync {
    /// Makes an image of the container's file system, under a name, while the container is paused.
    /// Answers the image's id. What is in volumes is not part of it.
    async fn commit(&self, container: &str, name: &ImageReference) -> Result<String, EngineError>;

    /// Pushes the image of that name to the registry in the name.
    async fn push(
        &self,
        name: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), EngineError>;

    /// The image as an archive that `load` takes, piece by piece.
    async fn save(&self, name: &ImageReference) -> Result<ImageArchive, EngineError>;

    /// Takes the name away from its image, and removes the image if that was its last.
    async fn remove_image(&self, name: &ImageReference) -> Result<(), EngineError>;
}
