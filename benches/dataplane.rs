//! What one message costs in a session over real sockets, and what a look for a newer snapshot
//! costs.
//!
//! A session between two socket pairs in one thread: the peer writes, the session moves, the other
//! peer reads. The two peers' own calls are in the figure, the same for copying and splicing.
//! Benchmarks measure; tests judge.

#![allow(missing_docs, reason = "criterion's macros make functions without any")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel::dataplane::stream::pacing::Allowances;
use evenkeel::dataplane::stream::relay::Turn;
use evenkeel::dataplane::stream::wire::{Side, Wire};
use evenkeel::dataplane::stream::{Readiness, Standing, Stream};
use evenkeel::shared::{Generation, Publisher, Snapshot, SpliceMode};
use evenkeel::sys::room;
use evenkeel::sys::socket;
use evenkeel::sys::splice::{Capacity, Pipe};

/// Two socket pairs: a client, the session's two sockets, a backend.
struct Pairs {
    client: UnixStream,
    to_client: UnixStream,
    to_backend: UnixStream,
    backend: UnixStream,
    idle: Vec<Pipe>,
}

impl Pairs {
    fn new() -> Self {
        let (client, to_client) = UnixStream::pair().unwrap();
        let (to_backend, backend) = UnixStream::pair().unwrap();
        to_client.set_nonblocking(true).unwrap();
        to_backend.set_nonblocking(true).unwrap();
        Self { client, to_client, to_backend, backend, idle: Vec::new() }
    }

    fn side(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Client => self.to_client.as_fd(),
            Side::Backend => self.to_backend.as_fd(),
        }
    }
}

impl Wire for Pairs {
    type Pipe = Pipe;

    fn receive(&mut self, from: Side, buffer: &mut [u8]) -> io::Result<usize> {
        socket::receive(self.side(from), buffer)
    }

    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.side(to), bytes)
    }

    fn send_last(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        socket::send_last(self.side(to), bytes)
    }

    fn fill(&mut self, from: Side, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        pipe.fill(self.side(from), most)
    }

    fn drain(&mut self, pipe: &mut Pipe, to: Side) -> io::Result<usize> {
        pipe.drain(self.side(to))
    }

    fn shutdown_write(&mut self, to: Side) -> io::Result<()> {
        socket::shutdown_write(self.side(to))
    }

    fn unacknowledged(&mut self, _: Side) -> usize {
        0
    }

    fn take_error(&mut self, _: Side) -> Option<io::Error> {
        None
    }

    fn lend_pipe(&mut self) -> Option<Pipe> {
        self.idle.pop().or_else(|| Pipe::new(Capacity::Wide).ok())
    }

    fn return_pipe(&mut self, pipe: Pipe) {
        self.idle.push(pipe);
    }

    fn runs_short_of(&self, _: &Pipe) -> bool {
        false
    }

    fn room(&mut self, to: Side) -> usize {
        room::room(self.side(to), None)
    }

    fn unload(&mut self, pipe: &mut Pipe) -> io::Result<Box<[u8]>> {
        pipe.unload()
    }
}

/// One message from the client to the backend.
fn message(bench: &mut Criterion, name: &str, splice: SpliceMode, sizes: &[usize]) {
    let mut group = bench.benchmark_group(name);
    for size in sizes {
        group.throughput(Throughput::Bytes(*size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), size, |bench, size| {
            let mut pairs = Pairs::new();
            let mut stream = Stream::new(splice);
            let mut scratch = vec![0; 64 * 1024];
            let (sent, mut got) = (vec![7; *size], vec![0; *size]);
            stream.connected();
            let event = Readiness { readable: true, writable: true, ..Readiness::default() };
            bench.iter(|| {
                pairs.client.write_all(&sent).unwrap();
                let _news = stream.note(Side::Client, event);
                let _news = stream.note(Side::Backend, event);
                let mut turn = Turn {
                    wire: &mut pairs,
                    scratch: &mut scratch,
                    splice,
                    run_bytes: 1024 * 1024,
                    is_last: false,
                    allowances: Allowances::UNLIMITED,
                };
                while stream.advance(&mut turn) == Standing::Busy {}
                pairs.backend.read_exact(&mut got).unwrap();
            });
        });
    }
    group.finish();
}

fn relay(bench: &mut Criterion) {
    message(bench, "relay/copy", SpliceMode::Never, &[64, 1024, 16 * 1024, 64 * 1024]);
    message(bench, "relay/splice", SpliceMode::Always, &[64, 1024, 16 * 1024, 64 * 1024]);
}

fn snapshot(bench: &mut Criterion) {
    let empty = |generation| {
        Arc::new(Snapshot { generation: Generation(generation), ..Snapshot::nothing() })
    };
    let publisher = Publisher::new(empty(1));
    let subscriber = publisher.subscribe();
    bench.bench_function("snapshot/check", |bench| {
        bench.iter(|| black_box(&subscriber).is_stale());
    });
    let mut subscriber = publisher.subscribe();
    publisher.publish(empty(2));
    bench.bench_function("snapshot/take up", |bench| {
        bench.iter(|| {
            let latest = subscriber.latest();
            subscriber.take_up(latest)
        })
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = relay, snapshot
}
criterion_main!(benches);
