//! `shoal export`: every record of a keyspace, as NDJSON.
//!
//! Partition by partition, so both layouts work; within one by collection and key. Consistent per key, not a snapshot. Into a
//! file it is resumable: beside it, until it is complete, lies where to go on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use shoal_client::{Cursor, Keyspace, View};
use shoal_protocol::address::KeyspaceName;

use super::connect::Connect;
use super::failure::{Failure, INCOMPLETE};
use super::keyspace::name;
use super::output::{Output, note};
use super::session_file::replace;
use super::{progress, record};

/// Print every record of a keyspace as NDJSON.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The keyspace.
    #[arg(value_parser = name)]
    keyspace: KeyspaceName,
    /// Write to this file, and go on with it if an earlier export of the keyspace was interrupted.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replies to wait for [default: the keyspace's].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    r: Option<u8>,
}

/// Where an interrupted export goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    /// The keyspace's id: another one of the same name is another export.
    keyspace: String,
    cursor: String,
    /// Bytes of the file that are good.
    bytes: u64,
    records: u64,
    conflicts: u64,
    complete: bool,
}

pub(super) async fn run(args: Args, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let keyspace = client.keyspace(args.keyspace.as_str()).await?;
    let state = match &args.output {
        Some(path) => {
            let mut target = FileTarget::open(path, &keyspace)?;
            let state = copy(&args, &keyspace, target.state.clone(), &mut target).await?;
            target.finish()?;
            state
        }
        None => copy(&args, &keyspace, State::of(&keyspace), out).await?,
    };
    if args.output.is_some() && out.is_json() {
        out.document(&json!({ "records": state.records, "bytes": state.bytes, "complete": state.complete }))?;
    }
    out.flush()?;
    note(format_args!("exported {} records of {}", state.records, args.keyspace));
    if state.conflicts > 0 {
        note(format_args!("note: {} keys hold several types; each type is a line of its own", state.conflicts));
    }
    if state.complete { Ok(()) } else { Err(Failure::new(INCOMPLETE, "replicas were missing: records may be, too")) }
}

/// Where the lines go.
trait Target {
    fn line(&mut self, line: &str) -> Result<(), Failure>;
    /// Everything up to `state` was given.
    fn page(&mut self, state: &State) -> Result<(), Failure>;
}

async fn copy(args: &Args, keyspace: &Keyspace, mut state: State, target: &mut impl Target) -> Result<State, Failure> {
    let mut scan = keyspace.scan();
    if let Some(r) = args.r {
        scan = scan.r(r);
    }
    if !state.cursor.is_empty() {
        scan = scan.from_cursor(state.cursor.parse::<Cursor>()?);
    }
    let bar = progress::bytes(None);
    loop {
        let page = scan.page().await?;
        for row in page.rows {
            let view = row.view.unwrap_or(View::Absent);
            state.conflicts += u64::from(matches!(view, View::Conflict(_)));
            state.records += 1;
            for line in record::lines(&row.collection, &row.key, &view)? {
                target.line(&line)?;
                state.bytes += line.len() as u64 + 1;
            }
        }
        state.complete &= page.complete;
        bar.set_position(state.bytes);
        bar.set_message(format!("{} records", state.records));
        let Some(cursor) = page.cursor else { break };
        state.cursor = cursor.to_string();
        target.page(&state)?;
        scan = scan.from_cursor(cursor);
    }
    bar.finish_and_clear();
    Ok(state)
}

impl State {
    fn of(keyspace: &Keyspace) -> Self {
        let keyspace = keyspace.info().id.to_string();
        Self { keyspace, cursor: String::new(), bytes: 0, records: 0, conflicts: 0, complete: true }
    }
}

impl Target for Output {
    fn line(&mut self, line: &str) -> Result<(), Failure> {
        Self::line(self, line)
    }

    fn page(&mut self, _state: &State) -> Result<(), Failure> {
        self.flush()
    }
}

/// A file, and beside it the state.
struct FileTarget {
    path: PathBuf,
    file: BufWriter<File>,
    state: State,
    /// Bytes of the file when the state was last written.
    saved: u64,
}

impl FileTarget {
    /// The file as an interrupted export of the same keyspace left it, or an empty one.
    fn open(path: &Path, keyspace: &Keyspace) -> Result<Self, Failure> {
        let fail = |error: io::Error| Failure::file(path, &error);
        let state = std::fs::read(state_path(path)).ok().and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok());
        let state = state.filter(|state| state.keyspace == keyspace.info().id.to_string());
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        let state = state.filter(|state| state.bytes <= length).unwrap_or_else(|| State::of(keyspace));
        if state.records > 0 {
            note(format_args!("note: going on behind {} records", state.records));
        }
        file.set_len(state.bytes).map_err(fail)?;
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), saved: state.bytes, state })
    }

    fn finish(mut self) -> Result<(), Failure> {
        let fail = |error: io::Error| Failure::file(&self.path, &error);
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).map_err(fail)?;
        match std::fs::remove_file(state_path(&self.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Target for FileTarget {
    fn line(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| Failure::file(&self.path, &error))
    }

    fn page(&mut self, state: &State) -> Result<(), Failure> {
        if state.bytes < self.saved + SAVE_EVERY_BYTES {
            return Ok(());
        }
        self.saved = state.bytes;
        let saved = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        let bytes = serde_json::to_vec(state).map_err(io::Error::from)?;
        let saved = saved.and_then(|()| replace(&state_path(&self.path), &bytes));
        saved.map_err(|error| Failure::file(&self.path, &error))
    }
}

fn state_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".resume");
    path.with_file_name(name)
}

/// What an interruption costs at most, bytes.
const SAVE_EVERY_BYTES: u64 = 4 << 20;
