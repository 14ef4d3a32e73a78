//! One exchange: a set of partitions compared with one peer.
//!
//! Shape: roots of up to `ROOTS_MAX` partitions at a time, asked of both sides; of those that differ a few descents at once.
//! The roots question lets each side bring into its rows what it holds, so a comparison sees all that was synced when it
//! began. Invariant: every partition gets exactly one verdict.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use shoal_protocol::id::{Class, KeyspaceId, Partition};
use shoal_protocol::peer::{PeerRequest, PeerResponse};
use shoal_protocol::repair::{ROOTS_MAX, RepairAnswer, RepairAsk};

use super::budget::Moved;
use super::descent::{Descent, Pair, Question, Side, Step};
use super::stream::Position;
use super::tree::EMPTY_ROOT;
use crate::storage::RowKey;

#[derive(Debug)]
pub(super) struct Exchange {
    /// Later exchanges have greater numbers.
    pub(super) number: u64,
    todo: VecDeque<Partition>,
    roots: Option<Roots>,
    /// Partitions whose roots differ, and whether nothing of them is here.
    differing: VecDeque<(Partition, bool)>,
    descents: BTreeMap<Partition, Descent>,
    verdicts: Vec<(Partition, Verdict)>,
}

#[derive(Debug)]
struct Roots {
    partitions: Vec<Partition>,
    pair: Pair<Vec<Option<u64>>>,
}

/// What came of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Both sides were equal, or were made so.
    Clean,
    /// The peer does not hold it, or is catching up.
    Absent,
    /// Something was not answered, or not done.
    Failed,
}

/// What an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Roots,
    Descent(Partition, Question),
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Action {
    Ask { side: Side, tag: Tag, request: Box<PeerRequest> },
    Ingest { partition: Partition, rows: Vec<(RowKey, Bytes)> },
}

/// What a descent has to know.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Of each class.
    pub(super) keyspaces: BTreeMap<Class, BTreeSet<KeyspaceId>>,
    /// Of partitions of which a part was streamed.
    pub(super) positions: BTreeMap<Partition, Position>,
}

impl Exchange {
    pub(super) fn new(number: u64, partitions: Vec<Partition>) -> Self {
        Self {
            number,
            todo: partitions.into(),
            roots: None,
            differing: VecDeque::new(),
            descents: BTreeMap::new(),
            verdicts: Vec::new(),
        }
    }

    /// What is to be done next, if nothing has to be waited for.
    pub(super) fn next(&mut self, streams: &Streams) -> Option<Action> {
        while self.descents.len() < DESCENTS_MAX
            && let Some((partition, is_empty_here)) = self.differing.pop_front()
        {
            let keyspaces = streams.keyspaces.get(&partition.class).cloned().unwrap_or_default();
            let position = streams.positions.get(&partition).cloned();
            self.descents.insert(partition, Descent::new(partition, keyspaces, is_empty_here, position));
        }
        for (partition, descent) in &mut self.descents {
            match descent.next() {
                Some(Step::Ask { side, question, request }) => {
                    return Some(Action::Ask { side, tag: Tag::Descent(*partition, question), request });
                }
                Some(Step::Ingest { rows }) => return Some(Action::Ingest { partition: *partition, rows }),
                None => {}
            }
        }
        if self.roots.is_none() && self.differing.is_empty() && !self.todo.is_empty() {
            let partitions = self.todo.drain(..self.todo.len().min(ROOTS_MAX)).collect();
            self.roots = Some(Roots { partitions, pair: Pair::default() });
        }
        let Roots { partitions, pair } = self.roots.as_mut()?;
        let side = pair.unasked()?;
        let ask = RepairAsk::Roots { partitions: partitions.clone(), compact_epoch: 0 };
        Some(Action::Ask { side, tag: Tag::Roots, request: Box::new(PeerRequest::Repair(ask)) })
    }

    /// A side answers; what that moved.
    pub(super) fn answered(&mut self, side: Side, tag: Tag, response: PeerResponse) -> Moved {
        match tag {
            Tag::Roots => {
                let Some(Roots { partitions, pair }) = &mut self.roots else { return Moved::default() };
                let PeerResponse::Repair(RepairAnswer::Roots(roots)) = response else {
                    self.give_up();
                    return Moved::default();
                };
                if roots.len() != partitions.len() {
                    self.give_up();
                    return Moved::default();
                }
                let moved = Moved { bytes: roots.len() as u64 * ROOT_BYTES, objects: 0 };
                if let Some(both) = pair.answered(side, roots) {
                    self.compare_roots(&both);
                }
                moved
            }
            Tag::Descent(partition, question) => {
                let Some(descent) = self.descents.get_mut(&partition) else { return Moved::default() };
                let moved = descent.answered(side, question, response);
                self.settle(partition);
                moved
            }
        }
    }

    /// A page of a partition is durable here.
    pub(super) fn ingested(&mut self, partition: Partition) {
        if let Some(descent) = self.descents.get_mut(&partition) {
            descent.ingested();
            self.settle(partition);
        }
    }

    /// A question has no answer: a partition's, or that for roots.
    pub(super) fn unanswered(&mut self, tag: Tag) {
        match tag {
            Tag::Roots => self.give_up(),
            Tag::Descent(partition, _) => {
                if let Some(descent) = self.descents.get_mut(&partition) {
                    descent.give_up();
                    self.settle(partition);
                }
            }
        }
    }

    /// The peer does not answer any more, or this node's own store.
    pub(super) fn give_up(&mut self) {
        let roots = self.roots.take().into_iter().flat_map(|roots| roots.partitions);
        let descents = std::mem::take(&mut self.descents).into_keys();
        let left = self.todo.drain(..).chain(self.differing.drain(..).map(|(partition, _)| partition));
        self.verdicts.extend(left.chain(roots).chain(descents).map(|partition| (partition, Verdict::Failed)));
    }

    /// Up to where a partition was streamed; `None`: it was, or was not begun.
    pub(super) fn position(&self, partition: Partition) -> Option<Position> {
        self.descents.get(&partition).and_then(Descent::position).cloned()
    }

    /// The verdicts since they were last asked for.
    pub(super) fn verdicts(&mut self) -> Vec<(Partition, Verdict)> {
        std::mem::take(&mut self.verdicts)
    }

    pub(super) fn is_over(&self) -> bool {
        self.todo.is_empty() && self.roots.is_none() && self.differing.is_empty() && self.descents.is_empty()
    }

    fn compare_roots(&mut self, (here, there): &(Vec<Option<u64>>, Vec<Option<u64>>)) {
        let Some(Roots { partitions, .. }) = self.roots.take() else { return };
        for (partition, (here, there)) in partitions.into_iter().zip(here.iter().zip(there)) {
            match (here, there) {
                (Some(here), Some(there)) if here == there => self.verdicts.push((partition, Verdict::Clean)),
                (Some(here), Some(_)) => self.differing.push_back((partition, *here == *EMPTY_ROOT)),
                (None, _) => self.verdicts.push((partition, Verdict::Failed)),
                (Some(_), None) => self.verdicts.push((partition, Verdict::Absent)),
            }
        }
    }

    fn settle(&mut self, partition: Partition) {
        let Some(is_clean) = self.descents.get(&partition).and_then(Descent::verdict) else { return };
        self.descents.remove(&partition);
        self.verdicts.push((partition, if is_clean { Verdict::Clean } else { Verdict::Failed }));
    }
}

/// Guess: enough that a descent's six rounds are not waited for one after the other, few enough for the memory of their
/// trees and lists.
const DESCENTS_MAX: usize = 8;
/// On the wire, about.
const ROOT_BYTES: u64 = 9;
