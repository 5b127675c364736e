//! What this host grants a configuration: sockets, files, sizes; and where it grants less than is
//! asked for.

pub(crate) mod gates;
pub(crate) mod limits;
pub(crate) mod listeners;
pub(crate) mod passed;
pub(crate) mod sizing;
pub(crate) mod socket_file;
pub(crate) mod trust;
pub(crate) mod warnings;
