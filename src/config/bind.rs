//! An address of a listener, as the file names it.

use super::Address;
use super::report::FilePlace;

/// Where a listener accepts.
#[derive(Debug, Clone)]
pub(super) struct Bind {
    pub(super) address: Address,
    pub(super) place: FilePlace,
    pub(super) listener: String,
}
