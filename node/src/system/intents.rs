//! Changes of the layout on their way to a majority: an operator's word on what nodes are to be.
//!
//! Shape: a change publishes (or stages) roles at once in this node's state, and is *stored* when a majority of each active
//! layout's members holds it durably, as with keyspaces (`changes`). The verdict says that it will happen, not that the
//! transition is over. Source: DESIGN §5 (layouts), §12. Invariants: every change gets exactly one verdict; what is refused has
//! changed nothing.

use std::collections::BTreeMap;

use shoal_protocol::cluster::RoleChange;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, NodeId, RequestId};
use shoal_protocol::layout::{Intent, NodeRole, NodeState, ZONE_BYTES_MAX};
use shoal_protocol::time::Instant;

use super::peers::Peers;
use super::state::SystemState;

/// What is to be done to the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntentCommand {
    /// Make of a node what is said.
    Set {
        /// Which.
        node: NodeId,
        /// What.
        change: RoleChange,
        /// Not before a commit.
        staged: bool,
    },
    /// Publish what is staged.
    Commit,
    /// Let these nodes' shares go to others; their stores are waited for no more.
    GiveUp {
        /// Which.
        nodes: Vec<NodeId>,
    },
}

/// A command and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentChange {
    /// Named in the verdict.
    pub request: RequestId,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// What to do.
    pub command: IntentCommand,
}

#[derive(Clone, Debug)]
struct Pending {
    request: RequestId,
    deadline: Instant,
    /// What has to be known of these nodes, at this revision or a later one.
    revisions: BTreeMap<NodeId, u32>,
    staged: bool,
    stored: BTreeMap<NodeId, Actor>,
}

impl Pending {
    fn is_in(&self, state: &SystemState) -> bool {
        let target = state.target();
        let revision = |node: &NodeId| {
            let published = target.as_ref().and_then(|target| target.intent().nodes.get(node));
            let staged = state.staged().get(node).filter(|_| self.staged);
            published.map(|role| role.revision).max(staged.map(|role| role.revision))
        };
        self.revisions.iter().all(|(node, wanted)| revision(node).is_some_and(|known| known >= *wanted))
    }
}

/// The changes begun by this node that have no verdict yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Intents {
    pending: Vec<Pending>,
}

impl Intents {
    /// Starts a change: alters `state`, or refuses.
    pub(super) fn begin(
        &mut self,
        change: IntentChange,
        state: &mut SystemState,
        peers: &Peers,
    ) -> Result<(), RequestError> {
        let IntentChange { request, deadline, command } = change;
        if state.formed().is_none() {
            return Err(RequestError::NotServing { reason: "the cluster is not formed yet".into() });
        }
        let gone: Vec<Actor> = match &command {
            IntentCommand::GiveUp { nodes } => nodes.iter().filter_map(|node| state.incarnation(*node)).collect(),
            IntentCommand::Set { .. } | IntentCommand::Commit => Vec::new(),
        };
        let (roles, staged) = match command {
            IntentCommand::Set { node, change, staged } => {
                if change.leaving == Some(true) {
                    may_leave(node, state)?;
                }
                (BTreeMap::from([(node, changed(node, change, state, peers)?)]), staged)
            }
            IntentCommand::Commit if state.staged().is_empty() => return Err(refused("nothing is staged")),
            IntentCommand::Commit => (state.staged().clone(), false),
            IntentCommand::GiveUp { nodes } => {
                let leaving = RoleChange { leaving: Some(true), ..RoleChange::default() };
                let role = |&node: &NodeId| Ok((node, changed(node, leaving.clone(), state, peers)?));
                let roles: BTreeMap<_, _> = nodes.iter().map(role).collect::<Result<_, RequestError>>()?;
                (roles, false)
            }
        };
        let meant = state.target().map(|target| target.intent().join(&Intent { nodes: roles.clone() }));
        if !staged && meant.is_none_or(|meant| meant.holders().is_empty()) {
            return Err(refused("nobody would be left to hold data"));
        }
        let revisions = roles.iter().map(|(&node, role)| (node, role.revision)).collect();
        let pending = Pending { request, deadline, revisions, staged, stored: BTreeMap::new() };
        if pending.is_in(state) {
            // It is so already; a majority has to have heard of it all the same.
        } else if staged {
            roles.into_iter().for_each(|(node, role)| _ = state.stage(node, role));
        } else if !gone.is_empty() || state.may_publish() {
            state.publish(roles, |_| false);
        } else {
            return Err(refused("too many layouts are on the way; wait until one of them is reached"));
        }
        state.given_up.extend(gone);
        self.pending.push(pending);
        Ok(())
    }

    /// `node`, under this incarnation, holds `state` durably.
    pub(super) fn stored(&mut self, node: NodeId, store: Actor, state: &SystemState) {
        for pending in self.pending.iter_mut().filter(|pending| pending.is_in(state)) {
            pending.stored.insert(node, store);
        }
    }

    /// The verdicts there are by now.
    pub(super) fn verdicts(&mut self, now: Instant, state: &SystemState) -> Vec<(RequestId, Result<(), RequestError>)> {
        let mut verdicts = Vec::new();
        self.pending.retain(|pending| {
            let (stored, needed) = state.majority(&pending.stored);
            let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
            if stored >= needed {
                verdicts.push((pending.request, Ok(())));
            } else if now >= pending.deadline {
                let unknown = RequestError::Unknown { acked: small(stored), needed: small(needed) };
                verdicts.push((pending.request, Err(unknown)));
            } else {
                return true;
            }
            false
        });
        verdicts
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.deadline).min()
    }
}

/// The role that a change makes of a node's.
fn changed(node: NodeId, change: RoleChange, state: &SystemState, peers: &Peers) -> Result<NodeRole, RequestError> {
    let RoleChange { zone, weight, leaving } = change;
    if zone.as_ref().is_some_and(|zone| zone.len() > ZONE_BYTES_MAX) {
        return Err(RequestError::BadRequest { reason: format!("a zone has at most {ZONE_BYTES_MAX} bytes") });
    }
    let target = state.target().ok_or_else(|| refused("there is no layout"))?;
    let (published, staged) = (target.intent().nodes.get(&node), state.staged().get(&node));
    let known = staged.or(published);
    let present = peers.by_id.get(&node).map(|peer| &peer.role).filter(|_| state.incarnation(node).is_some());
    let Some(role) = known.or(present) else {
        return Err(refused("this node has not heard of that one"));
    };
    if published.is_none() && leaving == Some(true) {
        return Err(refused("it is no member"));
    }
    let state_of = |leaving| if leaving { NodeState::Leaving } else { NodeState::Active };
    let mut changed = NodeRole {
        zone: zone.unwrap_or_else(|| role.zone.clone()),
        weight: weight.unwrap_or(role.weight),
        state: leaving.map_or(role.state, state_of),
        revision: role.revision,
    };
    if known.is_some_and(|known| known.means(&changed)) {
        return Ok(changed);
    }
    let last = published.map(|role| role.revision).max(staged.map(|role| role.revision));
    changed.revision = last.map_or(0, |last| last + 1);
    let stays = |other: &NodeId| *other != node;
    if (changed.state == NodeState::Leaving || changed.weight == 0) && !target.members().iter().any(stays) {
        return Err(refused("it is the last member that holds data"));
    }
    Ok(changed)
}

/// Whether a node may give its share away now.
fn may_leave(node: NodeId, state: &SystemState) -> Result<(), RequestError> {
    let is_waited_for = |other: &NodeId| *other != node && !state.is_given_up(*other);
    match state.replaced().keys().find(|other| is_waited_for(other)) {
        Some(other) => Err(refused(&format!("node {other} is still catching up"))),
        None => Ok(()),
    }
}

fn refused(reason: &str) -> RequestError {
    RequestError::LayoutRefused { reason: reason.into() }
}
