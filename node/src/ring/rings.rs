//! The rings of all active layouts: while one gives way to the next, a request needs its quorum in each of them.
//!
//! Shape: the target's ring first, the older ones behind it. Source: DESIGN §5. Invariant: there is at least one.

use shoal_protocol::id::{LayoutId, NodeId, Partition};
use shoal_protocol::layout::Layout;

use super::Ring;

/// The rings of the active layouts.
#[derive(Clone, Debug)]
pub struct Rings {
    /// The target's first.
    rings: Vec<Ring>,
}

impl Rings {
    /// The rings of these layouts, the target first, with the tables that `known` has of them; none without a layout.
    #[must_use]
    pub fn new(layouts: &[Layout], known: Option<&Self>) -> Option<Self> {
        let known = |layout: &Layout| known?.iter().find(|ring| ring.layout().id() == layout.id()).cloned();
        let ring = |layout: &Layout| known(layout).unwrap_or_else(|| Ring::new(layout.clone()));
        let rings: Vec<Ring> = layouts.iter().map(ring).collect();
        (!rings.is_empty()).then_some(Self { rings })
    }

    /// Whether they are of these layouts.
    #[must_use]
    pub fn are_of(&self, layouts: &[Layout]) -> bool {
        self.ids().eq(layouts.iter().map(Layout::id))
    }

    /// The ring that stays.
    #[must_use]
    pub fn target(&self) -> &Ring {
        self.rings.first().expect("made of at least one")
    }

    /// The rings of older layouts.
    #[must_use]
    pub fn older(&self) -> &[Ring] {
        self.rings.split_first().map_or(&[], |(_, older)| older)
    }

    /// All of them, the target's first.
    pub fn iter(&self) -> impl Iterator<Item = &Ring> {
        self.rings.iter()
    }

    /// The layouts' ids, the target's first.
    pub fn ids(&self) -> impl Iterator<Item = LayoutId> + '_ {
        self.rings.iter().map(|ring| ring.layout().id())
    }

    /// The owners of a partition under any of the layouts, those under the target first.
    #[must_use]
    pub fn owners(&self, partition: Partition) -> Vec<NodeId> {
        let mut owners = self.target().preference(partition).primaries.clone();
        for ring in self.older() {
            let more = ring.preference(partition).primaries.iter().filter(|node| !owners.contains(node));
            let more: Vec<NodeId> = more.copied().collect();
            owners.extend(more);
        }
        owners
    }

    /// Whether a node owns a partition under any of the layouts.
    #[must_use]
    pub fn is_owner(&self, node: NodeId, partition: Partition) -> bool {
        self.rings.iter().any(|ring| ring.preference(partition).is_primary(node))
    }

    /// Whether a node is a member of any of the layouts.
    #[must_use]
    pub fn lists(&self, node: NodeId) -> bool {
        self.rings.iter().any(|ring| ring.layout().lists(node))
    }
}
