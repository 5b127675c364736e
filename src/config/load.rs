//! Reading a configuration file: a bounded number of bytes, and without waiting for a writer.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::parse::{Parsed, parse_on_host};
use super::report::{Finding, Report};
use super::spots::Spots;

/// Longest file in bytes: room for a million backends, and an end for a device that has none.
const LENGTH_MAX: u64 = 128 << 20;

/// Reads and parses the file of a process, which a reload reads again; also returns its text, for
/// [`render`](super::render).
///
/// A file that cannot be read is one problem like any other. So is a pipe or a device: the process
/// would stand still until there is a writer, and could not read it a second time.
pub fn load(file: &Path) -> (Parsed, String) {
    parsed(file, read_again(file))
}

/// Reads and parses a file that is read once, for a caller that may wait: a pipe will do.
pub fn load_once(file: &Path) -> (Parsed, String) {
    parsed(file, read(file, OFlags::empty()))
}

fn read_again(file: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(file)?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    read(file, OFlags::NONBLOCK)
}

fn read(file: &Path, flags: OFlags) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let mut bytes = Vec::new();
    options.open(file)?.take(LENGTH_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LENGTH_MAX {
        let message = format!("it is longer than {} MiB", LENGTH_MAX >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn parsed(file: &Path, bytes: io::Result<Vec<u8>>) -> (Parsed, String) {
    let cause = match bytes.map(String::from_utf8) {
        Ok(Ok(text)) => return (parse_on_host(&text, file, interface), text),
        Ok(Err(error)) => Unreadable::of_encoding(&error),
        Err(error) => Unreadable::of_system(&error),
    };
    let name = file.display().to_string();
    let mut report = Report::new("", name.clone());
    let finding = Finding::new(format!("cannot read {name}: {}", cause.message));
    report.error_in_file("", finding.hint(cause.hint));
    let problems = report.finish();
    (Parsed { config: None, problems, file: name, spots: Spots::default() }, String::new())
}

/// The index of an interface, as the kernel shows it (sysfs-class-net(5)).
fn interface(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let file = Path::new("/sys/class/net").join(name).join("ifindex");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Why a file could not be read, and what to do.
struct Unreadable {
    message: String,
    hint: &'static str,
}

impl Unreadable {
    fn of_system(error: &io::Error) -> Self {
        let hint = match error.kind() {
            ErrorKind::NotFound => "name another file with `-c FILE`, or create this one",
            ErrorKind::PermissionDenied => {
                "run as a user with the right to read it, or change its mode or owner"
            }
            ErrorKind::IsADirectory => "name a file in it with `-c FILE`",
            ErrorKind::InvalidInput => {
                "write it to a file: a reload has to read it again, without waiting for a writer"
            }
            _ => "name another file with `-c FILE`",
        };
        Self { message: error.to_string(), hint }
    }

    fn of_encoding(error: &std::string::FromUtf8Error) -> Self {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        let message = format!("it is not UTF-8 (line {line})");
        Self { message, hint: "save it as UTF-8" }
    }
}
