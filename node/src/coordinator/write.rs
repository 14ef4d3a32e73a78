//! Writing one object: through the door of one replica, then to all, W acks.
//!
//! Shape: the first replica that can (this node if it is one) checks the delta against what it holds and applies it, or
//! mints the operation; then every other replica applies the same bytes. W acks answer. A replica that is down is
//! simply missing here; reads repair it (hints come with the repair room).
//! Invariant: once a replica may have accepted, the verdict is success or `unknown`, never a refusal; a minting replica
//! is never replaced by another one (that could count the operation twice). Source: DESIGN §4 Binding, §6 Write.

use std::collections::BTreeSet;

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::causality::{Context, EncodedContext};
use shoal_protocol::client::{self, ClientResponse, KeyspaceInfo, Operate, Written};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, NodeId};
use shoal_protocol::object::{Object, Operation};
use shoal_protocol::peer::{Applied, ApplyCause, PeerRequest, PeerResponse, Refusal};
use shoal_protocol::time::{Hlc, WallTime};

use super::acks::Acks;
use super::quorum::{Tally, Verdict};
use super::{Cx, Step, Surroundings, VIEW_RETRY, door};

/// One write in flight.
#[derive(Debug)]
pub(crate) struct Write {
    place: Place,
    entry: Entry,
    /// The delta's context and hlc, known once it is bound.
    bound: Option<(Context, Hlc)>,
    weak: bool,
    /// Replicas through whose door it has not been tried.
    candidates: Vec<NodeId>,
    /// Whose door it stands at now.
    door: Option<NodeId>,
    /// Replicas that get the delta once it is through.
    others: BTreeSet<NodeId>,
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
}

/// How the write enters its first replica.
#[derive(Debug)]
enum Entry {
    /// Bound by the client's session: repeatable.
    Bound { delta: Bytes },
    /// To be minted there: not repeatable.
    Mint { operation: Operation, observed: Option<Context>, expires_at: Option<WallTime> },
}

impl Write {
    /// A delta that the session of the connection has bound.
    pub(crate) fn bound(around: Surroundings<'_>, session: Actor, write: client::Write) -> Result<Self, RequestError> {
        let info = door::keyspace(around, write.place.keyspace)?;
        let delta = door::delta(around, session, &write.place, (&write.delta, &write.contexts))?;
        let mut op = Self::new(around, info, write.place, write.w, Entry::Bound { delta: write.delta })?;
        op.bound = Some((delta.context().clone(), delta.hlc_max()));
        Ok(op)
    }

    /// An operation for a replica to mint.
    pub(crate) fn minted(around: Surroundings<'_>, operate: Operate) -> Result<Self, RequestError> {
        let info = door::keyspace(around, operate.place.keyspace)?;
        let observed = operate.context.map(|context| door::open(around, &operate.place, &context)).transpose()?;
        let expires_at = info.spec.ttl_s.map(|s| WallTime(around.now.wall.0 + u64::from(s) * 1_000));
        let entry = Entry::Mint { operation: operate.operation, observed, expires_at };
        Self::new(around, info, operate.place, operate.w, entry)
    }

    fn new(
        around: Surroundings<'_>,
        info: &KeyspaceInfo,
        place: Place,
        w: Option<u8>,
        entry: Entry,
    ) -> Result<Self, RequestError> {
        let partition = door::place(info, &place)?;
        let (tally, weak) = door::quorum(around.rings, partition, w, |numbers| numbers.w)?;
        let primaries = around.rings.owners(partition);
        let mut candidates: Vec<NodeId> =
            primaries.iter().copied().filter(|node| around.alive.contains(node)).collect();
        // A replica that is catching up cannot check what it has lost: its door is the last.
        let is_last = |node: &NodeId| (around.replaced.contains_key(node), around.suspects.contains(node));
        candidates.sort_by_key(|node| (is_last(node), *node != around.me));
        let (replied, needed) = tally.reach(|node| around.alive.contains(node));
        if replied < needed {
            return Err(RequestError::Unavailable { replied, needed });
        }
        Ok(Self {
            tally,
            others: primaries.into_iter().collect(),
            place,
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
        })
    }

    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) -> Step {
        self.next_door(cx)
    }

    pub(crate) fn answered(&mut self, cx: &mut Cx<'_>, from: NodeId, response: PeerResponse) -> Step {
        if !matches!(response, PeerResponse::Admitted) {
            self.waiting.remove(&from);
        }
        match response {
            PeerResponse::Admitted => {
                self.through(cx, from);
                Step::Pending
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
                Err(_) => self.lost(cx, from),
            },
            PeerResponse::Refused(refusal) => self.refused(cx, from, refusal),
            PeerResponse::Same
            | PeerResponse::State { .. }
            | PeerResponse::Rows { .. }
            | PeerResponse::System { .. }
            | PeerResponse::Leases { .. }
            | PeerResponse::Members(_)
            | PeerResponse::Repair(_) => self.lost(cx, from),
        }
    }

    /// `node` was asked and will not answer: it may have accepted.
    pub(crate) fn lost(&mut self, cx: &mut Cx<'_>, node: NodeId) -> Step {
        self.waiting.remove(&node);
        self.behind.remove(&node);
        self.maybe = true;
        self.tally.lose(node);
        if self.door == Some(node) {
            self.door = None;
            return match self.entry {
                Entry::Bound { .. } => self.next_door(cx),
                Entry::Mint { .. } => self.answer(Err(self.outcome_unknown())),
            };
        }
        self.decide(cx)
    }

    /// A view retry is due.
    pub(crate) fn woken(&mut self, cx: &mut Cx<'_>) -> Step {
        for node in std::mem::take(&mut self.behind) {
            self.send(cx, node);
        }
        Step::Pending
    }

    /// What is true at the deadline, or when the quorum cannot be reached any more.
    pub(crate) fn outcome_unknown(&self) -> RequestError {
        let (acked, needed) = (self.tally.answered_count(), self.tally.needed());
        if self.maybe || !self.waiting.is_empty() || acked > 0 {
            RequestError::Unknown { acked, needed }
        } else if self.is_full {
            RequestError::DiskFull
        } else {
            RequestError::Unavailable { replied: acked, needed }
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.answered
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
    }

    /// Counts an ack, and drops those whose stores are known by now to be replaced.
    fn acked(&mut self, cx: &Cx<'_>, from: NodeId, applied: Applied) {
        self.tally.answer(from);
        self.acks.take(from, applied);
        for node in self.acks.void(cx.around.replaced) {
            self.tally.revoke(node);
        }
    }

    fn refused(&mut self, cx: &mut Cx<'_>, from: NodeId, refusal: Refusal) -> Step {
        if refusal == Refusal::UnknownView {
            cx.exchange(from);
            self.behind.insert(from);
            cx.wake_at(cx.around.now.instant + VIEW_RETRY);
            return Step::Pending;
        }
        if self.door == Some(from) {
            self.door = None;
            return match refusal {
                Refusal::Full => {
                    self.others.remove(&from);
                    self.tally.lose(from);
                    self.is_full = true;
                    if self.tally.verdict() == Verdict::Impossible {
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
        self.tally.lose(from);
        self.decide(cx)
    }

    fn decide(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.answered || self.door.is_some() {
            return Step::Pending;
        }
        match self.tally.verdict() {
            Verdict::Pending => Step::Pending,
            Verdict::Impossible => self.answer(Err(self.outcome_unknown())),
            Verdict::Reached => {
                let (context, hlc) = self.bound.clone().unwrap_or_default();
                self.answer(Ok(ClientResponse::Written(Written {
                    acks: self.tally.answered_count(),
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

    fn send(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        self.waiting.insert(node);
        let place = self.place.clone();
        let request = match &self.entry {
            Entry::Bound { delta } if self.door == Some(node) => PeerRequest::Admit { place, delta: delta.clone() },
            Entry::Bound { delta } => {
                PeerRequest::Apply { place, delta: delta.clone(), cause: ApplyCause::Write, compact_epoch: 0 }
            }
            Entry::Mint { operation, observed, expires_at } => PeerRequest::Mint {
                place,
                operation: operation.clone(),
                expires_at: *expires_at,
                observed: observed.clone(),
            },
        };
        cx.ask(node, request);
    }
}
