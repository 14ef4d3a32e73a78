//! One client request, one verdict.
//!
//! The coordinator is whatever node a client happens to ask (Dynamo §4.5). It checks the request at the door, asks
//! replicas (its own among them, with the same words), counts their answers and answers once.
//! Shape: `start` and `answered` and `peer_down` and `tick` go in, `Effect`s come out; one `Op` per request in flight, one
//! file per kind of it.
//! Invariants: every request gets exactly one answer, at its deadline at the latest; a write some replica may have stored is
//! never answered as a failure (`unknown` instead); nothing here knows sockets, storage or membership beyond "alive".

mod acks;
mod batch;
mod door;
mod hedge;
mod quorum;
mod read;
mod scan;
mod stand_ins;
mod turn;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_protocol::causality::ContextKeys;
use shoal_protocol::client::{ClientRequest, ClientResponse, KeyspaceInfo};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, KeyspaceId, Lsn, NodeId, Partition, RequestId, ViewId};
use shoal_protocol::object::DigestKey;
use shoal_protocol::peer::{Custody, PeerRequest, PeerResponse};
use shoal_protocol::time::{Instant, Now};

use self::batch::Batch;
pub(crate) use self::door::session_lives;
use self::hedge::Hedge;
use self::read::Read;
use self::scan::ScanPages;
use self::turn::{Cx, Step};
use self::write::Write;
use crate::ring::Rings;

/// What the coordinator sees of the node around it at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The time.
    pub now: Now,
    /// This node.
    pub me: NodeId,
    /// Who holds what, under every active layout.
    pub rings: &'a Rings,
    /// The view they follow from.
    pub view: ViewId,
    /// Nodes that can be asked now; this one among them.
    pub alive: &'a BTreeSet<NodeId>,
    /// Those of them that gossip suspects to be down: asked last, and never waited for where another can be asked.
    pub suspects: &'a BTreeSet<NodeId>,
    /// Holders whose store is not the one an active layout names, with the newest: they are catching up, and neither read from
    /// nor asked to mint. Acks of their earlier stores do not count.
    pub replaced: &'a BTreeMap<NodeId, Custody>,
    /// The keyspaces there are.
    pub keyspaces: &'a BTreeMap<KeyspaceId, KeyspaceInfo>,
    /// Keys that seal and open contexts.
    pub context_keys: &'a ContextKeys,
    /// The key of object digests.
    pub digest_key: &'a DigestKey,
}

/// Who is to get the answer: the caller's own name for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<T> {
    /// Somebody outside.
    Outside(T),
    /// A place in a batch.
    Batch {
        /// The batch.
        op: OpId,
        /// Which of its items.
        index: usize,
    },
}

/// Names a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(u64);

/// A request as it enters.
#[derive(Clone, Debug)]
pub struct Call {
    /// The session of the connection it came on.
    pub session: Actor,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// What is asked; keyspace administration and status never come here.
    pub request: ClientRequest,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect<T> {
    /// Ask a replica; its answer comes back through `answered` under the same id.
    Ask {
        /// Which node; may be this one.
        to: NodeId,
        /// Names the question.
        ask: RequestId,
        /// When the answer is of no more use.
        deadline: Instant,
        /// The question.
        request: PeerRequest,
    },
    /// Answer the caller.
    Answer {
        /// The caller's name for the request.
        to: T,
        /// The verdict.
        result: Result<ClientResponse, RequestError>,
    },
    /// A primary did not acknowledge a write: it is owed to it.
    Owe(Owing),
    /// That node's view differs from ours: exchange system state with it.
    Exchange {
        /// The node.
        with: NodeId,
    },
}

/// What a primary has missed, and who can give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owing {
    /// Who has missed it.
    pub target: NodeId,
    /// Of which partition.
    pub partition: Partition,
    /// A primary that has it; may be this node.
    pub by: NodeId,
    /// Where it is in the change feed of that one: here or further on.
    pub lsn: Lsn,
}

/// All requests in flight at this node; `T` is the caller's name for one.
#[derive(Debug)]
pub struct Coordinator<T> {
    ops: BTreeMap<OpId, Entry<T>>,
    asks: BTreeMap<RequestId, Asked>,
    timers: BTreeSet<(Instant, OpId)>,
    next_id: u64,
    hedge: Hedge,
    /// Writes that have answered and wait for the rest of their acks.
    lingering_count: usize,
}

#[derive(Debug)]
struct Entry<T> {
    origin: Option<Origin<T>>,
    /// The view that it counts under.
    view: ViewId,
    deadline: Instant,
    wake: Option<Instant>,
    /// Its first and last question.
    asked: Option<(RequestId, RequestId)>,
    lingers: bool,
    op: Op,
}

#[derive(Debug)]
enum Op {
    Read(Box<Read>),
    Write(Box<Write>),
    Scan(Box<ScanPages>),
    Batch(Batch),
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    op: OpId,
    to: NodeId,
    at: Instant,
}

impl<T: Copy> Coordinator<T> {
    /// A coordinator; `first_id` must not repeat between starts of one node, so that late answers to an earlier life are
    /// never taken for answers to this one.
    #[must_use]
    pub fn new(first_id: u64) -> Self {
        Self {
            ops: BTreeMap::new(),
            asks: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_id: first_id,
            hedge: Hedge::new(),
            lingering_count: 0,
        }
    }

    /// Requests in flight, batches and their items counted apart; without writes that have answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ops.len() - self.lingering_count
    }

    /// A request enters.
    pub fn start(&mut self, around: Surroundings<'_>, from: T, call: Call, out: &mut Vec<Effect<T>>) {
        if let ClientRequest::Batch(items) = call.request {
            self.start_batch(around, from, (call.session, call.deadline, items), out);
        } else {
            self.start_one(around, Origin::Outside(from), call, out);
        }
    }

    /// A replica answered.
    pub fn answered(
        &mut self,
        around: Surroundings<'_>,
        ask: RequestId,
        response: PeerResponse,
        out: &mut Vec<Effect<T>>,
    ) {
        let Some(asked) = self.asks.get(&ask).copied() else { return };
        if !matches!(response, PeerResponse::Admitted) {
            self.asks.remove(&ask);
        }
        if matches!(response, PeerResponse::State { .. } | PeerResponse::Same) && asked.to != around.me {
            self.hedge.record(around.now.instant.since(asked.at));
        }
        self.step(around, asked.op, out, |op, cx| match op {
            Op::Read(read) => read.answered(cx, asked.to, response),
            Op::Write(write) => write.answered(cx, asked.to, response),
            Op::Scan(scan) => scan.answered(cx, asked.to, response),
            Op::Batch(_) => Step::Pending,
        });
    }

    /// A node cannot be asked any more: what it has not answered it will not answer.
    pub fn peer_down(&mut self, around: Surroundings<'_>, node: NodeId, out: &mut Vec<Effect<T>>) {
        let lost: Vec<_> = self.asks.iter().filter(|(_, a)| a.to == node).map(|(id, a)| (*id, a.op)).collect();
        for (ask, op) in lost {
            self.asks.remove(&ask);
            self.step(around, op, out, |op, cx| match op {
                Op::Read(read) => read.lost(cx, node),
                Op::Write(write) => write.lost(cx, node),
                Op::Scan(scan) => scan.lost(cx, node),
                Op::Batch(_) => Step::Pending,
            });
        }
    }

    /// The layouts are others now: whoever holds data under the new ones is asked as well.
    pub fn view_changed(&mut self, around: Surroundings<'_>, out: &mut Vec<Effect<T>>) {
        let ids: Vec<OpId> = self.ops.keys().copied().collect();
        for id in ids {
            self.step(around, id, out, |_, _| Step::Pending);
        }
    }

    /// The caller has gone; its requests run on (a write may still be wanted), nobody is answered.
    pub fn forget(&mut self, gone: impl Fn(T) -> bool) {
        for entry in self.ops.values_mut() {
            if let Some(Origin::Outside(from)) = entry.origin
                && gone(from)
            {
                entry.origin = None;
            }
        }
    }

    /// When `tick` wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn tick(&mut self, around: Surroundings<'_>, out: &mut Vec<Effect<T>>) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > around.now.instant {
                return;
            }
            self.timers.remove(&(at, id));
            let Some(entry) = self.ops.get_mut(&id) else { continue };
            if entry.deadline <= around.now.instant {
                self.step(around, id, out, |op, cx| match op {
                    Op::Read(read) => read.expired(cx),
                    Op::Write(write) => write.expired(cx),
                    Op::Scan(scan) => scan.expired(cx),
                    Op::Batch(batch) => batch.expired(),
                });
                self.remove(id);
            } else {
                entry.wake = None;
                self.step(around, id, out, |op, cx| match op {
                    Op::Read(read) => read.woken(cx),
                    Op::Write(write) => write.woken(cx),
                    Op::Scan(_) | Op::Batch(_) => Step::Pending,
                });
            }
        }
    }

    fn start_batch(
        &mut self,
        around: Surroundings<'_>,
        from: T,
        (session, deadline, items): (Actor, Instant, Vec<ClientRequest>),
        out: &mut Vec<Effect<T>>,
    ) {
        if let Err(error) = batch::check(&items) {
            out.push(Effect::Answer { to: from, result: Err(error) });
            return;
        }
        // Items expire at the deadline; the batch just after them, so that it finds their verdicts.
        let expires = deadline + Duration::from_millis(1);
        let id = self.insert(around.view, Origin::Outside(from), expires, Op::Batch(Batch::new(items.len())));
        for (index, request) in items.into_iter().enumerate() {
            self.start_one(around, Origin::Batch { op: id, index }, Call { session, deadline, request }, out);
        }
    }

    fn start_one(&mut self, around: Surroundings<'_>, origin: Origin<T>, call: Call, out: &mut Vec<Effect<T>>) {
        let Call { session, deadline, request } = call;
        let op = match request {
            ClientRequest::Get(get) => Read::new(around, get).map(|r| Op::Read(Box::new(r))),
            ClientRequest::Write(write) => Write::bound(around, session, write).map(|w| Op::Write(Box::new(w))),
            ClientRequest::Operate(operate) => Write::minted(around, operate).map(|w| Op::Write(Box::new(w))),
            ClientRequest::Scan(scan) => ScanPages::new(around, scan).map(|s| Op::Scan(Box::new(s))),
            ClientRequest::Batch(_)
            | ClientRequest::CreateKeyspace { .. }
            | ClientRequest::ShowKeyspace { .. }
            | ClientRequest::ListKeyspaces
            | ClientRequest::SetKeyspace { .. }
            | ClientRequest::DropKeyspace { .. }
            | ClientRequest::Routes { .. }
            | ClientRequest::MemberViews
            | ClientRequest::ChangeLayout(_)
            | ClientRequest::Layouts
            | ClientRequest::Status => Err(RequestError::BadRequest {
                reason: "only gets, writes, operates and scans are data requests".into(),
            }),
        };
        match op {
            Err(error) => self.deliver(around, origin, Err(error), out),
            Ok(op) => {
                let id = self.insert(around.view, origin, deadline, op);
                self.step(around, id, out, |op, cx| match op {
                    Op::Read(read) => read.start(cx),
                    Op::Write(write) => write.start(cx),
                    Op::Scan(scan) => scan.advance(cx),
                    Op::Batch(_) => Step::Pending,
                });
            }
        }
    }

    fn insert(&mut self, view: ViewId, origin: Origin<T>, deadline: Instant, op: Op) -> OpId {
        self.next_id += 1;
        let id = OpId(self.next_id);
        self.timers.insert((deadline, id));
        self.ops
            .insert(id, Entry { origin: Some(origin), view, deadline, wake: None, asked: None, lingers: false, op });
        id
    }

    fn step(
        &mut self,
        around: Surroundings<'_>,
        id: OpId,
        out: &mut Vec<Effect<T>>,
        take: impl FnOnce(&mut Op, &mut Cx<'_>) -> Step,
    ) {
        let Some(entry) = self.ops.get_mut(&id) else { return };
        let mut cx = Cx {
            around,
            deadline: entry.deadline,
            hedge_delay: self.hedge.delay(),
            next_id: &mut self.next_id,
            outbox: Vec::new(),
            exchange: Vec::new(),
            owing: Vec::new(),
            wake: None,
            may_linger: entry.lingers || self.lingering_count < LINGERING_MAX,
        };
        // Under another view the quorums of its layouts are needed, too, before anything more is counted.
        if std::mem::replace(&mut entry.view, around.view) != around.view {
            match &mut entry.op {
                Op::Read(read) => read.view_changed(&mut cx),
                Op::Write(write) => write.view_changed(&mut cx),
                Op::Scan(scan) => scan.view_changed(&cx),
                Op::Batch(_) => {}
            }
        }
        let step = take(&mut entry.op, &mut cx);
        let Cx { outbox, exchange, owing, wake, deadline, .. } = cx;
        for (awaited, to, ask, request) in outbox {
            if let Some(awaited) = awaited {
                self.asks.insert(awaited, Asked { op: id, to, at: around.now.instant });
                entry.asked = Some((entry.asked.map_or(awaited, |(first, _)| first), awaited));
            }
            out.push(Effect::Ask { to, ask, deadline, request });
        }
        out.extend(exchange.into_iter().map(|with| Effect::Exchange { with }));
        out.extend(owing.into_iter().map(Effect::Owe));
        if let Op::Write(write) = &entry.op
            && write.has_answered()
            && !std::mem::replace(&mut entry.lingers, true)
        {
            self.lingering_count += 1;
        }
        if let Some(at) = wake {
            if let Some(earlier) = entry.wake.replace(at) {
                self.timers.remove(&(earlier, id));
            }
            self.timers.insert((at, id));
        }
        let origin = if matches!(step, Step::Answer(_)) { entry.origin.take() } else { None };
        if let (Step::Answer(result), Some(origin)) = (step, origin) {
            self.deliver(around, origin, result, out);
        }
        self.retire(id);
    }

    /// Drops an operation that has answered and waits for nothing more.
    fn retire(&mut self, id: OpId) {
        let Some(entry) = self.ops.get(&id) else { return };
        let finished = match &entry.op {
            Op::Read(read) => read.is_finished(),
            Op::Write(write) => write.is_finished(),
            Op::Scan(scan) => scan.is_finished(),
            Op::Batch(batch) => batch.is_finished(),
        };
        if finished {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: OpId) {
        if let Some(entry) = self.ops.remove(&id) {
            self.timers.remove(&(entry.deadline, id));
            if let Some(wake) = entry.wake {
                self.timers.remove(&(wake, id));
            }
            self.lingering_count -= usize::from(entry.lingers);
            if let Some((first, last)) = entry.asked.filter(|_| entry.op.asks_outstanding()) {
                // Others asked in between.
                self.asks.extract_if(first..=last, |_, asked| asked.op == id).for_each(drop);
            }
        }
    }

    fn deliver(
        &mut self,
        around: Surroundings<'_>,
        origin: Origin<T>,
        result: Result<ClientResponse, RequestError>,
        out: &mut Vec<Effect<T>>,
    ) {
        match origin {
            Origin::Outside(to) => out.push(Effect::Answer { to, result }),
            Origin::Batch { op, index } => self.step(around, op, out, |op, _| match op {
                Op::Batch(batch) => batch.record(index, result),
                Op::Read(_) | Op::Write(_) | Op::Scan(_) => Step::Pending,
            }),
        }
    }
}

impl Op {
    fn asks_outstanding(&self) -> bool {
        match self {
            Self::Read(read) => read.outstanding() > 0,
            Self::Write(write) => write.outstanding() > 0,
            Self::Scan(scan) => scan.outstanding() > 0,
            Self::Batch(_) => false,
        }
    }
}

/// Writes that may wait for acks beyond their quorum: of one more the missing acks are owed at once. Guess: what a node
/// answers in the second or so in which a hung one is not noticed yet.
const LINGERING_MAX: usize = 10_000;
/// How long to wait for an exchange of views before asking the same replica again. Guess: a few round trips.
pub(crate) const VIEW_RETRY: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests;
