//! What is going to happen, in the order of time.
//!
//! Invariant: of two things at one moment the one planned first happens first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use shoal_protocol::time::Instant;

/// The event heap.
#[derive(Debug)]
pub(super) struct Agenda<E> {
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, E>,
    next: u64,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { order: BinaryHeap::new(), events: BTreeMap::new(), next: 0 }
    }

    pub(super) fn plan(&mut self, at: Instant, event: E) {
        self.order.push(Reverse((at, self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Instant, E)> {
        let Reverse((at, id)) = self.order.pop()?;
        Some((at, self.events.remove(&id).expect("everything ordered is there")))
    }
}
