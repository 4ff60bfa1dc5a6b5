//! What the agent and the relay say to each other, and what both say to Heat.
//!
//! Everything here is a plain function of its arguments: this crate does no I/O and reads no
//! clock, so each rule of the protocol can be tested, fuzzed and read on its own.
//!
//! Reading order: [`signal`] is the document that travels, [`handle`] is what a list of signals
//! means, [`path`] and [`tempurl`] say where a signal goes and who may send it there, [`frame`] is
//! how it crosses the metadata path of an isolated network, [`message`] what an instance says there,
//! [`console`] what it wrote where it reaches nothing.

pub mod signal;

pub mod handle;

pub mod path;

pub mod tempurl;

pub mod frame;

pub mod message;

pub mod console;

pub mod percent;
