//! From a command line to a process that serves, and to its end: workers, signals, the stop.

pub mod demo;
mod main_loop;
pub(crate) mod run;
mod signals;
mod stop;
mod workers;
