//! The health of a backend: [`rise_fall`] turns results of probes into a verdict, [`backoff`] sets
//! the time of the next probe, [`outlier`] ejects a backend that fails real sessions.

pub mod backoff;
pub mod outlier;
pub mod rise_fall;
