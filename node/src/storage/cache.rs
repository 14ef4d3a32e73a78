//! Visible objects, kept decoded: row ⊔ frozen ⊔ active of each key in here, always up to date.
//!
//! Shape: a map, and a clock hand over its keys (second chance), so that order depends on use alone.
//! Units: bytes by `Object::weight`, plus a flat cost per slot.

use std::collections::{BTreeMap, VecDeque};

use shoal_protocol::causality::Context;
use shoal_protocol::id::Lsn;
use shoal_protocol::object::{Digest, DigestKey, Object};

use super::key::{Extent, RowKey};
use super::memtable::DECODED_BYTES;

/// One object as this store has it.
#[derive(Clone, Debug)]
pub struct VisibleObject {
    /// The object; vacant if there is no row.
    pub object: Object,
    /// The last delta in it: it may be shown once `synced` has come this far.
    pub lsn: Lsn,
    pub(super) digest: Option<Digest>,
}

/// What the cache knows of a key.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are objects")]
#[derive(Clone, Debug)]
pub(super) enum Cached {
    Object(VisibleObject),
    Damaged,
}

impl Cached {
    fn bytes(&self) -> usize {
        match self {
            Self::Object(visible) => visible.object.weight() + SLOT_BYTES,
            Self::Damaged => SLOT_BYTES,
        }
    }
}

#[derive(Clone, Debug)]
struct Slot {
    cached: Cached,
    bytes: usize,
    touched: bool,
    /// The last delta of the store when this was read.
    read_at: Lsn,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    slots: BTreeMap<RowKey, Slot>,
    clock: VecDeque<RowKey>,
    bytes: usize,
}

impl Cache {
    pub(super) fn get(&mut self, key: &RowKey) -> Option<&Cached> {
        let slot = self.slots.get_mut(key)?;
        slot.touched = true;
        Some(&slot.cached)
    }

    /// Keeps what was read after the store's delta `read_at`.
    pub(super) fn insert(&mut self, key: RowKey, cached: Cached, read_at: Lsn) {
        let bytes = cached.bytes() + key.as_bytes().len();
        self.bytes += bytes;
        // Touched: a row just read is wanted, so the hand passes it once.
        let slot = Slot { cached, bytes, touched: true, read_at };
        match self.slots.insert(key.clone(), slot) {
            Some(old) => self.bytes -= old.bytes,
            None => self.clock.push_back(key),
        }
    }

    /// Joins `delta` into the object of `key`, if it is here.
    pub(super) fn join(&mut self, key: &RowKey, delta: &Object, lsn: Lsn) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Cached::Object(visible) = &mut slot.cached else { return };
        visible.object.merge_into(delta);
        visible.lsn = visible.lsn.max(lsn);
        visible.digest = None;
        self.bytes -= slot.bytes;
        slot.bytes = slot.cached.bytes() + key.as_bytes().len();
        self.bytes += slot.bytes;
    }

    /// What lost in the object of `key`, if it is here.
    pub(super) fn lww_losers(&self, key: &RowKey) -> Context {
        match self.slots.get(key).map(|slot| &slot.cached) {
            Some(Cached::Object(visible)) => visible.object.lww_losers(),
            Some(Cached::Damaged) | None => Context::default(),
        }
    }

    /// The digest of a key's object, if it is here; computed once per change.
    pub(super) fn digest(&mut self, key: &RowKey, digest_key: &DigestKey) -> Option<Digest> {
        match &mut self.slots.get_mut(key)?.cached {
            Cached::Object(visible) => {
                Some(*visible.digest.get_or_insert_with(|| visible.object.digest(digest_key, &key.place())))
            }
            Cached::Damaged => None,
        }
    }

    pub(super) fn remove(&mut self, key: &RowKey) {
        if let Some(slot) = self.slots.remove(key) {
            self.bytes -= slot.bytes;
            // Rare (healing a row), so the walk is fine; a key stands in the clock exactly once.
            self.clock.retain(|other| other != key);
        }
    }

    /// Forgets `keys`: they are read anew.
    pub(super) fn forget<'a>(&mut self, keys: impl Iterator<Item = &'a RowKey>) {
        self.forget_where(keys, |_| true);
    }

    /// Forgets everything of `extent`.
    pub(super) fn forget_extent(&mut self, extent: &Extent) {
        let gone = self.slots.extract_if(extent.bounds(), |_, _| true);
        let bytes: usize = gone.map(|(_, slot)| slot.bytes).sum();
        if bytes > 0 {
            self.bytes -= bytes;
            self.clock.retain(|key| self.slots.contains_key(key));
        }
    }

    /// Forgets those of `keys` that were read after the delta `lsn`.
    pub(super) fn forget_read_after<'a>(&mut self, lsn: Lsn, keys: impl Iterator<Item = &'a RowKey>) {
        self.forget_where(keys, |slot| slot.read_at > lsn);
    }

    fn forget_where<'a>(&mut self, keys: impl Iterator<Item = &'a RowKey>, is_stale: impl Fn(&Slot) -> bool) {
        for key in keys {
            if let Some(slot) = self.slots.get(key).filter(|slot| is_stale(slot)) {
                self.bytes -= slot.bytes;
                self.slots.remove(key);
            }
        }
        if self.clock.len() > self.slots.len() {
            self.clock.retain(|key| self.slots.contains_key(key));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets objects, least used first, until `bytes_max` holds.
    pub(super) fn shrink_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(key) = self.clock.pop_front()
        {
            let slot = self.slots.get_mut(&key).expect("a key is in the clock exactly while it has a slot");
            if std::mem::take(&mut slot.touched) {
                self.clock.push_back(key);
            } else {
                self.bytes -= slot.bytes;
                self.slots.remove(&key);
            }
        }
    }
}

/// Flat cost of one slot, bytes: 352 in a tree two thirds full, 32 in the clock, the allocations of key and object.
const SLOT_BYTES: usize = 608 + DECODED_BYTES - size_of::<Object>();
