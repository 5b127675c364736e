//! Where a session goes: by what its client says to a pool, by the pool's policy to a backend.
//!
//! [`routing`] finds the pool; [`chooser`] asks the pool's policy, for which [`picker`] says which
//! members of a group can serve the client.

pub(crate) mod chooser;
pub(crate) mod picker;
pub(crate) mod routing;
