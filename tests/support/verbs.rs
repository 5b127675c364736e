//! The binary as an operator runs it: a verb, what it prints, how it exits.

use std::process::{Command, Output};

/// The binary with these arguments, not started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).env_remove("EVENKEEL_CONFIG").env_remove("JOURNAL_STREAM");
    command
}

/// Runs the binary to its end.
pub fn evenkeel(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// What a process printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code; -1 when a signal ended it.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}
