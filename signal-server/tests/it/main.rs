//! The relay as its users meet it: real sockets, real processes, both stores.

mod admin;
mod backup;
mod cli;
mod events;
mod harness;
mod limits;
mod native;
mod serve;
mod stop;
mod waiting;
