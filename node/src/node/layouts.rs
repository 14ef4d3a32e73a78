//! Changes of the layout that an operator asks for, and what is said of the layouts.
//!
//! Glue: a request becomes a change of the system state, its verdict the answer. What the state cannot know is checked here:
//! whether the node to be removed is there after all, and whether enough replicas are left of what it held.
//! Source: DESIGN §5, §12. Invariant: nobody is removed who can be reached.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::cluster::{ClassMoves, LayoutChange, LayoutNode, LayoutWait, Layouts, RoleChange};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Class, NodeId, PARTITIONS_COUNT, Partition};
use shoal_protocol::layout::{Intent, Layout};
use shoal_protocol::member::Liveness;
use shoal_protocol::time::{Instant, Now};

use super::{ClientTag, Effect, Node, clients};
use crate::ring::{Placement, Ring, Step};
use crate::system::{IntentChange, IntentCommand, SystemInput};

impl Node {
    /// An operator wants the layout changed.
    pub(super) fn change_layout(
        &mut self,
        now: Now,
        (tag, deadline): (ClientTag, Instant),
        change: LayoutChange,
        out: &mut Vec<Effect>,
    ) {
        let command = match change {
            LayoutChange::Set { node, role, staged } => Ok(IntentCommand::Set { node, change: role, staged }),
            LayoutChange::Commit => Ok(IntentCommand::Commit),
            LayoutChange::Remove { node, accept_data_loss } => self.removal(node, accept_data_loss),
        };
        match command {
            Err(error) => clients::answer(tag, Err(error), out),
            Ok(command) => {
                let request = self.system_calls.fresh();
                self.system_calls.changes.insert(request, tag);
                self.tell_system(now, SystemInput::Intend(IntentChange { request, deadline, command }), out);
            }
        }
    }

    /// How a node is removed: as one that leaves, if the replicas that are left can give away what it held.
    fn removal(&self, node: NodeId, accept_data_loss: bool) -> Result<IntentCommand, RequestError> {
        let refused = |reason: String| Err(RequestError::LayoutRefused { reason });
        if self.is_there(node) {
            return refused(format!("node {node} can be reached: let it leave instead"));
        }
        let short = self.short_without(node);
        if short.is_empty() {
            let change = RoleChange { leaving: Some(true), ..RoleChange::default() };
            return Ok(IntentCommand::Set { node, change, staged: false });
        }
        if accept_data_loss {
            return Ok(IntentCommand::GiveUp { nodes: vec![node] });
        }
        let named = short.iter().take(SHORT_NAMED).map(|partition| partition.index.to_string());
        let named = named.collect::<Vec<_>>().join(", ");
        refused(format!(
            "of {} partitions ({named}{}) fewer replicas could be reached than a read or a write needs; start the nodes that \
             hold them, or accept the loss of what only lost nodes have",
            short.len(),
            if short.len() > SHORT_NAMED { ", …" } else { "" },
        ))
    }

    fn is_there(&self, node: NodeId) -> bool {
        node == self.config.node
            || self.alive.contains(&node)
            || matches!(self.gossip.liveness(node), Liveness::Alive | Liveness::Suspect)
                && self.gossip.member(node).is_some()
    }

    /// The partitions of which too few replicas can be reached to go on without a node.
    fn short_without(&self, node: NodeId) -> Vec<Partition> {
        let is_left = |holder: &&NodeId| **holder != node && self.is_there(**holder);
        let is_short = |ring: &Ring, partition: Partition| {
            let numbers = ring.numbers(partition.class);
            let left = ring.preference(partition).primaries.iter().filter(is_left).count();
            left < numbers.fences()
        };
        let rings = || self.rings.iter().flat_map(|rings| rings.iter());
        let classes = self.system.state().classes();
        let all =
            classes.into_iter().flat_map(|class| (0..PARTITIONS_COUNT).map(move |index| Partition { class, index }));
        all.filter(|partition| rings().any(|ring| is_short(ring, *partition))).collect()
    }

    /// What this node says of the layouts.
    #[must_use]
    pub fn layouts_report(&self) -> Layouts {
        let Some(rings) = &self.rings else {
            return Layouts {
                active: Vec::new(),
                nodes: Vec::new(),
                moves: Vec::new(),
                waits: Vec::new(),
                pulls: (0, 0),
            };
        };
        let target = rings.target();
        let staged = self.system.state().staged();
        let planned = target.layout().intent().join(&Intent { nodes: staged.clone() });
        let after = Ring::new(Layout::new(planned, target.layout().stores().clone()));
        let before = rings.older().last().unwrap_or(target);
        let classes = self.system.state().classes();
        let shares = |ring: &Ring| -> BTreeMap<NodeId, u32> {
            let held = classes.iter().flat_map(|class| ring.placement(*class).preferences());
            let mut shares = BTreeMap::new();
            held.flat_map(|list| &list.primaries).for_each(|node| *shares.entry(*node).or_default() += 1);
            shares
        };
        let (now, then) = (shares(before), shares(&after));
        let share = |shares: &BTreeMap<NodeId, u32>, node: NodeId| shares.get(&node).copied().unwrap_or(0);
        let intent = target.layout().intent();
        let nodes: BTreeSet<NodeId> = intent.nodes.keys().chain(staged.keys()).copied().collect();
        let unusable = |node: NodeId| -> u32 {
            classes.iter().map(|class| after.placement(*class).unusable().get(&node).copied().unwrap_or(0)).sum()
        };
        let node = |node: NodeId| LayoutNode {
            node,
            name: self.name_of(node),
            role: intent.nodes.get(&node).cloned(),
            staged: staged.get(&node).cloned(),
            partitions: (share(&now, node), share(&then, node)),
            unusable: unusable(node),
        };
        Layouts {
            active: rings.ids().collect(),
            nodes: nodes.into_iter().map(node).collect(),
            moves: classes.iter().map(|&class| moves(class, before.placement(class), after.placement(class))).collect(),
            waits: rings.older().iter().map(|from| self.wait(Step { from, to: target })).collect(),
            pulls: self.transition.counts(),
        }
    }

    /// What an older layout waits for.
    fn wait(&self, step: Step<'_>) -> LayoutWait {
        let evidence = self.evidence(step);
        let has_all = |node: &NodeId| {
            self.system.state().classes().into_iter().all(|class| evidence.synced.contains(&(*node, class)))
        };
        let lacking = |nodes: &[NodeId], has: &dyn Fn(&NodeId) -> bool| {
            nodes.iter().copied().filter(|node| !has(node) && !evidence.gone.contains(node)).collect()
        };
        LayoutWait {
            layout: step.from.layout().id(),
            unfenced: lacking(step.from.layout().members(), &|node| evidence.fenced.contains(node)),
            unsynced: lacking(step.to.layout().members(), &has_all),
        }
    }

    pub(super) fn name_of(&self, node: NodeId) -> String {
        if node == self.config.node {
            return self.config.name.clone();
        }
        self.gossip.member(node).map(|member| member.name.clone()).unwrap_or_default()
    }
}

fn moves(class: Class, before: &Placement, after: &Placement) -> ClassMoves {
    let pairs = before.preferences().iter().zip(after.preferences());
    let gained = pairs.map(|(old, new)| new.primaries.iter().filter(|node| !old.is_primary(**node)).count());
    ClassMoves { class, partitions: u32::try_from(gained.sum::<usize>()).unwrap_or(u32::MAX) }
}

/// Partitions that a refusal names.
const SHORT_NAMED: usize = 8;
