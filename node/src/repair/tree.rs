//! The Merkle tree of one partition, over the digests of its buckets.
//!
//! Shape: 1,024 leaves, hashed from each bucket's sum and count; levels of 1, 16, 256 and 1,024 tree nodes are compared, the
//! binary layers between are not. Hashes are blake3 cut to 16 bytes, leaves and inner nodes in separate domains; of each the
//! first 64 bits travel. Built by `rs_merkle`, lazily: notes/model.md §4.1 has its pitfalls (no leaf update, one layer too
//! many above a power of two, no domains of its own).
//! Invariant: the leaf count is always the full power of two, so no tree node is ever promoted unhashed.

use std::sync::LazyLock;

use rs_merkle::{Hasher, PartialTree};
use shoal_protocol::repair::BUCKETS_COUNT;

use crate::storage::{BucketDigest, PartitionDigests};

/// The tree of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// By level: the root, its children, theirs, and the leaves.
    levels: [Vec<u64>; LEVELS_COUNT],
}

impl Tree {
    /// The tree of a partition whose rows add up to this.
    pub(super) fn of(digests: &PartitionDigests) -> Self {
        let mut buckets = vec![BucketDigest::default(); usize::from(BUCKETS_COUNT)];
        for (bucket, digest) in &digests.buckets {
            buckets[usize::from(*bucket)] = *digest;
        }
        let leaves: Vec<Hash> = buckets.iter().map(leaf).collect();
        let tree = PartialTree::<Blake3>::from_leaves(&leaves).expect("all leaves are there");
        let level = |layer: usize| tree.layers()[layer].iter().map(|(_, hash)| short(hash)).collect();
        Self { levels: LAYERS.map(level) }
    }

    pub(super) fn root(&self) -> u64 {
        self.levels[0][0]
    }

    /// The children of these tree nodes of a level, in order; `None` if there are no such nodes.
    pub(super) fn children(&self, level: u8, nodes: &[u16]) -> Option<Vec<u64>> {
        let (parents, children) = (self.levels.get(usize::from(level))?, self.levels.get(usize::from(level) + 1)?);
        let fanout = children.len() / parents.len();
        let mut found = Vec::with_capacity(nodes.len() * fanout);
        for node in nodes {
            let first = usize::from(*node) * fanout;
            found.extend_from_slice(children.get(first..first + fanout)?);
        }
        Some(found)
    }
}

/// How many children the nodes of a level have; `None` for leaves.
pub(super) fn fanout(level: u8) -> Option<u16> {
    match level {
        0 | 1 => Some(16),
        2 => Some(4),
        _ => None,
    }
}

/// The level of the leaves.
pub(super) const LEAVES: u8 = 3;

/// The root of a partition without rows.
pub(super) static EMPTY_ROOT: LazyLock<u64> = LazyLock::new(|| short(&EMPTY[LAYERS[0]]));

/// What an empty subtree of so many layers above its leaves hashes to: most of a tree is that, unless there are many rows.
static EMPTY: LazyLock<[Hash; LAYERS[0] + 1]> = LazyLock::new(|| {
    let mut hash = digest(LEAF, &leaf_bytes(&BucketDigest::default()));
    std::array::from_fn(|layer| {
        if layer > 0 {
            hash = digest(INNER, &[hash, hash].concat());
        }
        hash
    })
});

type Hash = [u8; 16];

#[derive(Clone)]
struct Blake3;

impl Hasher for Blake3 {
    type Hash = Hash;

    fn hash(data: &[u8]) -> Hash {
        digest(LEAF, data)
    }

    fn concat_and_hash(left: &Hash, right: Option<&Hash>) -> Hash {
        // Only the layer above the root has no right child, and nobody looks at it.
        let Some(right) = right else { return *left };
        let empty = if left == right { EMPTY.iter().position(|empty| empty == left) } else { None };
        match empty.and_then(|layer| EMPTY.get(layer + 1)) {
            Some(empty) => *empty,
            None => digest(INNER, &[*left, *right].concat()),
        }
    }
}

fn leaf(bucket: &BucketDigest) -> Hash {
    if *bucket == BucketDigest::default() { EMPTY[0] } else { Blake3::hash(&leaf_bytes(bucket)) }
}

fn leaf_bytes(bucket: &BucketDigest) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&bucket.sum.to_be_bytes());
    bytes[16..].copy_from_slice(&bucket.count.to_be_bytes());
    bytes
}

fn digest(domain: u8, data: &[u8]) -> Hash {
    let mut bytes = [0; 1 + 2 * size_of::<Hash>()];
    let bytes = &mut bytes[..=data.len()];
    bytes[0] = domain;
    bytes[1..].copy_from_slice(data);
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    hash
}

fn short(hash: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

const LEVELS_COUNT: usize = 4;
/// Layers of the binary tree, leaves first, that are the levels, root first.
const LAYERS: [usize; LEVELS_COUNT] = [10, 6, 2, 0];
const LEAF: u8 = 0;
const INNER: u8 = 1;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn tree(buckets: &BTreeMap<u16, (u128, u32)>) -> Tree {
        let buckets = buckets.iter().map(|(bucket, (sum, count))| (*bucket, BucketDigest { sum: *sum, count: *count }));
        Tree::of(&PartitionDigests {
            buckets: buckets.collect(),
            rows_count: 0,
            recomputed: false,
            at: Default::default(),
        })
    }

    fn descend(a: &Tree, b: &Tree) -> BTreeSet<u16> {
        let mut nodes: Vec<u16> = if a.root() == b.root() { vec![] } else { vec![0] };
        for level in 0..LEAVES {
            let (left, right) = (a.children(level, &nodes).unwrap(), b.children(level, &nodes).unwrap());
            let fanout = fanout(level).unwrap();
            let all = nodes.iter().flat_map(|node| node * fanout..(node + 1) * fanout);
            nodes = all.zip(left.iter().zip(&right)).filter(|(_, (l, r))| l != r).map(|(node, _)| node).collect();
        }
        nodes.into_iter().collect()
    }

    fn buckets() -> impl Strategy<Value = BTreeMap<u16, (u128, u32)>> {
        proptest::collection::btree_map(0..BUCKETS_COUNT, (0..3u128, 1..3u32), 0..40)
    }

    proptest! {
        #[test]
        fn a_descent_finds_exactly_the_buckets_that_differ(a in buckets(), b in buckets()) {
            let differing: BTreeSet<u16> = (0..BUCKETS_COUNT).filter(|bucket| a.get(bucket) != b.get(bucket)).collect();
            prop_assert_eq!(descend(&tree(&a), &tree(&b)), differing);
        }
    }

    #[test]
    fn levels_have_1_16_256_and_1024_nodes_and_there_are_no_others() {
        let tree = tree(&BTreeMap::from([(5, (1, 1))]));
        assert_eq!(tree.levels.clone().map(|level| level.len()), [1, 16, 256, 1_024]);
        assert_ne!(tree.root(), *EMPTY_ROOT);
        assert_eq!(tree.children(0, &[0]).unwrap().len(), 16);
        assert_eq!(tree.children(0, &[1]), None);
        assert_eq!(tree.children(2, &[255]).unwrap(), tree.levels[3][1_020..]);
        assert_eq!(tree.children(3, &[0]), None);
        assert_eq!(tree.children(9, &[0]), None);
    }

    #[test]
    fn empty_subtrees_hash_to_what_their_nodes_would() {
        let whole = tree(&BTreeMap::new());
        assert_eq!(whole.root(), *EMPTY_ROOT);
        let leaf = digest(LEAF, &leaf_bytes(&BucketDigest::default()));
        assert_eq!(whole.levels[3], vec![short(&leaf); 1_024]);
        let pair = digest(INNER, &[leaf, leaf].concat());
        assert_eq!(whole.levels[2][0], short(&digest(INNER, &[pair, pair].concat())));
    }

    #[test]
    fn a_leaf_is_never_taken_for_an_inner_node() {
        let (left, right) = (digest(LEAF, b"a"), digest(LEAF, b"b"));
        let joined = [left, right].concat();
        assert_ne!(Blake3::hash(&joined), Blake3::concat_and_hash(&left, Some(&right)));
    }
}
