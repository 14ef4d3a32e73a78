//! `shoal dev`: a cluster on this machine, each node a child process of this one.
//!
//! Shape: a directory holds the cluster secret, each node's data and log, and while it runs `connect-info`, which the other
//! commands find by themselves. Invariants: a child ends when its standard input does, so none outlives this process,
//! however that ends; a stop lets every node finish what it has acknowledged; the same directory starts the same cluster.

mod child;
mod directory;
mod greeting;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use shoal_client::{Client, Error};
use shoal_protocol::client::{KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_protocol::id::Class;
use shoal_protocol::object::Conflict;
use tokio::time::{Instant, sleep, sleep_until};

use super::connect::{DEV_DIR_DEFAULT, DevInfo};
use super::failure::{ENDED, Failure, LISTEN, NOT_SERVING, PORT_IN_USE};
use super::output::{Output, note};
use super::signals::stop_ordered;
use crate::host::config::CELLS_COUNT_MAX;
use child::Child;
use directory::Directory;

/// Run a cluster on this machine, for development.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where data, logs and the cluster secret are kept; made if there is none.
    #[arg(long, value_name = "DIR", default_value = DEV_DIR_DEFAULT)]
    data_dir: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=NODES_MAX))]
    nodes: u16,
    /// Stores of each node; fixed when its data directory is made, and not needed later.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=i64::from(CELLS_COUNT_MAX)))]
    stores: Option<u8>,
    /// The first node's UDP port; the others' follow.
    #[arg(long, default_value_t = crate::host::config::PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    port_base: u16,
    /// Seconds until a node that has ended is started again; `never` leaves it down.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = restart)]
    restart_after: Restart,
    /// What the nodes log, such as `info` or `shoal_node=debug`.
    #[arg(long, env = "SHOAL_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

/// When a node that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Restart(Option<Duration>);

/// A cluster that runs.
struct Dev {
    directory: Directory,
    children: Vec<Child>,
    restart_after: Option<Duration>,
}

pub(super) async fn run(args: Args, out: &mut Output) -> Result<(), Failure> {
    let addresses = addresses(&args)?;
    let directory = Directory::open(&args.data_dir, args.nodes)?;
    free(&addresses, directory.was_abandoned()).await?;
    let children = addresses
        .iter()
        .enumerate()
        .map(|(index, address)| Child::new(&directory, (index, *address), &addresses, (&args.log, args.stores)));
    let children = children.collect::<Result<_, _>>()?;
    let mut dev = Dev { directory, children, restart_after: args.restart_after.0 };

    let mut stop = std::pin::pin!(stop_ordered());
    let started = tokio::select! {
        started = dev.start() => started,
        ordered = &mut stop => ordered.map(|()| None).map_err(Failure::from),
    };
    let run = match started {
        Ok(Some(url)) => {
            // Whoever wanted to read it may have gone; the cluster runs all the same.
            let _ = greeting::print(&dev.directory, &dev.info(url), out);
            dev.watch(stop.as_mut()).await
        }
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    let stopped = dev.stop().await;
    run.and(stopped)
}

impl Dev {
    /// Starts every node, waits until all serve, and makes the keyspaces of a new cluster. The answer is the URL.
    async fn start(&mut self) -> Result<Option<String>, Failure> {
        for child in &mut self.children {
            child.spawn()?;
        }
        let url = self.directory.url(self.children.iter().map(|child| child.address))?;
        let ca = url.ca.to_string();
        tokio::select! {
            name = any_ended(&mut self.children) => {
                let name = name?;
                return Err(Failure::new(ENDED, format!("{name} did not start"))
                    .hint(self.directory.last_lines(&name)));
            }
            ready = ready(&url.addresses, &ca) => ready?,
        }
        let url = url.to_string();
        self.directory.announce(&self.info(url.clone()))?;
        Ok(Some(url))
    }

    /// Until a stop is ordered, says which node has ended, and starts it again.
    async fn watch(
        &mut self,
        mut stop: std::pin::Pin<&mut impl Future<Output = std::io::Result<()>>>,
    ) -> Result<(), Failure> {
        let mut due: Vec<(Instant, String)> = Vec::new();
        loop {
            let next = due.iter().map(|(at, _)| *at).min();
            tokio::select! {
                ordered = &mut stop => return Ok(ordered?),
                ended = any_ended(&mut self.children) => {
                    let name = ended?;
                    note(self.obituary(&name));
                    due.extend(self.restart_after.map(|after| (Instant::now() + after, name)));
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let now = Instant::now();
                    for (_, name) in due.extract_if(.., |(at, _)| *at <= now) {
                        for child in self.children.iter_mut().filter(|child| child.name == name) {
                            child.spawn()?;
                            note(format_args!("{name} is started again, pid {}", child.pid()));
                        }
                    }
                    let url = self.directory.url(self.children.iter().map(|child| child.address))?.to_string();
                    self.directory.announce(&self.info(url))?;
                }
            }
        }
    }

    /// Lets every node finish, and waits for it.
    async fn stop(&mut self) -> Result<(), Failure> {
        self.directory.withdraw();
        self.children.iter_mut().for_each(Child::order_stop);
        let mut stopped = Ok(());
        for child in &mut self.children {
            stopped = stopped.and(child.stopped(STOP_WITHIN).await);
        }
        stopped
    }

    fn info(&self, url: String) -> DevInfo {
        DevInfo { url, nodes: self.children.iter().map(Child::info).collect() }
    }

    fn obituary(&self, name: &str) -> String {
        let how = self.children.iter().find(|child| child.name == name).map_or_else(String::new, Child::how_it_ended);
        let log = self.directory.log(name);
        match self.restart_after {
            Some(after) => format!("{name} has ended ({how}); it is started again in {} s", after.as_secs_f64()),
            None => format!("{name} has ended ({how}); see {}", log.display()),
        }
    }
}

/// The name of the first node that ends; for ever if all have.
async fn any_ended(children: &mut [Child]) -> Result<String, Failure> {
    let running = children.iter_mut().filter(|child| child.is_running());
    let ends: Vec<_> = running.map(|child| Box::pin(child.ended())).collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(ends).await.0
}

/// Waits until every node serves and reaches all others, and makes the keyspaces that are missing.
async fn ready(addresses: &[String], ca: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + SERVE_WITHIN;
    for address in addresses {
        let url = format!("shoal://{address}/?ca={ca}");
        loop {
            let reason = match missing(&url, addresses.len()).await {
                Ok(None) => break,
                Ok(Some(reason)) => reason,
                Err(error @ (Error::Untrusted { .. } | Error::Config { .. })) => return Err(error.into()),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(Failure::new(NOT_SERVING, format!("the node at {address} does not serve: {reason}")));
            }
            sleep(POLL_EVERY).await;
        }
    }
    let client = Client::connect(&format!("shoal://{}/?ca={ca}", addresses.join(","))).await?;
    let class = Class { n: 3, r: 0, w: 0 };
    for (name, layout, conflict) in
        [("app", KeyspaceLayout::Collection, Conflict::Siblings), ("cache", KeyspaceLayout::Key, Conflict::Lww)]
    {
        let spec = KeyspaceSpec { class, layout, conflict, quorum: QuorumMode::Strict, ttl_s: None };
        match client.create_keyspace(name, spec).await {
            Err(error) if error.code() != "keyspace_exists" => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// `None` when the node at `url` serves and reaches all others, otherwise what is missing: a node that has just started
/// again serves before it has found anybody, and what it is asked then has answers of one replica.
async fn missing(url: &str, nodes_count: usize) -> Result<Option<String>, Error> {
    let client = Client::builder().deadline(ASK_WITHIN).connect(url).await?;
    let status = client.status().await?;
    let alive_count = status.members.iter().filter(|member| member.is_reachable()).count();
    let alone = || (alive_count < nodes_count).then(|| format!("it reaches {alive_count} of {nodes_count} nodes"));
    Ok(status.serving.err().or_else(alone))
}

fn addresses(args: &Args) -> Result<Vec<SocketAddr>, Failure> {
    let last = args.port_base.checked_add(args.nodes - 1);
    let last = last.ok_or_else(|| Failure::usage(format!("no {} ports from {} on", args.nodes, args.port_base)))?;
    Ok((args.port_base..=last).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect())
}

/// Fails with the first port that somebody else has, before anything is started. The nodes of a `shoal dev` that was killed
/// are waited for: they are about to end.
async fn free(addresses: &[SocketAddr], was_abandoned: bool) -> Result<(), Failure> {
    let deadline = Instant::now() + if was_abandoned { STOP_WITHIN } else { Duration::ZERO };
    for address in addresses {
        while let Err(error) = UdpSocket::bind(address) {
            if error.kind() != std::io::ErrorKind::AddrInUse {
                return Err(Failure::new(LISTEN, format!("cannot listen on {address}: {error}")));
            }
            if Instant::now() >= deadline {
                let (ip, port) = (address.ip(), address.port());
                return Err(Failure::new(PORT_IN_USE, format!("UDP port {port} is in use on {ip}"))
                    .hint("stop who uses it, or choose other ports with --port-base"));
            }
            sleep(POLL_EVERY).await;
        }
    }
    Ok(())
}

fn restart(text: &str) -> Result<Restart, String> {
    if text == "never" { Ok(Restart(None)) } else { super::connect::seconds(text).map(Some).map(Restart) }
}

/// More is no cluster for one machine.
const NODES_MAX: i64 = 32;
/// From the start of the processes until the last one serves.
const SERVE_WITHIN: Duration = Duration::from_secs(60);
const ASK_WITHIN: Duration = Duration::from_secs(1);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// A node's own time to answer what is under way, and some more.
const STOP_WITHIN: Duration = Duration::from_secs(15);
