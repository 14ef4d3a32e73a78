//! Keys of any type: `get`, `put`, `del`, `scan`, `count`.
//!
//! In a keyspace of siblings `put` and `del` read first and say on standard error what they replace: exactly what was read
//! goes, and what others write meanwhile stays beside it. `--blind` does not read: a put adds a sibling.

use futures_util::StreamExt;
use shoal_client::{Client, Cursor, Scan, nested};
use shoal_protocol::address::{Address, decode_part, encode_part};
use shoal_protocol::client::Written;
use shoal_protocol::object::{Conflict, Operation, TypeTag, Value, View};

use super::connect::{Connect, address};
use super::failure::{Failure, INCOMPLETE};
use super::output::{Output, excerpt, note};
use super::record;
use super::target::{Target, print_written};
use super::value::{ValueArgs, plain_view};

/// Read a key of any type.
#[derive(Debug, clap::Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    target: Target,
    /// Replies to wait for [default: the keyspace's].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    r: Option<u8>,
}

/// Write a register.
#[derive(Debug, clap::Args)]
pub(super) struct PutArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) value: ValueArgs,
    /// Do not read first: in a keyspace of siblings the value stands beside what is there.
    #[arg(long)]
    pub(super) blind: bool,
    /// Acks to wait for [default: the keyspace's].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) w: Option<u8>,
    /// Let other nodes hold the write for replicas that cannot take it [default: as the keyspace says].
    #[arg(long)]
    pub(super) sloppy: bool,
}

/// Delete whatever a key holds.
#[derive(Debug, clap::Args)]
pub(super) struct DelArgs {
    /// KEYSPACE/COLLECTION/KEY or KEYSPACE/KEY
    #[arg(value_parser = address)]
    address: Address,
    /// Do not say what is deleted, and delete again what is not there.
    #[arg(long)]
    blind: bool,
    /// Acks to wait for [default: the keyspace's].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    w: Option<u8>,
    /// Let other nodes hold the write for replicas that cannot take it [default: as the keyspace says].
    #[arg(long)]
    sloppy: bool,
}

/// Print the rows of a collection, in the order of their keys, or of a whole keyspace, in no order.
#[derive(Debug, clap::Args)]
pub(super) struct ScanArgs {
    #[command(flatten)]
    rows: RowsArgs,
    /// At most so many rows.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// From the last key to the first.
    #[arg(long)]
    reverse: bool,
    /// Only the keys.
    #[arg(long)]
    keys: bool,
    /// Go on behind an earlier scan of the same rows, which had a --limit and named this cursor.
    #[arg(long)]
    cursor: Option<Cursor>,
}

/// Count the rows of a collection or keyspace.
#[derive(Debug, clap::Args)]
pub(super) struct CountArgs {
    #[command(flatten)]
    rows: RowsArgs,
}

#[derive(Debug, clap::Args)]
struct RowsArgs {
    /// KEYSPACE/COLLECTION or KEYSPACE
    #[arg(value_name = "KEYSPACE[/COLLECTION]", value_parser = scope)]
    scope: Scope,
    /// Only keys that begin with this (percent-encoded).
    #[arg(long)]
    prefix: Option<String>,
    /// Replies to wait for [default: the keyspace's].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    r: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    keyspace: String,
    collection: Option<Vec<u8>>,
}

pub(super) async fn get(args: GetArgs, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let mut key = connect.open().await?.key(&args.target.address).await?;
    if let Some(r) = args.r {
        key = key.r(r);
    }
    let snapshot = key.read().await?;
    if snapshot.is_weak() {
        note("note: fewer replies than the keyspace asks for; a newer value may exist");
    }
    args.target.print(&snapshot, out)
}

pub(super) async fn put(args: PutArgs, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let value = args.value.read()?;
    let written = connect.in_session(async |client| put_value(&client, &args, value).await).await?;
    print_written(&args.target.address, &written, out)
}

async fn put_value(client: &Client, args: &PutArgs, value: Value) -> Result<Written, Failure> {
    let target = &args.target;
    let mut key = client.key(&target.address).await?;
    if let Some(w) = args.w {
        key = key.w(w);
    }
    if args.sloppy {
        key = key.sloppy();
    }
    let operation = match (target.conflict(client).await?, args.blind) {
        (Conflict::Lww, _) => Operation::Put { value },
        (Conflict::Siblings, true) => Operation::AddSibling { value },
        (Conflict::Siblings, false) => {
            let snapshot = key.read().await?;
            let there = nested::only(target.views(&snapshot)?, TypeTag::Register)?;
            there.iter().for_each(|view| say_what_goes("replaces", view));
            return Ok(snapshot.operate(target.wrap(Operation::Replace { value })).await?);
        }
    };
    Ok(key.operate(target.wrap(operation)).await?)
}

pub(super) async fn del(args: DelArgs, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let deleted = connect.in_session(async |client| delete(&client, &args).await).await?;
    match deleted {
        Some(written) => print_written(&args.address, &written, out),
        None if out.is_json() => {
            out.document(&serde_json::json!({ "address": args.address.to_string(), "acks": null }))
        }
        None => Ok(()),
    }
}

async fn delete(client: &Client, args: &DelArgs) -> Result<Option<Written>, Failure> {
    let mut key = client.key(&args.address).await?;
    if let Some(w) = args.w {
        key = key.w(w);
    }
    if args.sloppy {
        key = key.sloppy();
    }
    let snapshot = key.read().await?;
    if !args.blind {
        if snapshot.is_absent() {
            note(format_args!("note: nothing at {}", args.address));
            return Ok(None);
        }
        say_what_goes("deletes", snapshot.view());
    }
    Ok(Some(snapshot.delete().await?))
}

pub(super) async fn scan(args: ScanArgs, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let mut scan = args.rows.scan(&client).await?;
    scan = if args.reverse { scan.reverse() } else { scan };
    scan = if args.keys { scan.keys_only() } else { scan };
    scan = args.limit.map_or(scan.clone(), |limit| scan.limit(limit));
    scan = args.cursor.map_or(scan.clone(), |cursor| scan.from_cursor(cursor));
    let whole_keyspace = args.rows.scope.collection.is_none();
    let mut rows = scan.rows();
    while let Some(row) = rows.next().await {
        let row = row?;
        if out.is_json() {
            let view = row.view.unwrap_or(View::Absent);
            record::lines(&row.collection, &row.key, &view)?.iter().try_for_each(|line| out.line(line))?;
            continue;
        }
        let mut name = encode_part(&row.key);
        if whole_keyspace && !row.collection.is_empty() {
            name = format!("{}/{name}", encode_part(&row.collection));
        }
        match row.view {
            Some(view) => out.line(format_args!("{name}\t{}", plain_view(&view).replace('\n', "\t")))?,
            None => out.line(name)?,
        }
    }
    if let (Some(cursor), Some(_)) = (rows.cursor(), args.limit) {
        note(format_args!("note: there may be more, behind --cursor {cursor}"));
    }
    complete(rows.is_complete(), out)
}

pub(super) async fn count(args: CountArgs, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let count = args.rows.scan(&client).await?.count().await?;
    if out.is_json() {
        out.document(&serde_json::json!({ "rows": count.rows, "complete": count.complete }))?;
    } else {
        out.line(count.rows)?;
    }
    complete(count.complete, out)
}

impl RowsArgs {
    async fn scan(&self, client: &Client) -> Result<Scan, Failure> {
        let keyspace = client.keyspace(&self.scope.keyspace).await?;
        let mut scan = match &self.scope.collection {
            Some(collection) => keyspace.collection(collection.clone())?.scan(),
            None => keyspace.scan(),
        };
        if let Some(prefix) = &self.prefix {
            scan = scan.prefix(decode_part(prefix));
        }
        Ok(match self.r {
            Some(r) => scan.r(r),
            None => scan,
        })
    }
}

fn say_what_goes(verb: &str, view: &View) {
    let shown = excerpt(&plain_view(view), EXCERPT_CHARS);
    match view {
        View::Absent => {}
        View::Register { values } if values.len() > 1 => {
            note(format_args!("note: {verb} {} siblings: {shown}", values.len()));
        }
        View::Conflict(views) => note(format_args!("note: {verb} {} live types: {shown}", views.len())),
        View::Register { .. } | View::Flag(_) | View::Set(_) | View::Counter(_) | View::Map(_) => {
            note(format_args!("note: {verb} {shown}"));
        }
    }
}

fn complete(complete: bool, out: &mut Output) -> Result<(), Failure> {
    out.flush()?;
    if complete { Ok(()) } else { Err(Failure::new(INCOMPLETE, "replicas were missing: there may be more rows")) }
}

fn scope(text: &str) -> Result<Scope, String> {
    let (keyspace, collection) = match text.split_once('/') {
        Some((keyspace, collection)) => (keyspace, Some(collection)),
        None => (text, None),
    };
    if collection.is_some_and(|collection| collection.is_empty() || collection.contains('/')) {
        return Err("KEYSPACE or KEYSPACE/COLLECTION".into());
    }
    let keyspace = super::keyspace::name(keyspace)?.to_string();
    let collection = collection.map(decode_part);
    Ok(Scope { keyspace, collection })
}

/// Of what is replaced, for a remark.
const EXCERPT_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_keyspace_or_a_collection() {
        assert_eq!(scope("app"), Ok(Scope { keyspace: "app".into(), collection: None }));
        let collection = Some(b"chat/42".to_vec());
        assert_eq!(scope("app/chat%2F42"), Ok(Scope { keyspace: "app".into(), collection }));
        for wrong in ["", "App", "app/", "app/a/b"] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }
}
