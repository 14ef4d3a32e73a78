//! `shoal keyspace`: what there is to put data into.

use std::fmt;

use clap::ValueEnum;
use serde_json::{Value as Json, json};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{KeyspaceChange, KeyspaceInfo, KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_protocol::id::Class;
use shoal_protocol::object::Conflict;

use super::connect::Connect;
use super::failure::Failure;
use super::output::Output;

/// Create, list, show, change or drop keyspaces.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create one. All but --quorum and --ttl is fixed from then on.
    Create(Create),
    /// All of them.
    List,
    /// One of them.
    Show {
        /// Its name.
        #[arg(value_parser = name)]
        name: KeyspaceName,
    },
    /// Change what may be changed.
    Set(Change),
    /// Drop one, with everything in it.
    Drop {
        /// Its name.
        #[arg(value_parser = name)]
        name: KeyspaceName,
    },
}

/// Create one. All but --quorum and --ttl is fixed from then on.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Its name: 1 to 64 of a-z 0-9 _ -
    #[arg(value_parser = name)]
    name: KeyspaceName,
    /// What becomes of concurrent writes to a register: all are kept as siblings, or the last one wins.
    #[arg(long, value_enum)]
    conflict: ConflictArg,
    /// How keys are placed: a collection's keys together and in order, or each key by itself.
    #[arg(long, value_enum, default_value_t = LayoutArg::Collection)]
    layout: LayoutArg,
    /// Replicas of each key.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    n: u8,
    /// Replies a read waits for [default: a majority].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    r: Option<u8>,
    /// Acks a write waits for [default: a majority].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    w: Option<u8>,
    /// What counts as an ack.
    #[arg(long, value_enum, default_value_t = QuorumArg::Strict)]
    quorum: QuorumArg,
    /// Seconds until a register's value expires, unless its writer says otherwise [default: never].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    ttl: Option<u32>,
}

/// Change what may be changed.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Change {
    /// Its name.
    #[arg(value_parser = name, group = "named")]
    name: KeyspaceName,
    /// What counts as an ack.
    #[arg(long, value_enum)]
    quorum: Option<QuorumArg>,
    /// Seconds until a register's value expires, unless its writer says otherwise; `none` for never.
    #[arg(long, value_name = "SECONDS", value_parser = ttl)]
    ttl: Option<Ttl>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConflictArg {
    Siblings,
    Lww,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LayoutArg {
    Collection,
    Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QuorumArg {
    Strict,
    Sloppy,
}

/// A default expiry; `None` = never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ttl(Option<u32>);

impl QuorumArg {
    const fn mode(self) -> QuorumMode {
        match self {
            Self::Strict => QuorumMode::Strict,
            Self::Sloppy => QuorumMode::Sloppy,
        }
    }
}

impl Create {
    fn spec(&self) -> KeyspaceSpec {
        KeyspaceSpec {
            class: Class { n: self.n, r: self.r.unwrap_or(MAJORITY), w: self.w.unwrap_or(MAJORITY) },
            layout: match self.layout {
                LayoutArg::Collection => KeyspaceLayout::Collection,
                LayoutArg::Key => KeyspaceLayout::Key,
            },
            conflict: match self.conflict {
                ConflictArg::Siblings => Conflict::Siblings,
                ConflictArg::Lww => Conflict::Lww,
            },
            quorum: self.quorum.mode(),
            ttl_s: self.ttl,
        }
    }
}

pub(super) async fn run(command: Command, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let keyspaces = match command {
        Command::Create(create) => vec![client.create_keyspace(create.name.as_str(), create.spec()).await?],
        Command::List => {
            let mut all = client.list_keyspaces().await?;
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all
        }
        Command::Show { name } => vec![client.show_keyspace(name.as_str()).await?],
        Command::Set(Change { name, quorum, ttl }) => {
            let change = KeyspaceChange { quorum: quorum.map(QuorumArg::mode), ttl_s: ttl.map(|ttl| ttl.0) };
            vec![client.set_keyspace(name.as_str(), change).await?]
        }
        Command::Drop { name } => vec![client.drop_keyspace(name.as_str()).await?],
    };
    print(&keyspaces, out)
}

fn print(keyspaces: &[KeyspaceInfo], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return keyspaces.iter().try_for_each(|info| out.document(&document(info)));
    }
    let head = ["NAME", "N", "R", "W", "LAYOUT", "CONFLICT", "QUORUM", "TTL", "ID"].map(str::to_owned).to_vec();
    let rows = keyspaces.iter().map(|info| {
        let KeyspaceSpec { class, ttl_s, .. } = info.spec;
        vec![
            info.name.to_string(),
            class.n.to_string(),
            Quorum(class.r).to_string(),
            Quorum(class.w).to_string(),
            layout(info).to_owned(),
            conflict(info).to_owned(),
            quorum(info).to_owned(),
            ttl_s.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s")),
            info.id.to_string(),
        ]
    });
    out.table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn document(info: &KeyspaceInfo) -> Json {
    let KeyspaceSpec { class, ttl_s, .. } = info.spec;
    let number = |n: u8| if n == MAJORITY { json!("majority") } else { json!(n) };
    json!({
        "name": info.name.as_str(), "id": info.id.to_string(),
        "n": class.n, "r": number(class.r), "w": number(class.w),
        "layout": layout(info), "conflict": conflict(info), "quorum": quorum(info), "ttl": ttl_s,
    })
}

const fn layout(info: &KeyspaceInfo) -> &'static str {
    match info.spec.layout {
        KeyspaceLayout::Collection => "collection",
        KeyspaceLayout::Key => "key",
    }
}

const fn conflict(info: &KeyspaceInfo) -> &'static str {
    match info.spec.conflict {
        Conflict::Siblings => "siblings",
        Conflict::Lww => "lww",
    }
}

const fn quorum(info: &KeyspaceInfo) -> &'static str {
    match info.spec.quorum {
        QuorumMode::Strict => "strict",
        QuorumMode::Sloppy => "sloppy",
    }
}

/// A quorum's size.
struct Quorum(u8);

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAJORITY { f.write_str("majority") } else { self.0.fmt(f) }
    }
}

/// A keyspace's name on the command line.
pub(super) fn name(text: &str) -> Result<KeyspaceName, String> {
    KeyspaceName::new(text).map_err(|error| error.to_string())
}

fn ttl(text: &str) -> Result<Ttl, String> {
    match text {
        "none" => Ok(Ttl(None)),
        seconds => match seconds.parse() {
            Ok(seconds @ 1..) => Ok(Ttl(Some(seconds))),
            Ok(0) | Err(_) => Err("a whole number of seconds, or `none`".into()),
        },
    }
}

/// What `Class` calls a majority.
const MAJORITY: u8 = 0;
