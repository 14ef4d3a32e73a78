//! The `shoal` command line.
//!
//! Shape: one subcommand, one answer. Standard output is data (`--json`: one JSON document a line), everything said about it
//! goes to standard error. Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 unavailable, 5 conflict, 6 timeout or
//! unknown, 7 auth. Errors read `error[code]: ...`; the codes are those of docs/errors.md and, for what only a command line
//! meets, docs/cli.md. Source: DESIGN §12.
//! Invariants: a reader that goes away ends a command silently; a secret is never printed; what a command changes it changes
//! through the native client, in a session that is kept under a lock.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a command line is made of files, clocks and threads; nothing here is a core"
)]

mod bench;
mod cluster;
mod config;
mod connect;
mod data;
mod dev;
mod export;
mod failure;
mod import;
mod inspect;
mod keyspace;
mod locate;
mod members;
mod output;
mod progress;
mod record;
mod server;
mod session_file;
mod signals;
mod store;
mod target;
mod typed;
mod unknown;
mod value;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use connect::Connect;
use failure::Failure;
use output::Output;

/// A leaderless, Dynamo-style database: server and client in one.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    connect: Connect,
    /// Print JSON, one document a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node.
    Server(server::Args),
    /// Run a cluster on this machine, for development.
    Dev(dev::Args),
    /// Create, list, show, change or drop keyspaces.
    #[command(subcommand)]
    Keyspace(keyspace::Command),
    /// Read a key of any type.
    Get(data::GetArgs),
    /// Write a register.
    Put(data::PutArgs),
    /// Delete whatever a key holds.
    Del(data::DelArgs),
    /// Print the rows of a collection, in the order of their keys, or of a whole keyspace, in no order.
    Scan(data::ScanArgs),
    /// Count the rows of a collection or keyspace.
    Count(data::CountArgs),
    /// Registers: a value, or siblings.
    #[command(subcommand)]
    Register(typed::RegisterCommand),
    /// Counters: numbers that are added to.
    #[command(subcommand)]
    Counter(typed::CounterCommand),
    /// Sets of strings, whole numbers or bytes.
    #[command(subcommand)]
    Set(typed::SetCommand),
    /// Maps: fields of any type.
    #[command(subcommand)]
    Map(typed::MapCommand),
    /// Flags: on or off.
    #[command(subcommand)]
    Flag(typed::FlagCommand),
    /// Write the records of an NDJSON file into a keyspace.
    Import(import::Args),
    /// Print every record of a keyspace as NDJSON.
    Export(export::Args),
    /// Send again what earlier commands had an unknown outcome of; it counts once.
    Repeat,
    /// Print what a node says of itself and of the others.
    Status,
    /// Print the members as a node sees them, or as each of them sees the others.
    Members(members::Args),
    /// Say which nodes hold data: let them join, leave or be removed, and see how far that is.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Print which node holds how much of a keyspace.
    Ring(locate::RingArgs),
    /// Print which nodes hold a key.
    Locate(locate::LocateArgs),
    /// Print the URL under which clients reach the cluster.
    ConnectInfo(config::Source),
    /// Succeed if a node takes requests.
    Healthcheck(config::Source),
    /// Measure puts and gets.
    Bench(bench::Args),
    /// Look at a server's configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// Look into the data directory of a node that does not run.
    #[command(subcommand)]
    Store(store::Command),
    /// Print a completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that went away does not mind; clap has chosen 0 for help and 2 for wrong usage.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut out = Output::new(cli.json);
    let result = run(cli.connect, cli.command, &mut out).and_then(|()| out.finish());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(connect: Connect, command: Command, out: &mut Output) -> Result<(), Failure> {
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "shoal", &mut script);
        return out.bytes(&script);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(dispatch(connect, command, out));
    // A read of standard input cannot be called off; the process ends without it.
    runtime.shutdown_background();
    done
}

async fn dispatch(connect: Connect, command: Command, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Server(args) => server::run(args).await,
        Command::Dev(args) => dev::run(args, out).await,
        Command::Keyspace(command) => keyspace::run(command, &connect, out).await,
        Command::Get(args) => data::get(args, &connect, out).await,
        Command::Put(args) => data::put(args, &connect, out).await,
        Command::Del(args) => data::del(args, &connect, out).await,
        Command::Scan(args) => data::scan(args, &connect, out).await,
        Command::Count(args) => data::count(args, &connect, out).await,
        Command::Register(command) => typed::register(command, &connect, out).await,
        Command::Counter(command) => typed::counter(command, &connect, out).await,
        Command::Set(command) => typed::set(command, &connect, out).await,
        Command::Map(command) => typed::map(command, &connect, out).await,
        Command::Flag(command) => typed::flag(command, &connect, out).await,
        Command::Import(args) => import::run(args, &connect, out).await,
        Command::Export(args) => export::run(args, &connect, out).await,
        Command::Repeat => unknown::repeat(&connect, out).await,
        Command::Status => inspect::status(&connect, out).await,
        Command::Members(args) => members::run(args, &connect, out).await,
        Command::Cluster(command) => cluster::run(command, &connect, out).await,
        Command::Ring(args) => locate::ring(args, &connect, out).await,
        Command::Locate(args) => locate::locate(args, &connect, out).await,
        Command::ConnectInfo(source) => inspect::connect_info(source, &connect, out).await,
        Command::Healthcheck(source) => inspect::healthcheck(source, &connect, out).await,
        Command::Bench(args) => bench::run(args, &connect, out).await,
        Command::Config(command) => config::run(command, out),
        Command::Store(command) => store::run(command, out),
        Command::Completions { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_negative_number_is_a_value_and_not_an_option() {
        let cli = Cli::try_parse_from(["shoal", "counter", "add", "app/stats/visits", "-5"]);
        assert!(cli.is_ok(), "{cli:?}");
        let cli = Cli::try_parse_from(["shoal", "put", "app/a/b", "-1.5", "--json"]);
        assert!(cli.is_ok(), "{cli:?}");
        let cli = Cli::try_parse_from(["shoal", "put", "app/a/b", "-"]);
        assert!(cli.is_ok(), "{cli:?}");
    }

    #[test]
    fn wrong_usage_has_exit_code_2() {
        for wrong in [&["shoal", "frobnicate"][..], &["shoal", "get"], &["shoal", "get", "app/a/b", "--r", "0"]] {
            let error = Cli::try_parse_from(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }
}
