//! A chunk of lines, applied: keys are read in one request, written in the next, counters sent one by one.
//!
//! What may succeed later is tried again, from the reading on: what has been done meanwhile then shows, and is not done
//! twice. Counter operations are repeated as they were bound.

use std::cell::{RefCell, RefMut};
use std::time::Duration;

use futures_util::future::join_all;
use shoal_client::session::{BindError, Intent, Observed, Session, Verdict};
use shoal_client::{Batch, BatchAnswer, BoundOperation, Client, Error, Key, Keyspace, Snapshot, StoredSession};
use shoal_protocol::address::Place;
use shoal_protocol::client::SessionGrant;
use shoal_protocol::object::{Operation, View};
use shoal_protocol::time::{Instant, Now};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::ledger::{CountId, Counted, Ledger, Progress};
use super::plan::{Step, is_blind, steps};
use super::{Chunk, RETRY_FOR};
use crate::cli::connect::Connect;
use crate::cli::failure::Failure;
use crate::cli::record::Record;
use crate::cli::value::wall;

/// A line that is a record.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) hash: [u8; 16],
    pub(super) record: Record,
}

/// How a line has ended: its number, and why it was not imported.
pub(super) type Outcome = (u64, Result<(), String>);

/// Applies chunks; several at once.
pub(super) struct Applier<'a> {
    connect: &'a Connect,
    client: Client,
    keyspace: Keyspace,
    ledger: RefCell<Ledger>,
    /// Binds counter operations; no other session has to do with them.
    counting: RefCell<Option<Session>>,
    /// Held by whoever takes another one.
    renewing: Mutex<()>,
}

/// A line that is not yet done, and its key.
struct Open {
    line: Line,
    key: Key,
    place: Place,
}

/// How an attempt at a line went.
enum Tried {
    Done,
    /// The line itself is at fault.
    Bad(String),
    /// It may succeed later.
    Again(Error),
}

impl<'a> Applier<'a> {
    pub(super) fn new(connect: &'a Connect, client: Client, keyspace: Keyspace, ledger: Ledger) -> Self {
        Self {
            connect,
            client,
            keyspace,
            ledger: RefCell::new(ledger),
            counting: RefCell::new(None),
            renewing: Mutex::default(),
        }
    }

    /// For a moment: never held across an await.
    pub(super) fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    /// Applies every line of a chunk that can be applied.
    ///
    /// # Errors
    /// The cluster did not answer for `RETRY_FOR`, or something is wrong that other lines would meet as well.
    pub(super) async fn apply(&self, chunk: Chunk) -> Result<(Progress, Vec<Outcome>), Failure> {
        let mut outcomes: Vec<Outcome> = chunk.bad.into_iter().map(|(number, why)| (number, Err(why))).collect();
        let mut open = Vec::new();
        for line in chunk.lines {
            match self.key(&line.record) {
                Ok((key, place)) => open.push(Open { line, key, place }),
                Err(error) => outcomes.push((line.number, Err(coded(&error)))),
            }
        }
        let mut waited = Duration::ZERO;
        let mut pause = PAUSE_FIRST;
        loop {
            let tried = self.attempt(&open).await?;
            let mut left = Vec::new();
            let mut reason = None;
            for (open, tried) in open.into_iter().zip(tried) {
                match tried {
                    Tried::Done => outcomes.push((open.line.number, Ok(()))),
                    Tried::Bad(why) => outcomes.push((open.line.number, Err(why))),
                    Tried::Again(error) => {
                        reason = Some(error);
                        left.push(open);
                    }
                }
            }
            open = left;
            match reason {
                None => break,
                Some(error) if waited >= RETRY_FOR => return Err(error.into()),
                Some(_) => {}
            }
            sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
        outcomes.sort_by_key(|(number, _)| *number);
        Ok((chunk.end, outcomes))
    }

    fn key(&self, record: &Record) -> Result<(Key, Place), Error> {
        let key = match &record.collection {
            Some(collection) => self.keyspace.collection(collection.clone())?.key(record.key.clone())?,
            None => self.keyspace.key(record.key.clone())?,
        };
        let place = key.address().place(self.keyspace.info().id);
        Ok((key, place))
    }

    /// One attempt at every line, in their order.
    async fn attempt(&self, lines: &[Open]) -> Result<Vec<Tried>, Failure> {
        let conflict = self.keyspace.info().spec.conflict;
        let mut tried: Vec<Option<Tried>> = lines.iter().map(|_| None).collect();
        let snapshots = self.read(lines, &mut tried).await?;
        let mut batch = self.client.batch();
        let (mut batched, mut counts) = (Vec::new(), Vec::new());
        for (at, open) in lines.iter().enumerate().filter(|(at, _)| tried[*at].is_none()).collect::<Vec<_>>() {
            let snapshot = snapshots[at].as_ref();
            match steps(&open.line.record.view, snapshot.map_or(&View::Absent, Snapshot::view), conflict) {
                Err(why) => tried[at] = Some(Tried::Bad(why)),
                Ok(steps) => {
                    let mut index = 0;
                    for step in steps {
                        match step {
                            Step::Operate(operation) => {
                                add(&mut batch, &open.key, snapshot, operation);
                                batched.push(at);
                            }
                            Step::Count(operation) => {
                                let CountId { line, hash, .. } = open.count_id(index);
                                counts.push((at, CountId { line, hash, index }, operation));
                                index += 1;
                            }
                        }
                    }
                }
            }
        }
        for (at, answer) in batched.into_iter().zip(send(batch).await?) {
            note_error(&mut tried[at], answer.err())?;
        }
        self.count(lines, counts, &mut tried).await?;
        Ok(tried.into_iter().map(|tried| tried.unwrap_or(Tried::Done)).collect())
    }

    /// Reads the keys that must be read.
    async fn read(&self, lines: &[Open], tried: &mut [Option<Tried>]) -> Result<Vec<Option<Snapshot>>, Failure> {
        let conflict = self.keyspace.info().spec.conflict;
        let mut snapshots: Vec<Option<Snapshot>> = lines.iter().map(|_| None).collect();
        let to_read = lines.iter().enumerate().filter(|(_, open)| !is_blind(&open.line.record.view, conflict));
        let to_read: Vec<usize> = to_read.map(|(at, _)| at).collect();
        let mut batch = self.client.batch();
        to_read.iter().for_each(|at| batch.read(&lines[*at].key));
        for (at, answer) in to_read.into_iter().zip(send(batch).await?) {
            match answer {
                Ok(BatchAnswer::Read(snapshot)) => snapshots[at] = Some(*snapshot),
                Ok(BatchAnswer::Written(_)) => {
                    note_error(
                        &mut tried[at],
                        Some(Error::Protocol { reason: "a write where a read was asked".into() }),
                    )?;
                }
                Err(error) => note_error(&mut tried[at], Some(error))?,
            }
        }
        Ok(snapshots)
    }

    /// Sends counter operations. Those of one line follow each other, since each needs the verdict of the one before.
    async fn count(
        &self,
        lines: &[Open],
        counts: Vec<(usize, CountId, Operation)>,
        tried: &mut [Option<Tried>],
    ) -> Result<(), Failure> {
        let rounds = counts.iter().map(|(_, id, _)| id.index + 1).max().unwrap_or(0);
        for round in 0..rounds {
            let of_round = counts.iter().filter(|(at, id, _)| id.index == round && tried[*at].is_none());
            let mut sending = Vec::new();
            let mut fresh = Vec::new();
            for (at, id, operation) in of_round.collect::<Vec<_>>() {
                let known = self.ledger().counted(id).cloned();
                match known {
                    Some(Counted::Done) => {}
                    Some(Counted::Bound(bound)) => sending.push((*at, *id, *bound)),
                    None => match self.bind(&lines[*at].place, operation).await? {
                        Ok(bound) => {
                            fresh.push((*id, bound.clone()));
                            sending.push((*at, *id, bound));
                        }
                        Err(why) => tried[*at] = Some(Tried::Bad(why)),
                    },
                }
            }
            self.ledger().bind(fresh)?;
            let answers = join_all(sending.iter().map(|(_, _, bound)| self.client.repeat(bound))).await;
            let mut done = Vec::new();
            for ((at, id, bound), answer) in sending.into_iter().zip(answers) {
                let verdict = if answer.is_ok() { Verdict::Applied } else { Verdict::Unknown };
                if let Some(session) =
                    self.counting.borrow_mut().as_mut().filter(|session| session.grant() == bound.grant)
                {
                    session.verdict(bound.dot, verdict);
                }
                match answer {
                    Ok(_) => done.push(id),
                    Err(error) => note_error(&mut tried[at], Some(error))?,
                }
            }
            self.ledger().done(&done)?;
        }
        Ok(())
    }

    /// Fixes a counter operation, in the session that all of them have. The inner error is the line's fault.
    async fn bind(&self, place: &Place, operation: &Operation) -> Result<Result<BoundOperation, String>, Failure> {
        let now = Now { instant: Instant::default(), wall: wall() };
        let (spec, observed) = (&self.keyspace.info().spec, &Observed::default());
        for _ in 0..SESSIONS_TRIED {
            let mut over = None;
            if let Some(session) = self.counting.borrow_mut().as_mut() {
                let intent = Intent { place, spec, operation, observed, w: None, quorum: None };
                match session.bind(now, &intent) {
                    Ok(bound) => return Ok(Ok(bound)),
                    // Past its last day, or without room for another total.
                    Err(BindError::SessionOver) => over = Some(session.grant()),
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
            self.renew(over).await?;
        }
        Ok(Err("no session to count with".into()))
    }

    /// Takes another session to count with, unless another chunk has just done so: of two that replace each other, the
    /// first would never learn of its operations' verdicts.
    async fn renew(&self, over: Option<SessionGrant>) -> Result<(), Failure> {
        let _renewing = self.renewing.lock().await;
        if self.counting.borrow().as_ref().map(Session::grant) != over {
            return Ok(());
        }
        let stored = self.connect.open().await?.suspend();
        *self.counting.borrow_mut() = stored.map(StoredSession::resume);
        Ok(())
    }
}

impl Open {
    fn count_id(&self, index: u32) -> CountId {
        CountId { line: self.line.number, hash: self.line.hash, index }
    }
}

fn add(batch: &mut Batch, key: &Key, snapshot: Option<&Snapshot>, operation: Operation) {
    match snapshot {
        Some(snapshot) => batch.operate_on(key, snapshot, operation),
        None => batch.operate(key, operation),
    }
}

/// The answers to a batch; an empty one needs none.
async fn send(batch: Batch) -> Result<Vec<Result<BatchAnswer, Error>>, Failure> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let count = batch.len();
    match batch.send().await {
        Ok(answers) => Ok(answers),
        Err(error) if may_pass(&error) => Ok(vec![Err(error); count]),
        Err(error) => Err(error.into()),
    }
}

/// Takes note of what a line met: its own fault is the end of it, a passing one is tried again, any other ends the import.
fn note_error(tried: &mut Option<Tried>, error: Option<Error>) -> Result<(), Failure> {
    let Some(error) = error else { return Ok(()) };
    if is_the_lines(&error) {
        *tried = Some(Tried::Bad(coded(&error)));
    } else if may_pass(&error) {
        if !matches!(tried, Some(Tried::Bad(_))) {
            *tried = Some(Tried::Again(error));
        }
    } else {
        return Err(error.into());
    }
    Ok(())
}

fn coded(error: &Error) -> String {
    format!("error[{}]: {error}", error.code())
}

/// Whether the line is to blame, and other lines may well succeed.
fn is_the_lines(error: &Error) -> bool {
    ["wrong_type", "type_conflict", "limit", "value", "bad_request", "config", "context_lost"].contains(&error.code())
}

/// Whether the same may succeed a little later.
fn may_pass(error: &Error) -> bool {
    ["unavailable", "overloaded", "not_serving", "timeout", "connect", "unknown", "stale"].contains(&error.code())
}

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// A session that ends between its grant and its first use is replaced once.
const SESSIONS_TRIED: u32 = 3;
