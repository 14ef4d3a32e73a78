//! `etcd-load`: puts and linearizable gets on etcd in a closed loop, as `shoal bench` does them on Shoal.
//!
//! Shape: every key is written once, unmeasured; then one phase of puts and one of gets. So many clients share one connection
//! to each member, and each asks anew when it is answered. One line of JSON per phase, with the fields of `shoal bench`.
//! Units: latencies in us; CPU in us per operation of the given processes together: the sum over their threads of
//! /proc/PID/task/*/schedstat, which is where `shoal bench` takes it from. Invariant: an answer that is no success counts as
//! an error, not as an operation.

mod kv;

use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tokio::task::{JoinSet, LocalSet};

use kv::Member;

/// Whatever goes wrong outside the loops ends the program.
type Outcome<T> = Result<T, kv::CallError>;

/// Measures puts and linearizable gets on etcd.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Members' client addresses, such as 127.0.0.1:2379.
    #[arg(long = "endpoint", required = true)]
    endpoints: Vec<String>,
    /// Members' processes on this machine.
    #[arg(long = "pid")]
    pids: Vec<u32>,
    /// Requests under way at once.
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Different keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    /// Time of a phase.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Chooses keys and values.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is measured.
#[derive(Clone, Copy)]
enum Kind {
    Put,
    Get,
}

/// What one client did.
struct Done {
    latencies: Vec<u64>,
    errors: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    LocalSet::new().run_until(run(Options::parse())).await
}

async fn run(options: Options) -> Outcome<()> {
    let mut members = Vec::new();
    for endpoint in &options.endpoints {
        members.push(Member::connect(endpoint).await?);
    }
    write_all(&members, &options).await?;
    for kind in [Kind::Put, Kind::Get] {
        phase(kind, &members, &options).await?;
    }
    Ok(())
}

/// Every key once, so that every get finds a value.
async fn write_all(members: &[Member], options: &Options) -> Outcome<()> {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let (mut member, options) = (members[lane as usize % members.len()].clone(), options.clone());
        lanes.spawn_local(async move {
            for n in (lane..options.keys).step_by(LANES as usize) {
                member.put(key(n), vec![0; options.value_bytes]).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(())
}

async fn phase(kind: Kind, members: &[Member], options: &Options) -> Outcome<()> {
    let mut clients = JoinSet::new();
    let before = cpu_ns(&options.pids)?;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(options.seconds);
    for client in 0..options.clients {
        let (member, options) = (members[client as usize % members.len()].clone(), options.clone());
        clients.spawn_local(async move { closed_loop(kind, member, &options, (end, client)).await });
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?;
    let errors = Cell::new(0);
    while let Some(done) = clients.join_next().await {
        let done = done?;
        done.latencies.into_iter().for_each(|micros| latency.saturating_record(micros));
        errors.set(errors.get() + done.errors);
    }
    let time = start.elapsed();
    let cpu = cpu_ns(&options.pids)?.saturating_sub(before);
    let count = latency.len();
    println!(
        r#"{{"op":"{}","clients":{},"count":{count},"errors":{},"ops_per_s":{:.1},"latency_us":{{"p50":{},"p99":{}}},"nodes_cpu_us_per_op":{:.2}}}"#,
        kind.name(),
        options.clients,
        errors.get(),
        count as f64 / time.as_secs_f64(),
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        cpu as f64 / 1e3 / count.max(1) as f64,
    );
    Ok(())
}

async fn closed_loop(kind: Kind, mut member: Member, options: &Options, (end, client): (Instant, u32)) -> Done {
    let mut dice = ChaCha8Rng::seed_from_u64(options.seed << 32 | u64::from(client));
    let mut value = vec![0; options.value_bytes];
    dice.fill_bytes(&mut value);
    let mut done = Done { latencies: Vec::new(), errors: 0 };
    while Instant::now() < end {
        let key = key(dice.next_u32() % options.keys);
        let start = Instant::now();
        let answer = match kind {
            Kind::Put => {
                if let Some(front) = value.first_chunk_mut() {
                    *front = dice.next_u64().to_be_bytes();
                }
                member.put(key, value.clone()).await
            }
            Kind::Get => member.value(key).await.map(drop),
        };
        match answer {
            Ok(()) => done.latencies.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(_) => done.errors += 1,
        }
    }
    done
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

fn key(n: u32) -> Vec<u8> {
    format!("bench-{n:08}").into_bytes()
}

/// CPU that the processes have used so far.
fn cpu_ns(pids: &[u32]) -> Outcome<u64> {
    let mut sum = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let schedstat = fs::read_to_string(thread?.path().join("schedstat"))?;
            let first = schedstat.split_ascii_whitespace().next().ok_or("an empty schedstat")?;
            sum += first.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// A minute: no request takes longer.
const LATENCY_MICROS_MAX: u64 = 60_000_000;
/// Requests under way while the keys are first written.
const LANES: u32 = 64;
