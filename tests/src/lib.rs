//! The harness of the end-to-end tests: real servers, real engines, real registries.
//!
//! Everything here is started for the tests alone, in directories of its own, and ends with them.
//! The scenes are in `tests/it`; they read as what a person does and sees.
//!
//! Reading order: [`wait`] and [`process`] carry the rest, [`scene`] plays; [`relay`] and [`agent`] run our own
//! programs; [`engine`], [`image`], [`registry`] and [`proxy`] make the world around them; [`load`]
//! signals as fast as a relay can take it; [`disk`] is a disk that is easily full; [`etcd`] and [`lan`] are a
//! cluster for many relays, and a network to cut; [`vm`] boots machines with the agent baked in.

pub mod agent;
pub mod certificates;
pub mod disk;
pub mod engine;
pub mod etcd;
pub mod heat;
pub mod image;
pub mod lan;
pub mod load;
pub mod neutron;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod reference;
pub mod registry;
pub mod relay;
pub mod scene;
pub mod vm;
pub mod wait;
