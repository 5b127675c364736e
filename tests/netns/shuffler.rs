//! A cable between the client and evenkeel that reorders frames and doubles some; it loses none.
//!
//! The kernel at hand has no netem. Instead one raw socket in a namespace between the two ends gets
//! every frame and sends it on: now and then only after some of the next ones, now and then twice.
//! What is done to a frame follows from a seed and from its number; which frame has which number
//! depends on the kernel.

use std::net::UdpSocket;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrAny, SocketType, recvfrom, sendto,
    socket, sockopt,
};

use crate::net::{Net, Side, enter, inside};
use crate::streams::Dice;

/// Every protocol (linux/if_ether.h), as the kernel wants it.
const ETH_P_ALL: u32 = 0x0003_u16.to_be() as u32;
/// One frame in this many is held back.
const HOLDS_ONE_IN: usize = 16;
/// One frame in this many is sent twice.
const DOUBLES_ONE_IN: usize = 32;
/// At most this many frames overtake one that is held back.
const OVERTAKEN_MAX: usize = 8;
/// A frame that nothing follows goes on after this time.
const HELD_MAX: Duration = Duration::from_millis(2);
/// Room for whole windows of many sessions: a frame that finds none would be lost.
const ROOM: usize = 256 << 20;

/// What was done.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Shuffled {
    /// Frames that came, and frames that went.
    pub(crate) came: u64,
    pub(crate) went: u64,
    /// Frames that at least one later frame overtook.
    pub(crate) overtaken: u64,
    /// Frames that were sent twice.
    pub(crate) doubled: u64,
}

/// The running cable; ends when dropped.
pub(crate) struct Shuffler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Shuffled>>,
    middle: String,
}

impl Shuffler {
    /// Puts it between the client and evenkeel.
    pub(crate) fn between(net: &mut Net, seed: u64) -> Self {
        let middle = net.cut_open();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, place) = (Arc::clone(&stop), middle.clone());
        let thread = std::thread::spawn(move || {
            enter(&place);
            Cable::new(seed).run(&stopping)
        });
        let thread = Some(thread);
        // The kernel asks for an address from either end: only a frame tells where an end is.
        for (side, other) in [(Side::Client, "10.1.0.254:9"), (Side::Evenkeel, "10.1.0.1:9")] {
            net.on(side, || {
                let asking = UdpSocket::bind("0.0.0.0:0").unwrap();
                asking.send_to(b"hello", other).unwrap();
            });
        }
        Self { stop, thread, middle }
    }

    /// Ends it; also tells how many frames found no room and were lost after all.
    pub(crate) fn end(mut self) -> (Shuffled, u64) {
        let lost = lost_by_raw_sockets(&self.middle);
        self.stop.store(true, Ordering::SeqCst);
        (self.thread.take().unwrap().join().unwrap(), lost)
    }
}

impl Drop for Shuffler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Frames that raw sockets of a namespace had no room for: `d` of what ss tells of their memory.
fn lost_by_raw_sockets(name: &str) -> u64 {
    let output = inside(name, "ss").args(["-0nmaH"]).output().unwrap().stdout;
    let output = String::from_utf8(output).unwrap();
    let (_, memory) = output.split_once("skmem:(").expect("memory of a raw socket");
    let fields = memory.split(')').next().unwrap().split(',');
    fields.filter_map(|field| field.strip_prefix('d')?.parse::<u64>().ok()).sum()
}

/// A frame that waits for others to pass.
struct Held {
    frame: Vec<u8>,
    passed: usize,
    until: usize,
    since: Instant,
}

/// One direction.
#[derive(Default)]
struct Way {
    held: Vec<Held>,
    /// Where its frames go, once one has come from there.
    to: Option<SocketAddrAny>,
}

struct Cable {
    socket: OwnedFd,
    dice: Dice,
    /// To the client, to evenkeel.
    ways: [Way; 2],
    shuffled: Shuffled,
}

impl Cable {
    fn new(seed: u64) -> Self {
        let protocol = Protocol::from_raw(NonZeroU32::new(ETH_P_ALL).unwrap());
        let socket = socket(AddressFamily::PACKET, SocketType::RAW, Some(protocol)).unwrap();
        sockopt::set_socket_recv_buffer_size_force(&socket, ROOM).unwrap();
        Self {
            socket,
            dice: Dice::new(seed),
            ways: Default::default(),
            shuffled: Shuffled::default(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> Shuffled {
        let mut buffer = [0; 4096];
        while !stop.load(Ordering::SeqCst) {
            // What this socket sends does not come back to it.
            match recvfrom(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _, from)) => self.take(&buffer[..length], from),
                Err(_) => self.wait(),
            }
            for number in 0..2 {
                self.release(number, 0);
            }
        }
        self.shuffled
    }

    fn wait(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // Looked at again in any case.
        let _ready = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
    }

    fn take(&mut self, frame: &[u8], from: Option<SocketAddrAny>) {
        // The source address of Ethernet is bytes 6 to 11.
        let (back, onward) = match frame.get(11) {
            Some(1) => (0, 1),
            Some(2) => (1, 0),
            _ => return,
        };
        self.shuffled.came += 1;
        self.ways[back].to = from;
        if self.dice.once_in(HOLDS_ONE_IN) || self.ways[onward].to.is_none() {
            return self.hold(onward, frame);
        }
        self.send(onward, frame);
        if self.dice.once_in(DOUBLES_ONE_IN) {
            self.shuffled.doubled += 1;
            if self.dice.once_in(2) {
                self.send(onward, frame);
            } else {
                self.hold(onward, frame);
            }
        }
        self.release(onward, 1);
    }

    fn hold(&mut self, way: usize, frame: &[u8]) {
        let until = 1 + self.dice.below(OVERTAKEN_MAX);
        let held = Held { frame: frame.to_vec(), passed: 0, until, since: Instant::now() };
        self.ways[way].held.push(held);
    }

    /// Notes that a number of frames have passed those held back, and lets go of those that have
    /// waited long enough.
    fn release(&mut self, number: usize, passing: usize) {
        let way = &mut self.ways[number];
        for held in &mut way.held {
            held.passed += passing;
        }
        if way.to.is_none() {
            return;
        }
        let is_due = |held: &mut Held| held.passed >= held.until || held.since.elapsed() > HELD_MAX;
        let due: Vec<Held> = way.held.extract_if(.., is_due).collect();
        for Held { frame, passed, .. } in due {
            self.shuffled.overtaken += u64::from(passed > 0);
            self.send(number, &frame);
        }
    }

    fn send(&mut self, way: usize, frame: &[u8]) {
        let Some(to) = &self.ways[way].to else { return };
        self.shuffled.went +=
            u64::from(sendto(&self.socket, frame, SendFlags::empty(), to).is_ok());
    }
}
