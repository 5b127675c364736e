//! systemd's own opinion of configs/evenkeel.service.

use std::path::Path;
use std::process::Command;

use crate::program::{program, text_of};

/// Tenths of what `systemd-analyze security` calls exposure, from 0 to 100.
const EXPOSURE_MAX: &str = "20";

fn configs() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/configs"))
}

/// If it fails, an attacker who takes over evenkeel can do more to the machine than serve.
#[test]
fn the_unit_is_sandboxed() {
    let mut command = Command::new(program("systemd-analyze"));
    command.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX]);
    // Fails by itself above the threshold.
    let said = text_of(command.arg(configs().join("evenkeel.service")));
    assert!(said.contains("Overall exposure level for evenkeel.service"), "{said}");
}

/// If it fails, systemd ignores a line of a unit or refuses it.
#[test]
fn the_units_are_well_formed() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["evenkeel.service", "evenkeel.socket"] {
        let unit = std::fs::read_to_string(configs().join(name)).unwrap();
        // Where it will be installed there is nothing yet.
        let unit = unit.replace("/usr/bin/evenkeel", env!("CARGO_BIN_EXE_evenkeel"));
        std::fs::write(directory.path().join(name), unit).unwrap();
        let mut command = Command::new(program("systemd-analyze"));
        command.args(["verify", "--man=no", "--recursive-errors=no"]);
        command.arg(directory.path().join(name));
        let (said, warnings) = crate::program::succeed(&mut command, b"");
        assert!(said.is_empty(), "{name}: {}", String::from_utf8_lossy(&said));
        // Other units of the machine may be worth a warning, too.
        let ours: Vec<&str> = warnings.lines().filter(|line| line.contains("evenkeel")).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}
