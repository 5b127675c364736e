//! The sessions that are open: which there are, in which order they are listed, and their end by an
//! operator's hand.

pub mod document;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod names;
pub(crate) mod scan;
pub mod text;
