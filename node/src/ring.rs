//! Placement: which nodes hold which partition under a layout.
//!
//! What: a pure function from a layout's intent to preference lists, the quorum numbers of a class in that layout, and what it
//! takes to get from one layout to the next.
//! Shape: `Ring::new(layout)`, then `placement`, `preference`, `numbers`; tables are computed at first use and kept per
//! number of replicas (at most `REPLICAS_MAX` tables). `Rings`: those of all active layouts, the target's first; `Step`: the way
//! from an older one to the target. No messages, no time, no randomness.
//! Source: DESIGN §5; notes/model.md §5.1. Invariants: every node computes the same map from the same intent; a join undone
//! gives the old map back; the ring never decides who is in a layout.

mod assignment;
mod numbers;
mod placement;
mod rendezvous;
mod rings;
mod shares;
mod transition;

use std::sync::OnceLock;

use shoal_protocol::id::{Class, PARTITIONS_COUNT, Partition};

pub use numbers::{Numbers, REPLICAS_MAX};
pub use placement::{Placement, PreferenceList};
pub use rings::Rings;
pub use shoal_protocol::layout::{Intent, Layout, NodeRole, NodeState};
pub use transition::{Evidence, Step};

/// One layout and what follows from it.
#[derive(Clone, Debug)]
pub struct Ring {
    layout: Layout,
    /// By number of replicas.
    tables: [OnceLock<Placement>; REPLICAS_MAX as usize + 1],
    nobody: PreferenceList,
}

impl Ring {
    /// The ring of this layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, tables: Default::default(), nobody: PreferenceList::default() }
    }

    /// The layout.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The quorum numbers of a class in this layout.
    #[must_use]
    pub fn numbers(&self, class: Class) -> Numbers {
        Numbers::of(class, self.layout.members().len())
    }

    /// Who holds what, for every partition of a class. Classes that differ only in quorums share it, and a class with more
    /// than `REPLICAS_MAX` replicas (which no keyspace has) gets that many.
    pub fn placement(&self, class: Class) -> &Placement {
        let class = Class { n: class.n.min(REPLICAS_MAX), ..class };
        let compute = || Placement::compute(self.layout.intent(), class, PARTITIONS_COUNT);
        self.tables[usize::from(class.n)].get_or_init(compute)
    }

    /// The preference list of one partition: nobody, when there is no such index.
    pub fn preference(&self, partition: Partition) -> &PreferenceList {
        self.placement(partition.class).preference(partition.index).unwrap_or(&self.nobody)
    }
}
