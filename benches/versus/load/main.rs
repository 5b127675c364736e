//! Loads that wrk does not make, for `versus.py`: one mode a load, one JSON object as the result.
//!
//!     load ADDRESS open --connections 64 --rate 10000 --seconds 3

#![allow(missing_docs, reason = "a program for measuring, not an interface")]
#![allow(clippy::print_stdout, reason = "what it measured is its output")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

mod arrivals;
mod downloads;
mod hold;
mod open;
mod upload;

const REQUEST: &[u8] = b"GET /tiny HTTP/1.1\r\nHost: bench\r\n\r\n";
const LAST_REQUEST: &[u8] = b"GET /tiny HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
/// Bounds every wait for a peer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ten minutes.
const LATENCY_MAX_NS: u64 = 600_000_000_000;

#[derive(Parser)]
struct Arguments {
    /// Where to connect.
    address: SocketAddr,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Until the target answers.
    Wait,
    /// Keeps silent connections until standard input ends.
    Hold {
        #[arg(long)]
        connections: usize,
    },
    /// Asks for long replies and reads none of them until standard input ends.
    Stall {
        #[arg(long)]
        connections: usize,
    },
    /// Sends small requests at a fixed rate, whether or not replies come.
    Open {
        #[arg(long)]
        connections: usize,
        /// Requests a second, of all connections together.
        #[arg(long)]
        rate: u64,
        #[arg(long)]
        seconds: u64,
    },
    /// Connects, asks once, waits for the end, and again.
    Arrivals {
        /// How many at once.
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        seconds: u64,
        /// All together, and the next wave when the last one is done.
        #[arg(long)]
        waves: bool,
        /// This number a second instead, at most `connections` of them at once.
        #[arg(long, conflicts_with = "waves")]
        rate: Option<u64>,
    },
    /// Takes as many bytes as come, on each connection.
    Downloads {
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        seconds: u64,
    },
    /// Posts bodies.
    Upload {
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        seconds: u64,
        /// Size of one body.
        #[arg(long)]
        bytes: usize,
    },
}

/// Three digits, up to [`LATENCY_MAX_NS`]: what took longer is recorded as that.
fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).map_err(io::Error::other)
}

/// Percentiles in microseconds of a histogram of nanoseconds.
fn percentiles(histogram: &Histogram<u64>) -> Value {
    let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    json!({ "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0) })
}

/// Nanoseconds, for a histogram.
fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn main() -> io::Result<()> {
    let Arguments { address, mode } = Arguments::parse();
    evenkeel::sys::process::raise_descriptor_limit()?;
    let result = match mode {
        Mode::Wait => hold::wait(address)?,
        Mode::Hold { connections } => hold::hold(address, connections)?,
        Mode::Stall { connections } => hold::stall(address, connections)?,
        Mode::Open { connections, rate, seconds } => {
            open::run(address, connections, rate, Duration::from_secs(seconds))?
        }
        Mode::Arrivals { connections, seconds, waves, rate } => {
            let length = Duration::from_secs(seconds);
            match rate {
                Some(rate) => arrivals::paced(address, connections, length, rate)?,
                None => arrivals::run(address, connections, length, waves)?,
            }
        }
        Mode::Downloads { connections, seconds } => {
            downloads::run(address, connections, Duration::from_secs(seconds))?
        }
        Mode::Upload { connections, seconds, bytes } => {
            upload::run(address, connections, Duration::from_secs(seconds), bytes)?
        }
    };
    println!("{result}");
    Ok(())
}
