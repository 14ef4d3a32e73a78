//! `shoal import`: the records of an NDJSON file, into a keyspace.
//!
//! Shape: lines are parsed, gathered in chunks of at most `CHUNK_LINES` different keys, and `IN_FLIGHT` chunks are under way
//! at once; outcomes are taken in the order of the file. A line that is no record, or that the cluster refuses for what it
//! says, is reported with its number and the others go on; a cluster that does not answer ends the import after
//! `RETRY_FOR`, and the same command goes on from there.
//! Invariants: lines of one key are applied in their order; what was interrupted and is repeated, or is imported once more,
//! counts nothing twice (see `ledger`).

mod apply;
mod ledger;
mod lines;
mod plan;

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use indicatif::ProgressBar;
use serde_json::json;
use shoal_protocol::address::KeyspaceName;

use super::connect::Connect;
use super::failure::{CONFIG, Failure, IMPORT};
use super::keyspace::name;
use super::output::{Output, note};
use super::session_file::state_dir;
use super::{progress, record::Record};
use apply::{Applier, Line, Outcome};
use ledger::{Ledger, Progress};
use lines::{Hashing, Lines};

/// Write the records of an NDJSON file into a keyspace.
///
/// One record a line: {"collection", "key", "type", "values": [{"json" | "base64", "content_type", "expires_at"}]}; `value`
/// is a shorthand for one value; sets, counters, flags and maps have `value` in their natural form, as `shoal export`
/// prints them. What an interrupted import has not done yet is done when the same command is given again. Importing the
/// same file again writes its registers again, and counts nothing twice.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The keyspace.
    #[arg(value_parser = name)]
    keyspace: KeyspaceName,
    /// The file; `-` is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// The collection of records that name none.
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,
    /// Stop at the first line that cannot be imported. Some lines behind it may have been by then.
    #[arg(long)]
    strict: bool,
    /// Where to remember how far it came [default: by the content, beside the stored sessions]. A stream, such as standard
    /// input, is then imported as it comes; without, it is read to its end first.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// What an import has done.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    lines: u64,
    imported: u64,
    failed: u64,
}

pub(super) async fn run(args: Args, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let client = connect.open().await?;
    let keyspace = client.keyspace(args.keyspace.as_str()).await?;
    let scope = format!("{} {}", connect.url()?.ca, keyspace.info().id);
    let input = Input::open(&args, &scope)?;
    let ledger = Ledger::open(&input.ledger, &scope)?;
    let resumed = ledger.progress();
    let bar = progress::bytes(input.length);
    let mut lines = Lines::new(input.bytes);
    if let Some(progress) = resumed {
        lines.skip(&progress)?;
        note(format_args!("note: going on behind line {}; {} lines had failed before", progress.line, progress.failed));
    }
    let applier = Applier::new(connect, client, keyspace, ledger);
    let import = Import { args: &args, applier: &applier, bar: &bar };
    let done = import.run(lines, resumed).await;
    bar.finish_and_clear();
    report(&args, &done?, out)
}

fn report(args: &Args, tally: &Tally, out: &mut Output) -> Result<(), Failure> {
    let Tally { lines, imported, failed } = *tally;
    if out.is_json() {
        out.document(&json!({ "lines": lines, "imported": imported, "failed": failed }))?;
    } else {
        note(format_args!("imported {imported} records into {}", args.keyspace));
    }
    if failed == 0 { Ok(()) } else { Err(Failure::new(IMPORT, format!("{failed} of {lines} lines were not imported"))) }
}

/// One import under way.
struct Import<'a> {
    args: &'a Args,
    applier: &'a Applier<'a>,
    bar: &'a ProgressBar,
}

impl Import<'_> {
    async fn run<R: Read>(&self, mut lines: Lines<R>, resumed: Option<Progress>) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        if let Some(progress) = resumed {
            tally = Tally { lines: progress.line, imported: progress.imported, failed: progress.failed };
        }
        let mut flight = FuturesOrdered::new();
        let mut keys_in_flight = VecDeque::new();
        loop {
            let chunk = self.chunk(&mut lines)?;
            let is_last = chunk.lines.is_empty() && chunk.bad.is_empty();
            let waits = |keys_in_flight: &VecDeque<BTreeSet<_>>| {
                let must_be_empty = is_last || keys_in_flight.iter().any(|keys| !keys.is_disjoint(&chunk.keys));
                keys_in_flight.len() >= if must_be_empty { 1 } else { IN_FLIGHT }
            };
            while waits(&keys_in_flight)
                && let Some(outcomes) = flight.next().await
            {
                keys_in_flight.pop_front();
                self.settle(outcomes, &mut tally)?;
            }
            if is_last {
                break;
            }
            keys_in_flight.push_back(chunk.keys.clone());
            flight.push_back(self.applier.apply(chunk));
        }
        self.applier.ledger().finish()?;
        Ok(tally)
    }

    /// The next lines, each with a key of its own.
    fn chunk<R: Read>(&self, lines: &mut Lines<R>) -> Result<Chunk, Failure> {
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        while chunk.lines.len() + chunk.bad.len() < CHUNK_LINES && bytes < CHUNK_BYTES {
            let Some(line) = lines.next()? else { break };
            bytes += line.text.as_ref().map_or(0, String::len);
            let record = line.text.and_then(|text| Ok((Record::parse(&text)?, hash(&text))));
            match record {
                Ok((mut record, hash)) => {
                    if record.collection.is_none() {
                        record.collection = self.args.collection.as_ref().map(|name| Bytes::from(name.clone()));
                    }
                    let key = (record.collection.clone().unwrap_or_default(), record.key.clone());
                    if !chunk.keys.insert(key) {
                        lines.put_back();
                        break;
                    }
                    chunk.lines.push(Line { number: line.number, hash, record });
                }
                Err(reason) => chunk.bad.push((line.number, reason)),
            }
            chunk.end = lines.progress();
        }
        Ok(chunk)
    }

    /// Takes note of how the lines of a chunk have ended.
    fn settle(&self, outcomes: Result<(Progress, Vec<Outcome>), Failure>, tally: &mut Tally) -> Result<(), Failure> {
        let (mut progress, outcomes) = outcomes
            .map_err(|failure| failure.hint("nothing is lost: the same command goes on where this one has stopped"))?;
        for (line, outcome) in outcomes {
            match outcome {
                Ok(()) => tally.imported += 1,
                Err(reason) => {
                    tally.failed += 1;
                    self.bar.suspend(|| note(format_args!("line {line}: {reason}")));
                    if self.args.strict {
                        return Err(Failure::new(IMPORT, format!("line {line} was not imported")));
                    }
                }
            }
        }
        tally.lines = progress.line;
        progress.imported = tally.imported;
        progress.failed = tally.failed;
        self.bar.set_position(progress.offset);
        self.applier.ledger().advance(&progress)
    }
}

/// Lines to be applied together.
#[derive(Default)]
struct Chunk {
    lines: Vec<Line>,
    keys: BTreeSet<(Bytes, Bytes)>,
    /// Lines that are no records, and why.
    bad: Vec<(u64, String)>,
    /// The place behind its last line.
    end: Progress,
}

/// What is imported, and where its import is remembered.
struct Input {
    bytes: Box<dyn Read>,
    length: Option<u64>,
    ledger: PathBuf,
}

impl Input {
    /// A file as it is. A stream is read to its end first, because only then its content is known, by which its import is
    /// remembered; with a place to remember named, it is taken as it comes.
    fn open(args: &Args, scope: &str) -> Result<Self, Failure> {
        let is_stdin = args.file == Path::new("-");
        let mut file = None;
        let mut stream: Box<dyn Read> = if is_stdin {
            Box::new(io::stdin())
        } else {
            let opened = File::open(&args.file).map_err(|error| Failure::file(&args.file, &error))?;
            if opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
                file = Some(opened.try_clone()?);
            }
            Box::new(opened)
        };
        if let Some(ledger) = args.resume.clone() {
            let length = file.and_then(|file| Some(file.metadata().ok()?.len()));
            return Ok(Self { bytes: stream, length, ledger });
        }
        let imports = state_dir()?.join("imports");
        std::fs::create_dir_all(&imports).map_err(|error| Failure::file(&imports, &error))?;
        let mut file = match file {
            Some(file) => file,
            None => kept(&mut stream, &imports)?,
        };
        let ledger = imports.join(fingerprint(args, scope, &mut file)?);
        let length = Some(file.metadata()?.len());
        Ok(Self { bytes: Box::new(file), length, ledger })
    }
}

/// A stream's content in a file that nobody else sees and that is gone with this process.
fn kept(stream: &mut impl Read, directory: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::file(directory, &error);
    let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
    let bar = progress::bytes(None);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        file.write_all(&buffer[..read]).map_err(failed)?;
        bar.inc(read as u64);
    }
    bar.finish_and_clear();
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// What names the import of this content into this place.
fn fingerprint(args: &Args, scope: &str, file: &mut File) -> Result<String, Failure> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(scope.as_bytes());
    hasher.update(args.collection.as_deref().unwrap_or_default().as_bytes());
    io::copy(file, &mut Hashing(&mut hasher))
        .and_then(|_| file.rewind())
        .map_err(|error| Failure::file(&args.file, &error))?;
    Ok(hasher.finalize().to_hex().chars().take(NAME_DIGITS).collect())
}

fn hash(text: &str) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    hash
}

/// The state of an import does not fit what is imported now.
fn another(path: &Path) -> Failure {
    Failure::new(CONFIG, format!("{} remembers the import of something else", path.display()))
        .hint("name another file with --resume, or remove this one")
}

/// Lines of one request: enough to share its cost, few enough to be answered within milliseconds.
const CHUNK_LINES: usize = 100;
/// Bytes after which a chunk is closed; with the longest line it still fits a frame of 16 MiB.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks under way.
const IN_FLIGHT: usize = 4;
/// How long a cluster may fail to answer.
const RETRY_FOR: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 1 << 20;
const NAME_DIGITS: usize = 32;
