//! systemd's own opinion of configs/evenkeel.service and of the drop-in beside it.

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

/// If it fails, systemd ignores the drop-in for refusals in the kernel, or it takes more from the
/// sandbox than it needs.
#[test]
fn the_drop_in_is_well_formed_and_leaves_the_sandbox() {
    let directory = tempfile::tempdir().unwrap();
    let service = directory.path().join("evenkeel.service");
    let unit = std::fs::read_to_string(configs().join("evenkeel.service")).unwrap();
    std::fs::write(&service, unit.replace("/usr/bin/evenkeel", env!("CARGO_BIN_EXE_evenkeel")))
        .unwrap();
    let drop_ins = directory.path().join("evenkeel.service.d");
    std::fs::create_dir(&drop_ins).unwrap();
    let drop_in = drop_ins.join("kernel-refusal.conf");
    let text = std::fs::read_to_string(configs().join("kernel-refusal.conf")).unwrap();
    let complaints = |text: &str| {
        std::fs::write(&drop_in, text).unwrap();
        let mut command = Command::new(program("systemd-analyze"));
        command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&service);
        let said = command.output().unwrap().stderr;
        let said = String::from_utf8_lossy(&said);
        said.lines().filter(|line| line.contains("kernel-refusal")).count()
    };
    assert_eq!(complaints(&format!("{text}\nNoSuchKey=1\n")), 1, "it is not looked at");
    assert_eq!(complaints(&text), 0);
    let mut command = Command::new(program("systemd-analyze"));
    command.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX]);
    let said = text_of(command.arg(&service));
    assert!(said.contains("Service may load BPF programs"), "{said}");
}
