//! What an operator asks of the cluster as a whole: who is to hold data, what that would move, how far it is.
//!
//! Source: DESIGN §5 (layouts), §12 (`shoal cluster`). Units: partitions are counted once for each of their holders.

use serde::{Deserialize, Serialize};

use crate::id::{Class, LayoutId, NodeId};
use crate::layout::NodeRole;

/// A change of who is to hold data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayoutChange {
    /// Make of a node what is said; at once, or with the next `Commit`.
    Set {
        /// Which node. One that no layout lists has to be known to the node asked.
        node: NodeId,
        /// What is to change of it.
        role: RoleChange,
        /// Wait for `Commit`.
        staged: bool,
    },
    /// Publish whatever is staged.
    Commit,
    /// Give the place of a node that will not return to others, which copy what it held from the remaining holders.
    Remove {
        /// Which node.
        node: NodeId,
        /// Do it even if acknowledged writes may be lost with it: the layouts then wait for nobody who cannot be reached.
        accept_data_loss: bool,
    },
}

/// What is to change of a node; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// Another zone.
    pub zone: Option<String>,
    /// Another weight.
    pub weight: Option<u32>,
    /// Whether it is to give its share away.
    pub leaving: Option<bool>,
}

/// The layouts as the answering node knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layouts {
    /// The active ones, the target first; several while one gives way to another.
    pub active: Vec<LayoutId>,
    /// Every node that the target lists, or that is staged, in id order.
    pub nodes: Vec<LayoutNode>,
    /// What a commit of what is staged would move, or the transition under way moves, class by class.
    pub moves: Vec<ClassMoves>,
    /// What the older layouts wait for.
    pub waits: Vec<LayoutWait>,
    /// Partitions that the answering node is pulling: still to pull, and all of this transition.
    pub pulls: (u64, u64),
}

/// What a node is, and is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutNode {
    /// The node.
    pub node: NodeId,
    /// Its name, as far as it is known.
    pub name: String,
    /// What the target says of it.
    pub role: Option<NodeRole>,
    /// What is staged.
    pub staged: Option<NodeRole>,
    /// Partitions of all classes that it holds under the oldest active layout, and that it is to hold once everything that is
    /// staged is committed.
    pub partitions: (u32, u32),
    /// Partitions by which its share stays below what its weight asks for, because there is nobody to hold the other copies.
    pub unusable: u32,
}

/// What moves of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassMoves {
    /// The class.
    pub class: Class,
    /// Copies of partitions that get another holder.
    pub partitions: u32,
}

/// What an older layout waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutWait {
    /// The older layout.
    pub layout: LayoutId,
    /// Its members that are not known to know the target.
    pub unfenced: Vec<NodeId>,
    /// Members of the target that have not said that they hold all they are to hold.
    pub unsynced: Vec<NodeId>,
}
