//! What is believed of a backend: [`rise_fall`] turns probes into a verdict, [`backoff`] says when
//! to look again, [`outlier`] ejects a backend that fails real sessions.

pub mod backoff;
pub mod outlier;
pub mod rise_fall;
