//! Parses arguments, calls the verb, prints what failed, chooses the exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use evenkeel::control::{RunError, RunOptions, run};

/// sysexits(3) EX_CONFIG.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.verb {
        cli::Verb::Run(config) => {
            end(run(&RunOptions { file: config.file, stop_after: None, on_ready: |_| {} }))
        }
    }
}

#[allow(clippy::print_stderr, reason = "errors of a verb go to the terminal")]
fn end(outcome: Result<(), RunError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel: {error}");
            match error {
                RunError::Config(_) => ExitCode::from(BAD_CONFIG),
                RunError::Failed { .. } => ExitCode::FAILURE,
            }
        }
    }
}
