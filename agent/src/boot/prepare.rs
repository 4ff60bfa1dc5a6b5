//! What has to be there before the first container starts.

use std::collections::BTreeMap;
use std::path::Path;

use crate::boot::containers::{Reconciler, failed_in};
use crate::boot::step::Step;
use crate::boot::{files, objects};
use crate::device;
use crate::engine::ListedContainer;
use crate::error::AgentError;
use crate::plan::ContainerPlan;

impl Reconciler<'_> {
    pub(super) async fn prepare(
        &mut self,
        kept: &BTreeMap<String, ListedContainer>,
    ) -> Result<(), AgentError> {
        let failed = failed_in(Step::Create);
        objects::remove_outdated_networks(self.engine, self.subject).await.map_err(&failed)?;
        files::provide(self.files_directory, &self.plan.files).map_err(AgentError::File)?;
        self.mount_devices(kept).await?;
        self.guarding.warn_of(self.plan, self.console);
        self.guarding.update(self.engine, self.members, self.console).await;
        objects::make(self.engine, self.plan, self.subject).await.map_err(failed)
    }

    async fn mount_devices(
        &self,
        kept: &BTreeMap<String, ListedContainer>,
    ) -> Result<(), AgentError> {
        let devices = &self.plan.devices;
        let wanted = devices.iter().map(|device| device.mount_point.as_path()).collect();
        device::unmount_others(self.volumes_directory, &wanted).map_err(AgentError::Device)?;
        // All of them before the first is mounted: two may have changed places.
        for plan in devices {
            device::make_way(plan).await.map_err(AgentError::Device)?;
        }
        for plan in devices {
            let is_new = device::mount_device(plan).await.map_err(AgentError::Device)?;
            if is_new {
                self.stop_those_without(&plan.mount_point, kept).await?;
            }
        }
        Ok(())
    }

    /// After a reset an engine starts its containers before anything is mounted, and they have the
    /// empty directory below. Stopped, they are started again in their turn, with the device.
    async fn stop_those_without(
        &self,
        mount_point: &Path,
        kept: &BTreeMap<String, ListedContainer>,
    ) -> Result<(), AgentError> {
        let uses_it = |container: &&ContainerPlan| {
            container.create.to_string().contains(&*mount_point.to_string_lossy())
        };
        for container in self.plan.containers.iter().filter(uses_it) {
            if let Some(kept) = kept.get(&container.service) {
                self.engine.stop(&kept.id).await.map_err(failed_in(Step::Create))?;
            }
        }
        Ok(())
    }
}
