//! `shoal bench`: puts and gets in a closed loop.
//!
//! Shape: so many clients, each asking anew when it is answered, for rounds of puts and gets in turn, so that what slows the
//! machine down meets both. A phase ends after `--count` operations or `--seconds`, whichever comes first.
//! Units: latencies in µs; CPU in µs per operation, of this process and, where they run on this machine, of all nodes
//! together; bytes per operation that the nodes handed to `write`, and that crossed the loopback interface; allocations of
//! all nodes together per operation.

mod report;
mod usage;

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use hdrhistogram::Histogram;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_client::{Client, Error, Key, value};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::KeyspaceLayout;
use shoal_protocol::object::{Conflict, Operation};

use super::connect::{Connect, DEV_DIR_DEFAULT, DevInfo, seconds};
use super::failure::{Failure, SYSTEM};
use super::keyspace::name;
use super::output::Output;
use super::progress;
use usage::Usage;

/// Measure puts and gets.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// A keyspace where the last write wins (lww). Keys `bench-...` are written there, and stay.
    #[arg(long, default_value = "cache", value_parser = name)]
    keyspace: KeyspaceName,
    /// Requests under way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// Connections to each node, shared by the clients.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// Different keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Operations of a phase.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Time of a phase.
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
    /// Rounds of one put phase and one get phase each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A node's process on this machine [default: those of the `shoal dev` of this directory].
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Get,
}

/// What all phases of one kind measured.
struct Measured {
    latency: Histogram<u64>,
    time: Duration,
    usage: Usage,
    /// Operations per second of each round.
    rounds: Vec<f64>,
    errors: u64,
    last_error: Option<String>,
}

pub(super) async fn run(args: Args, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let nodes = Nodes { pids: pids(&args)?, clients: node_clients(connect).await? };
    let mut keys = Vec::new();
    for _ in 0..args.connections {
        keys.push(keys_of(&connect.open().await?, &args).await?);
    }
    write_all(&keys[0], &args).await?;
    let bar = progress::bytes(None);
    let (mut put, mut get) = (Measured::new()?, Measured::new()?);
    for round in 0..args.rounds {
        for (kind, measured) in [(Kind::Put, &mut put), (Kind::Get, &mut get)] {
            bar.set_message(format!("round {} of {}: {}", round + 1, args.rounds, kind.name()));
            measured.phase(kind, &keys, &args, &nodes).await?;
        }
    }
    bar.finish_and_clear();
    report::print(&args, &nodes.pids, &[(Kind::Put, &put), (Kind::Get, &get)], out)
}

/// The nodes of this machine, where they are known.
struct Nodes {
    pids: Vec<u32>,
    /// One client each, which asks that node alone.
    clients: Vec<Client>,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

impl Measured {
    fn new() -> Result<Self, Failure> {
        let latency = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3);
        Ok(Self {
            latency: latency.map_err(|error| Failure::new(SYSTEM, error))?,
            time: Duration::ZERO,
            usage: Usage::default(),
            rounds: Vec::new(),
            errors: 0,
            last_error: None,
        })
    }

    async fn phase(&mut self, kind: Kind, keys: &[Vec<Key>], args: &Args, nodes: &Nodes) -> Result<(), Failure> {
        let left = Cell::new(args.count);
        let before = Usage::now(&nodes.pids, &nodes.clients).await?;
        let start = Instant::now();
        let clients = (0..args.clients).map(|client| {
            let keys = &keys[client as usize % keys.len()];
            closed_loop(kind, keys, args, (&left, start + args.seconds, self.rounds.len() as u64, client))
        });
        let done = join_all(clients.collect::<Vec<_>>()).await;
        let time = start.elapsed();
        self.usage.add(&Usage::now(&nodes.pids, &nodes.clients).await?.since(&before));
        let mut count = 0;
        for (latencies, errors) in done {
            count += latencies.len();
            latencies.into_iter().for_each(|micros| self.latency.saturating_record(micros));
            self.errors += errors.len() as u64;
            self.last_error = errors.into_iter().last().or(self.last_error.take());
        }
        self.time += time;
        self.rounds.push(count as f64 / time.as_secs_f64());
        Ok(())
    }

    fn count(&self) -> u64 {
        self.latency.len()
    }
}

/// One client: the latencies of what succeeded, and what did not.
async fn closed_loop(
    kind: Kind,
    keys: &[Key],
    args: &Args,
    (left, end, round, client): (&Cell<u64>, Instant, u64, u32),
) -> (Vec<u64>, Vec<String>) {
    let mut rng = ChaCha8Rng::seed_from_u64(round << 32 | u64::from(client));
    let mut bytes = vec![0; args.value_bytes as usize];
    rng.fill_bytes(&mut bytes);
    let (mut latencies, mut errors) = (Vec::new(), Vec::new());
    while left.get() > 0 && Instant::now() < end {
        left.set(left.get() - 1);
        let key = &keys[rng.next_u64() as usize % keys.len()];
        let start = Instant::now();
        let done: Result<(), Error> = match kind {
            Kind::Put => {
                if let Some(front) = bytes.first_chunk_mut() {
                    *front = rng.next_u64().to_be_bytes();
                }
                key.operate(Operation::Put { value: value::bytes(bytes.clone()) }).await.map(drop)
            }
            Kind::Get => key.read().await.map(drop),
        };
        match done {
            Ok(()) => latencies.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(error) => errors.push(format!("error[{}]: {error}", error.code())),
        }
    }
    (latencies, errors)
}

async fn keys_of(client: &Client, args: &Args) -> Result<Vec<Key>, Failure> {
    let keyspace = client.keyspace(args.keyspace.as_str()).await?;
    if keyspace.info().spec.conflict != Conflict::Lww {
        return Err(Failure::usage(format!("`{}` keeps siblings: a put there is a read and a write", args.keyspace))
            .hint("`shoal keyspace create NAME --conflict lww` makes another"));
    }
    let collection = match keyspace.info().spec.layout {
        KeyspaceLayout::Collection => Some(keyspace.collection("bench")?),
        KeyspaceLayout::Key => None,
    };
    (0..args.keys)
        .map(|n| {
            let key = format!("bench-{n:08}");
            Ok(match &collection {
                Some(collection) => collection.key(key)?,
                None => keyspace.key(key)?,
            })
        })
        .collect()
}

/// Writes every key once, unmeasured, so that every get finds a value.
async fn write_all(keys: &[Key], args: &Args) -> Result<(), Failure> {
    let bytes = vec![0; args.value_bytes as usize];
    let lanes = keys.chunks(keys.len().div_ceil(LANES).max(1)).map(async |lane| {
        for key in lane {
            key.operate(Operation::Put { value: value::bytes(bytes.clone()) }).await?;
        }
        Ok::<(), Error>(())
    });
    try_join_all(lanes).await?;
    Ok(())
}

fn pids(args: &Args) -> Result<Vec<u32>, Failure> {
    if !args.pids.is_empty() {
        return Ok(args.pids.clone());
    }
    let dev = DevInfo::read(DEV_DIR_DEFAULT.as_ref())?;
    Ok(dev.map_or_else(Vec::new, |dev| dev.nodes.iter().map(|node| node.pid).collect()))
}

async fn node_clients(connect: &Connect) -> Result<Vec<Client>, Failure> {
    let Some(dev) = DevInfo::read(DEV_DIR_DEFAULT.as_ref())? else { return Ok(Vec::new()) };
    let ca = connect.url()?.ca;
    let clients = dev
        .nodes
        .iter()
        .map(async |node| Client::builder().unrouted().connect(&format!("shoal://{}/?ca={ca}", node.address)).await);
    Ok(try_join_all(clients).await?)
}

/// A minute: no request takes longer.
const LATENCY_MICROS_MAX: u64 = 60_000_000;
/// Requests under way while the keys are first written.
const LANES: usize = 64;
