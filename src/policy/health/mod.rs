//! The health of a backend: [`rise_fall`] turns results of probes into a verdict, [`backoff`] sets
//! the time of the next probe, [`outlier`] ejects a backend that fails real sessions;
//! [`pool_health`] is what the verdicts of a pool come to.

pub mod backoff;
pub mod outlier;
pub mod pool_health;
pub mod rise_fall;
