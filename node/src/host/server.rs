//! A server: one node on a thread of its own, from its first file to its last frame.
//!
//! Shape: `Server::start` binds the port, opens the data directory, makes certificates and begins to serve; what it returns
//! can stop the node gracefully or abruptly. The same code runs under `shoal server` and in `testing::Cluster`.
//! Invariants: the thread has a current-thread runtime, and everything of the node but its disk work runs on it; when a
//! stop has been reported, the port is free and the data directory is unlocked.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread::JoinHandle;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::client::Status;
use shoal_protocol::id::{Actor, ClusterId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tracing::info;

use super::acceptor::accept;
use super::address_book::AddressBook;
use super::clock::Clock;
use super::config::{ConfigError, ServerConfig};
use super::disk::DirectoryDisk;
use super::endpoint;
use super::event::Door;
use super::event_loop::{Control, EventLoop, LoopEnd, Stage};
use super::gossip::GossipLinks;
use super::peers::Peers;
use super::secret::{ClusterSecrets, node_id};
use super::storage_threads::{Completions, StorageThreads};
use super::switchboard::Switchboard;
use super::tls::{NodeTls, TlsError};
use crate::node::{Node, NodeConfig, StoredError};
use crate::storage::engine::log::{BLOCK_BYTES, LogOptions};
use crate::storage::engine::{Doubt, OpenError, OpenOptions, cells};
use crate::storage::{CellPlace, Recovered};

/// Starts nodes.
pub struct Server;

/// A node that serves. Dropping this stops it abruptly.
#[derive(Debug)]
pub struct RunningServer {
    facts: Facts,
    control: mpsc::Sender<Control>,
    ended: oneshot::Receiver<LoopEnd>,
    thread: JoinHandle<()>,
}

/// What follows from the configuration and the port that was got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The address listened on.
    pub local_address: SocketAddr,
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What clients pin: `sha256:` and 64 hex digits.
    pub ca_pin: String,
}

/// Why a node did not start. Nothing was changed, unless the data directory did not exist: then it may, empty.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Somebody listens there already.
    #[error("UDP port {} is in use on {}", address.port(), address.ip())]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not this machine's, or may not be used.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The data directory cannot be made, or what is in it cannot be used.
    #[error("data directory {}: {error}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// What the data directory keeps of the node itself cannot be used.
    #[error("data directory {}: {error}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: StoredError,
    },
    /// Certificates could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gave no thread, runtime or randomness.
    #[error("the system refuses: {error}")]
    System {
        /// What.
        error: io::Error,
    },
}

/// A node ended otherwise than ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerFailure {
    /// Its storage threads ended.
    #[error("the storage threads have ended")]
    Storage,
    /// A fault in the program: the message is on stderr.
    #[error("the node has panicked")]
    Panicked,
}

impl Server {
    /// Starts a node and returns when it listens. That it serves data is another matter: its cluster must be formed.
    ///
    /// # Errors
    /// `StartError`.
    pub async fn start(config: ServerConfig) -> Result<RunningServer, StartError> {
        config.check()?;
        let socket = bind(config.listen)?;
        Self::start_on(config, socket).await
    }

    /// As `start`, on a socket that `bind` made.
    pub(crate) async fn start_on(config: ServerConfig, socket: UdpSocket) -> Result<RunningServer, StartError> {
        let (control, controls) = mpsc::channel(CONTROLS_COUNT_MAX);
        let (started, start) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("shoal {}", config.name))
            .spawn(move || {
                if let Some(how) = host(config, socket, controls, started) {
                    // Nobody waits for it after a drop.
                    let _ = end.send(how);
                }
            })
            .map_err(system)?;
        // The thread says how the start went before it ends, unless it panics.
        let facts = start.await.unwrap_or_else(|_| Err(system(io::Error::other("the node's thread has panicked"))))?;
        Ok(RunningServer { facts, control, ended, thread })
    }
}

impl RunningServer {
    /// What is known of it from outside.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Something that can order a graceful stop while somebody else waits for the end.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { control: self.control.downgrade() }
    }

    /// Waits until the node has ended.
    ///
    /// # Errors
    /// It ended otherwise than ordered.
    pub async fn ended(self) -> Result<(), ServerFailure> {
        match self.ended.await {
            Ok(LoopEnd::Stopped | LoopEnd::Abandoned) => Ok(()),
            Ok(LoopEnd::StorageGone) => Err(ServerFailure::Storage),
            Err(_) => Err(ServerFailure::Panicked),
        }
    }

    /// Stops gracefully: no new requests, verdicts for those under way, goodbyes, everything on disk.
    ///
    /// # Errors
    /// It ended otherwise than ordered.
    pub async fn shutdown(self) -> Result<(), ServerFailure> {
        self.stopper().stop().await;
        self.ended().await
    }

    /// Stops abruptly, as if its process had been killed: nothing is finished, nobody is told.
    pub async fn kill(self) {
        drop(self.control);
        let _ = self.ended.await;
    }

    /// As `kill`, for callers that cannot wait otherwise than by blocking.
    pub fn kill_blocking(self) {
        drop(self.control);
        // If it panicked, its message is on stderr; dead it is either way.
        let _ = self.thread.join();
    }

    /// Waits until the node serves data: its cluster is formed and its storage works. `false` when it has ended instead.
    pub async fn serves(&self) -> bool {
        let (serves, is_serving) = oneshot::channel();
        self.control.send(Control::AwaitServing { serves }).await.is_ok() && is_serving.await.is_ok()
    }

    /// What the node says of itself and of the others; `None` when it has ended.
    pub async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.control.send(Control::Status { answer }).await.ok()?;
        answered.await.ok()
    }

    /// For tests of partitions: ends all connections with exactly these nodes, and allows none until told otherwise.
    pub async fn cut(&self, nodes: BTreeSet<NodeId>) {
        let (done, is_done) = oneshot::channel();
        if self.control.send(Control::Cut { nodes, done }).await.is_ok() {
            // A node that ends meanwhile is cut off, too.
            let _ = is_done.await;
        }
    }
}

/// Orders a graceful stop.
#[derive(Clone, Debug)]
pub struct Stopper {
    control: mpsc::WeakSender<Control>,
}

impl Stopper {
    /// Orders it. A node that has ended is left in peace.
    pub async fn stop(&self) {
        if let Some(control) = self.control.upgrade() {
            let _ = control.send(Control::Stop).await;
        }
    }
}

/// Binds the port.
pub(crate) fn bind(address: SocketAddr) -> Result<UdpSocket, StartError> {
    endpoint::bind(address).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            StartError::PortInUse { address }
        } else {
            StartError::Listen { address, error }
        }
    })
}

/// The life of the node's thread. `None` when it did not start.
fn host(
    config: ServerConfig,
    socket: UdpSocket,
    controls: mpsc::Receiver<Control>,
    started: oneshot::Sender<Result<Facts, StartError>>,
) -> Option<LoopEnd> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(system(error)));
            return None;
        }
    };
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        match assemble(config, socket, controls) {
            Ok((facts, event_loop)) => {
                info!(node = %facts.node, address = %facts.local_address, "listening");
                // Whoever asked may be gone; then the controls are closed and the loop ends at once.
                let _ = started.send(Ok(facts));
                Some(event_loop.run().await)
            }
            Err(error) => {
                let _ = started.send(Err(error));
                None
            }
        }
    })
    // Tasks and runtime are dropped here, and with them the socket.
}

/// Puts a node together on its thread.
fn assemble(
    config: ServerConfig,
    socket: UdpSocket,
    controls: mpsc::Receiver<Control>,
) -> Result<(Facts, EventLoop), StartError> {
    let secrets = config.secrets.clone().unwrap_or_else(ClusterSecrets::public);
    let secret = secrets.first();
    let cluster = config.cluster_id.unwrap_or_else(|| secret.cluster_id(&config.cluster));
    let node = node_id(cluster, &config.name);
    let mut entropy = entropy()?;
    let (done, stored) = mpsc::unbounded_channel();
    let (storage, recovered) = open_storage(&config, (cluster, node), &mut entropy, &done)?;

    let tls = NodeTls::new(&secrets, node)?;
    let opened = endpoint::open(socket, &tls, secret, node).map_err(system)?;
    let endpoint = opened.endpoint.clone();
    let local_address = endpoint.local_addr().map_err(system)?;
    let (door, events) = Door::new(config.limits.link, config.limits.load);
    spawn_local(accept(endpoint.clone(), door.clone()));
    let book = AddressBook::open(&config.data_dir).map_err(system)?;
    let mut peers = Peers::new(opened, door, node, seed(&mut entropy), book);
    config.seeds.iter().for_each(|seed| peers.find(seed.clone()));

    let clock = Clock::start();
    let mut effects = Vec::new();
    let boot_nonce = entropy.next_u64();
    let path = config.data_dir.clone();
    let settings = node_config(config, cluster, node, local_address, boot_nonce);
    let node_core = Node::new(settings, recovered, seed(&mut entropy), clock.now(), &mut effects)
        .map_err(|error| StartError::State { path, error })?;
    let event_loop = EventLoop {
        node: node_core,
        own: (node, boot_nonce),
        clock,
        endpoint,
        events,
        controls,
        storage,
        stored,
        peers,
        effects,
        switchboard: Switchboard::default(),
        gossip_links: GossipLinks::default(),
        cut: BTreeSet::new(),
        stage: Stage::Serving,
        awaiting: Vec::new(),
    };
    Ok((Facts { local_address, node, cluster, ca_pin: tls.ca_pin }, event_loop))
}

fn node_config(
    config: ServerConfig,
    cluster: ClusterId,
    node: NodeId,
    local_address: SocketAddr,
    boot_nonce: u64,
) -> NodeConfig {
    let or = |addresses: Vec<String>, otherwise: &[String]| {
        if addresses.is_empty() { otherwise.to_vec() } else { addresses }
    };
    let advertise_peer = or(config.advertise_peer, &[local_address.to_string()]);
    let advertise_client = or(config.advertise_client, &advertise_peer);
    NodeConfig {
        cluster,
        node,
        name: config.name,
        zone: config.zone,
        weight: config.weight,
        advertise_peer,
        advertise_client,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        expect: config.expect.into(),
        join: config.join,
        seeds: config.seeds,
        found_alone: config.found_alone,
        boot_nonce,
        allocations: super::ALLOCATIONS.get().copied(),
        limits: config.limits.node,
    }
}

/// Opens every store of the data directory, made if there is none, and starts their threads.
fn open_storage(
    config: &ServerConfig,
    (cluster, node): (ClusterId, NodeId),
    entropy: &mut ChaCha8Rng,
    done: &Completions,
) -> Result<(Vec<StorageThreads>, Vec<Recovered>), StartError> {
    let refused = |error| StartError::Store { path: config.data_dir.clone(), error };
    let disk = DirectoryDisk::open(config.data_dir.clone()).map_err(refused)?;
    let limits = config.limits.disk;
    let options = OpenOptions {
        node,
        cluster: Some(cluster),
        place: CellPlace::ALONE,
        incarnation: Actor::incarnation(entropy.next_u64()),
        cache_bytes: limits.page_cache_bytes,
        log: LogOptions { segment_bytes: segment_bytes(limits.log_segment_bytes) },
        reserve_bytes: limits.reserve_bytes as u64,
        doubt: Doubt::Nothing,
    };
    let incarnation = || Actor::incarnation(entropy.next_u64());
    let stores = cells::prepare(&disk, &options, config.stores, incarnation).map_err(refused)?;
    let start = |(disk, mut options): (DirectoryDisk, OpenOptions)| {
        let count = usize::from(options.place.count);
        options.cache_bytes /= count;
        options.log.segment_bytes = segment_bytes(limits.log_segment_bytes / count);
        StorageThreads::start(disk, options, done.clone())
    };
    let started = stores.into_iter().map(start).collect::<Result<Vec<_>, _>>();
    Ok(started.map_err(refused)?.into_iter().unzip())
}

/// Whole blocks, two at least.
const fn segment_bytes(bytes: usize) -> u64 {
    let least = 2 * BLOCK_BYTES;
    (if bytes < least { least } else { bytes }).next_multiple_of(BLOCK_BYTES) as u64
}

/// Randomness for everything of this process start.
fn entropy() -> Result<ChaCha8Rng, StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| system(io::Error::other(error)))?;
    Ok(ChaCha8Rng::from_seed(seed))
}

fn seed(entropy: &mut ChaCha8Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    entropy.fill_bytes(&mut seed);
    seed
}

fn system(error: io::Error) -> StartError {
    StartError::System { error }
}

/// Orders waiting for the event loop, which takes them first.
const CONTROLS_COUNT_MAX: usize = 8;
