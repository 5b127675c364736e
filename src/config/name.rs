//! Names of listeners, pools and backends.

use super::file::shown;
use super::report::{FilePlace, Finding, Report};

/// Longest name.
pub(super) const NAME_BYTES_MAX: usize = 128;

/// Checks that a name can stand in commands (`POOL/BACKEND`), paths, logs and metrics.
pub(super) fn check_name(name: &str, place: &FilePlace, report: &mut Report<'_>) -> bool {
    let is_odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '/';
    let wrong = if name.is_empty() {
        "a name cannot be empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        "this name is too long".to_owned()
    } else if name.chars().any(is_odd) {
        format!("`{}` cannot be a name", shown(name))
    } else {
        return true;
    };
    let finding = Finding::new(wrong)
        .expected(format!("1 to {NAME_BYTES_MAX} bytes without `/`, spaces or control characters"));
    report.error(place, finding);
    false
}
