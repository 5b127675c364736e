//! Names of things as small numbers.
//!
//! An id is the index of its thing in a snapshot. It stays with the thing for as long as it is
//! configured or still has sessions, over any number of reloads, so a session keeps ids and never
//! a reference into a snapshot.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// The id with this index.
            #[must_use]
            pub const fn new(index: u32) -> Self {
                Self(index)
            }

            /// Its index in a snapshot.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A listener.
    ListenerId
);
id!(
    /// A pool.
    PoolId
);
id!(
    /// A backend of one pool.
    BackendId
);

/// The number of a snapshot; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
