//! One partition compared with one peer, from a root that differs down to objects.
//!
//! Shape: both sides are asked with the same words, the own one, too: tree nodes level by level, but only below those that
//! differ; then the keys of the buckets that differ; then the objects (`objects`). A partition of which nothing, or too
//! little, is here comes as a stream first (`stream`), and is then compared as any other.
//! Sources: DESIGN §9; notes/model.md §4.3. Invariants: whatever was synced at the peer when it was asked for its root is
//! here, durable, when a descent ends well: each hash, key and object was compared with what the peer had at some moment
//! after that. An answer of the wrong shape ends it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shoal_protocol::id::{KeyspaceId, Partition};
use shoal_protocol::object::Digest;
use shoal_protocol::peer::{PeerRequest, PeerResponse};
use shoal_protocol::repair::{BUCKETS_COUNT, RepairAnswer, RepairAsk, bucket_of};

use super::budget::Moved;
use super::objects::Objects;
use super::stream::{Paged, Position, Stream};
use super::tree::{LEAVES, fanout};
use crate::storage::RowKey;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// This node.
    Here,
    /// The peer.
    There,
}

/// What an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Nodes,
    Keys,
    Object(u32),
    Page,
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Step {
    /// Ask a side.
    Ask { side: Side, question: Question, request: Box<PeerRequest> },
    /// Put a page into the rows.
    Ingest { rows: Vec<(RowKey, Bytes)> },
}

/// One thing from both sides.
#[derive(Debug)]
pub(super) struct Pair<T> {
    asked: [bool; 2],
    answers: [Option<T>; 2],
}

impl<T> Default for Pair<T> {
    fn default() -> Self {
        Self { asked: [false; 2], answers: [None, None] }
    }
}

impl<T> Pair<T> {
    /// A side that was not asked yet.
    pub(super) fn unasked(&mut self) -> Option<Side> {
        let side = [Side::There, Side::Here].into_iter().find(|side| !self.asked[*side as usize])?;
        self.asked[side as usize] = true;
        Some(side)
    }

    /// Both answers, this node's first, once they are there.
    pub(super) fn answered(&mut self, side: Side, answer: T) -> Option<(T, T)> {
        self.answers[side as usize] = Some(answer);
        match self.answers.each_mut() {
            [Some(_), Some(_)] => self.answers[0].take().zip(self.answers[1].take()),
            [None, _] | [_, None] => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Descent {
    partition: Partition,
    keyspaces: BTreeSet<KeyspaceId>,
    stage: Stage,
    /// Whether rows may still come as a stream.
    may_stream: bool,
    position: Option<Position>,
}

#[derive(Debug)]
enum Stage {
    Nodes { level: u8, nodes: Vec<u16>, pair: Pair<Vec<u64>> },
    Keys { buckets: Vec<u16>, pair: Pair<Listed> },
    Objects { rest: Vec<u16>, objects: Objects },
    Stream(Stream),
    Over { is_clean: bool },
}

/// Keys of buckets, and the last bucket they are complete for.
#[derive(Debug)]
struct Listed {
    keys: BTreeMap<RowKey, Digest>,
    through: u16,
}

impl Descent {
    /// Compares a partition that has these keyspaces. With nothing of it here it is streamed, from `position` on.
    pub(super) fn new(
        partition: Partition,
        keyspaces: BTreeSet<KeyspaceId>,
        is_empty_here: bool,
        position: Option<Position>,
    ) -> Self {
        let stage = Stage::root();
        let mut descent = Self { partition, keyspaces, stage, may_stream: true, position };
        if is_empty_here || descent.position.is_some() {
            descent.stream();
        }
        descent
    }

    /// What is to be done next, if nothing has to be waited for.
    pub(super) fn next(&mut self) -> Option<Step> {
        let partition = self.partition;
        match &mut self.stage {
            Stage::Nodes { level, nodes, pair } => {
                let side = pair.unasked()?;
                let ask = RepairAsk::Nodes { partition, level: *level, nodes: nodes.clone(), compact_epoch: 0 };
                Some(Step::Ask { side, question: Question::Nodes, request: Box::new(PeerRequest::Repair(ask)) })
            }
            Stage::Keys { buckets, pair } => {
                let side = pair.unasked()?;
                let ask = RepairAsk::Keys { partition, buckets: buckets.clone(), compact_epoch: 0 };
                Some(Step::Ask { side, question: Question::Keys, request: Box::new(PeerRequest::Repair(ask)) })
            }
            Stage::Objects { objects, .. } => objects.next(),
            Stage::Stream(stream) => stream.next(),
            Stage::Over { .. } => None,
        }
    }

    /// Once it is over: whether both sides were made equal.
    pub(super) fn verdict(&self) -> Option<bool> {
        match self.stage {
            Stage::Over { is_clean } => Some(is_clean),
            Stage::Nodes { .. } | Stage::Keys { .. } | Stage::Objects { .. } | Stage::Stream(_) => None,
        }
    }

    /// Up to where rows were streamed, while not all of them were.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// A side answers; what that moved.
    pub(super) fn answered(&mut self, side: Side, question: Question, response: PeerResponse) -> Moved {
        match (&mut self.stage, question, response) {
            (Stage::Nodes { pair, .. }, Question::Nodes, PeerResponse::Repair(RepairAnswer::Nodes(hashes))) => {
                let moved = Moved { bytes: hashes.len() as u64 * HASH_BYTES, objects: 0 };
                if let Some(both) = pair.answered(side, hashes) {
                    self.descend(&both);
                }
                moved
            }
            (Stage::Keys { pair, .. }, Question::Keys, PeerResponse::Repair(RepairAnswer::Keys { keys, through })) => {
                let bytes = |key: &RowKey| key.as_bytes().len() + size_of::<Digest>();
                let partition = self.partition;
                let keys: BTreeMap<_, _> =
                    keys.into_iter().map(|(place, digest)| (RowKey::new(partition, &place), digest)).collect();
                let moved = Moved { bytes: keys.keys().map(bytes).sum::<usize>() as u64, objects: 0 };
                if let Some(both) = pair.answered(side, Listed { keys, through }) {
                    self.compare_keys(both);
                }
                moved
            }
            (Stage::Objects { objects, .. }, Question::Object(number), response) => {
                let moved = objects.answered(number, &response);
                self.finish_objects();
                moved
            }
            (Stage::Stream(stream), Question::Page, response) => match stream.answered(response) {
                Paged::Good(moved) => {
                    self.advance_stream();
                    moved
                }
                Paged::Refused => {
                    self.stage = Stage::root();
                    Moved::default()
                }
                Paged::Malformed => self.give_up(),
            },
            (
                Stage::Nodes { .. }
                | Stage::Keys { .. }
                | Stage::Objects { .. }
                | Stage::Stream(_)
                | Stage::Over { .. },
                Question::Nodes | Question::Keys | Question::Object(_) | Question::Page,
                _,
            ) => self.give_up(),
        }
    }

    /// The page is durable here.
    pub(super) fn ingested(&mut self) {
        if let Stage::Stream(stream) = &mut self.stage {
            stream.ingested();
            self.advance_stream();
        }
    }

    /// Something that was asked has no answer.
    pub(super) fn give_up(&mut self) -> Moved {
        self.stage = Stage::Over { is_clean: false };
        Moved::default()
    }

    fn stream(&mut self) {
        self.may_stream = false;
        self.stage = Stage::Stream(Stream::new(self.partition, &self.keyspaces, self.position.as_ref()));
        self.advance_stream();
    }

    fn advance_stream(&mut self) {
        if let Stage::Stream(stream) = &self.stage {
            self.position = stream.position();
            if stream.is_over() {
                self.stage = Stage::root();
            }
        }
    }

    fn descend(&mut self, (here, there): &(Vec<u64>, Vec<u64>)) {
        let Stage::Nodes { level, nodes, .. } = &self.stage else { return };
        let Some(fanout) = fanout(*level).filter(|fanout| {
            let expected = nodes.len() * usize::from(*fanout);
            here.len() == expected && there.len() == expected
        }) else {
            self.give_up();
            return;
        };
        let children = nodes.iter().flat_map(|node| node * fanout..(node + 1) * fanout);
        let pairs = children.zip(here.iter().zip(there));
        let differing: Vec<u16> = pairs.filter(|(_, (here, there))| here != there).map(|(child, _)| child).collect();
        let level = *level + 1;
        if differing.is_empty() {
            // Equal by now.
            self.stage = Stage::Over { is_clean: true };
        } else if level < LEAVES {
            self.stage = Stage::Nodes { level, nodes: differing, pair: Pair::default() };
        } else if self.may_stream && differing.len() > STREAM_BUCKETS_MIN {
            self.stream();
        } else {
            self.stage = Stage::Keys { buckets: differing, pair: Pair::default() };
        }
    }

    fn compare_keys(&mut self, (here, there): (Listed, Listed)) {
        let Stage::Keys { buckets, .. } = &self.stage else { return };
        let through = here.through.min(there.through);
        let rest: Vec<u16> = buckets.iter().filter(|bucket| **bucket > through).copied().collect();
        let was_asked = |key: &RowKey| buckets.binary_search(&bucket_of(&key.place())).is_ok();
        if rest.len() == buckets.len() || !here.keys.keys().chain(there.keys.keys()).all(was_asked) {
            self.give_up();
            return;
        }
        let [here, there] = [here, there].map(|listed| {
            listed.keys.into_iter().filter(|(key, _)| bucket_of(&key.place()) <= through).collect::<BTreeMap<_, _>>()
        });
        self.stage = Stage::Objects { rest, objects: Objects::between(here, there) };
        self.finish_objects();
    }

    /// Goes on with the buckets that did not fit, if all keys so far are dealt with.
    fn finish_objects(&mut self) {
        let Stage::Objects { rest, objects } = &mut self.stage else { return };
        let Some(is_clean) = objects.verdict() else { return };
        self.stage = if rest.is_empty() || !is_clean {
            Stage::Over { is_clean }
        } else {
            Stage::Keys { buckets: std::mem::take(rest), pair: Pair::default() }
        };
    }
}

impl Stage {
    fn root() -> Self {
        Self::Nodes { level: 0, nodes: vec![0], pair: Pair::default() }
    }
}

/// With more buckets that differ, lists of keys would cost about what the rows do. See docs/decisions/0017.
const STREAM_BUCKETS_MIN: usize = BUCKETS_COUNT as usize / 2;
const HASH_BYTES: u64 = 8;
