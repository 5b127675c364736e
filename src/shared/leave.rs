//! How sessions leave a backend that is to be left.

use crate::policy::admit::meter::Meter;

/// What happens to sessions that have to leave their backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// They stay.
    Keep,
    /// All are reset.
    Reset,
    /// They are reset one after the other, at this rate over all workers.
    Pace(Meter),
}
