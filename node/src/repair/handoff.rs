//! Handoff: giving back what others missed, out of the change feed (debts) or out of hints.
//!
//! Shape: one job per target at a time. A job reads a page, gives every object in it to whoever is to have it, and when all
//! have synced it goes on; behind the last page a debt is paid, and hints are dropped as far as they had come when the job
//! began. A job that is refused, or makes no progress, is given up and begun anew later: giving twice changes nothing.
//! Source: Dynamo §4.6; DESIGN §9. Invariants: what is given is counted against one rate; a hint is dropped only after its target
//! synced it, or another node that holds it on; what comes while a job runs is left for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use shoal_protocol::id::{Lsn, NodeId, Partition};
use shoal_protocol::time::Instant;

use super::debts::Debts;
use super::delivery::{Delivery, Gift};
use super::errand::{GiveId, HandoffEffect, HandoffFigures, HandoffLimits, HintsPage, JobId, Outcome, Row};
use super::hints::{Held, Hints};
use super::pace::Pace;
use crate::storage::{FeedPage, data_partition};

/// Everything this node has for others.
#[derive(Debug)]
pub struct Handoff {
    debts: Debts,
    hints: Hints,
    limits: HandoffLimits,
    pace: Pace,
    jobs: BTreeMap<JobId, Job>,
    /// Nothing is begun for these before.
    rest: BTreeMap<NodeId, Instant>,
    /// Whose debts and hints can be given back now.
    reachable: BTreeSet<NodeId>,
    /// Who takes the hints of those that cannot be reached, when this node leaves.
    heir: Option<NodeId>,
    next_id: u64,
    wake: Option<Instant>,
    figures: HandoffFigures,
}

#[derive(Debug)]
struct Job {
    target: NodeId,
    partition: Partition,
    source: Source,
    stage: Stage,
    /// When it last made progress.
    since: Instant,
}

/// Where a job's objects come from, and how far it has come.
#[derive(Debug)]
enum Source {
    Debt { from: Lsn, through: Lsn, finished: bool },
    Hints { held: Held, through: Option<Lsn>, next: Option<(Bytes, Bytes)> },
}

#[derive(Debug)]
enum Stage {
    Reading,
    Giving(Delivery),
    Dropping,
}

impl Handoff {
    /// Nothing to give yet.
    #[must_use]
    pub fn new(limits: HandoffLimits) -> Self {
        Self {
            debts: Debts::default(),
            hints: Hints::new(limits),
            limits,
            pace: Pace::new(limits.bytes_per_s as u64),
            jobs: BTreeMap::new(),
            rest: BTreeMap::new(),
            reachable: BTreeSet::new(),
            heir: None,
            next_id: 0,
            wake: None,
            figures: HandoffFigures::default(),
        }
    }

    /// `target` may miss what changed in `partition` after `after`, as this node's change feed counts.
    pub fn owe(&mut self, now: Instant, (target, partition): (NodeId, Partition), after: Lsn) {
        self.debts.owe(target, partition, after);
        self.wake_for(now, target);
    }

    /// Owes nothing any more but this: who holds a partition has changed, and who holds it now pulls it.
    pub fn keep_debts(&mut self, is_owed: impl Fn(NodeId, Partition) -> bool) {
        self.debts.keep(is_owed);
    }

    /// Whether one more hint of so many bytes may be kept, of this hint partition; if so it is counted.
    pub fn admit(&mut self, now: Instant, to: (NodeId, Partition), bytes: usize) -> bool {
        let fits = self.hints.admit(now, to, bytes);
        if fits {
            self.wake_for(now, to.0);
        } else {
            self.figures.hints_refused += 1;
        }
        fits
    }

    /// A hint was found that was kept before.
    pub fn found(&mut self, now: Instant, to: (NodeId, Partition), bytes: usize) {
        self.hints.found(now, to, bytes);
        self.wake_for(now, to.0);
    }

    /// A store was opened again: what is known of its partitions is begun anew. Its hints are to be found again.
    pub fn reopened(&mut self, now: Instant, is_of_store: impl Fn(Partition) -> bool) {
        let of_store = |job: &Job| is_of_store(job.partition);
        let jobs: Vec<JobId> = self.jobs.iter().filter(|(_, job)| of_store(job)).map(|(id, _)| *id).collect();
        jobs.into_iter().for_each(|job| self.fail(now, job));
        self.hints.forget(is_of_store);
        self.plan(now);
    }

    /// Gives the hints of those who cannot be reached to another node, which holds them on: before this one leaves.
    pub fn hand_on(&mut self, now: Instant, heir: NodeId) {
        self.heir = Some(heir);
        self.plan(now);
    }

    /// For whom hints are kept.
    #[must_use]
    pub fn hint_targets(&self) -> Vec<NodeId> {
        self.hints.targets()
    }

    /// Whether nothing is left to be handed on: no hint is kept or on its way.
    #[must_use]
    pub fn has_no_hints(&self) -> bool {
        self.hints.bytes() == 0
    }

    /// What there is to say.
    #[must_use]
    pub fn figures(&self, now: Instant) -> HandoffFigures {
        let (waiting, oldest) = self.hints.pending();
        let held = self.jobs.values().filter_map(|job| match &job.source {
            Source::Hints { held, .. } => Some((held.count(), held.oldest())),
            Source::Debt { .. } => None,
        });
        let (count, oldest) = held.fold((waiting, oldest), |(count, oldest), (more, at)| {
            (count + more, Some(oldest.map_or(at, |oldest| oldest.min(at))))
        });
        HandoffFigures {
            hints_pending: count,
            hints_bytes: self.hints.bytes(),
            hints_oldest_s: oldest.map_or(0, |oldest| now.since(oldest).as_secs()),
            debts: self.debts.len() as u64,
            ..self.figures
        }
    }

    /// Whether hints take more than half of what they may.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.hints.bytes() > self.limits.hint_bytes_max as u64 / 2
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wake
    }

    /// Who can be reached has perhaps changed.
    pub fn reach(&mut self, now: Instant, reachable: BTreeSet<NodeId>) {
        if self.reachable == reachable {
            return;
        }
        let is_lost = |job: &Job| !reachable.contains(&job.target) && self.heir.is_none();
        let lost: Vec<JobId> = self.jobs.iter().filter(|(_, job)| is_lost(job)).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|job| self.fail(now, job));
        self.reachable = reachable;
        self.plan(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<HandoffEffect>) {
        if self.wake.is_none_or(|at| at > now) {
            return;
        }
        let is_stuck = |job: &Job| job.since + STUCK <= now;
        let stuck: Vec<JobId> = self.jobs.iter().filter(|(_, job)| is_stuck(job)).map(|(id, _)| *id).collect();
        stuck.into_iter().for_each(|job| self.fail(now, job));
        self.rest.retain(|_, at| *at > now);
        for target in self.startable() {
            if self.jobs.len() < JOBS_MAX {
                self.begin(now, target, out);
            }
        }
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.give(now, job, out));
        self.plan(now);
    }

    /// A page of a change feed was read.
    pub fn feed_read(&mut self, now: Instant, id: JobId, page: FeedPage, out: &mut Vec<HandoffEffect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Source::Debt { from, through, finished } = &mut job.source else { return };
        let is_lost = page.floor > *from || !page.damaged.is_empty();
        (*through, *finished) = (page.next, page.finished);
        let to = job.target;
        let gifts = page.changes.into_iter().map(|change| Gift {
            to,
            hold_for: None,
            row: Row { place: change.key.place(), delta: change.object },
        });
        job.stage = Stage::Giving(Delivery::new(gifts));
        job.since = now;
        if is_lost {
            self.figures.debts_lost += 1;
            out.push(HandoffEffect::Lost { peer: job.target, partition: job.partition });
        }
        self.give(now, id, out);
    }

    /// A page of hints was read.
    pub fn hints_read(&mut self, now: Instant, id: JobId, page: HintsPage, out: &mut Vec<HandoffEffect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Source::Hints { through, next, .. } = &mut job.source else { return };
        through.get_or_insert(page.at);
        *next = page.next;
        let target = job.target;
        let heir = self.heir.filter(|_| !self.reachable.contains(&target));
        let receivers = heir.map_or(page.receivers, |heir| vec![heir]);
        let hold_for = heir.map(|_| target);
        let is_nobodys = receivers.is_empty() && !page.rows.is_empty();
        let gifts = page.rows.into_iter().flat_map(|row| {
            let gift = move |to: &NodeId| Gift { to: *to, hold_for, row: row.clone() };
            receivers.iter().map(gift).collect::<Vec<_>>()
        });
        job.stage = Stage::Giving(Delivery::new(gifts));
        job.since = now;
        if page.is_damaged {
            self.figures.debts_lost += 1;
            out.push(HandoffEffect::Lost { peer: target, partition: data_partition(job.partition) });
        }
        if is_nobodys {
            self.fail(now, id);
            self.plan(now);
        }
        self.give(now, id, out);
    }

    /// Giving an object has ended.
    pub fn given(&mut self, now: Instant, id: GiveId, outcome: Outcome, out: &mut Vec<HandoffEffect>) {
        let is_its = |job: &Job| matches!(&job.stage, Stage::Giving(delivery) if delivery.is_open(id));
        let Some((&job_id, job)) = self.jobs.iter_mut().find(|(_, job)| is_its(job)) else { return };
        let Stage::Giving(delivery) = &mut job.stage else { return };
        let Some(bytes) = delivery.taken(id) else { return };
        job.since = now;
        match outcome {
            Outcome::Failed => {
                self.fail(now, job_id);
                self.plan(now);
            }
            Outcome::Taken | Outcome::Void => {
                self.figures.keys += u64::from(outcome == Outcome::Taken);
                self.figures.bytes += if outcome == Outcome::Taken { bytes as u64 } else { 0 };
                self.give(now, job_id, out);
            }
        }
    }

    /// Hints were dropped.
    pub fn dropped(&mut self, now: Instant, id: JobId) {
        let Some(Job { target, source: Source::Hints { held, .. }, .. }) = self.jobs.remove(&id) else { return };
        self.hints.given(target, held);
        self.plan(now);
    }

    /// What a job asked for cannot be had now.
    pub fn failed(&mut self, now: Instant, id: JobId) {
        self.fail(now, id);
        self.plan(now);
    }

    fn begin(&mut self, now: Instant, target: NodeId, out: &mut Vec<HandoffEffect>) {
        let id = JobId(self.fresh());
        let is_reachable = self.reachable.contains(&target);
        if let Some((partition, from)) = if is_reachable { self.debts.begin(target) } else { None } {
            let source = Source::Debt { from, through: from, finished: false };
            self.jobs.insert(id, Job { target, partition, source, stage: Stage::Reading, since: now });
            out.push(HandoffEffect::ReadFeed { job: id, partition, after: from });
        } else if let Some(partition) = self.hints.first(target)
            && let Some(held) = self.hints.take((target, partition))
        {
            let source = Source::Hints { held, through: None, next: None };
            self.jobs.insert(id, Job { target, partition, source, stage: Stage::Reading, since: now });
            out.push(HandoffEffect::ReadHints { job: id, target, partition, after: None });
        }
    }

    /// Sends what may be sent of a job's page; behind the last of it the job goes on.
    fn give(&mut self, now: Instant, id: JobId, out: &mut Vec<HandoffEffect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Stage::Giving(delivery) = &mut job.stage else { return };
        while let Some(bytes) = delivery.next().map(Gift::bytes) {
            if !self.pace.take(now, bytes) {
                let open_at = self.pace.open_at();
                self.wake = Some(self.wake.map_or(open_at, |wake| wake.min(open_at)));
                return;
            }
            self.next_id += 1;
            let id = GiveId(self.next_id);
            if let Some(Gift { to, hold_for, row }) = delivery.send(id) {
                job.since = now;
                out.push(HandoffEffect::Give { id, to, hold_for, row });
            }
        }
        if delivery.is_done() {
            self.go_on(now, id, out);
        }
    }

    /// A page is through.
    fn go_on(&mut self, now: Instant, id: JobId, out: &mut Vec<HandoffEffect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (target, partition) = (job.target, job.partition);
        match &mut job.source {
            Source::Debt { from, through, finished } => {
                let is_paid = self.debts.pay((target, partition), (*from, *through), *finished);
                match if is_paid { None } else { self.debts.read_on(target, partition) } {
                    Some(after) => {
                        *from = after;
                        job.stage = Stage::Reading;
                        out.push(HandoffEffect::ReadFeed { job: id, partition, after });
                    }
                    None => {
                        self.jobs.remove(&id);
                        self.plan(now);
                    }
                }
            }
            Source::Hints { through, next: None, .. } => {
                let through = through.unwrap_or_default();
                job.stage = Stage::Dropping;
                out.push(HandoffEffect::DropHints { job: id, target, partition, through });
            }
            Source::Hints { next: after @ Some(_), .. } => {
                job.stage = Stage::Reading;
                out.push(HandoffEffect::ReadHints { job: id, target, partition, after: after.take() });
            }
        }
    }

    fn fail(&mut self, now: Instant, id: JobId) {
        let Some(Job { target, partition, source, .. }) = self.jobs.remove(&id) else { return };
        if let Source::Hints { held, .. } = source {
            self.hints.put_back((target, partition), held);
        }
        self.rest.insert(target, now + RETRY);
    }

    /// Who has something to get, can get it, and gets nothing now.
    fn startable(&self) -> BTreeSet<NodeId> {
        let is_busy = |target: &NodeId| self.jobs.values().any(|job| job.target == *target);
        let debts = self.debts.targets().into_iter().filter(|target| self.reachable.contains(target));
        let can_have = |target: &NodeId| self.heir.is_some() || self.reachable.contains(target);
        let hints = self.hints.targets().into_iter().filter(can_have);
        let all: BTreeSet<NodeId> = debts.chain(hints).collect();
        all.into_iter().filter(|target| !self.rest.contains_key(target) && !is_busy(target)).collect()
    }

    /// Finds out when there is something to do next.
    fn plan(&mut self, now: Instant) {
        let stuck = self.jobs.values().map(|job| job.since + STUCK);
        let is_held_up = |job: &Job| matches!(&job.stage, Stage::Giving(delivery) if delivery.next().is_some());
        let open = self.jobs.values().any(is_held_up).then(|| self.pace.open_at());
        let rested = self.rest.iter().filter(|(target, _)| self.heir.is_some() || self.reachable.contains(target));
        let rested = rested.map(|(_, at)| *at);
        let begins = (self.jobs.len() < JOBS_MAX && !self.startable().is_empty()).then_some(now);
        self.wake = stuck.chain(open).chain(rested).chain(begins).min();
    }

    /// Something new is to be given to `target`, in a while: there may be more of it.
    fn wake_for(&mut self, now: Instant, target: NodeId) {
        let at = *self.rest.entry(target).or_insert(now + GATHER);
        if self.reachable.contains(&target) {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Targets given to at once. Guess: each is one page in memory.
const JOBS_MAX: usize = 4;
/// How long after something is noted it is given back at the earliest: a moment in which acks that were only late come in.
const GATHER: Duration = Duration::from_secs(1);
/// How long after a failure the same target is tried again. Guess: the time in which a member that comes back settles.
const RETRY: Duration = Duration::from_secs(2);
/// A job without progress for so long is given up: longer than any answer takes.
const STUCK: Duration = Duration::from_secs(15);
