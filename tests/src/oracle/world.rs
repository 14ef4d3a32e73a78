//! The world of one history: who does what, what the network does to it, and the checks.

mod end;
mod minting;

use shoal_protocol::id::Actor;
use shoal_protocol::object::{Conflict, Limits, Object, Operation, admit};
use shoal_protocol::time::WallTime;

use crate::oracle::dice::Dice;
use crate::oracle::ledger::{Binding, Ledger, State};
use crate::oracle::marks::Marks;
use crate::oracle::replica::Replica;
use crate::oracle::session::{Course, Session, Verdict};
use crate::oracle::{Fault, Finding, Mutant, Profile};

/// What travels.
#[derive(Clone)]
pub(super) enum Message {
    /// A session asks `to` to coordinate its operation.
    Request { to: usize, op: usize },
    /// A bound delta; `attempt` waits for the ack.
    Delta { to: usize, binding: usize, object: Option<Box<Object>>, attempt: usize },
    /// A synced state, from repair.
    State { to: usize, state: Box<State> },
}

/// One coordination of one operation.
struct Attempt {
    op: usize,
    acks: Marks,
}

pub(super) struct World {
    profile: Profile,
    mutant: Option<Mutant>,
    dice: Dice,
    step: usize,
    /// Refusals happen, and limits are small.
    refusing: bool,
    ledger: Ledger,
    courses: Vec<Course>,
    attempts: Vec<Attempt>,
    replicas: Vec<Replica>,
    /// Also those that are lost: what they sent lives on.
    sessions: Vec<Session>,
    active: Vec<usize>,
    network: Vec<Message>,
    incarnations_count: u64,
    finding: Option<Finding>,
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, profile: Profile, mutant: Option<Mutant>) -> Self {
        let mut dice = Dice::new(seed);
        let replicas_count = if dice.chance(25) { 4 } else { 3 };
        let sessions_count = 2 + dice.below(2);
        let refusing = mutant == Some(Mutant::EagerTotal) || dice.chance(50);
        Self {
            profile,
            mutant,
            dice,
            step: 0,
            refusing,
            ledger: Ledger::default(),
            courses: Vec::new(),
            attempts: Vec::new(),
            replicas: (0..replicas_count).map(|n| Replica::new(Actor::incarnation(n))).collect(),
            sessions: (0..sessions_count).map(Session::number).collect(),
            active: (0..sessions_count).collect(),
            network: Vec::new(),
            incarnations_count: replicas_count,
            finding: None,
            trace: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Finding> {
        let steps = 20 + self.dice.below(140);
        while self.step < steps && self.finding.is_none() {
            self.step += 1;
            self.advance();
        }
        if self.finding.is_none() {
            self.end();
        }
        self.finding.clone().map_or(Ok(()), Err)
    }

    fn advance(&mut self) {
        let (replica, session) = (self.dice.below(self.replicas.len()), *self.dice.pick(&self.active));
        match self.dice.below(100) {
            0..=11 if !self.ledger.is_full() => self.issue(session),
            12..=17 if !self.ledger.is_full() => self.mint(replica),
            18..=24 => self.read(session),
            25..=31 => self.retry(),
            32..=66 => self.deliver(),
            67..=85 => self.sync(replica),
            86..=90 => self.repair(replica),
            91..=94 => self.catch_up(replica),
            95 => self.lose_session(session),
            96 | 97 => {
                self.say(|_| format!("r{replica} crashes"));
                self.replicas[replica].crash();
            }
            98 | 99 => self.lose_row(replica),
            _ => {}
        }
    }

    /// A session reads R replicas.
    fn read(&mut self, session: usize) {
        let mut readable: Vec<usize> = (0..self.replicas.len()).filter(|at| !self.replicas[*at].catching_up).collect();
        if readable.len() < self.quorum() {
            return;
        }
        self.dice.shuffle(&mut readable);
        readable.truncate(self.quorum());
        for at in &readable {
            self.sessions[session].read.merge(&self.replicas[*at].synced);
        }
        self.say(|_| format!("s{session} reads {readable:?}"));
        let read = self.sessions[session].read.clone();
        self.check("the read of a session", &read);
    }

    /// A session sends an operation again, open or (a late duplicate) acknowledged, to any node.
    fn retry(&mut self) {
        let sent = |course: &Course| course.session.is_some() && course.verdict != Verdict::Refused;
        let ops: Vec<usize> = (0..self.courses.len()).filter(|op| sent(&self.courses[*op])).collect();
        if ops.is_empty() {
            return;
        }
        let op = *self.dice.pick(&ops);
        if self.courses[op].verdict == Verdict::Open || self.dice.chance(30) {
            self.send(op);
        }
    }

    fn send(&mut self, op: usize) {
        let to = self.dice.below(self.replicas.len());
        self.courses[op].attempts += 1;
        self.network.push(Message::Request { to, op });
    }

    /// One message arrives: any of them, perhaps to arrive again, perhaps not at all.
    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.dice.below(self.network.len());
        let again = self.dice.chance(12) && !matches!(self.network[at], Message::Request { .. });
        let message = if again { self.network[at].clone() } else { self.network.swap_remove(at) };
        if again || !self.dice.chance(10) {
            self.receive(message);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Request { to, op } => self.coordinate(to, op),
            Message::Delta { to, binding, object, attempt } => {
                let mut state = self.ledger.alone(binding);
                if let Some(object) = object {
                    state.object = *object;
                }
                self.say(|world| format!("r{to} gets b{binding} of op{}", world.attempts[attempt].op));
                self.take_bound(to, &state, attempt);
            }
            Message::State { to, state } => {
                self.say(|_| format!("r{to} gets a state"));
                self.take(to, &state);
            }
        }
    }

    fn coordinate(&mut self, at: usize, op: usize) {
        let binding = self.courses[op].binding;
        let mut state = self.ledger.alone(binding);
        let over_limit = admit(&self.replicas[at].live.object, &state.object, &SMALL_LIMITS, WallTime(0)).is_err();
        if self.refusing && (over_limit || self.dice.chance(20)) {
            self.refuse(at, op);
            return;
        }
        if self.courses[op].verdict == Verdict::Refused {
            self.find(Fault::RefusedCounted, format!("op{op} is admitted after it was reported refused"));
        }
        self.courses[op].admitted = true;
        let is_put = matches!(self.ledger.facts[op].operation, Operation::Put { .. });
        let live = &self.replicas[at].live.object;
        let mut widened = None;
        if self.mutant == Some(Mutant::WholeContextPut) && is_put && !live.context().covers(self.ledger.facts[op].dot) {
            state.object.merge_into(&Object::of_context(live.context().clone()));
            widened = Some(Box::new(state.object.clone()));
        }
        let attempt = self.attempt(op);
        self.say(|_| format!("r{at} coordinates op{op}"));
        self.take_bound(at, &state, attempt);
        for to in (0..self.replicas.len()).filter(|to| *to != at) {
            self.network.push(Message::Delta { to, binding, object: widened.clone(), attempt });
        }
    }

    /// A refusal is a verdict only if no attempt can have been admitted: so only for the first and only one.
    fn refuse(&mut self, at: usize, op: usize) {
        let course = &self.courses[op];
        let lost = self.dice.chance(20);
        if course.verdict != Verdict::Open || course.attempts > 1 || course.admitted || lost {
            return;
        }
        self.say(|_| format!("r{at} refuses op{op}"));
        self.courses[op].verdict = Verdict::Refused;
        let session = self.courses[op].session.expect("only a session's operation is requested");
        let session = &mut self.sessions[session];
        session.outbox.retain(|open| *open != op);
        let operation = &self.ledger.facts[op].operation;
        if let (Some(path), Some(by)) = (operation.counter_path(), operation.counter_by()) {
            session.uncount(&path, op, by);
        }
    }

    fn attempt(&mut self, op: usize) -> usize {
        self.attempts.push(Attempt { op, acks: Marks::default() });
        self.attempts.len() - 1
    }

    /// Joins a bound delta in, whether its dot is covered or not; the next sync acknowledges it.
    fn take_bound(&mut self, at: usize, state: &State, attempt: usize) {
        let dot = self.ledger.facts[self.attempts[attempt].op].dot;
        let covered = self.replicas[at].live.object.context().covers(dot);
        if self.mutant != Some(Mutant::SkipCovered) || !covered {
            self.take(at, state);
        }
        self.replicas[at].unsynced_attempts.push(attempt);
    }

    /// Joins a state in, as every replica must.
    fn take(&mut self, at: usize, state: &State) {
        let live = &mut self.replicas[at].live;
        if self.mutant == Some(Mutant::LimitInMerge)
            && admit(&live.object, &state.object, &SMALL_LIMITS, WallTime(0)).is_err()
        {
            return;
        }
        live.merge(state);
        self.check_replica(at);
    }

    fn sync(&mut self, at: usize) {
        if self.profile == Profile::Lww && self.dice.chance(30) && !self.ledger.is_full() {
            self.prune(at);
        }
        let replica = &mut self.replicas[at];
        replica.synced = replica.live.clone();
        self.network.append(&mut replica.held_back);
        for attempt in std::mem::take(&mut self.replicas[at].unsynced_attempts) {
            if !self.dice.chance(10) {
                self.attempts[attempt].acks |= Marks::one(at);
                self.conclude(attempt);
            }
        }
    }

    fn conclude(&mut self, attempt: usize) {
        let Attempt { op, acks } = self.attempts[attempt];
        let course = &self.courses[op];
        let told = acks.iter().count() >= self.quorum() && course.verdict == Verdict::Open && self.dice.chance(85);
        if !told {
            return;
        }
        self.say(|_| format!("op{op} is acknowledged"));
        self.courses[op].verdict = Verdict::Acked { at: self.step };
        if let Some(session) = self.courses[op].session {
            let bound = self.ledger.alone(self.courses[op].binding);
            let session = &mut self.sessions[session];
            session.outbox.retain(|open| *open != op);
            session.read.merge(&bound);
        }
    }

    /// Drops what loses under `lww`, as a replica may at any time.
    fn prune(&mut self, at: usize) {
        let replaces = self.ledger.lww_losers(self.replicas[at].live.history);
        if replaces.is_empty() {
            return;
        }
        self.say(|_| format!("r{at} prunes ops {:?}", replaces.iter().collect::<Vec<_>>()));
        let pruning = Binding { op: None, delta: Object::default(), replaces, implies: Marks::default() };
        let pruning = self.ledger.bound(pruning);
        let live = &mut self.replicas[at].live;
        live.object.prune_lww();
        live.history |= Marks::one(pruning);
        self.check_replica(at);
    }

    fn repair(&mut self, from: usize) {
        let to = self.dice.below(self.replicas.len());
        if to != from {
            let state = Box::new(self.replicas[from].synced.clone());
            self.network.push(Message::State { to, state });
        }
    }

    fn catch_up(&mut self, at: usize) {
        if !self.replicas[at].catching_up {
            return;
        }
        self.say(|_| format!("r{at} catches up"));
        for from in (0..self.replicas.len()).filter(|from| *from != at) {
            let state = self.replicas[from].synced.clone();
            self.replicas[at].live.merge(&state);
        }
        self.check_replica(at);
        self.sync(at);
        self.replicas[at].catching_up = false;
    }

    /// One row at a time: W - 1 losses are what acknowledged writes survive. Its acks are dropped, as another acker knows.
    fn lose_row(&mut self, at: usize) {
        if self.replicas.iter().any(|replica| replica.catching_up) {
            return;
        }
        self.say(|_| format!("r{at} loses its row"));
        self.replicas[at].lose_row();
        let keeps = [Some(Mutant::PrevZeroAfterLostRow), Some(Mutant::OldIncarnationAfterLostRow)];
        if !keeps.contains(&self.mutant) {
            self.replicas[at].renew(Actor::incarnation(self.incarnations_count));
            self.incarnations_count += 1;
        }
        for attempt in &mut self.attempts {
            attempt.acks = attempt.acks - Marks::one(at);
        }
    }

    /// A client loses its memory: a session without its running totals is replaced by a new one.
    fn lose_session(&mut self, session: usize) {
        let next = self.sessions.len();
        self.say(|_| format!("s{session} is lost, s{next} takes its place"));
        self.sessions.push(Session::number(next));
        self.active.retain(|active| *active != session);
        self.active.push(next);
    }

    fn check_replica(&mut self, at: usize) {
        let live = self.replicas[at].live.clone();
        self.check(["r0", "r1", "r2", "r3"][at], &live);
    }

    /// A state must show what its history says.
    fn check(&mut self, who: &str, state: &State) {
        for conflict in [Conflict::Siblings, Conflict::Lww] {
            let shown = state.object.view(conflict, WallTime(0));
            let expected = self.ledger.view(state.history, conflict);
            if shown != expected {
                self.find(Fault::Read, format!("{who} shows {shown:?} and should {expected:?} ({conflict:?})"));
            }
        }
    }

    fn find(&mut self, fault: Fault, detail: String) {
        let step = self.step;
        self.finding.get_or_insert(Finding { fault, step, detail });
    }

    fn say(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:4} {}", self.step, line(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    fn quorum(&self) -> usize {
        self.replicas.len() / 2 + 1
    }
}

/// Small enough that histories meet them.
const SMALL_LIMITS: Limits = Limits {
    value_bytes_max: 1 << 10,
    siblings_max: 2,
    map_depth_max: 8,
    object_bytes_max: 600,
    session_actors_max: 64,
    gaps_max: 2,
};
