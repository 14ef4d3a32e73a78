//! The side that is asked: roots, tree nodes and keys out of this node's own rows, for peers and for its own comparisons.
//!
//! Shape: a roots question first brings what memtables hold of its partitions into the rows, then reads bucket digests of the
//! partitions that have rows at all, one answer each; roots are kept until the rows of their cell change. Trees are built
//! when somebody asks for their nodes, and a few are kept as long.
//! Invariants: a roots answer covers all that was synced when it was asked; what is kept is of the rows as they are; at most
//! `QUESTIONS_MAX` questions wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shoal_protocol::id::Partition;
use shoal_protocol::peer::{PeerResponse, Refusal};
use shoal_protocol::repair::{BUCKETS_COUNT, BUCKETS_MAX, NODES_MAX, ROOTS_MAX, RepairAnswer};

use super::tree::{EMPTY_ROOT, Tree};
use crate::storage::{BucketKeys, CellId, CellPlace, PartitionDigests};

/// Names a question that waits.
pub type QuestionId = u64;

/// What is asked of this node's rows, as far as it holds the partition and may show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Roots, in order; `false`: not to be shown.
    Roots(Vec<(Partition, bool)>),
    /// The children of tree nodes.
    Nodes {
        /// Whose tree.
        partition: Partition,
        /// Of this level.
        level: u8,
        /// Which.
        nodes: Vec<u16>,
    },
    /// The keys of buckets.
    Keys {
        /// Whose.
        partition: Partition,
        /// Which.
        buckets: Vec<u16>,
    },
}

/// What answering needs.
#[derive(Debug)]
pub enum ServeEffect<T> {
    /// The answer.
    Answer {
        /// The asker's name for the question.
        to: T,
        /// The answer.
        response: PeerResponse,
    },
    /// Bring what is held of these partitions into the rows: `flushed`.
    Flush {
        /// For this question.
        question: QuestionId,
        /// Of these.
        partitions: Vec<Partition>,
    },
    /// Which partitions have rows: `listed`.
    List(CellId),
    /// Their digests: `digests_read`.
    Digests(Partition),
    /// Keys of buckets: `keys_read`.
    Keys {
        /// For this question.
        question: QuestionId,
        /// Whose.
        partition: Partition,
        /// Which.
        buckets: BTreeSet<u16>,
    },
}

/// Answers questions about this node's rows.
#[derive(Debug)]
pub struct Server<T> {
    cells: BTreeMap<CellId, Cell>,
    cells_count: u8,
    questions: BTreeMap<QuestionId, Question<T>>,
    questions_count: u64,
    /// Kept, as long as the rows of their cells are as they were.
    trees: BTreeMap<Partition, Tree>,
}

/// What is known of the rows of a cell.
#[derive(Debug, Default)]
struct Cell {
    /// How often they have changed.
    version: u64,
    filled: Option<BTreeSet<Partition>>,
    roots: BTreeMap<Partition, u64>,
    /// Who waits for a list, in order.
    listing: VecDeque<(QuestionId, u64)>,
    /// Who waits for digests, in order.
    reading: BTreeMap<Partition, VecDeque<(QuestionId, u64)>>,
}

#[derive(Debug)]
struct Question<T> {
    from: T,
    about: About,
}

#[derive(Debug)]
enum About {
    Roots {
        partitions: Vec<(Partition, bool)>,
        /// In the order of the partitions.
        roots: Vec<Option<u64>>,
        /// Cells of which it is not known yet what there is.
        unlisted: BTreeSet<CellId>,
        /// Partitions that are being read, and their places in the order.
        unread: BTreeMap<Partition, usize>,
    },
    Nodes {
        partition: Partition,
        level: u8,
        nodes: Vec<u16>,
    },
    Keys {
        partition: Partition,
    },
}

impl<T: Clone> Server<T> {
    /// Over the rows of so many cells.
    #[must_use]
    pub fn new(cells_count: u8) -> Self {
        let cells = CellPlace::all(cells_count).map(|place| (place.cell, Cell::default())).collect();
        Self { cells, cells_count, questions: BTreeMap::new(), questions_count: 0, trees: BTreeMap::new() }
    }

    /// Takes a question.
    pub fn ask(&mut self, from: T, asked: Asked, out: &mut Vec<ServeEffect<T>>) {
        if self.questions.len() >= QUESTIONS_MAX {
            return refuse(from, Refusal::Overloaded, out);
        }
        if !asked.is_bounded() {
            return refuse(from, Refusal::Malformed, out);
        }
        self.questions_count += 1;
        let id = self.questions_count;
        let about = match asked {
            Asked::Roots(partitions) => {
                let shown: Vec<Partition> = partitions.iter().filter(|(_, shown)| *shown).map(|(p, _)| *p).collect();
                let unlisted = shown.iter().map(|partition| self.cell_of(*partition)).collect();
                out.push(ServeEffect::Flush { question: id, partitions: shown });
                About::Roots { roots: vec![None; partitions.len()], partitions, unlisted, unread: BTreeMap::new() }
            }
            Asked::Nodes { partition, level, nodes } => {
                if let Some(tree) = self.trees.get(&partition) {
                    return answer_nodes(from, tree, (level, &nodes), out);
                }
                self.read_digests(id, partition, out);
                About::Nodes { partition, level, nodes }
            }
            Asked::Keys { partition, buckets } => {
                out.push(ServeEffect::Keys { question: id, partition, buckets: buckets.into_iter().collect() });
                About::Keys { partition }
            }
        };
        self.questions.insert(id, Question { from, about });
    }

    /// What was held of a question's partitions is in the rows.
    pub fn flushed(&mut self, id: QuestionId, out: &mut Vec<ServeEffect<T>>) {
        let Some(Question { about: About::Roots { unlisted, .. }, .. }) = self.questions.get(&id) else { return };
        for cell in unlisted.clone() {
            let Some(state) = self.cells.get_mut(&cell) else { continue };
            if let Some(filled) = state.filled.take() {
                self.look(id, (cell, &filled), out);
                self.cells.entry(cell).or_default().filled = Some(filled);
            } else {
                state.listing.push_back((id, state.version));
                out.push(ServeEffect::List(cell));
            }
        }
        self.finish(id, out);
    }

    /// These partitions of a cell have rows.
    pub fn listed(&mut self, cell: CellId, partitions: BTreeSet<Partition>, out: &mut Vec<ServeEffect<T>>) {
        let Some(state) = self.cells.get_mut(&cell) else { return };
        let Some((id, version)) = state.listing.pop_front() else { return };
        let is_current = version == state.version;
        self.look(id, (cell, &partitions), out);
        if is_current {
            self.cells.entry(cell).or_default().filled = Some(partitions);
        }
        self.finish(id, out);
    }

    /// The digests of a partition.
    pub fn digests_read(&mut self, partition: Partition, digests: &PartitionDigests, out: &mut Vec<ServeEffect<T>>) {
        let cell = self.cell_of(partition);
        let Some(state) = self.cells.get_mut(&cell) else { return };
        let Some((id, version)) = state.reading.get_mut(&partition).and_then(VecDeque::pop_front) else { return };
        let tree = Tree::of(digests);
        if version == state.version {
            state.roots.insert(partition, tree.root());
            if self.trees.len() >= TREES_MAX {
                self.trees.pop_first();
            }
            self.trees.insert(partition, tree.clone());
        }
        match self.questions.get_mut(&id).map(|question| &mut question.about) {
            Some(About::Roots { roots, unread, .. }) => {
                if let Some(at) = unread.remove(&partition) {
                    roots[at] = Some(tree.root());
                }
                self.finish(id, out);
            }
            Some(About::Nodes { level, nodes, .. }) => {
                let (level, nodes) = (*level, std::mem::take(nodes));
                if let Some(Question { from, .. }) = self.questions.remove(&id) {
                    answer_nodes(from, &tree, (level, &nodes), out);
                }
            }
            Some(About::Keys { .. }) | None => {}
        }
    }

    /// The keys that a question asked for.
    pub fn keys_read(&mut self, id: QuestionId, keys: BucketKeys, out: &mut Vec<ServeEffect<T>>) {
        let Some(Question { from, .. }) = self.questions.remove(&id) else { return };
        let BucketKeys { keys, through, damaged, .. } = keys;
        if !damaged.is_empty() {
            // Not all there is: to be compared again when it is healed.
            let response = PeerResponse::Refused(Refusal::NotSynced);
            return out.push(ServeEffect::Answer { to: from, response });
        }
        let keys = keys.into_iter().map(|(key, digest)| (key.place(), digest)).collect();
        let response = PeerResponse::Repair(RepairAnswer::Keys { keys, through });
        out.push(ServeEffect::Answer { to: from, response });
    }

    /// The rows of a cell have changed: what is known of them is of before.
    pub fn changed(&mut self, cell: CellId) {
        let Some(state) = self.cells.get_mut(&cell) else { return };
        state.version += 1;
        state.filled = None;
        state.roots.clear();
        let count = self.cells_count;
        self.trees.retain(|partition, _| CellPlace::of(*partition, count) != cell);
    }

    /// The store of a cell failed: what was asked of it is lost.
    pub fn failed(&mut self, cell: CellId, out: &mut Vec<ServeEffect<T>>) {
        self.changed(cell);
        if let Some(state) = self.cells.get_mut(&cell) {
            state.listing.clear();
            state.reading.clear();
        }
        let count = self.cells_count;
        let is_there = |partition: &Partition| CellPlace::of(*partition, count) == cell;
        let lost = self.questions.extract_if(.., |_, question| match &question.about {
            About::Roots { unlisted, unread, .. } => unlisted.contains(&cell) || unread.keys().any(is_there),
            About::Nodes { partition, .. } | About::Keys { partition } => is_there(partition),
        });
        for (_, Question { from, .. }) in lost {
            refuse(from, Refusal::Storage, out);
        }
    }

    /// Takes what is known of a cell's partitions for a roots question, and asks for the rest.
    fn look(&mut self, id: QuestionId, (cell, filled): (CellId, &BTreeSet<Partition>), out: &mut Vec<ServeEffect<T>>) {
        let count = self.cells_count;
        let Some(state) = self.cells.get(&cell) else { return };
        let Some(Question { about, .. }) = self.questions.get_mut(&id) else { return };
        let About::Roots { partitions, roots, unlisted, unread } = about else { return };
        unlisted.remove(&cell);
        let mut reads = Vec::new();
        for (at, (partition, shown)) in partitions.iter().enumerate() {
            if !shown || CellPlace::of(*partition, count) != cell {
                continue;
            }
            roots[at] =
                if filled.contains(partition) { state.roots.get(partition).copied() } else { Some(*EMPTY_ROOT) };
            if roots[at].is_none() && unread.insert(*partition, at).is_none() {
                reads.push(*partition);
            }
        }
        for partition in reads {
            self.read_digests(id, partition, out);
        }
    }

    fn read_digests(&mut self, id: QuestionId, partition: Partition, out: &mut Vec<ServeEffect<T>>) {
        let cell = self.cell_of(partition);
        let Some(state) = self.cells.get_mut(&cell) else { return };
        state.reading.entry(partition).or_default().push_back((id, state.version));
        out.push(ServeEffect::Digests(partition));
    }

    fn finish(&mut self, id: QuestionId, out: &mut Vec<ServeEffect<T>>) {
        let Some(Question { about: About::Roots { unlisted, unread, .. }, .. }) = self.questions.get(&id) else {
            return;
        };
        if !unlisted.is_empty() || !unread.is_empty() {
            return;
        }
        if let Some(Question { from, about: About::Roots { roots, .. } }) = self.questions.remove(&id) {
            out.push(ServeEffect::Answer { to: from, response: PeerResponse::Repair(RepairAnswer::Roots(roots)) });
        }
    }

    fn cell_of(&self, partition: Partition) -> CellId {
        CellPlace::of(partition, self.cells_count)
    }
}

impl Asked {
    /// Whether lists are no longer than they may be, and ascend.
    fn is_bounded(&self) -> bool {
        match self {
            Self::Roots(partitions) => partitions.len() <= ROOTS_MAX,
            Self::Nodes { nodes, .. } => nodes.len() <= NODES_MAX && nodes.is_sorted_by(|a, b| a < b),
            Self::Keys { buckets, .. } => {
                buckets.len() <= BUCKETS_MAX
                    && buckets.is_sorted_by(|a, b| a < b)
                    && buckets.last().is_some_and(|last| *last < BUCKETS_COUNT)
            }
        }
    }
}

fn answer_nodes<T>(from: T, tree: &Tree, (level, nodes): (u8, &[u16]), out: &mut Vec<ServeEffect<T>>) {
    match tree.children(level, nodes) {
        Some(hashes) => {
            let response = PeerResponse::Repair(RepairAnswer::Nodes(hashes));
            out.push(ServeEffect::Answer { to: from, response });
        }
        None => refuse(from, Refusal::Malformed, out),
    }
}

fn refuse<T>(to: T, refusal: Refusal, out: &mut Vec<ServeEffect<T>>) {
    out.push(ServeEffect::Answer { to, response: PeerResponse::Refused(refusal) });
}

/// Bytes of keys and digests in one answer: more than a partition has, as a rule, and far from what a frame can carry.
pub const KEYS_BYTES_MAX: usize = 4 << 20;
/// Two exchanges of this node and one of each peer ask few questions at a time.
const QUESTIONS_MAX: usize = 256;
/// About 11 KB each.
const TREES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Class;

    use super::*;
    use crate::storage::BucketDigest;

    fn partition(index: u16) -> Partition {
        Partition { class: Class { n: 3, r: 0, w: 0 }, index }
    }

    fn digests(sum: u128) -> PartitionDigests {
        let buckets = vec![(3, BucketDigest { sum, count: 1 })];
        PartitionDigests { buckets, rows_count: 1, recomputed: false, at: Default::default() }
    }

    fn roots(out: Vec<ServeEffect<u8>>) -> Vec<(u8, Vec<Option<u64>>)> {
        let answer = |effect| {
            let ServeEffect::Answer { to, response: PeerResponse::Repair(RepairAnswer::Roots(roots)) } = effect else {
                return None;
            };
            Some((to, roots))
        };
        out.into_iter().filter_map(answer).collect()
    }

    #[test]
    fn roots_are_read_once_per_change_of_the_rows_and_only_of_partitions_that_have_any() {
        let mut server: Server<u8> = Server::new(1);
        let ask = |server: &mut Server<u8>, from| {
            let mut out = Vec::new();
            server.ask(
                from,
                Asked::Roots(vec![(partition(1), true), (partition(2), true), (partition(3), false)]),
                &mut out,
            );
            assert!(matches!(&out[..], [ServeEffect::Flush { question, .. }] if *question == u64::from(from)));
            out.clear();
            server.flushed(u64::from(from), &mut out);
            out
        };
        assert!(matches!(&ask(&mut server, 1)[..], [ServeEffect::List(CellId::HOME)]));
        let mut out = Vec::new();
        server.listed(CellId::HOME, [partition(2)].into(), &mut out);
        assert!(matches!(&out[..], [ServeEffect::Digests(read)] if *read == partition(2)));
        out.clear();
        server.digests_read(partition(2), &digests(7), &mut out);
        let expected = vec![Some(*EMPTY_ROOT), Some(Tree::of(&digests(7)).root()), None];
        assert_eq!(roots(out), [(1, expected.clone())]);
        assert_eq!(roots(ask(&mut server, 2)), [(2, expected)]);
        server.changed(CellId::HOME);
        assert!(matches!(&ask(&mut server, 3)[..], [ServeEffect::List(CellId::HOME)]));
    }

    #[test]
    fn what_was_read_before_a_change_is_told_and_not_kept() {
        let mut server: Server<u8> = Server::new(1);
        let mut out = Vec::new();
        server.ask(1, Asked::Nodes { partition: partition(1), level: 0, nodes: vec![0] }, &mut out);
        server.changed(CellId::HOME);
        server.digests_read(partition(1), &digests(1), &mut out);
        assert!(matches!(&out[1], ServeEffect::Answer { to: 1, .. }));
        assert!(server.trees.is_empty());
        server.ask(2, Asked::Nodes { partition: partition(1), level: 0, nodes: vec![0] }, &mut out);
        server.failed(CellId::HOME, &mut out);
        let refused = PeerResponse::Refused(Refusal::Storage);
        assert!(matches!(out.last(), Some(ServeEffect::Answer { to: 2, response }) if *response == refused));
    }

    #[test]
    fn lists_that_are_too_long_or_not_in_order_are_refused() {
        let mut server: Server<u8> = Server::new(1);
        let malformed = |server: &mut Server<u8>, asked| {
            let mut out = Vec::new();
            server.ask(1, asked, &mut out);
            matches!(&out[..], [ServeEffect::Answer { response: PeerResponse::Refused(Refusal::Malformed), .. }])
        };
        let nodes = |nodes| Asked::Nodes { partition: partition(1), level: 0, nodes };
        let keys = |buckets| Asked::Keys { partition: partition(1), buckets };
        assert!(malformed(&mut server, Asked::Roots(vec![(partition(1), true); ROOTS_MAX + 1])));
        assert!(malformed(&mut server, nodes(vec![1, 1])) && malformed(&mut server, nodes((0..300).collect())));
        assert!(malformed(&mut server, keys(vec![])) && malformed(&mut server, keys(vec![BUCKETS_COUNT])));
        assert!(!malformed(&mut server, keys(vec![0, 5])));
    }
}
