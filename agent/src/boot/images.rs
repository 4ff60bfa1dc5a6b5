//! Getting a container's image, and saying so on the console.

use tokio::time::Instant;

use crate::boot::containers::Reconciler;
use crate::boot::pull_report::PullReporter;
use crate::boot::step::Step;
use crate::error::AgentError;
use crate::image::{ImageError, Images, Progress};
use crate::plan::{ContainerPlan, ImageReference};

impl Reconciler<'_> {
    /// Makes the engine have the image; see `image` for from where.
    pub(crate) async fn get_image(&mut self, plan: &ContainerPlan) -> Result<(), AgentError> {
        self.progress.enter(Step::Pull);
        let reporter = PullReporter::new(&plan.image, self.console);
        let report = |progress: Progress<'_>| reporter.report(progress, Instant::now());
        self.images().provide(plan, &report).await.map(drop).map_err(failed)
    }

    /// What the engine calls the image.
    pub(crate) async fn image_name(&self, image: &ImageReference) -> Result<String, AgentError> {
        self.images().name_of(image).await.map_err(failed)
    }

    fn images(&self) -> Images {
        let directory = self.files_directory.with_file_name("images");
        Images::new(self.engine.clone(), self.plan, self.authorities, directory)
    }
}

/// The engine's own failures are told as such, whichever module met them.
fn failed(error: ImageError) -> AgentError {
    match error {
        ImageError::Engine(source) => AgentError::Engine { step: Step::Pull, source },
        error => AgentError::Image(error),
    }
}
