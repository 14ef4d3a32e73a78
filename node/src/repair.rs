//! Repair: replicas are compared and made equal, damage is found and healed. No operator starts any of it.
//!
//! Shape: `Repair` compares what this node holds with the others, on a schedule and when something asks for it, and heals
//! rows that cannot be read; `Server` answers the questions of such comparisons, its own node's, too. An exchange with one
//! peer compares roots, then descends where they differ (`exchange`, `descent`), down to objects, which both sides join.
//! What is all missing comes as a stream of rows. `Handoff` is beside it: it gives primaries what they
//! missed, out of the change feed or out of hints, and counts what is lost of that.
//! Sources: DESIGN §9; notes/model.md §4. Invariants: speaks the words every peer speaks, to this node's own replica as well;
//! at most one exchange per peer and `EXCHANGES_MAX` in all; moves no more than its budget; repeating any of it is safe.

mod budget;
mod debts;
mod delivery;
mod descent;
mod errand;
mod exchange;
mod handoff;
mod heal;
mod hints;
mod input;
mod objects;
mod pace;
mod schedule;
mod scrub;
mod serve;
mod stream;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::id::{NodeId, Partition, RequestId};
use shoal_protocol::object::Object;
use shoal_protocol::peer::{PeerRequest, PeerResponse};
use shoal_protocol::time::Instant;

use self::budget::Budget;
use self::descent::Side;
use self::exchange::{Action, Exchange, Streams, Tag, Verdict};
use self::heal::{HealStep, Heals};
use self::schedule::Schedule;
use self::scrub::Scrub;
use crate::storage::RowKey;

pub use self::budget::Moved;
pub use self::errand::{GiveId, HandoffEffect, HandoffFigures, HandoffLimits, HintsPage, JobId, Outcome, Row};
pub use self::handoff::Handoff;
pub use self::heal::Holding;
pub use self::input::{Held, PullProgress, RepairConfig, RepairEffect, RepairFigures, RepairInput};
pub use self::schedule::Clean;
pub use self::serve::{Asked, KEYS_BYTES_MAX, QuestionId, ServeEffect, Server};

/// Compares, pulls, verifies and heals.
#[derive(Debug)]
pub struct Repair {
    me: NodeId,
    held: BTreeMap<Partition, Holding>,
    streams: Streams,
    schedule: Schedule,
    exchanges: BTreeMap<NodeId, Exchange>,
    exchanges_count: u64,
    calls: Calls,
    alive: BTreeSet<NodeId>,
    budget: Budget,
    /// Until when the budget lets nothing be asked.
    blocked_until: Option<Instant>,
    scrub: Scrub,
    heals: Heals,
    rng: ChaCha8Rng,
    figures: RepairFigures,
    pulls: PullProgress,
    now: Instant,
}

/// What waits for an answer.
#[derive(Debug, Default)]
struct Calls {
    open: BTreeMap<RequestId, Call>,
    by_deadline: BTreeSet<(Instant, RequestId)>,
    next: u64,
}

#[derive(Debug)]
struct Call {
    to: NodeId,
    deadline: Instant,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// A side of an exchange.
    Compare { with: With, side: Side, tag: Tag },
    /// A page of an exchange.
    Ingest { with: With, partition: Partition },
    /// What another holds in place of a damaged row.
    Fetch(RowKey),
    /// The row is being written.
    Heal(RowKey),
}

/// An exchange: the peer, and its number. What belongs to an earlier one with the same peer is of no use to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct With {
    peer: NodeId,
    number: u64,
}

impl Repair {
    /// The repair of this node.
    #[must_use]
    pub fn new(me: NodeId, config: RepairConfig, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut schedule_seed = [0; 32];
        rng.fill_bytes(&mut schedule_seed);
        Self {
            me,
            held: BTreeMap::new(),
            streams: Streams::default(),
            schedule: Schedule::new(Duration::from_millis(config.exchange_period_ms as u64), schedule_seed),
            exchanges: BTreeMap::new(),
            exchanges_count: 0,
            calls: Calls::default(),
            alive: BTreeSet::new(),
            budget: Budget::new(config.bytes_per_s as u64, config.objects_per_s as u64),
            blocked_until: None,
            scrub: Scrub::new(Duration::from_secs(config.scrub_period_s as u64)),
            heals: Heals::default(),
            rng,
            figures: RepairFigures::default(),
            pulls: PullProgress::default(),
            now: Instant(0),
        }
    }

    /// Takes one input; appends what is to be done to `out`, in order.
    pub fn handle(&mut self, now: Instant, input: RepairInput, out: &mut Vec<RepairEffect>) {
        self.now = now;
        match input {
            RepairInput::Tick => {}
            RepairInput::Held(held) => self.hold(held),
            RepairInput::PeerUp(node) => {
                self.alive.insert(node);
                self.schedule.came(now, node);
            }
            RepairInput::PeerDown(node) => self.lose(node, out),
            RepairInput::Wanted { pulls } => self.want(&pulls),
            RepairInput::Lost { peer, partitions } => self.schedule.hurry(now, peer, partitions),
            RepairInput::Answered { ask, response } => self.answered(ask, response, out),
            RepairInput::Ingested { ask } => self.ingested(ask, out),
            RepairInput::Damaged { keys } => self.damaged(keys, out),
            RepairInput::Verified { partition, report } => {
                self.scrub.verified(partition);
                if report.nameless_count > 0 {
                    let others = self.held.get(&partition).map(|holding| holding.others.clone());
                    others.into_iter().flatten().for_each(|node| self.schedule.hurry(now, node, [partition]));
                }
                self.damaged(report.damaged_rows, out);
            }
            RepairInput::Refilled => self.heals.counted(),
            RepairInput::Failed => self.store_failed(out),
        }
        self.expire(out);
        self.go_on(out);
    }

    /// When `handle` wants a `Tick`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let calls = self.calls.by_deadline.first().map(|(at, _)| *at).filter(|at| *at < NEVER);
        let exchange = self.has_room().then(|| self.schedule.next_at(|node| self.exchanges.contains_key(&node)));
        let others = [calls, exchange.flatten(), self.scrub.next_at(), self.heals.next_at(self.now)];
        others.into_iter().chain([self.blocked_until]).flatten().min()
    }

    /// What was done.
    #[must_use]
    pub fn figures(&self) -> RepairFigures {
        let (damaged_count, healed_count) = self.heals.counts();
        RepairFigures { damaged_count, healed_count, scrubbed_count: self.scrub.verified_count(), ..self.figures }
    }

    /// How far the wanted pulls are.
    #[must_use]
    pub fn pulls(&self) -> PullProgress {
        let (wanted_count, done_count) = self.schedule.pulls();
        PullProgress { wanted_count, done_count, ..self.pulls }
    }

    /// For every partition shared with a peer, when it was last known to be equal there and here.
    pub fn clean(&self) -> impl Iterator<Item = (Partition, NodeId, Clean)> {
        self.schedule.clean()
    }

    /// Partitions shared with a peer that were never known to be equal there and here.
    #[must_use]
    pub fn never_clean_count(&self) -> usize {
        self.clean().filter(|(_, _, clean)| clean.at.is_none()).count()
    }

    /// For how long some partition has not been known to be equal here and at another holder, at most.
    #[must_use]
    pub fn clean_age_max(&self) -> Duration {
        let age = |clean: Clean| self.now.since(clean.at.unwrap_or(clean.since));
        self.clean().map(|(_, _, clean)| age(clean)).max().unwrap_or_default()
    }

    fn hold(&mut self, held: Held) {
        let mut shared: BTreeMap<NodeId, BTreeSet<Partition>> = BTreeMap::new();
        for (partition, holding) in &held.partitions {
            for node in &holding.others {
                shared.entry(*node).or_default().insert(*partition);
            }
        }
        self.schedule.hold(self.now, &shared);
        let index = self.rng.next_u32() as usize % held.partitions.len().max(1);
        self.scrub.begin(self.now, held.partitions.keys().nth(index).copied());
        self.streams.keyspaces = held.keyspaces;
        self.held = held.partitions;
    }

    fn want(&mut self, pulls: &BTreeSet<(Partition, NodeId)>) {
        self.schedule.want(self.now, self.exchanges_count, pulls);
        if pulls.is_empty() {
            self.pulls = PullProgress::default();
        } else {
            self.pulls.since.get_or_insert(self.now);
        }
    }

    fn lose(&mut self, node: NodeId, out: &mut Vec<RepairEffect>) {
        self.alive.remove(&node);
        self.schedule.went(node);
        for call in self.calls.take(|call| call.to == node) {
            self.unanswered(&call);
        }
        if let Some(exchange) = self.exchanges.get_mut(&node) {
            exchange.give_up();
        }
        self.settle(node, out);
    }

    fn store_failed(&mut self, out: &mut Vec<RepairEffect>) {
        let me = self.me;
        for call in self.calls.take(|call| call.to == me) {
            self.unanswered(&call);
        }
        for node in self.exchanges.keys().copied().collect::<Vec<_>>() {
            if let Some(exchange) = self.exchanges.get_mut(&node) {
                exchange.give_up();
            }
            self.settle(node, out);
        }
    }

    fn damaged(&mut self, keys: Vec<RowKey>, out: &mut Vec<RepairEffect>) {
        let partitions = self.heals.found(keys);
        if !partitions.is_empty() {
            out.push(RepairEffect::Refill(partitions));
        }
    }

    fn answered(&mut self, ask: RequestId, response: PeerResponse, out: &mut Vec<RepairEffect>) {
        let Some(call) = self.calls.answer(ask) else { return };
        match call.purpose {
            Purpose::Compare { with, side, tag } => {
                let Some(exchange) = self.open(with) else { return };
                let is_page = matches!(response, PeerResponse::Rows { .. });
                let moved = exchange.answered(side, tag, response);
                self.moved(with.peer, tag, moved);
                if is_page {
                    self.figures.streamed.add(moved);
                } else {
                    self.figures.exchanged.add(moved);
                }
                self.settle(with.peer, out);
            }
            Purpose::Fetch(key) => {
                let mut found = None;
                if let PeerResponse::State { object, .. } = response {
                    self.figures.healed.bytes += object.len() as u64;
                    found = Object::decode_shared(&object).ok();
                }
                self.heals.answered(call.to, &key, found);
            }
            Purpose::Heal(key) => {
                let is_healed = matches!(response, PeerResponse::Applied(_));
                self.figures.healed.objects += u64::from(is_healed);
                self.heals.written(&key, is_healed);
            }
            Purpose::Ingest { .. } => {}
        }
    }

    fn ingested(&mut self, ask: RequestId, out: &mut Vec<RepairEffect>) {
        let Some(Call { purpose: Purpose::Ingest { with, partition }, .. }) = self.calls.answer(ask) else { return };
        let Some(exchange) = self.open(with) else { return };
        exchange.ingested(partition);
        match exchange.position(partition) {
            Some(position) => drop(self.streams.positions.insert(partition, position)),
            None => drop(self.streams.positions.remove(&partition)),
        }
        self.settle(with.peer, out);
    }

    fn open(&mut self, with: With) -> Option<&mut Exchange> {
        self.exchanges.get_mut(&with.peer).filter(|open| open.number == with.number)
    }

    fn moved(&mut self, with: NodeId, tag: Tag, moved: Moved) {
        self.budget.spend(moved);
        if let Tag::Descent(partition, _) = tag
            && self.schedule.is_wanted(partition, with)
        {
            self.pulls.moved.add(moved);
        }
    }

    /// Gives up what has waited for too long.
    fn expire(&mut self, out: &mut Vec<RepairEffect>) {
        let now = self.now;
        while let Some(call) = self.calls.expired(now) {
            self.unanswered(&call);
            if let Purpose::Compare { with, .. } = call.purpose {
                self.settle(with.peer, out);
            }
        }
    }

    fn unanswered(&mut self, call: &Call) {
        match &call.purpose {
            Purpose::Compare { with, tag, .. } => {
                if let Some(exchange) = self.open(*with) {
                    exchange.unanswered(*tag);
                }
            }
            Purpose::Fetch(key) => self.heals.answered(call.to, key, None),
            Purpose::Heal(key) => self.heals.written(key, false),
            // Its store failed, and the exchange is given up with it.
            Purpose::Ingest { .. } => {}
        }
    }

    /// Takes the verdicts of an exchange, and ends it when nothing is left.
    fn settle(&mut self, node: NodeId, out: &mut Vec<RepairEffect>) {
        let Some(exchange) = self.exchanges.get_mut(&node) else { return };
        let number = exchange.number;
        for (partition, verdict) in exchange.verdicts() {
            if verdict == Verdict::Clean {
                self.streams.positions.remove(&partition);
            }
            if self.schedule.judge(self.now, (node, number), (partition, verdict)) {
                out.push(RepairEffect::Pulled { partition, from: node });
            }
        }
        if exchange.is_over() {
            self.exchanges.remove(&node);
            self.figures.exchanges_count += 1;
        }
    }

    fn has_room(&self) -> bool {
        self.exchanges.len() < EXCHANGES_MAX
    }

    /// Does what can be done now.
    fn go_on(&mut self, out: &mut Vec<RepairEffect>) {
        let now = self.now;
        while self.has_room()
            && let Some((node, partitions)) = self.schedule.take(now, |node| self.exchanges.contains_key(&node))
        {
            self.exchanges_count += 1;
            self.exchanges.insert(node, Exchange::new(self.exchanges_count, partitions));
        }
        let peers: Vec<NodeId> = self.exchanges.keys().copied().collect();
        self.blocked_until = Some(self.budget.ready_at(now)).filter(|at| *at > now && !peers.is_empty());
        if self.blocked_until.is_none() {
            for node in peers {
                while let Some(exchange) = self.exchanges.get_mut(&node)
                    && let Some(action) = exchange.next(&self.streams)
                {
                    let with = With { peer: node, number: exchange.number };
                    self.act(with, action, out);
                }
                self.settle(node, out);
            }
        }
        while let Some(step) = self.heals.next(now, &self.held, |node| self.alive.contains(&node)) {
            self.heal(step, out);
        }
        if let Some(partition) = self.scrub.next(now, self.held.keys().copied()) {
            out.push(RepairEffect::Verify(partition));
        }
    }

    fn act(&mut self, with: With, action: Action, out: &mut Vec<RepairEffect>) {
        match action {
            Action::Ask { side, tag, request } => {
                let to = match side {
                    Side::Here => self.me,
                    Side::There => with.peer,
                };
                self.ask(to, Purpose::Compare { with, side, tag }, *request, out);
            }
            Action::Ingest { partition, rows } => {
                let purpose = Purpose::Ingest { with, partition };
                // Without a deadline: it is done, or the store fails.
                let ask = self.calls.begin(Call { to: self.me, deadline: NEVER, purpose });
                out.push(RepairEffect::Ingest { ask, partition, rows });
            }
        }
    }

    fn heal(&mut self, step: HealStep, out: &mut Vec<RepairEffect>) {
        match step {
            HealStep::Ask { to, key } => {
                let request = PeerRequest::Get { place: key.place(), have: None };
                self.ask(to, Purpose::Fetch(key), request, out);
            }
            HealStep::Write { key, object } => {
                let deadline = self.now + CALL_MAX;
                let ask = self.calls.begin(Call { to: self.me, deadline, purpose: Purpose::Heal(key.clone()) });
                out.push(RepairEffect::Heal { ask, key, object: *object });
            }
        }
    }

    fn ask(&mut self, to: NodeId, purpose: Purpose, request: PeerRequest, out: &mut Vec<RepairEffect>) {
        let deadline = self.now + CALL_MAX;
        let ask = self.calls.begin(Call { to, deadline, purpose });
        out.push(RepairEffect::Ask { to, ask, deadline, request });
    }
}

impl Calls {
    fn begin(&mut self, call: Call) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        self.by_deadline.insert((call.deadline, id));
        self.open.insert(id, call);
        id
    }

    fn answer(&mut self, id: RequestId) -> Option<Call> {
        let call = self.open.remove(&id)?;
        self.by_deadline.remove(&(call.deadline, id));
        Some(call)
    }

    fn expired(&mut self, now: Instant) -> Option<Call> {
        let (_, id) = *self.by_deadline.first().filter(|(at, _)| *at <= now)?;
        self.answer(id)
    }

    fn take(&mut self, which: impl Fn(&Call) -> bool) -> Vec<Call> {
        let ids: Vec<RequestId> = self.open.iter().filter(|(_, call)| which(call)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.answer(id)).collect()
    }
}

/// Exchanges at a time. Source: notes/model.md §4.5.
const EXCHANGES_MAX: usize = 2;
/// A question may wait for a flush on a slow disk.
const CALL_MAX: Duration = Duration::from_secs(15);
const NEVER: Instant = Instant(u64::MAX);
