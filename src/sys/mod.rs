//! The kernel, behind safe signatures.
//!
//! This is the only module that may contain `unsafe`: descriptors are owned (`OwnedFd`) or
//! borrowed (`BorrowedFd`), never bare integers, and each unsafe block says why its conditions
//! hold. Nothing here decides anything; callers choose, this module asks the kernel.

#![allow(unsafe_code, reason = "the one module where it is allowed")]

/// Listening sockets as workers have them.
pub mod accepting;
/// Maps and programs in the kernel.
mod bpf;
/// Packets with descriptors between two processes.
pub mod channel;
/// Programs that refuse clients before they are accepted.
pub mod gate;
/// What the kernel has measured of a handshake.
pub mod handshake;
/// How the memory of tables is mapped.
pub mod memory;
/// Multipath TCP: what its sockets refuse.
pub mod multipath;
/// What this process is allowed and how large the host is.
pub mod process;
/// How much a socket would take.
pub mod room;
/// Bytes for another process that can change no more.
pub mod sealed;
/// Listening sockets, outgoing connections and what is done to them.
pub mod socket;
/// Outgoing connections that come from a given address.
pub mod source;
/// Pipes that carry bytes between sockets without copying them.
pub mod splice;
/// Sockets and environment handed over by systemd.
pub mod systemd;
/// Unix sockets.
pub mod unix;
