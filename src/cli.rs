//! The command line, as types only; what each verb does is in `main.rs` and the modules it calls.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A Layer-4 TCP load balancer for Linux.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, disable_version_flag = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run in the foreground until asked to stop.
    Run(ConfigFile),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigFile {
    /// Configuration file.
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        env = "EVENKEEL_CONFIG",
        default_value = "/etc/evenkeel/evenkeel.toml"
    )]
    pub file: PathBuf,
}
