//! `shoal store`: looking into the data directory of a node that does not run: into each of its stores, the home store first.

use std::path::PathBuf;

use serde_json::{Value, json};
use shoal_protocol::object::DigestKey;

use super::failure::{DAMAGED, Failure};
use super::output::Output;
use super::progress;
use crate::host::StartError;
use crate::host::stopped::{
    CellPlace, DirectoryDisk, Identity, Inspection, LogMode, OpenError, SegmentInfo, SegmentState, StoppedStore,
    Verification, directory, directory_name, stored_digest_key,
};

/// Look into the data directory of a node that does not run.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print sizes, the log's segments, and how many rows and digests there are.
    Inspect(Args),
    /// Read everything and check it; fail with the first damage.
    Verify(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory.
    data_dir: PathBuf,
}

pub(super) fn run(command: Command, out: &mut Output) -> Result<(), Failure> {
    let (Command::Inspect(Args { data_dir }) | Command::Verify(Args { data_dir })) = &command;
    let refused = |error| Failure::from(StartError::Store { path: data_dir.clone(), error });
    if !data_dir.is_dir() {
        return Err(Failure::file(data_dir, &std::io::ErrorKind::NotFound.into()));
    }
    let home = DirectoryDisk::open(data_dir).map_err(refused)?;
    let disks = disks(&home).map_err(refused)?;
    match command {
        Command::Inspect(_) => inspect(&disks, out, refused),
        Command::Verify(_) => verify(&disks, out, refused),
    }
}

/// The directory of each store; of one beside the home store, if that is what was named, only its own.
fn disks(home: &DirectoryDisk) -> Result<Vec<DirectoryDisk>, OpenError> {
    let CellPlace { cell, count } = StoppedStore::open(home)?.identity.place;
    if !cell.is_home() {
        return Ok(vec![home.clone()]);
    }
    let disk = |place: CellPlace| if place.cell.is_home() { Ok(home.clone()) } else { directory(home, place.cell) };
    CellPlace::all(count).map(disk).collect()
}

fn inspect(disks: &[DirectoryDisk], out: &mut Output, refused: impl Fn(OpenError) -> Failure) -> Result<(), Failure> {
    let mut stores = Vec::new();
    for disk in disks {
        let store = StoppedStore::open(disk).map_err(&refused)?;
        stores.push((store.identity, store.inspect().map_err(&refused)?));
    }
    let Some((home, _)) = stores.first() else { return Ok(()) };
    let cluster = home.cluster.map(|cluster| cluster.to_string());
    if out.is_json() {
        return out.document(&json!({
            "node": home.node.to_string(),
            "cluster": cluster,
            "format": home.format,
            "stores": stores.iter().map(|(identity, inspection)| document(identity, inspection)).collect::<Vec<_>>(),
        }));
    }
    out.line(format_args!("node         {}", home.node))?;
    out.line(format_args!("cluster      {}", cluster.as_deref().unwrap_or("none yet")))?;
    out.line(format_args!("format       {}", home.format))?;
    stores.iter().try_for_each(|(identity, inspection)| print(identity, inspection, out))
}

fn document(identity: &Identity, inspection: &Inspection) -> Value {
    let files = inspection.files.iter().map(|(name, bytes)| json!({ "name": path(identity, name), "bytes": bytes }));
    json!({
        "incarnation": identity.leases.incarnation.to_string(),
        "files": files.collect::<Vec<_>>(),
        "log": {
            "mode": log_mode(inspection.log_mode),
            "records": inspection.log_records_count,
            "segments": inspection.segments.iter().map(|info| segment(identity, info)).collect::<Vec<_>>(),
        },
        "replay_from": inspection.at.replay_from.0,
        "partitions": inspection.partitions_count,
        "rows": inspection.rows_count,
        "hints": inspection.hints_count,
        "digests": inspection.buckets_count,
    })
}

fn print(identity: &Identity, inspection: &Inspection, out: &mut Output) -> Result<(), Failure> {
    out.line(format_args!("store        {}", identity.place))?;
    out.line(format_args!("incarnation  {}", identity.leases.incarnation))?;
    out.line(format_args!("hints        {}", inspection.hints_count))?;
    out.line(format_args!("rows         {} in {} partitions", inspection.rows_count, inspection.partitions_count))?;
    out.line(format_args!("digests      {} buckets", inspection.buckets_count))?;
    let (records, after, mode) =
        (inspection.log_records_count, inspection.at.replay_from.0, log_mode(inspection.log_mode));
    out.line(format_args!("log          {records} records after lsn {after}, written {mode}"))?;
    let mut files = vec![vec!["FILE".to_owned(), "BYTES".to_owned(), "STATE".to_owned(), "LSNS".to_owned()]];
    for (name, bytes) in &inspection.files {
        let segment = inspection.segments.iter().find(|segment| segment.name == *name);
        let lsns = segment.and_then(|segment| segment.records).map(|(first, last)| format!("{}..{}", first.0, last.0));
        let state = segment.map_or("", |segment| state(segment.state));
        files.push(vec![path(identity, name), bytes.to_string(), state.to_owned(), lsns.unwrap_or_default()]);
    }
    out.table(&files)
}

fn segment(identity: &Identity, segment: &SegmentInfo) -> Value {
    json!({
        "name": path(identity, &segment.name),
        "bytes": segment.bytes,
        "epoch": segment.epoch,
        "state": state(segment.state),
        "lsns": segment.records.map(|(first, last)| [first.0, last.0]),
    })
}

/// A file's path in the data directory.
fn path(identity: &Identity, name: &str) -> String {
    let cell = identity.place.cell;
    if cell.is_home() { name.to_owned() } else { format!("{}/{name}", directory_name(cell)) }
}

const fn log_mode(mode: LogMode) -> &'static str {
    match mode {
        LogMode::Direct => "direct",
        LogMode::Synced => "fdatasync",
    }
}

/// Of a store that does not run: nothing is appended to, so what is not free is needed.
const fn state(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Free => "free",
        SegmentState::Full | SegmentState::Active => "needed",
    }
}

/// Every store is checked with the digest key that the home store keeps.
fn verify(disks: &[DirectoryDisk], out: &mut Output, refused: impl Fn(OpenError) -> Failure) -> Result<(), Failure> {
    let mut digest_key: Option<DigestKey> = None;
    let mut found = Vec::new();
    for disk in disks {
        let store = StoppedStore::open(disk).map_err(&refused)?;
        if store.identity.place.cell.is_home() {
            digest_key = stored_digest_key(&store.blobs);
        }
        let bar = progress::count();
        let verified = store.verify(digest_key.as_ref(), &mut |_, partitions_count| {
            bar.set_length(partitions_count as u64);
            bar.inc(1);
        });
        bar.finish_and_clear();
        found.push((store.identity, verified.map_err(&refused)?));
    }
    let first_damage = found.iter().find_map(|(identity, found)| first_damage(identity, found));
    if out.is_json() {
        out.document(&json!({
            "digests_compared": digest_key.is_some(),
            "stores": found.iter().map(|(_, found)| verdict(found)).collect::<Vec<_>>(),
            "first_damage": first_damage,
        }))?;
    } else {
        for (identity, found) in &found {
            print_verdict(identity, found, digest_key.is_some(), out)?;
        }
    }
    match first_damage {
        None => Ok(()),
        Some(damage) => Err(Failure::new(DAMAGED, damage)
            .hint("a node that starts with this reports what it cannot read and gets it from the others")),
    }
}

fn first_damage(identity: &Identity, found: &Verification) -> Option<String> {
    let damage = found.first_damage()?;
    let place = identity.place;
    Some(if place.count == 1 { damage } else { format!("store {place}: {damage}") })
}

fn verdict(found: &Verification) -> Value {
    let rows = &found.rows;
    json!({
        "rows": rows.rows,
        "rows_bytes": rows.rows_bytes,
        "rows_damaged": rows.damaged_rows.len() as u64 + rows.nameless_count,
        "partitions": rows.partitions,
        "digests_wrong": rows.digests_wrong.len() + rows.counts_wrong.len(),
        "feed_entries": rows.feed_entries,
        "feed_wrong": rows.feed_damaged + rows.feed_missing,
        "log_records": found.log_records_count,
        "log_damage": found.log_damage.len() as u64 + found.log_records_wrong,
    })
}

fn print_verdict(
    identity: &Identity,
    found: &Verification,
    is_compared: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let rows = &found.rows;
    let damaged = rows.damaged_rows.len() as u64 + rows.nameless_count;
    out.line(format_args!("store    {}", identity.place))?;
    out.line(format_args!("rows     {} ({} bytes), {damaged} damaged", rows.rows, rows.rows_bytes))?;
    let wrong = rows.digests_wrong.len() + rows.counts_wrong.len();
    let compared = if is_compared { "" } else { "; rows not compared with theirs: no digest key is known" };
    out.line(format_args!("digests  of {} partitions, {wrong} wrong{compared}", rows.partitions))?;
    let feed_wrong = rows.feed_damaged + rows.feed_missing;
    out.line(format_args!("feed     {} entries, {feed_wrong} damaged or missing", rows.feed_entries))?;
    let log_wrong = found.log_damage.len() as u64 + found.log_records_wrong;
    out.line(format_args!("log      {} records, {log_wrong} places damaged", found.log_records_count))
}
