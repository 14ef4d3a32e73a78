//! Writing one object: through the door of one replica, then to all, W acks.
//!
//! Shape: the first replica that can (this node if it is one) checks the delta against what it holds and applies it, or
//! mints the operation; then every other replica applies the same bytes. W acks answer. A sloppy write asks a fallback to
//! hold it for each primary that it cannot do without. After the verdict it lingers, without its bytes, until all have
//! answered: what a primary did not acknowledge is owed to it by one that did.
//! Invariant: once a replica may have accepted, the verdict is success or `unknown`, never a refusal; a minting replica
//! is never replaced by another one (that could count the operation twice). Source: DESIGN §4 Binding, §6 Write.

use std::collections::BTreeSet;

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::causality::{Context, EncodedContext};
use shoal_protocol::client::{self, ClientResponse, KeyspaceInfo, Operate, QuorumMode, Written};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, NodeId, Partition};
use shoal_protocol::object::{Object, Operation};
use shoal_protocol::peer::{Applied, ApplyCause, PeerRequest, PeerResponse, Refusal};
use shoal_protocol::repair::RepairAsk;
use shoal_protocol::time::{Hlc, Instant, WallTime};

use super::acks::Acks;
use super::quorum::{Tally, Verdict};
use super::stand_ins::StandIns;
use super::{Cx, Owing, Step, Surroundings, VIEW_RETRY, door};

/// One write in flight.
#[derive(Debug)]
pub(crate) struct Write {
    place: Place,
    partition: Partition,
    w: Option<u8>,
    entry: Entry,
    /// The delta's context and hlc, known once it is bound.
    bound: Option<(Context, Hlc)>,
    weak: bool,
    /// Replicas through whose door it has not been tried.
    candidates: Vec<NodeId>,
    /// Whose door it stands at now.
    door: Option<NodeId>,
    primaries: Vec<NodeId>,
    /// Primaries that get the delta once it is through.
    others: BTreeSet<NodeId>,
    stand_ins: StandIns,
    /// From when on primaries that have not answered are not waited for where a fallback can be asked.
    patience: Option<Instant>,
    waiting: BTreeSet<NodeId>,
    /// Refused only because views differ: to be asked again.
    behind: BTreeSet<NodeId>,
    tally: Tally,
    acks: Acks,
    /// Some replica has accepted, or may have.
    maybe: bool,
    /// Some replica's disk is nearly full.
    is_full: bool,
    answered: bool,
    /// Nothing more is waited for, and what is owed is said.
    settled: bool,
}

/// How the write enters its first replica.
#[derive(Debug)]
enum Entry {
    /// Bound by the client's session: repeatable.
    Bound { delta: Bytes },
    /// To be minted there: not repeatable.
    Mint { operation: Operation, observed: Option<Context>, expires_at: Option<WallTime> },
    /// Everybody has it who is to have it.
    Sent,
}

impl Write {
    /// A delta that the session of the connection has bound.
    pub(crate) fn bound(around: Surroundings<'_>, session: Actor, write: client::Write) -> Result<Self, RequestError> {
        let info = door::keyspace(around, write.place.keyspace)?;
        let delta = door::delta(around, session, &write.place, (&write.delta, &write.contexts))?;
        let wanted = door::Wanted { w: write.w, quorum: write.quorum };
        let mut op = Self::new(around, info, (write.place, wanted), Entry::Bound { delta: write.delta })?;
        op.bound = Some((delta.context().clone(), delta.hlc_max()));
        Ok(op)
    }

    /// An operation for a replica to mint.
    pub(crate) fn minted(around: Surroundings<'_>, operate: Operate) -> Result<Self, RequestError> {
        let info = door::keyspace(around, operate.place.keyspace)?;
        let observed = operate.context.map(|context| door::open(around, &operate.place, &context)).transpose()?;
        let expires_at = info.spec.ttl_s.map(|s| WallTime(around.now.wall.0 + u64::from(s) * 1_000));
        let entry = Entry::Mint { operation: operate.operation, observed, expires_at };
        let wanted = door::Wanted { w: operate.w, quorum: operate.quorum };
        Self::new(around, info, (operate.place, wanted), entry)
    }

    fn new(
        around: Surroundings<'_>,
        info: &KeyspaceInfo,
        (place, wanted): (Place, door::Wanted),
        entry: Entry,
    ) -> Result<Self, RequestError> {
        let partition = door::place(info, &place)?;
        let (tally, weak) = door::quorum(around.rings, partition, wanted.w, |numbers| numbers.w)?;
        let primaries = around.rings.owners(partition);
        let mut candidates: Vec<NodeId> =
            primaries.iter().copied().filter(|node| around.alive.contains(node)).collect();
        // A replica that is catching up cannot check what it has lost: its door is the last.
        let is_last = |node: &NodeId| (around.replaced.contains_key(node), around.suspects.contains(node));
        candidates.sort_by_key(|node| (is_last(node), *node != around.me));
        let stand_ins = match wanted.quorum.unwrap_or(info.spec.quorum) {
            QuorumMode::Strict => StandIns::default(),
            QuorumMode::Sloppy => {
                let can_be_asked = |node: &NodeId| around.alive.contains(node) && !primaries.contains(node);
                let fallbacks = &around.rings.target().preference(partition).fallbacks;
                StandIns::new(fallbacks.iter().copied().filter(can_be_asked))
            }
        };
        let (replied, needed) = tally.reach(|node| around.alive.contains(node));
        // Only a primary mints.
        let nobody_mints = matches!(entry, Entry::Mint { .. }) && candidates.is_empty();
        if usize::from(replied) + stand_ins.left() < usize::from(needed) || nobody_mints {
            return Err(RequestError::Unavailable { replied, needed });
        }
        Ok(Self {
            tally,
            others: primaries.iter().copied().collect(),
            primaries,
            stand_ins,
            patience: None,
            place,
            partition,
            w: wanted.w,
            entry,
            bound: None,
            weak,
            candidates,
            door: None,
            waiting: BTreeSet::new(),
            behind: BTreeSet::new(),
            acks: Acks::default(),
            maybe: false,
            is_full: false,
            answered: false,
            settled: false,
        })
    }

    /// Other layouts are active now: their quorums are needed as well, and who holds data under them gets the delta.
    pub(crate) fn view_changed(&mut self, cx: &mut Cx<'_>) {
        if self.answered {
            return;
        }
        if let Ok((tally, _)) = door::quorum(cx.around.rings, self.partition, self.w, |numbers| numbers.w) {
            self.tally.also(tally);
        }
        let is_through = self.door.is_none() && self.maybe;
        for node in cx.around.rings.owners(self.partition) {
            if self.primaries.contains(&node) {
                continue;
            }
            self.primaries.push(node);
            if !is_through {
                self.others.insert(node);
            } else if cx.around.alive.contains(&node) {
                self.send(cx, node);
            } else {
                self.tally.lose(node);
            }
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) -> Step {
        let step = self.next_door(cx);
        self.settle(cx, false);
        step
    }

    pub(crate) fn answered(&mut self, cx: &mut Cx<'_>, from: NodeId, response: PeerResponse) -> Step {
        if !matches!(response, PeerResponse::Admitted) {
            self.waiting.remove(&from);
        }
        let step = match response {
            PeerResponse::Admitted => {
                self.through(cx, from);
                self.decide(cx)
            }
            PeerResponse::Applied(applied) => {
                self.through(cx, from);
                self.acked(cx, from, applied);
                self.decide(cx)
            }
            PeerResponse::Minted { delta, applied } => match Object::decode(&delta) {
                Ok(object) => {
                    self.bound = Some((object.context().clone(), object.hlc_max()));
                    self.entry = Entry::Bound { delta };
                    self.through(cx, from);
                    self.acked(cx, from, applied);
                    self.decide(cx)
                }
                Err(_) => self.gone(cx, from),
            },
            PeerResponse::Refused(refusal) => self.refused(cx, from, refusal),
            PeerResponse::Same
            | PeerResponse::State { .. }
            | PeerResponse::Rows { .. }
            | PeerResponse::System { .. }
            | PeerResponse::Leases { .. }
            | PeerResponse::Members(_)
            | PeerResponse::Repair(_) => self.gone(cx, from),
        };
        self.settle(cx, false);
        step
    }

    /// `node` was asked and will not answer: it may have accepted.
    pub(crate) fn lost(&mut self, cx: &mut Cx<'_>, node: NodeId) -> Step {
        let step = self.gone(cx, node);
        self.settle(cx, false);
        step
    }

    /// A view retry is due, or patience is over.
    pub(crate) fn woken(&mut self, cx: &mut Cx<'_>) -> Step {
        for node in std::mem::take(&mut self.behind) {
            self.send(cx, node);
        }
        let step = self.decide(cx);
        if let Some(at) = self.patience.filter(|at| *at > cx.around.now.instant) {
            cx.wake_at(at);
        }
        step
    }

    /// The deadline: nobody waits any more, for the answer or for acks.
    pub(crate) fn expired(&mut self, cx: &mut Cx<'_>) -> Step {
        let verdict = Err(self.outcome_unknown());
        self.answered = true;
        self.settle(cx, true);
        Step::Answer(verdict)
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the caller has its verdict.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.settled
    }

    /// What is true at the deadline, or when the quorum cannot be reached any more.
    fn outcome_unknown(&self) -> RequestError {
        let (acked, needed) = (self.tally.answered_count(), self.tally.needed());
        if self.maybe || !self.waiting.is_empty() || acked > 0 {
            RequestError::Unknown { acked, needed }
        } else if self.is_full {
            RequestError::DiskFull
        } else if self.stand_ins.is_full() {
            RequestError::HintsFull
        } else {
            RequestError::Unavailable { replied: acked, needed }
        }
    }

    /// `node` will not answer what it was asked, which it may have done.
    fn gone(&mut self, cx: &mut Cx<'_>, node: NodeId) -> Step {
        self.waiting.remove(&node);
        self.behind.remove(&node);
        self.maybe = true;
        self.lose(node);
        if self.door == Some(node) {
            self.door = None;
            return match self.entry {
                Entry::Bound { .. } => self.next_door(cx),
                Entry::Mint { .. } | Entry::Sent => self.answer(Err(self.outcome_unknown())),
            };
        }
        self.decide(cx)
    }

    /// `node` is not counted on any more, as a primary or as somebody's stand-in.
    fn lose(&mut self, node: NodeId) {
        if let Some(primary) = self.stand_ins.lose(node) {
            if !self.waiting.contains(&primary) && !self.acks.has(primary) {
                self.tally.lose(primary);
            }
        } else if !self.stand_ins.stands_in(node) {
            self.tally.lose(node);
        }
    }

    fn next_door(&mut self, cx: &mut Cx<'_>) -> Step {
        while !self.candidates.is_empty() {
            let node = self.candidates.remove(0);
            if cx.around.alive.contains(&node) {
                self.door = Some(node);
                self.send(cx, node);
                return Step::Pending;
            }
        }
        self.no_door(cx)
    }

    /// No primary has accepted it. A bound one may go to stand-ins all the same: they check nothing, as no replica does
    /// when it is repaired.
    fn no_door(&mut self, cx: &mut Cx<'_>) -> Step {
        if matches!(self.entry, Entry::Bound { .. }) && self.stand_ins.left() > 0 {
            for primary in std::mem::take(&mut self.others) {
                self.tally.lose(primary);
            }
            return self.decide(cx);
        }
        self.answer(Err(self.outcome_unknown()))
    }

    /// The delta is accepted at `node`: all others get it now.
    fn through(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        self.maybe = true;
        if self.door.take() != Some(node) {
            return;
        }
        self.others.remove(&node);
        for other in std::mem::take(&mut self.others) {
            if cx.around.alive.contains(&other) {
                self.send(cx, other);
            } else {
                self.tally.lose(other);
            }
        }
        if self.stand_ins.left() > 0 {
            let at = cx.around.now.instant + cx.hedge_delay;
            self.patience = Some(at);
            cx.wake_at(at);
        }
    }

    /// Counts an ack, and drops those whose stores are known by now to be replaced.
    fn acked(&mut self, cx: &Cx<'_>, from: NodeId, applied: Applied) {
        self.tally.answer(self.stand_ins.hold(from).unwrap_or(from));
        self.acks.take(from, applied);
        let void: Vec<NodeId> = self.acks.void(cx.around.replaced).collect();
        for node in void {
            let primary = self.stand_ins.lose(node).unwrap_or(node);
            let is_acked = self.acks.counts(primary, cx.around.replaced) || self.stand_ins.holds_for(primary);
            if !is_acked {
                self.tally.revoke(primary);
            }
        }
    }

    fn refused(&mut self, cx: &mut Cx<'_>, from: NodeId, refusal: Refusal) -> Step {
        if refusal == Refusal::UnknownView {
            cx.exchange(from);
            self.behind.insert(from);
            cx.wake_at(cx.around.now.instant + VIEW_RETRY);
            return Step::Pending;
        }
        if self.stand_ins.primary_of(from).is_some() && refusal == Refusal::Full {
            self.stand_ins.note_full();
        }
        if self.door == Some(from) {
            self.door = None;
            return match refusal {
                Refusal::Full => {
                    self.others.remove(&from);
                    self.tally.lose(from);
                    self.is_full = true;
                    if self.tally.verdict() == Verdict::Impossible && self.stand_ins.left() == 0 {
                        return self.answer(Err(self.outcome_unknown()));
                    }
                    self.next_door(cx)
                }
                // A verdict only if no earlier attempt can have been admitted.
                Refusal::Request(error) if !self.maybe => self.answer(Err(error)),
                Refusal::Request(_) => self.answer(Err(self.outcome_unknown())),
                Refusal::UnknownView
                | Refusal::NotReplica
                | Refusal::NotSynced
                | Refusal::Behind
                | Refusal::Storage
                | Refusal::Overloaded
                | Refusal::Malformed => self.next_door(cx),
            };
        }
        self.lose(from);
        self.decide(cx)
    }

    fn decide(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.answered || self.door.is_some() {
            return Step::Pending;
        }
        self.ask_stand_ins(cx);
        match self.tally.verdict() {
            Verdict::Pending => Step::Pending,
            // Nobody has it so far: whoever was asked decides whether it is refused or unknown.
            Verdict::Impossible if !self.maybe && !self.waiting.is_empty() => Step::Pending,
            Verdict::Impossible => self.answer(Err(self.outcome_unknown())),
            Verdict::Reached => {
                let (context, hlc) = self.bound.clone().unwrap_or_default();
                self.answer(Ok(ClientResponse::Written(Written {
                    acks: self.tally.answered_count(),
                    fallbacks: self.fallbacks_count(),
                    context: EncodedContext::seal(cx.around.context_keys, &self.place, &context),
                    weak: self.weak,
                    hlc,
                })))
            }
        }
    }

    fn answer(&mut self, result: Result<ClientResponse, RequestError>) -> Step {
        self.answered = true;
        Step::Answer(result)
    }

    /// How many of the acks are those of stand-ins.
    fn fallbacks_count(&self) -> u8 {
        let stood_in = |node: &&NodeId| self.stand_ins.holds_for(**node) && !self.acks.has(**node);
        u8::try_from(self.primaries.iter().filter(stood_in).count()).unwrap_or(u8::MAX)
    }

    /// Asks fallbacks to stand in: for primaries that will not answer while without them the quorum cannot be reached, and
    /// when patience is over for those that have not answered yet.
    fn ask_stand_ins(&mut self, cx: &mut Cx<'_>) {
        if !matches!(self.entry, Entry::Bound { .. }) {
            return;
        }
        let is_patient = self.patience.is_some_and(|until| until > cx.around.now.instant);
        for primary in self.primaries.clone() {
            let verdict = self.tally.verdict();
            let missing = usize::from(self.tally.needed().saturating_sub(self.tally.answered_count()));
            let is_slow = !is_patient && self.waiting.contains(&primary) && self.stand_ins.open_count() < missing;
            let is_needed = match verdict {
                Verdict::Reached => false,
                Verdict::Impossible => !self.waiting.contains(&primary) || is_slow,
                Verdict::Pending => is_slow,
            };
            if !is_needed || self.acks.has(primary) {
                continue;
            }
            let can_be_asked = |node| cx.around.alive.contains(&node);
            if let Some(fallback) = self.stand_ins.ask(primary, can_be_asked) {
                self.tally.hope(primary);
                self.send(cx, fallback);
            }
        }
    }

    /// Says what is owed once nothing more is waited for; until then lets go of what is not needed for that.
    fn settle(&mut self, cx: &mut Cx<'_>, is_over: bool) {
        if !self.answered || self.settled {
            return;
        }
        if self.behind.is_empty() {
            self.entry = Entry::Sent;
            self.place = Place { collection: Bytes::new(), key: Bytes::new(), ..self.place };
            self.bound = None;
        }
        if !is_over && cx.may_linger && (!self.waiting.is_empty() || !self.behind.is_empty()) {
            return;
        }
        self.settled = true;
        let has = |node: &NodeId| self.acks.counts(*node, cx.around.replaced);
        let by = Some(cx.around.me).filter(has).or_else(|| self.primaries.iter().copied().find(has));
        let Some((by, lsn)) = by.and_then(|by| Some((by, self.acks.lsn(by)?))) else { return };
        for target in self.primaries.iter().copied().filter(|node| !has(node) && !self.stand_ins.holds_for(*node)) {
            cx.owe(Owing { target, partition: self.partition, by, lsn });
        }
    }

    fn send(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        let place = self.place.clone();
        let request = match &self.entry {
            Entry::Bound { delta } => match self.stand_ins.primary_of(node) {
                Some(target) => {
                    PeerRequest::Repair(RepairAsk::Hold { target, place, delta: delta.clone(), compact_epoch: 0 })
                }
                None if self.door == Some(node) => PeerRequest::Admit { place, delta: delta.clone() },
                None => PeerRequest::Apply { place, delta: delta.clone(), cause: ApplyCause::Write, compact_epoch: 0 },
            },
            Entry::Mint { operation, observed, expires_at } => PeerRequest::Mint {
                place,
                operation: operation.clone(),
                expires_at: *expires_at,
                observed: observed.clone(),
            },
            // Nobody is behind then.
            Entry::Sent => return,
        };
        self.waiting.insert(node);
        cx.ask(node, request);
    }
}
