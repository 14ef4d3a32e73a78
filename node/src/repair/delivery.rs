//! One page of objects on its way to those who are to have it.
//!
//! Invariant: a page is through only when every one of its objects was synced by every one it was for.

use std::collections::{BTreeMap, VecDeque};

use shoal_protocol::id::NodeId;

use super::errand::{GiveId, Row};

/// An object for somebody.
#[derive(Clone, Debug)]
pub(super) struct Gift {
    /// Who is asked to take it.
    pub(super) to: NodeId,
    /// For whom it is to be kept there; `None` = it is the receiver's own.
    pub(super) hold_for: Option<NodeId>,
    pub(super) row: Row,
}

/// A page under way.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    waiting: VecDeque<Gift>,
    /// Bytes of each that was sent and not yet taken.
    open: BTreeMap<GiveId, usize>,
}

impl Gift {
    /// Bytes, names included.
    pub(super) fn bytes(&self) -> usize {
        self.row.place.collection.len() + self.row.place.key.len() + self.row.delta.len()
    }
}

impl Delivery {
    pub(super) fn new(gifts: impl IntoIterator<Item = Gift>) -> Self {
        Self { waiting: gifts.into_iter().collect(), open: BTreeMap::new() }
    }

    /// What is to be sent next, if not too much is under way.
    pub(super) fn next(&self) -> Option<&Gift> {
        self.waiting.front().filter(|_| self.open.len() < OPEN_MAX)
    }

    /// The next one is sent under this name.
    pub(super) fn send(&mut self, id: GiveId) -> Option<Gift> {
        let gift = self.waiting.pop_front()?;
        self.open.insert(id, gift.bytes());
        Some(gift)
    }

    /// It was taken: how many bytes.
    pub(super) fn taken(&mut self, id: GiveId) -> Option<usize> {
        self.open.remove(&id)
    }

    pub(super) fn is_open(&self, id: GiveId) -> bool {
        self.open.contains_key(&id)
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }
}

/// Objects of one page under way at once: enough to share syncs at the receiver.
const OPEN_MAX: usize = 64;
