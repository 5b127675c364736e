//! The health of a backend: [`rise_fall`] turns results of probes into a verdict, [`backoff`] sets
//! the time of the next probe, [`outlier`] ejects a backend that fails real sessions;
//! [`pool_health`] is what the verdicts of a pool come to; [`probe_step`] is what a probe says and
//! waits for.

pub mod backoff;
pub mod outlier;
pub mod pool_health;
pub mod probe_step;
pub mod rise_fall;
