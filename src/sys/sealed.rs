//! Bytes for another process, in memory that neither side can change any more (memfd_create(2)).
//!
//! Without its seals such a file could be written to, or cut under the reader's hands, by any
//! process that has it or opens it again.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};

/// Most bytes that are taken from another process: 1 GiB.
const BYTES_MAX: u64 = 1 << 30;

fn seals() -> SealFlags {
    SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

/// A sealed file with these bytes.
///
/// # Errors
/// As memfd_create(2), write(2) and fcntl(2).
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("evenkeel-upgrade", flags)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, seals())?;
    Ok(file.into())
}

/// The bytes of a sealed file, wherever it has been read to.
///
/// # Errors
/// `InvalidData` when it lacks a seal or is longer than 1 GiB; else as read(2).
pub fn read_sealed(file: OwnedFd) -> io::Result<Vec<u8>> {
    let is_sealed = fcntl_get_seals(&file).is_ok_and(|has| has.contains(seals()));
    let length = u64::try_from(fstat(&file)?.st_size).unwrap_or(u64::MAX);
    if !is_sealed || length > BYTES_MAX {
        let what = "what was passed is no sealed file of at most 1 GiB";
        return Err(io::Error::new(ErrorKind::InvalidData, what));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    File::from(file).read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, what one process says can be changed before the other has read it.
    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let file = sealed(b"state").unwrap();
        let other = File::from(file.try_clone().unwrap());
        assert!(other.write_at(b"x", 0).is_err());
        assert!(other.set_len(1).is_err() && other.set_len(100).is_err());
        assert_eq!(read_sealed(file).unwrap(), b"state");
    }

    // If this fails, a file that can still change is believed.
    #[test]
    fn what_is_not_sealed_is_refused() {
        let plain = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(read_sealed(plain).unwrap_err().kind(), ErrorKind::InvalidData);
        let file = File::open("/dev/null").unwrap();
        assert_eq!(read_sealed(file.into()).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
