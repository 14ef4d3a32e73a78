//! A real cluster inside a test: `Cluster::start(3).await`.
//!
//! What: the same servers as `shoal server`, each on a thread of its own, on free loopback ports, with a secret of their own
//! and data under a temporary directory. Nodes can be killed, restarted and cut off from each other. Everything is gone
//! when the `Cluster` is dropped. Source: DESIGN §3.
//! Invariants: `cut` stops all traffic between two nodes before it returns; clients still reach both. Indexes are 0-based.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use shoal_client::Client;
use shoal_protocol::client::Status;
use shoal_protocol::id::NodeId;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::host::config::ServerConfig;
use crate::host::limits::{DiskLimits, ServerLimits};
use crate::host::secret::{ClusterSecret, ClusterSecrets, SECRET_BYTES, node_id};
use crate::host::{RunningServer, Server, ServerFailure, StartError, bind};
use crate::system::JoinMode;

/// Some nodes in this process.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the nodes end before their data goes.
    nodes: Vec<Member>,
    cuts: BTreeSet<(usize, usize)>,
    ca_pin: String,
    _data: TempDir,
}

#[derive(Debug)]
struct Member {
    config: ServerConfig,
    node: NodeId,
    running: Option<RunningServer>,
}

/// What a test cluster could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A node did not start.
    #[error("node {index} did not start: {error}")]
    Start {
        /// Which.
        index: usize,
        /// Why.
        error: StartError,
    },
    /// A node ended by itself.
    #[error("node {index}: {error}")]
    Ended {
        /// Which.
        index: usize,
        /// How.
        error: ServerFailure,
    },
    /// No temporary directory, port or randomness.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    /// Nodes that should know each other and serve still do not.
    #[error("not settled after {} s: {reason}", SETTLED_WITHIN.as_secs())]
    NotSettled {
        /// Who misses what.
        reason: String,
    },
}

impl Cluster {
    /// Starts so many nodes and waits until they serve.
    ///
    /// # Errors
    /// `ClusterError`.
    pub async fn start(count: u16) -> Result<Self, ClusterError> {
        let data = TempDir::new()?;
        let secrets = ClusterSecrets::one(random_secret()?);
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut sockets = Vec::new();
        for index in 0..usize::from(count) {
            let socket = bind(any_port).map_err(|error| ClusterError::Start { index, error })?;
            sockets.push((socket.local_addr()?, socket));
        }
        // One common seed: from it they learn of each other, and what they learn they keep.
        let seeds: Vec<String> = sockets.first().map(|(address, _)| address.to_string()).into_iter().collect();
        let mut cluster = Self { nodes: Vec::new(), cuts: BTreeSet::new(), ca_pin: String::new(), _data: data };
        for (index, (listen, socket)) in sockets.into_iter().enumerate() {
            let config = ServerConfig {
                data_dir: cluster._data.path().join(format!("node{index}")),
                listen,
                name: format!("node{index}"),
                zone: format!("zone{index}"),
                weight: 100,
                cluster: "test".to_owned(),
                cluster_id: None,
                secrets: Some(secrets.clone()),
                seeds: seeds.clone(),
                expect: count,
                join: JoinMode::Auto,
                found_alone: count == 1,
                advertise_peer: Vec::new(),
                advertise_client: Vec::new(),
                stores: None,
                limits: ServerLimits { disk: small(), ..ServerLimits::default() },
            };
            let node = node_id(secrets.first().cluster_id(&config.cluster), &config.name);
            let running =
                Server::start_on(config.clone(), socket).await.map_err(|error| ClusterError::Start { index, error })?;
            cluster.ca_pin.clone_from(&running.facts().ca_pin);
            cluster.nodes.push(Member { config, node, running: Some(running) });
        }
        cluster.settled().await?;
        Ok(cluster)
    }

    /// Where clients reach a node, running or not.
    ///
    /// # Panics
    /// When there is no node of this index; so do all methods that take one.
    #[must_use]
    pub fn address(&self, index: usize) -> SocketAddr {
        self.nodes[index].config.listen
    }

    /// The id of a node.
    #[must_use]
    pub fn node(&self, index: usize) -> NodeId {
        self.nodes[index].node
    }

    /// What clients pin: `sha256:` and 64 hex digits.
    #[must_use]
    pub fn ca_pin(&self) -> &str {
        &self.ca_pin
    }

    /// The cluster as clients are told of it: `shoal://…/?ca=…`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(self.nodes.iter().map(|member| member.config.listen))
    }

    /// A new client of the cluster, with a session of its own.
    ///
    /// # Errors
    /// As `Client::connect`.
    pub async fn client(&self) -> Result<Client, shoal_client::Error> {
        Client::connect(&self.url()).await
    }

    /// A new client that knows only one node: what it is told is what that node can reach.
    ///
    /// # Errors
    /// As `Client::connect`.
    pub async fn client_of(&self, index: usize) -> Result<Client, shoal_client::Error> {
        Client::connect(&self.url_of([self.address(index)])).await
    }

    /// A running node, for tests that look inside.
    #[must_use]
    pub fn running(&self, index: usize) -> Option<&RunningServer> {
        self.nodes[index].running.as_ref()
    }

    /// Ends a node as if its process had been killed. Its data stays. A node that does not run is left as it is.
    pub async fn kill(&mut self, index: usize) {
        if let Some(running) = self.nodes[index].running.take() {
            running.kill().await;
        }
    }

    /// Stops a node gracefully.
    ///
    /// # Errors
    /// `ClusterError::Ended`: it ended otherwise.
    pub async fn stop(&mut self, index: usize) -> Result<(), ClusterError> {
        match self.nodes[index].running.take() {
            Some(running) => running.shutdown().await.map_err(|error| ClusterError::Ended { index, error }),
            None => Ok(()),
        }
    }

    /// Starts a node that was killed or stopped, at its old address with its old data. A running node is killed first.
    ///
    /// # Errors
    /// `ClusterError::Start`.
    pub async fn restart(&mut self, index: usize) -> Result<(), ClusterError> {
        self.kill(index).await;
        let member = &mut self.nodes[index];
        let running =
            Server::start(member.config.clone()).await.map_err(|error| ClusterError::Start { index, error })?;
        member.running = Some(running);
        self.apply_cuts(index).await;
        Ok(())
    }

    /// Stops all traffic between two nodes.
    pub async fn cut(&mut self, a: usize, b: usize) {
        self.cuts.insert((a.min(b), a.max(b)));
        self.apply_cuts(a).await;
        self.apply_cuts(b).await;
    }

    /// Lets two nodes talk again.
    pub async fn heal(&mut self, a: usize, b: usize) {
        self.cuts.remove(&(a.min(b), a.max(b)));
        self.apply_cuts(a).await;
        self.apply_cuts(b).await;
    }

    /// Waits until every running node serves and is linked to every running node it is not cut off from, and to no other.
    ///
    /// # Errors
    /// `ClusterError::NotSettled` after 30 s.
    pub async fn settled(&self) -> Result<(), ClusterError> {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            match self.unsettled().await {
                None => return Ok(()),
                Some(reason) if Instant::now() >= until => return Err(ClusterError::NotSettled { reason }),
                Some(_) => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// What is still missing.
    async fn unsettled(&self) -> Option<String> {
        for (index, member) in self.nodes.iter().enumerate() {
            let Some(running) = &member.running else { continue };
            let Some(status) = running.status().await else { return Some(format!("node {index} has ended")) };
            if let Err(reason) = &status.serving {
                return Some(format!("node {index} does not serve: {reason}"));
            }
            for (other, wanted) in self.nodes.iter().enumerate().filter(|(other, _)| *other != index) {
                let is_wanted = wanted.running.is_some() && !self.is_cut(index, other);
                if is_alive(&status, wanted.node) != is_wanted {
                    let should = if is_wanted { "reach" } else { "have noticed the loss of" };
                    return Some(format!("node {index} should {should} node {other}"));
                }
            }
        }
        None
    }

    fn url_of(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> String {
        let addresses: Vec<String> = addresses.into_iter().map(|address| address.to_string()).collect();
        format!("shoal://{}/?ca={}", addresses.join(","), self.ca_pin)
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    async fn apply_cuts(&self, index: usize) {
        let others = (0..self.nodes.len()).filter(|other| self.is_cut(index, *other));
        let nodes = others.map(|other| self.nodes[other].node).collect();
        if let Some(running) = &self.nodes[index].running {
            running.cut(nodes).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Waiting takes milliseconds, and the directory can only go once nobody writes to it.
        self.nodes.iter_mut().filter_map(|member| member.running.take()).for_each(RunningServer::kill_blocking);
    }
}

fn is_alive(status: &Status, node: NodeId) -> bool {
    status.members.iter().any(|member| member.endpoint.node == node && member.is_reachable())
}

fn random_secret() -> io::Result<ClusterSecret> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(ClusterSecret::new(bytes))
}

/// How long `settled` waits: far longer than any healthy start, link or detection of a loss takes.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Files that are made in no time: clusters of tests are many and small.
fn small() -> DiskLimits {
    DiskLimits { log_segment_bytes: 1 << 20, reserve_bytes: 1 << 20, ..DiskLimits::default() }
}
