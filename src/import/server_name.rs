//! Names of TLS servers.

/// Longest name that a route takes, without `*.`.
const BYTES_MAX: usize = 250;

/// Whether `sni` of a route takes a name, without `*.` in front.
pub(super) fn is_server_name(name: &str) -> bool {
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    name.len() <= BYTES_MAX
        && name.split('.').all(|label| !label.is_empty())
        && name.chars().all(is_plain)
}
