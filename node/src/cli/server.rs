//! `shoal server`: one node in this process.

use std::io::{IsTerminal, Read};

use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::config::Source;
use super::failure::Failure;
use super::signals::stop_ordered;
use crate::host::Server;

/// Run one node.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Stop when standard input ends: the child of a process ends with it, however that ends.
    #[arg(long)]
    until_stdin_closes: bool,
    /// What to log, such as `info` or `shoal_node=debug`.
    #[arg(long, env = "SHOAL_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| Failure::usage(format!("--log: {error}")))?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    let config = args.source.resolve()?;
    let name = config.name.clone();
    let server = Server::start(config).await?;
    let facts = server.facts();
    tracing::info!(name, address = %facts.local_address, cluster = %facts.cluster, ca = facts.ca_pin, "running");

    let stopper = server.stopper();
    let mut parent_gone = args.until_stdin_closes.then(stdin_closed);
    let ended = server.ended();
    tokio::pin!(ended);
    tokio::select! {
        ended = &mut ended => return Ok(ended?),
        ordered = stop_ordered() => ordered?,
        () = async { match &mut parent_gone { Some(gone) => { let _ = gone.await; } None => std::future::pending().await } } => {}
    }
    tracing::info!(name, "stopping");
    stopper.stop().await;
    Ok(ended.await?)
}

/// Says when nothing more comes from standard input. The thread that reads may outlive everything: it holds nothing.
fn stdin_closed() -> oneshot::Receiver<()> {
    let (closed, is_closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 1024];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut ignored), Ok(1..)) {}
        // The server may have ended meanwhile.
        let _ = closed.send(());
    });
    is_closed
}
