//! The layouts of the system state: which are active, which of them is the target, and what is known of the way from one to
//! the next.
//!
//! Shape: the first layout is formed by votes; later ones are published by whoever wants a change, and retired by whoever sees
//! that nothing depends on them any more. *Active* = known and not retired. Of several none of which is within another,
//! everybody publishes the join, so there is one *target* above all. Evidence: `Fenced` (a store knows a layout durably, and so
//! refuses requests that do not), `Synced` (it holds all that was acknowledged under an older one).
//! Source: DESIGN §5 (layouts), notes/model.md §5.3. Invariants: evidence travels in states that hold all its author knew when
//! it gave it, so who counts a store's evidence knows of every replacement that this store knew of; retired layouts are
//! forgotten but for their ids.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::id::{Actor, Class, LayoutId, NodeId};
use shoal_protocol::layout::{Intent, Layout, NodeRole};
use shoal_protocol::peer::Custody;

use super::state::SystemState;

/// A store knows a layout durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fenced {
    /// The store.
    pub store: Actor,
    /// What it knows.
    pub layout: LayoutId,
}

/// A store has pulled whatever of a class it is to hold under `to` from enough holders of `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Synced {
    /// The store.
    pub store: Actor,
    /// The older layout.
    pub from: LayoutId,
    /// The newer one.
    pub to: LayoutId,
    /// The partitions.
    pub class: Class,
}

impl SystemState {
    /// The active layouts, the target first; none before one is formed.
    #[must_use]
    pub fn active(&self) -> Vec<Layout> {
        let Some(first) = self.formed() else { return Vec::new() };
        let first = Some(first).filter(|first| !self.retired.contains(&first.id()));
        let mut active: Vec<Layout> = first.into_iter().chain(self.layouts.values()).cloned().collect();
        let is_above_all = |layout: &Layout| active.iter().all(|other| other.is_within(layout));
        if let Some(target) = active.iter().position(is_above_all) {
            active.swap(0, target);
        }
        let (_, rest) = active.split_first_mut().unzip();
        rest.into_iter().for_each(|rest: &mut [Layout]| rest.sort_by_key(Layout::id));
        active
    }

    /// The layout above all that are active: published, or about to be.
    #[must_use]
    pub fn target(&self) -> Option<Layout> {
        let active = self.active();
        let (first, others) = active.split_first()?;
        Some(others.iter().fold(first.clone(), |target, other| target.join(other)))
    }

    /// Publishes the join of layouts none of which is within another; whether there were any.
    pub(super) fn unite(&mut self) -> bool {
        self.target().is_some_and(|target| self.insert(target))
    }

    /// Whether there is room for another layout on the way.
    pub(super) fn may_publish(&self) -> bool {
        self.active().len() < ACTIVE_MAX
    }

    /// Publishes a layout that says this of these nodes and names their newest stores, besides the stores that the target
    /// names; whether it is new.
    pub(super) fn publish(&mut self, changes: BTreeMap<NodeId, NodeRole>, named: impl Fn(NodeId) -> bool) -> bool {
        let Some(target) = self.target() else { return false };
        let intent = target.intent().join(&Intent { nodes: changes });
        let newest = |node: NodeId| self.custody(node).map(|custody| custody.store());
        let is_named = |node: &NodeId| !target.stores().contains_key(node) || named(*node);
        let stores = intent.nodes.keys().copied().filter(is_named).filter_map(|node| Some((node, newest(node)?)));
        let layout = Layout::new(intent.clone(), stores.collect());
        self.insert(target.join(&layout))
    }

    /// Forgets a layout under which nothing is held alone any more. The target stays.
    pub(super) fn retire(&mut self, layout: LayoutId) -> bool {
        let active = self.active();
        let is_older = active.iter().skip(1).any(|older| older.id() == layout);
        if is_older {
            self.retired.insert(layout);
            self.prune();
        }
        is_older
    }

    /// Notes that a store knows a layout.
    pub(super) fn fence(&mut self, fenced: Fenced) -> bool {
        !self.retired.contains(&fenced.layout) && self.fenced.insert(fenced)
    }

    /// Notes that a store has pulled what it needs.
    pub(super) fn sync(&mut self, synced: Synced) -> bool {
        let is_over = self.retired.contains(&synced.from) || self.retired.contains(&synced.to);
        !is_over && self.synced.insert(synced)
    }

    /// Keeps what a node is to be once that is committed.
    pub(super) fn stage(&mut self, node: NodeId, role: NodeRole) -> bool {
        let before = self.staged.clone();
        self.staged = Intent { nodes: BTreeMap::from([(node, role)]) }.join(&before);
        self.prune();
        self.staged != before
    }

    /// Which stores know which layouts, of those that are active.
    #[must_use]
    pub const fn fenced(&self) -> &BTreeSet<Fenced> {
        &self.fenced
    }

    /// Which stores have pulled what, between layouts that are active.
    #[must_use]
    pub const fn synced(&self) -> &BTreeSet<Synced> {
        &self.synced
    }

    /// Whether a store that took another's place has heard from enough members what that may have been told.
    #[must_use]
    pub fn has_rejoined(&self, store: Actor) -> bool {
        self.rejoined.contains(&store)
    }

    /// Whether a node's newest store is gone for ever, as an operator said.
    #[must_use]
    pub fn is_given_up(&self, node: NodeId) -> bool {
        self.incarnation(node).is_some_and(|store| self.given_up.contains(&store))
    }

    /// The classes of all keyspaces, those included that are being created.
    #[must_use]
    pub fn classes(&self) -> BTreeSet<Class> {
        self.keyspaces.classes()
    }

    /// What is staged and not in the target.
    #[must_use]
    pub fn staged(&self) -> &BTreeMap<NodeId, NodeRole> {
        &self.staged.nodes
    }

    /// Drops what retired layouts leave behind, and what was staged and then published.
    pub(super) fn prune(&mut self) {
        let Self { layouts, retired, fenced, synced, .. } = self;
        layouts.retain(|id, _| !retired.contains(id));
        fenced.retain(|fenced| !retired.contains(&fenced.layout));
        synced.retain(|synced| !retired.contains(&synced.from) && !retired.contains(&synced.to));
        if !self.staged.nodes.is_empty()
            && let Some(target) = self.target()
        {
            let revision = |node: &NodeId| target.intent().nodes.get(node).map(|role| role.revision);
            self.staged.nodes.retain(|node, role| revision(node).is_none_or(|published| published < role.revision));
        }
    }

    /// The members of active layouts whose newest store is not the one the layout names, with the newest: they are catching
    /// up. A store that comes back after another was announced in its place (a restored directory) counts like any other.
    #[must_use]
    pub fn replaced(&self) -> BTreeMap<NodeId, Custody> {
        let mut replaced = BTreeMap::new();
        for layout in self.active() {
            for &node in layout.members() {
                if let Some(custody) = self.custody(node).filter(|newest| !layout.names(node, newest.store())) {
                    replaced.insert(node, custody);
                }
            }
        }
        replaced
    }

    /// In the active layout that lacks most: how many of its members are among these stores, as far as they count, and how many
    /// it takes to be a majority.
    pub(super) fn majority(&self, stores: &BTreeMap<NodeId, Actor>) -> (usize, usize) {
        let counted = |layout: &Layout| {
            let counts = |&(&node, &store): &(&NodeId, &Actor)| self.counts(layout, node, store);
            let there = layout.members().iter().filter(|node| !self.is_given_up(**node)).count();
            (stores.iter().filter(counts).count(), layout.majority().min(there))
        };
        let missing = |(stored, needed): &(usize, usize)| needed.saturating_sub(*stored);
        self.active().iter().map(counted).max_by_key(missing).unwrap_or((0, usize::MAX))
    }

    /// Whether what this store of a member holds counts towards a majority: it is the member's newest, and if the layout names
    /// another it has rejoined. Whoever knows that knows what it learned on the way.
    fn counts(&self, layout: &Layout, node: NodeId, store: Actor) -> bool {
        let newest = self.custody(node).filter(|newest| newest.incarnation == store && layout.lists(node));
        newest.is_some_and(|newest| layout.names(node, newest.store()) || self.rejoined.contains(&store))
    }

    /// Lets the store of `node` count once it has met all but a minority that is smaller than any majority: whatever a
    /// majority with its predecessor stored, one of those knew, or learned after it knew of the new store. Whether it did.
    pub(super) fn rejoin(&mut self, node: NodeId, store: Actor, met: impl Iterator<Item = NodeId> + Clone) -> bool {
        let newest = self.custody(node).filter(|newest| newest.incarnation == store);
        let Some(newest) = newest.filter(|_| !self.rejoined.contains(&store)) else { return false };
        let mut others = self.active();
        others.retain(|layout| layout.lists(node) && !layout.names(node, newest.store()));
        let has_met = |layout: &Layout| {
            let members = layout.members().len();
            let others = layout.members().iter().filter(|member| **member != node && !self.is_given_up(**member));
            let needed = (members - layout.majority() + 1).min(others.count());
            met.clone().filter(|peer| layout.lists(*peer)).count() >= needed
        };
        let may = !others.is_empty() && others.iter().all(has_met);
        if may {
            self.rejoined.insert(store);
        }
        may
    }

    fn insert(&mut self, layout: Layout) -> bool {
        let id = layout.id();
        let is_new = self.formed().is_some_and(|first| first.id() != id)
            && !self.layouts.contains_key(&id)
            && !self.retired.contains(&id);
        if is_new {
            self.layouts.insert(id, layout);
            self.prune();
        }
        is_new
    }
}

/// Active layouts up to which another is published; what is learned from others is honoured beyond that (DESIGN §5).
const ACTIVE_MAX: usize = 4;
