//! Streams whose every byte depends on a key and on its position, so that a byte that is lost,
//! repeated, moved or another session's is seen where it is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// How much is written or read in one call.
const PIECE: usize = 64 * 1024;

/// A connection, of either kind.
pub trait Duplex: Read + Write + Send + Sized + 'static {
    fn twin(&self) -> Self;
    fn finish(&self) -> io::Result<()>;
}

impl Duplex for TcpStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Duplex for UnixStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// The bytes of stream `key` from `offset` on.
pub fn fill(key: u64, offset: u64, bytes: &mut [u8]) {
    let mut word = 0;
    let mut value = [0; 8];
    for (position, byte) in (offset..).zip(bytes) {
        if position % 8 == 0 || word == 0 {
            word = position / 8 + 1;
            value = mix(key ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
        }
        *byte = value[usize::try_from(position % 8).unwrap()];
    }
}

/// `length` bytes of stream `key`.
pub fn bytes(key: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fill(key, 0, &mut bytes);
    bytes
}

/// The finalizer of splitmix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Writes the first `length` bytes of stream `key`.
pub fn send(stream: &mut impl Write, key: u64, length: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < length {
        let count = usize::try_from((length - offset).min(PIECE as u64)).unwrap();
        fill(key, offset, &mut piece[..count]);
        stream.write_all(&piece[..count])?;
        offset += count as u64;
    }
    Ok(())
}

/// Reads to the end; every byte must be that of stream `key`. How many came, and how it ended.
#[track_caller]
pub fn receive(stream: &mut impl Read, key: u64) -> (u64, io::Result<()>) {
    receive_up_to(stream, key, u64::MAX)
}

/// Reads at most `most` bytes; every byte must be that of stream `key`.
#[track_caller]
pub fn receive_up_to(stream: &mut impl Read, key: u64, most: u64) -> (u64, io::Result<()>) {
    let mut got = vec![0; PIECE];
    let mut wanted = vec![0; PIECE];
    let mut offset = 0;
    while offset < most {
        let room = usize::try_from((most - offset).min(PIECE as u64)).unwrap();
        match stream.read(&mut got[..room]) {
            Ok(0) => return (offset, Ok(())),
            Ok(count) => {
                fill(key, offset, &mut wanted[..count]);
                assert!(got[..count] == wanted[..count], "wrong bytes within {count} at {offset}");
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (offset, Err(error)),
        }
    }
    (offset, Ok(()))
}

/// Sends `length` bytes of stream `key` and then FIN, on a thread of its own.
pub fn send_aside(stream: &impl Duplex, key: u64, length: u64) -> JoinHandle<io::Result<()>> {
    let mut stream = stream.twin();
    std::thread::spawn(move || {
        send(&mut stream, key, length)?;
        stream.finish()
    })
}

/// The whole of an exchange from the client's side: sends and receives at once, both to the end.
#[track_caller]
pub fn exchange(stream: &mut impl Duplex, (key, length): (u64, u64)) {
    let sent = send_aside(stream, key, length);
    let (received, end) = receive(stream, key);
    end.unwrap();
    sent.join().unwrap().unwrap();
    assert_eq!(received, length, "of stream {key}");
}

/// Whether a read ended in a reset.
pub fn is_reset(end: &io::Result<()>) -> bool {
    end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}
