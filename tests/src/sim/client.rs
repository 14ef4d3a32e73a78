//! A client: the real session and the real decisions about retries, over the simulated network.
//!
//! Shape: up to `RUNNING_MAX` operations at once, each carried through its attempts by `Attempts`. What ends unknown is kept
//! and repeated later with the same bytes, through other nodes, with other writes between. A counter operation that must
//! wait for an earlier verdict is kept as an intent.

mod begin;
mod page;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_client::retry::{Attempts, End, Repeat, RetryBudget, Step};
use shoal_client::session::{self, BindError, BoundOperation, Observed, Session};
use shoal_protocol::causality::{Context, EncodedContext};
use shoal_protocol::client::{ClientCall, ClientRequest, Get, Operate, Scan};
use shoal_protocol::id::Actor;
use shoal_protocol::object::{Object, Operation, View};
use shoal_protocol::time::Now;

use self::page::Floors;
use self::verdict::judge;
use super::history::{Fate, History, Write};
use super::mutant::Mutant;
use super::world::{ClientAsk, Outcome, Wake, World, client_clock};

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    index: usize,
    skew_ms: i64,
    sessions: BTreeMap<Actor, Session>,
    current: Option<Actor>,
    budget: RetryBudget,
    running: BTreeMap<u64, Running>,
    /// Attempt -> operation.
    attempts: BTreeMap<u64, u64>,
    next: u64,
    /// What was last read of each key.
    memory: BTreeMap<usize, Memory>,
    unknown: Vec<BoundWrite>,
    intents: Vec<Intent>,
    /// Operations still to begin.
    left: usize,
}

/// What a client remembers of a key.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) object: Object,
    pub(super) context: EncodedContext,
    pub(super) view: View,
}

/// A bound operation and its record.
#[derive(Clone, Debug)]
pub(super) struct BoundWrite {
    key: usize,
    write: usize,
    bound: BoundOperation,
}

/// An operation that is not bound yet.
#[derive(Clone, Debug)]
struct Intent {
    key: usize,
    operation: Operation,
    observed: Observed,
    w: Option<u8>,
}

/// An operation on its way.
#[derive(Debug)]
struct Running {
    task: Task,
    request: ClientRequest,
    session: Actor,
    attempts: Attempts,
    deadline: shoal_protocol::time::Instant,
    turn: usize,
    /// Attempts without an answer, and whether they have left this client.
    open: BTreeMap<u64, bool>,
}

/// What an operation is.
#[derive(Debug)]
pub(super) enum Task {
    Read { key: usize, get: Get, floor: Context, then: Option<(Operation, Option<u8>)> },
    Write(Box<BoundWrite>),
    Operate { key: usize, write: usize, operate: Box<Operate> },
    Scan { scan: Scan, floors: Floors },
    Batch(Vec<Task>),
}

impl Client {
    /// A client without a session that will begin so many operations.
    #[must_use]
    pub(super) fn new(index: usize, skew_ms: i64, left: usize) -> Self {
        Self {
            index,
            skew_ms,
            sessions: BTreeMap::new(),
            current: None,
            budget: RetryBudget::default(),
            running: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next: 0,
            memory: BTreeMap::new(),
            unknown: Vec::new(),
            intents: Vec::new(),
            left,
        }
    }

    /// Whether everything it meant to do has ended, somehow.
    #[must_use]
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.running.is_empty() && self.intents.is_empty()
    }

    /// Whether operations without a verdict are left.
    #[must_use]
    pub(super) fn has_unknown(&self) -> bool {
        !self.unknown.is_empty() || !self.running.is_empty()
    }

    /// Begins nothing new any more.
    pub(super) fn stop(&mut self) {
        self.left = 0;
        self.intents.clear();
    }

    /// It is this client's turn to begin something.
    pub(super) fn woken(&mut self, world: &mut World, history: &mut History) {
        if self.left == 0 && self.intents.is_empty() {
            return;
        }
        let after = if self.current.is_none() {
            let node = world.dice.index(world.nodes());
            let attempt = self.fresh();
            world.ask(self.index, node, attempt, ClientAsk::Hello);
            world.dice.millis((50, 400))
        } else {
            if self.running.len() < RUNNING_MAX {
                self.begin_something(world, history);
            }
            world.dice.millis((1, 120))
        };
        world.wake(after, Wake::Client(self.index));
    }

    /// Repeats everything whose outcome is unknown.
    pub(super) fn repeat_all(&mut self, world: &mut World, history: &mut History) {
        for write in std::mem::take(&mut self.unknown) {
            self.repeat(world, history, write);
        }
    }

    /// An attempt ended.
    pub(super) fn answered(&mut self, world: &mut World, history: &mut History, (attempt, outcome): (u64, Outcome)) {
        let end = match outcome {
            Outcome::Welcome(welcome) => {
                self.sessions.insert(welcome.session.actor, Session::new(welcome.session));
                self.current = Some(welcome.session.actor);
                return;
            }
            Outcome::Answer(Ok(response)) => {
                if let Some(running) = self.attempts.remove(&attempt).and_then(|op| self.running.remove(&op)) {
                    self.complete(world, history, (running.task, response));
                }
                return;
            }
            Outcome::Answer(Err(error)) => {
                world.count(error.code());
                judge(world, &error);
                End::Answered(error)
            }
            Outcome::NotSent => End::NotSent,
            Outcome::Lost => End::Lost,
        };
        let Some(op) = self.attempts.remove(&attempt) else { return };
        if let Some(running) = self.running.get_mut(&op) {
            running.open.remove(&attempt);
            running.attempts.ended(world.now, end, world.dice.generator());
            self.drive(world, history, op);
        }
    }

    /// Does what an operation's attempts want done next.
    pub(super) fn drive(&mut self, world: &mut World, history: &mut History, op: u64) {
        loop {
            let Some(running) = self.running.get_mut(&op) else { return };
            let left = running.open.values().filter(|left| **left).count();
            running.attempts.note_left(u32::try_from(left).unwrap_or(u32::MAX));
            match running.attempts.step(world.now, &mut self.budget) {
                Step::Start => {
                    running.turn += 1;
                    let node = running.turn % world.nodes();
                    let left = running.deadline.since(world.now);
                    let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
                    let call = ClientCall { deadline_ms, request: running.request.clone() };
                    let grant = self.sessions[&running.session].grant();
                    self.next += 1;
                    let attempt = (self.index as u64) << 32 | self.next;
                    self.attempts.insert(attempt, op);
                    let text = || format!("{attempt} to {node}: {:?}", running.request);
                    world.trace.note(world.now, (CLIENTS + self.index, "asks"), &attempt.to_le_bytes(), text);
                    let left = world.ask(self.index, node, attempt, ClientAsk::Call(grant, Box::new(call)));
                    running.open.insert(attempt, left);
                }
                Step::Wait(until) => {
                    world.wake(until.since(world.now), Wake::Operation(self.index, op));
                    return;
                }
                Step::GiveUp(why) => {
                    if let Some(running) = self.running.remove(&op) {
                        self.fail(world, history, (running.task, &why));
                    }
                    return;
                }
            }
        }
    }

    /// Binds an operation and sends it; keeps it if it has to wait.
    fn bind(&mut self, world: &mut World, history: &mut History, intent: Intent) {
        if let Some(write) = self.bound(world, history, intent) {
            self.begin(world, history, Task::Write(Box::new(write)));
        }
    }

    fn bound(&mut self, world: &mut World, history: &mut History, intent: Intent) -> Option<BoundWrite> {
        let now = self.clock(world);
        let session = self.current.and_then(|current| self.sessions.get_mut(&current));
        let Some(session) = session else {
            self.intents.push(intent);
            return None;
        };
        let Intent { key, operation, observed, w } = &intent;
        let (place, spec) = (&history.keys[*key].place, &history.space_of(*key).spec);
        match session.bind(now, &session::Intent { place, spec, operation, observed, w: *w, quorum: None }) {
            Ok(bound) => {
                let delta = Object::decode(&bound.delta).expect("a session binds canonical deltas");
                let write = Write {
                    operation: operation.clone(),
                    observed: observed.object.clone(),
                    bound: Some((bound.dot, delta)),
                    fate: Fate::Open,
                };
                let write = history.begin_write(*key, write);
                let text = || format!("{} of {:?}: {:?} as {:?}", write, place_text(&bound), operation, bound.dot);
                world.trace.note(world.now, (CLIENTS + self.index, "binds"), &bound.delta, text);
                Some(BoundWrite { key: *key, write, bound })
            }
            Err(BindError::EarlierOpen) => {
                world.count("intents");
                self.intents.push(intent);
                None
            }
            Err(error) => {
                world.find("binding", error);
                None
            }
        }
    }

    fn repeat(&mut self, world: &mut World, history: &mut History, mut write: BoundWrite) {
        world.count("repeats");
        if world.mutant == Some(Mutant::FreshDot) {
            let now = self.clock(world);
            let record = &history.keys[write.key].writes[write.write];
            let observed = Observed { object: record.observed.clone(), contexts: write.bound.contexts.clone() };
            let spec = &history.space_of(write.key).spec;
            let (place, operation, w) = (&write.bound.place, &record.operation, write.bound.w);
            let intent = session::Intent { place, spec, operation, observed: &observed, w, quorum: None };
            if let Some(session) = self.sessions.get_mut(&write.bound.grant.actor)
                && let Ok(fresh) = session.bind(now, &intent)
            {
                write.bound = fresh;
            }
        }
        self.begin_again(world, history, write);
    }

    fn begin_again(&mut self, world: &mut World, history: &mut History, write: BoundWrite) {
        let session = write.bound.grant.actor;
        let (op, running) = self.prepare(world, Task::Write(Box::new(write)), session);
        self.running.insert(op, Running { attempts: running.attempts.again(), ..running });
        self.drive(world, history, op);
    }

    fn begin(&mut self, world: &mut World, history: &mut History, task: Task) {
        let session = match &task {
            Task::Write(write) => write.bound.grant.actor,
            Task::Read { .. } | Task::Operate { .. } | Task::Scan { .. } | Task::Batch(_) => {
                // A batch may have been bound by the current session; nothing here runs without one.
                self.current.expect("a client begins only with a session")
            }
        };
        let (op, running) = self.prepare(world, task, session);
        self.running.insert(op, running);
        self.drive(world, history, op);
    }

    fn prepare(&mut self, world: &mut World, task: Task, session: Actor) -> (u64, Running) {
        let deadline = world.now + world.dice.pick(&[400, 1_500, 4_000].map(Duration::from_millis));
        let repeat = match &task {
            Task::Read { .. } | Task::Scan { .. } => Repeat::Reads,
            Task::Write(_) => Repeat::CountsOnce,
            Task::Operate { .. } | Task::Batch(_) => Repeat::CountsAgain,
        };
        let nodes = u32::try_from(world.nodes()).unwrap_or(1);
        let attempts = Attempts::new(repeat, world.now, deadline, nodes);
        let turn = world.dice.index(world.nodes());
        let running =
            Running { request: request(&task), task, session, attempts, deadline, turn, open: BTreeMap::new() };
        (self.fresh(), running)
    }

    /// Now and then another quorum than the keyspace's.
    fn odd_quorum(&self, world: &mut World, history: &History, key: usize) -> Option<u8> {
        if world.is_risky() || !world.dice.percent(25) {
            return None;
        }
        let n = u64::from(history.space_of(key).n);
        Some(u8::try_from(world.dice.between(1, n)).unwrap_or(1))
    }

    fn clock(&self, world: &World) -> Now {
        client_clock(world.now, self.skew_ms)
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        (self.index as u64) << 32 | self.next
    }
}

fn place_text(bound: &BoundOperation) -> (u64, &[u8]) {
    (bound.place.keyspace.0, &bound.place.key)
}

fn request(task: &Task) -> ClientRequest {
    match task {
        Task::Read { get, .. } => ClientRequest::Get(get.clone()),
        Task::Write(write) => write.bound.request(),
        Task::Operate { operate, .. } => ClientRequest::Operate((**operate).clone()),
        Task::Scan { scan, .. } => ClientRequest::Scan(scan.clone()),
        Task::Batch(tasks) => ClientRequest::Batch(tasks.iter().map(request).collect()),
    }
}

/// Operations of one client at the same time.
const RUNNING_MAX: usize = 3;
/// In a trace clients stand behind this.
const CLIENTS: usize = 100;
