//! `shoal store`: looking into the data directory of a node that does not run.

use std::path::PathBuf;

use serde_json::json;
use shoal_protocol::object::DigestKey;

use super::failure::{DAMAGED, Failure};
use super::output::Output;
use super::progress;
use crate::host::StartError;
use crate::host::stopped::{
    DirectoryDisk, Inspection, LogMode, OpenError, SegmentInfo, SegmentState, StoppedStore, stored_digest_key,
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
    let disk = DirectoryDisk::open(data_dir).map_err(refused)?;
    let store = StoppedStore::open(&disk).map_err(refused)?;
    match command {
        Command::Inspect(_) => inspect(&store, &store.inspect().map_err(refused)?, out),
        Command::Verify(_) => verify(&store, out, refused),
    }
}

fn inspect(store: &StoppedStore<'_, DirectoryDisk>, inspection: &Inspection, out: &mut Output) -> Result<(), Failure> {
    let identity = &store.identity;
    let log_mode = match inspection.log_mode {
        LogMode::Direct => "direct",
        LogMode::Synced => "fdatasync",
    };
    if out.is_json() {
        let files = inspection.files.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes }));
        return out.document(&json!({
            "node": identity.node.to_string(),
            "cluster": identity.cluster.map(|cluster| cluster.to_string()),
            "format": identity.format,
            "incarnation": identity.leases.incarnation.to_string(),
            "files": files.collect::<Vec<_>>(),
            "log": {
                "mode": log_mode,
                "records": inspection.log_records_count,
                "segments": inspection.segments.iter().map(segment).collect::<Vec<_>>(),
            },
            "replay_from": inspection.at.replay_from.0,
            "partitions": inspection.partitions_count,
            "rows": inspection.rows_count,
            "digests": inspection.buckets_count,
        }));
    }
    out.line(format_args!("node         {}", identity.node))?;
    out.line(format_args!(
        "cluster      {}",
        identity.cluster.map_or("none yet".into(), |cluster| cluster.to_string())
    ))?;
    out.line(format_args!("format       {}", identity.format))?;
    out.line(format_args!("incarnation  {}", identity.leases.incarnation))?;
    out.line(format_args!("rows         {} in {} partitions", inspection.rows_count, inspection.partitions_count))?;
    out.line(format_args!("digests      {} buckets", inspection.buckets_count))?;
    out.line(format_args!(
        "log          {} records after lsn {}, written {log_mode}",
        inspection.log_records_count, inspection.at.replay_from.0
    ))?;
    let mut files = vec![vec!["FILE".to_owned(), "BYTES".to_owned(), "STATE".to_owned(), "LSNS".to_owned()]];
    for (name, bytes) in &inspection.files {
        let segment = inspection.segments.iter().find(|segment| segment.name == *name);
        let lsns = segment.and_then(|segment| segment.records).map(|(first, last)| format!("{}..{}", first.0, last.0));
        let state = segment.map_or("", |segment| state(segment.state));
        files.push(vec![name.clone(), bytes.to_string(), state.to_owned(), lsns.unwrap_or_default()]);
    }
    out.table(&files)
}

fn segment(segment: &SegmentInfo) -> serde_json::Value {
    json!({
        "name": segment.name,
        "bytes": segment.bytes,
        "epoch": segment.epoch,
        "state": state(segment.state),
        "lsns": segment.records.map(|(first, last)| [first.0, last.0]),
    })
}

/// Of a store that does not run: nothing is appended to, so what is not free is needed.
const fn state(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Free => "free",
        SegmentState::Full | SegmentState::Active => "needed",
    }
}

fn verify(
    store: &StoppedStore<'_, DirectoryDisk>,
    out: &mut Output,
    refused: impl Fn(OpenError) -> Failure,
) -> Result<(), Failure> {
    let digest_key: Option<DigestKey> = stored_digest_key(&store.blobs);
    let bar = progress::count();
    let found = store.verify(digest_key.as_ref(), &mut |_, partitions_count| {
        bar.set_length(partitions_count as u64);
        bar.inc(1);
    });
    bar.finish_and_clear();
    let found = found.map_err(refused)?;
    let first_damage = found.first_damage();
    let rows = &found.rows;
    let wrong = rows.digests_wrong.len() + rows.counts_wrong.len();
    if out.is_json() {
        out.document(&json!({
            "rows": rows.rows,
            "rows_bytes": rows.rows_bytes,
            "rows_damaged": rows.damaged_rows.len() as u64 + rows.nameless_count,
            "partitions": rows.partitions,
            "digests_compared": digest_key.is_some(),
            "digests_wrong": wrong,
            "feed_entries": rows.feed_entries,
            "feed_wrong": rows.feed_damaged + rows.feed_missing,
            "log_records": found.log_records_count,
            "log_damage": found.log_damage.len() as u64 + found.log_records_wrong,
            "first_damage": first_damage,
        }))?;
    } else {
        let damaged = rows.damaged_rows.len() as u64 + rows.nameless_count;
        out.line(format_args!("rows     {} ({} bytes), {damaged} damaged", rows.rows, rows.rows_bytes))?;
        let compared =
            if digest_key.is_some() { "" } else { "; rows not compared with theirs: no digest key is known" };
        out.line(format_args!("digests  of {} partitions, {wrong} wrong{compared}", rows.partitions))?;
        let feed_wrong = rows.feed_damaged + rows.feed_missing;
        out.line(format_args!("feed     {} entries, {feed_wrong} damaged or missing", rows.feed_entries))?;
        let log_wrong = found.log_damage.len() as u64 + found.log_records_wrong;
        out.line(format_args!("log      {} records, {log_wrong} places damaged", found.log_records_count))?;
    }
    match first_damage {
        None => Ok(()),
        Some(damage) => Err(Failure::new(DAMAGED, damage)
            .hint("a node that starts with this reports what it cannot read and gets it from the others")),
    }
}
