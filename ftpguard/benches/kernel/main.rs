//! The part of `cargo xtask bench` that loads BPF programs. It writes JSON to standard output.
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

#[path = "../../tests/programs/bed.rs"]
mod bed;
mod crowd;
mod flood;
#[expect(
    dead_code,
    reason = "the tests dress frames in more ways than are measured"
)]
#[path = "../../tests/programs/frames.rs"]
mod frames;
mod packets;
mod tables;
mod yardsticks;

use std::net::IpAddr;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
    /// `cargo bench` adds this.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Nanoseconds for each run of each program on each kind of packet
    Packets {
        /// How often each is measured, all in turn
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// How many runs make one measurement
        #[arg(long, default_value_t = 200_000)]
        packets: u32,
    },
    /// The same against the number of entries in the tables
    Tables {
        /// See `packets`
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// See `packets`
        #[arg(long, default_value_t = 200_000)]
        packets: u32,
    },
    /// Attach a yardstick to an interface until this process is ended
    Hold {
        /// `parse_only` or `drop_all`
        program: String,
        /// The interface
        interface: String,
    },
    /// Send SYNs from random sources, and say how many
    Flood(Flood),
}

/// A flood of SYNs.
#[derive(clap::Args)]
struct Flood {
    /// The interface by which they leave
    #[arg(long)]
    interface: String,
    /// The Ethernet address they are sent to
    #[arg(long)]
    to: String,
    /// The address they are sent to
    #[arg(long)]
    destination: IpAddr,
    /// The lowest port they are sent to
    #[arg(long)]
    first_port: u16,
    /// To how many ports they are sent, a power of two
    #[arg(long)]
    ports: u16,
    /// How long, in seconds
    #[arg(long)]
    seconds: f64,
    /// How many each second; 0 for as many as go
    #[arg(long, default_value_t = 0)]
    rate: u32,
}

fn main() {
    let value = match Arguments::parse().task {
        Task::Packets { rounds, packets } => packets::measure(rounds, packets),
        Task::Tables { rounds, packets } => tables::measure(rounds, packets),
        Task::Hold { program, interface } => {
            yardsticks::hold(&program, &interface);
            return;
        }
        Task::Flood(flood) => flood::send(&flood),
    };
    println!("{value}");
}
