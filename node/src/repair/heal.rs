//! Healing: rows that cannot be read are made anew from what other replicas hold.
//!
//! Shape: a row's damage is first counted against its partition, durably (`Refill`): what was acknowledged under the count of
//! before may be gone. Then so many others are asked for the object that every acknowledged write is with one of them, the
//! join of their answers is written as a whole state, and the row can be shown again.
//! Source: DESIGN §4 (Actors), §9. Invariants: nothing is healed before the count is durable, nor from fewer replicas than
//! it takes; a row with nobody else to ask stays unreadable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_protocol::id::{NodeId, Partition};
use shoal_protocol::object::Object;
use shoal_protocol::time::Instant;

use crate::storage::RowKey;

/// The rows being healed.
#[derive(Debug, Default)]
pub(super) struct Heals {
    jobs: BTreeMap<RowKey, Job>,
    /// Rows ever found damaged, and healed.
    damaged_count: u64,
    healed_count: u64,
}

#[derive(Debug, Default)]
struct Job {
    /// Whether the partition's refill count is durable.
    is_counted: bool,
    answers: BTreeMap<NodeId, Object>,
    asked: BTreeSet<NodeId>,
    /// Asked, and cannot say.
    refused: BTreeSet<NodeId>,
    /// The whole state is being written.
    is_writing: bool,
    /// After a round without success.
    not_before: Instant,
}

/// Who holds a partition beside this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The others.
    pub others: BTreeSet<NodeId>,
    /// So many of them have every acknowledged write between them.
    pub heal_count: usize,
}

/// What a job wants.
#[derive(Debug)]
pub(super) enum HealStep {
    Ask { to: NodeId, key: RowKey },
    Write { key: RowKey, object: Box<Object> },
}

impl Heals {
    /// Rows cannot be read. Returns the partitions of those that nobody knew to be so.
    pub(super) fn found(&mut self, keys: Vec<RowKey>) -> BTreeSet<Partition> {
        let mut partitions = BTreeSet::new();
        for key in keys {
            let partition = key.partition();
            if self.jobs.len() < JOBS_MAX && !self.jobs.contains_key(&key) {
                self.jobs.insert(key, Job::default());
                self.damaged_count += 1;
                partitions.insert(partition);
            }
        }
        partitions
    }

    /// The refill counts are durable: of everything found so far.
    pub(super) fn counted(&mut self) {
        self.jobs.values_mut().for_each(|job| job.is_counted = true);
    }

    /// What can be done now.
    pub(super) fn next(
        &mut self,
        now: Instant,
        held: &BTreeMap<Partition, Holding>,
        is_alive: impl Fn(NodeId) -> bool,
    ) -> Option<HealStep> {
        let open = self.jobs.iter_mut().filter(|(_, job)| job.is_counted && !job.is_writing && job.not_before <= now);
        for (key, job) in open.take(OPEN_MAX) {
            let Some(holding) = held.get(&key.partition()) else { continue };
            if holding.heal_count > 0 && job.answers.len() >= holding.heal_count {
                let mut object = Object::default();
                for answer in job.answers.values() {
                    object.merge_into(answer);
                }
                job.is_writing = true;
                return Some(HealStep::Write { key: key.clone(), object: Box::new(object) });
            }
            let candidates = holding
                .others
                .iter()
                .filter(|node| is_alive(**node) && !job.asked.contains(node) && !job.refused.contains(node));
            let candidates = candidates.filter(|node| !job.answers.contains_key(node)).copied();
            if let Some(to) = candidates.min() {
                job.asked.insert(to);
                return Some(HealStep::Ask { to, key: key.clone() });
            }
            if job.asked.is_empty() {
                // Whoever could not say, or was away, may be able to later.
                job.refused.clear();
                job.not_before = now + RETRY;
            }
        }
        None
    }

    /// When a job that waits goes on.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        self.jobs.values().map(|job| job.not_before).filter(|at| *at > now).min()
    }

    /// Somebody answers; `None`: it cannot say.
    pub(super) fn answered(&mut self, from: NodeId, key: &RowKey, object: Option<Object>) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.asked.remove(&from);
        match object {
            Some(object) => drop(job.answers.insert(from, object)),
            None => drop(job.refused.insert(from)),
        }
    }

    /// The whole state is durable, or could not be written.
    pub(super) fn written(&mut self, key: &RowKey, is_healed: bool) {
        if is_healed {
            self.jobs.remove(key);
            self.healed_count += 1;
        } else if let Some(job) = self.jobs.get_mut(key) {
            job.is_writing = false;
        }
    }

    /// Rows ever found damaged, and rows healed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.damaged_count, self.healed_count)
    }
}

/// Rows worked on at once.
const OPEN_MAX: usize = 16;
/// Rows kept in mind; the scrub finds the others again.
const JOBS_MAX: usize = 10_000;
/// Guess: a replica that is catching up or away needs seconds at least.
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_protocol::address::Place;
    use shoal_protocol::id::{Class, KeyspaceId};

    use super::*;

    const PARTITION: Partition = Partition { class: Class { n: 3, r: 0, w: 0 }, index: 1 };

    fn key(name: &'static str) -> RowKey {
        let place = Place { keyspace: KeyspaceId(1), collection: Bytes::new(), key: name.into() };
        RowKey::new(PARTITION, &place)
    }

    fn held() -> BTreeMap<Partition, Holding> {
        BTreeMap::from([(PARTITION, Holding { others: [NodeId(2), NodeId(3)].into(), heal_count: 2 })])
    }

    #[test]
    fn a_row_is_healed_from_enough_others_and_only_once_its_loss_is_counted() {
        let mut heals = Heals::default();
        assert_eq!(heals.found(vec![key("a"), key("a")]), [PARTITION].into());
        assert_eq!(heals.found(vec![key("a")]), [].into());
        let now = Instant(0);
        assert!(heals.next(now, &held(), |_| true).is_none(), "not counted");
        heals.counted();
        let mut asked = Vec::new();
        while let Some(HealStep::Ask { to, .. }) = heals.next(now, &held(), |_| true) {
            asked.push(to);
        }
        assert_eq!(asked, [NodeId(2), NodeId(3)]);
        heals.answered(NodeId(2), &key("a"), Some(Object::default()));
        heals.answered(NodeId(3), &key("a"), None);
        assert!(heals.next(now, &held(), |_| true).is_none(), "one is not enough");
        let later = heals.next_at(now).unwrap();
        assert!(matches!(heals.next(later, &held(), |_| true), Some(HealStep::Ask { to: NodeId(3), .. })));
        heals.answered(NodeId(3), &key("a"), Some(Object::default()));
        assert!(matches!(heals.next(later, &held(), |_| true), Some(HealStep::Write { .. })));
        heals.written(&key("a"), true);
        assert_eq!(heals.counts(), (1, 1));
        assert!(heals.next(later, &held(), |_| true).is_none());
    }
}
