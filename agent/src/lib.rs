//! The agent: it finds the instance's user data, runs the container that the data describes, and
//! signals the outcome.
//!
//! Read the modules in the order below. [`boot`] is the one flow; everything else is a step of it.
//! `userdata` and `plan` do no I/O: they turn bytes into a document and a document into a plan.

pub mod boot;

pub mod datasource;
pub mod userdata;

pub mod plan;

pub mod engine;

pub mod image;

pub mod device;
pub mod guard;

pub mod outputs;

pub mod signal;

pub mod state;

pub mod console;

pub mod cli;
pub mod config;
pub mod durable;
pub mod error;
pub mod fetch;
mod link_local;
mod notify;
pub mod retry;
pub mod text;
