//! A backend of a pool, as the file names it.

use super::BackendConfig;
use super::report::FilePlace;

/// A backend with its place.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) backend: BackendConfig,
    pub(super) place: FilePlace,
}
