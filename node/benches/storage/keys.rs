//! What is written: keys, values, and the history of each key.
//!
//! Shape: so many keys of 16 bytes, spread over the partitions of one class as the ring would; a put is a register replaced
//! by one session that has seen what is there, bound as a client binds it. Units: bytes. Invariant: the same seed chooses
//! the same keys for every system.

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_node::storage::RowKey;
use shoal_protocol::address::Place;
use shoal_protocol::causality::{Context, Dot};
use shoal_protocol::id::{Actor, Class, KeyspaceId};
use shoal_protocol::object::{ContentType, Mint, Object, Operation, Value, bind};
use shoal_protocol::time::Hlc;

use crate::Outcome;

/// Keys, and what was put under each.
pub(crate) struct Keys {
    /// The number of the last dot put under each key; 0 if there is none.
    dots: Vec<u64>,
    next_dot: u64,
    dice: ChaCha8Rng,
    value: Vec<u8>,
}

/// One put, as a replica receives it.
pub(crate) struct Put {
    pub(crate) key: RowKey,
    pub(crate) delta: Bytes,
}

impl Keys {
    /// So many keys. Whatever an earlier generation put under them, this one has seen.
    pub(crate) fn new(count: usize, value_bytes: usize, generation: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(generation);
        let mut value = vec![0; value_bytes];
        dice.fill_bytes(&mut value);
        let dots_before = generation * GENERATION_DOTS;
        Self { dots: vec![dots_before; count], next_dot: dots_before + 1, dice, value }
    }

    pub(crate) fn count(&self) -> usize {
        self.dots.len()
    }

    /// Memory that the bench itself takes for them.
    pub(crate) fn resident_bytes(&self) -> u64 {
        (self.dots.len() * size_of::<u64>()) as u64
    }

    /// Bytes of one key and its value, as a user counts.
    pub(crate) fn pair_bytes(&self) -> u64 {
        (KEY_BYTES + self.value.len()) as u64
    }

    pub(crate) fn random_key(&mut self) -> RowKey {
        let index = self.random_index();
        row_key(index)
    }

    /// A put under a random key.
    pub(crate) fn random_put(&mut self) -> Outcome<Put> {
        let index = self.random_index();
        self.put(index)
    }

    /// A put under the key of this number.
    pub(crate) fn put(&mut self, index: usize) -> Outcome<Put> {
        if let Some(front) = self.value.first_chunk_mut() {
            *front = self.dice.next_u64().to_be_bytes();
        }
        let dot = Dot { actor: SESSION, n: self.next_dot };
        let prev = std::mem::replace(&mut self.dots[index], dot.n);
        let mut seen = Context::default();
        seen.insert_range(SESSION, 0, prev);
        self.next_dot += 1;
        let value =
            Value { content_type: ContentType::Bytes, bytes: Bytes::copy_from_slice(&self.value), expires_at: None };
        let mint = Mint { dot, prev, hlc: Hlc(dot.n), total: None };
        let delta = bind(&Operation::Replace { value }, &mint, &Object::of_context(seen))?;
        Ok(Put { key: row_key(index), delta: delta.encode() })
    }

    /// The keys from `from` on, in the order of their rows.
    pub(crate) fn in_row_order(&self, from: usize) -> Vec<usize> {
        let mut sorted: Vec<_> = (from..self.count()).map(|index| (row_key(index), index)).collect();
        sorted.sort_unstable();
        sorted.into_iter().map(|(_, index)| index).collect()
    }

    /// All keys, each once, in no order.
    pub(crate) fn shuffled(&mut self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.count()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.dice.next_u64() as usize % (at + 1));
        }
        order
    }

    fn random_index(&mut self) -> usize {
        self.dice.next_u64() as usize % self.dots.len()
    }
}

fn row_key(index: usize) -> RowKey {
    let place = Place { keyspace: KEYSPACE, collection: Bytes::new(), key: format!("key-{index:012}").into() };
    RowKey::new(place.partition(CLASS), &place)
}

/// More than one run ever puts.
const GENERATION_DOTS: u64 = 1 << 40;
const KEY_BYTES: usize = 16;
const KEYSPACE: KeyspaceId = KeyspaceId(1);
const CLASS: Class = Class { n: 3, r: 2, w: 2 };
const SESSION: Actor = Actor::session(30_000, 1);
