//! Configurations of HAProxy, up to those of 2.8.

mod balance;
mod bind;
mod conditions;
mod elsewhere;
mod global;
mod listeners;
mod pools;
mod probe;
mod quantities;
mod rules;
mod sections;
mod server;
mod settings;
mod tables;
mod translate;
mod words;

pub(super) use translate::translate;
