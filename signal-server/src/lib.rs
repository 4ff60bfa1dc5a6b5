//! The relay: it keeps the signals of instances until whoever orchestrates them comes to read them.
//!
//! An instance in an isolated network can reach the relay but not the orchestrator; the orchestrator
//! can reach the relay but not the instance. Each side speaks the dialect it already knows: the relay
//! calls such a dialect a *surface*. Every surface ends in the same domain, [`mailbox`], which keeps
//! its records in one [`store`].
//!
//! Read the modules in the order in which they are declared.

pub mod backup;
pub mod clock;
pub mod migrate;
pub mod store;

pub mod mailbox;

pub mod instance;

mod stack;

pub mod forward;
pub mod keystone;
pub mod outbound;
pub mod tls;

pub mod app;
pub mod config;
pub mod error;
mod http;

mod metrics;
pub mod telemetry;

mod api;
pub mod cli;
mod client;

mod duration;

#[cfg(test)]
mod tests;
