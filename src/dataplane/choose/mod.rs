//! Where a session goes: by what its client says to a pool, by the pool's policy to a backend.
//!
//! [`routing`] finds the pool; [`chooser`] asks the pool's policy, for which [`picker`] says which
//! members of a group may be had. [`asking`] is what each of them is told of a client.

pub(crate) mod asking;
pub(crate) mod chooser;
pub(super) mod picker;
pub(crate) mod routing;
