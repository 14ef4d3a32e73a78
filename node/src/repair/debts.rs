//! Debts: what primaries did not acknowledge and this node can give them out of its change feed.
//!
//! Shape: for each (target, partition) the lsn behind which the target may miss changes. In memory only: a restart makes an
//! exchange due with everybody.
//! Invariants: bounded by targets times partitions; a debt is paid only by a reading that was begun after it was noted and
//! came to the feed's end, because a key that is written again moves there.

use std::collections::BTreeMap;

use shoal_protocol::id::{Lsn, NodeId, Partition};

/// What is owed.
#[derive(Debug, Default)]
pub(super) struct Debts(BTreeMap<(NodeId, Partition), Debt>);

#[derive(Clone, Copy, Debug)]
struct Debt {
    /// Changes after this are owed.
    after: Lsn,
    /// Something was added since the reading under way began.
    is_renewed: bool,
}

impl Debts {
    /// `target` may miss what was changed after `after`.
    pub(super) fn owe(&mut self, target: NodeId, partition: Partition, after: Lsn) {
        let debt = self.0.entry((target, partition)).or_insert(Debt { after, is_renewed: true });
        debt.after = debt.after.min(after);
        debt.is_renewed = true;
    }

    /// Something owed to `target`: what is read now counts.
    pub(super) fn begin(&mut self, target: NodeId) -> Option<(Partition, Lsn)> {
        let partition = self.partitions(target).next()?;
        Some((partition, self.read_on(target, partition)?))
    }

    /// Where to read on.
    pub(super) fn read_on(&mut self, target: NodeId, partition: Partition) -> Option<Lsn> {
        let debt = self.0.get_mut(&(target, partition))?;
        debt.is_renewed = false;
        Some(debt.after)
    }

    /// The target has synced the changes in `(from, through]`; these were all there were, if `finished`. Whether all is paid.
    pub(super) fn pay(&mut self, to: (NodeId, Partition), (from, through): (Lsn, Lsn), finished: bool) -> bool {
        let Some(debt) = self.0.get_mut(&to) else { return true };
        if debt.after >= from {
            debt.after = debt.after.max(through);
        }
        let is_paid = finished && !debt.is_renewed;
        if is_paid {
            self.0.remove(&to);
        }
        is_paid
    }

    /// Forgets what is owed of partitions that are held otherwise by now.
    pub(super) fn keep(&mut self, is_owed: impl Fn(NodeId, Partition) -> bool) {
        self.0.retain(|(target, partition), _| is_owed(*target, *partition));
    }

    /// Whom something is owed to.
    pub(super) fn targets(&self) -> Vec<NodeId> {
        let mut targets: Vec<NodeId> = self.0.keys().map(|(target, _)| *target).collect();
        targets.dedup();
        targets
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn partitions(&self, target: NodeId) -> impl Iterator<Item = Partition> {
        let first = Partition { class: shoal_protocol::id::Class { n: 0, r: 0, w: 0 }, index: 0 };
        self.0
            .range((target, first)..)
            .take_while(move |((of, _), _)| *of == target)
            .map(|((_, partition), _)| *partition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_protocol::id::Class;

    use super::*;

    const PARTITION: Partition = Partition { class: Class { n: 3, r: 0, w: 0 }, index: 7 };
    const TARGET: NodeId = NodeId(4);

    #[derive(Clone, Debug)]
    enum Step {
        /// Key `0` is written; whether the target misses it.
        Write(usize, bool),
        Begin(usize),
        End,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..4usize, any::<bool>()).prop_map(|(key, missed)| Step::Write(key, missed)),
            (1..3usize).prop_map(Step::Begin),
            Just(Step::End),
        ];
        proptest::collection::vec(step, 1..40)
    }

    proptest! {
        #[test]
        fn whoever_is_paid_has_every_change_it_missed(steps in steps()) {
            // Each key with the lsn of its last write, as a feed lists it, and the writes of it so far; what the target has.
            let (mut feed, mut writes, mut has) = ([0u64; 4], vec![Vec::new(); 4], vec![Vec::<u64>::new(); 4]);
            let (mut debts, mut lsn, mut reading) = (Debts::default(), 0, None);
            for step in steps {
                match step {
                    Step::Write(key, missed) => {
                        lsn += 1;
                        feed[key] = lsn;
                        writes[key].push(lsn);
                        if missed { debts.owe(TARGET, PARTITION, Lsn(lsn - 1)) } else { has[key].push(lsn) }
                    }
                    Step::Begin(rows_max) if reading.is_none() => {
                        let Some((_, after)) = debts.begin(TARGET) else { continue };
                        let mut found: Vec<_> = (0..4).filter(|key| feed[*key] > after.0).collect();
                        found.sort_by_key(|key| feed[*key]);
                        let finished = found.len() <= rows_max;
                        found.truncate(rows_max);
                        let through = if finished { lsn } else { feed[*found.last().unwrap()] };
                        let given: Vec<_> = found.iter().map(|key| (*key, writes[*key].clone())).collect();
                        reading = Some((after, Lsn(through), finished, given));
                    }
                    Step::Begin(_) => {}
                    Step::End => {
                        let Some((from, through, finished, given)) = reading.take() else { continue };
                        given.into_iter().for_each(|(key, lsns)| has[key].extend(lsns));
                        if debts.pay((TARGET, PARTITION), (from, through), finished) {
                            for key in 0..4 {
                                prop_assert!(writes[key].iter().all(|lsn| has[key].contains(lsn)), "key {key}");
                            }
                        }
                    }
                }
            }
        }
    }
}
