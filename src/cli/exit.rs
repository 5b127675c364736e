//! Exit codes beside 0 and 1; an interface for scripts and service managers.

/// Wrong usage, as clap has it.
pub(crate) const USAGE: u8 = 2;
/// `check --strict` found warnings, or `import` left something out.
pub(crate) const WARNINGS: u8 = 3;
/// What `--wait` waits for has not come within `--timeout`.
pub(crate) const TIMED_OUT: u8 = 4;
/// The configuration is refused: EX_CONFIG of sysexits(3).
pub(crate) const BAD_CONFIG: u8 = 78;
