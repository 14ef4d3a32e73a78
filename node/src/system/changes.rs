//! Changes to keyspaces on their way to a majority.
//!
//! Shape: a change alters the state at once and is *stored* when a majority of each active layout's members, under their
//! newest incarnations, hold it durably. A store that took the place of another counts once it has rejoined (`state`), for
//! its predecessor may have been told of a rival. Creation takes two such steps, propose and establish (`keyspaces`): a creator that
//! sees an established rival, or an older proposed one, withdraws; the oldest proposal waits until the others are gone. Any
//! two majorities share a member, so of two rivals at least one sees the other before it establishes.
//! A change has a deadline, after which the caller is told what is true then. Source: DESIGN §5 (system state).
//! Invariants: at most one keyspace of a name is established; every change gets exactly one verdict.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{KeyspaceChange, KeyspaceInfo, KeyspaceSpec};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, KeyspaceId, NodeId, RequestId};
use shoal_protocol::time::{Hlc, Instant, WallTime};

use super::keyspaces::{Marker, Record};
use super::state::SystemState;

/// What a client wants done with a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyspaceCommand {
    /// Create it.
    Create {
        /// Its name.
        name: KeyspaceName,
        /// Its settings.
        spec: KeyspaceSpec,
    },
    /// Change what may be changed.
    Set {
        /// Its name.
        name: KeyspaceName,
        /// The change.
        change: KeyspaceChange,
    },
    /// Drop it, with everything of that name that is still being created (or was left so by a node that is gone).
    Drop {
        /// Its name.
        name: KeyspaceName,
    },
}

/// The end of a change: the keyspace as it is now (as it was, when dropped), or why not.
pub type Verdict = Result<KeyspaceInfo, RequestError>;

/// A command and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Named in the verdict.
    pub request: RequestId,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// What to do.
    pub command: KeyspaceCommand,
}

#[derive(Clone, Debug)]
struct Pending {
    request: RequestId,
    deadline: Instant,
    /// The keyspace as it was when the change began.
    info: KeyspaceInfo,
    step: Step,
    /// Who is known to hold the step durably, under which incarnation.
    stored: BTreeMap<NodeId, Actor>,
}

#[derive(Clone, Debug)]
enum Step {
    Propose,
    Establish,
    Set { change: KeyspaceChange, marker: Marker },
    Drop,
}

impl Pending {
    fn is_in(&self, state: &SystemState) -> bool {
        let record = state.keyspaces.records.get(&self.info.id);
        state.is_dropped(self.info.id)
            || match &self.step {
                Step::Propose => record.is_some(),
                Step::Establish => record.is_some_and(|record| record.is_established),
                Step::Set { change, marker } => record.is_some_and(|record| record.has(*change, *marker)),
                Step::Drop => false,
            }
    }

    /// The verdict, once there is one. May take the change to its next step in `state`.
    fn advance(&mut self, now: Instant, state: &mut SystemState) -> Option<Verdict> {
        let id = self.info.id;
        let (stored, needed) = state.majority(&self.stored);
        let (acked, needed_u8) = (saturated(stored), saturated(needed));
        let unknown = || (now >= self.deadline).then_some(Err(RequestError::Unknown { acked, needed: needed_u8 }));
        match self.step {
            Step::Drop if stored >= needed => Some(Ok(self.info.clone())),
            Step::Drop => unknown(),
            Step::Propose | Step::Establish | Step::Set { .. } if state.is_dropped(id) => {
                Some(Err(RequestError::KeyspaceGone { id }))
            }
            Step::Establish | Step::Set { .. } if stored >= needed => {
                state.keyspaces.records.get(&id).map(|record| Ok(record.info(id)))
            }
            Step::Establish | Step::Set { .. } => unknown(),
            Step::Propose => {
                let outcome = self.rivalry(state, now >= self.deadline);
                if let Rivalry::Lost = outcome {
                    state.keyspaces.drop(id);
                    return Some(Err(RequestError::KeyspaceExists { name: self.info.name.clone() }));
                }
                if now >= self.deadline {
                    state.keyspaces.drop(id);
                    return Some(Err(RequestError::Unavailable { replied: acked, needed: needed_u8 }));
                }
                if matches!(outcome, Rivalry::Alone) && stored >= needed {
                    state.keyspaces.establish(id);
                    self.step = Step::Establish;
                    self.stored.clear();
                }
                None
            }
        }
    }

    fn rivalry(&self, state: &SystemState, is_over: bool) -> Rivalry {
        let named = state.keyspaces.named(&self.info.name);
        let mine = named.iter().position(|(id, _)| *id == self.info.id);
        let is_yielding = mine != Some(0) || named.iter().any(|(_, record)| record.is_established);
        match named.len() {
            1 if !is_yielding => Rivalry::Alone,
            _ if is_yielding || is_over => Rivalry::Lost,
            _ => Rivalry::Waiting,
        }
    }
}

/// Where a proposed keyspace stands among the records of its name.
enum Rivalry {
    Alone,
    /// Others will withdraw.
    Waiting,
    Lost,
}

/// The changes begun by this node that have no verdict yet.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    node: NodeId,
    store: Actor,
    hlc: Hlc,
    pending: Vec<Pending>,
}

impl Changes {
    pub(super) const fn new(node: NodeId, store: Actor) -> Self {
        Self { node, store, hlc: Hlc(0), pending: Vec::new() }
    }

    /// The store has another incarnation from now on.
    pub(super) const fn go_on_as(&mut self, store: Actor) {
        self.store = store;
    }

    /// Starts a change: alters `state`, or answers at once.
    pub(super) fn begin(
        &mut self,
        wall: WallTime,
        change: Change,
        state: &mut SystemState,
        rng: &mut ChaCha8Rng,
    ) -> Option<Verdict> {
        if state.formed().is_none() {
            return Some(Err(RequestError::NotServing { reason: "the cluster is not formed yet".into() }));
        }
        self.hlc = self.hlc.max(state.keyspaces.newest_hlc()).next(wall);
        let marker = Marker(self.hlc, self.store);
        let started = match change.command {
            KeyspaceCommand::Create { name, spec } => self.create(name, spec, state, rng),
            KeyspaceCommand::Set { name, change } => set(name, change, marker, state),
            KeyspaceCommand::Drop { name } => drop_all(name, state),
        };
        match started {
            Err(error) => Some(Err(error)),
            Ok((info, None)) => Some(Ok(info)),
            Ok((info, Some(step))) => {
                let (request, deadline, stored) = (change.request, change.deadline, BTreeMap::new());
                self.pending.push(Pending { request, deadline, info, step, stored });
                None
            }
        }
    }

    /// `node`, under this incarnation, holds `state` durably.
    pub(super) fn stored(&mut self, node: NodeId, store: Actor, state: &SystemState) {
        for pending in self.pending.iter_mut().filter(|pending| pending.is_in(state)) {
            pending.stored.insert(node, store);
        }
    }

    /// Takes every change as far as it goes; appends the verdicts. Whether `state` changed.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        state: &mut SystemState,
        verdicts: &mut Vec<(RequestId, Verdict)>,
    ) -> bool {
        let left_over = self.left_over(state);
        for id in &left_over {
            state.keyspaces.drop(*id);
        }
        if self.is_idle() {
            return !left_over.is_empty();
        }
        let before = state.keyspaces.clone();
        self.pending.retain_mut(|pending| match pending.advance(now, state) {
            Some(verdict) => {
                verdicts.push((pending.request, verdict));
                false
            }
            None => true,
        });
        !left_over.is_empty() || state.keyspaces != before
    }

    /// Whether no change waits for anybody.
    pub(super) const fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.deadline).min()
    }

    fn create(
        &self,
        name: KeyspaceName,
        spec: KeyspaceSpec,
        state: &mut SystemState,
        rng: &mut ChaCha8Rng,
    ) -> Result<(KeyspaceInfo, Option<Step>), RequestError> {
        check(&name, &spec)?;
        if !state.keyspaces.named(&name).is_empty() {
            return Err(RequestError::KeyspaceExists { name });
        }
        let count = state.keyspaces.records.len() + state.keyspaces.dropped.read().len();
        if count >= KEYSPACES_COUNT_MAX {
            let (actual, max) = (count as u64 + 1, KEYSPACES_COUNT_MAX as u64);
            return Err(RequestError::Limit { limit: "keyspaces".into(), actual, max });
        }
        let mut id = KeyspaceId(rng.next_u64());
        while state.keyspaces.records.contains_key(&id) || state.is_dropped(id) {
            id = KeyspaceId(rng.next_u64());
        }
        let record = Record::proposed(name, spec, self.node, Marker(self.hlc, self.store));
        let info = record.info(id);
        state.keyspaces.records.insert(id, record);
        Ok((info, Some(Step::Propose)))
    }

    /// Proposals this store made before it was restarted: nobody waits for them, and only this store could establish them.
    fn left_over(&self, state: &SystemState) -> Vec<KeyspaceId> {
        let is_mine = |record: &Record| record.created.1 == self.store && !record.is_established;
        let is_pending = |id: &KeyspaceId| self.pending.iter().any(|pending| pending.info.id == *id);
        let records = state.keyspaces.records.iter();
        records.filter(|(id, record)| is_mine(record) && !is_pending(id)).map(|(&id, _)| id).collect()
    }
}

fn set(
    name: KeyspaceName,
    change: KeyspaceChange,
    marker: Marker,
    state: &mut SystemState,
) -> Result<(KeyspaceInfo, Option<Step>), RequestError> {
    if change.ttl_s == Some(Some(0)) {
        return Err(RequestError::BadRequest { reason: ZERO_TTL.into() });
    }
    let info = state.keyspace_by_name(&name).ok_or(RequestError::UnknownKeyspace { name })?;
    if change == KeyspaceChange::default() {
        return Ok((info, None));
    }
    if let Some(record) = state.keyspaces.records.get_mut(&info.id) {
        record.set(change, marker);
    }
    Ok((info, Some(Step::Set { change, marker })))
}

fn drop_all(name: KeyspaceName, state: &mut SystemState) -> Result<(KeyspaceInfo, Option<Step>), RequestError> {
    let found: Vec<KeyspaceInfo> = state.keyspaces.named(&name).into_iter().map(|(id, r)| r.info(id)).collect();
    let established = state.keyspace_by_name(&name);
    let info = established.or_else(|| found.first().cloned()).ok_or(RequestError::UnknownKeyspace { name })?;
    for keyspace in found {
        state.keyspaces.drop(keyspace.id);
    }
    Ok((info, Some(Step::Drop)))
}

fn check(name: &KeyspaceName, spec: &KeyspaceSpec) -> Result<(), RequestError> {
    let class = spec.class;
    let reason = if name.is_reserved() {
        "names beginning with `_` are reserved"
    } else if class.n == 0 || class.n > REPLICAS_MAX {
        "n is 1 to 15"
    } else if class.r > class.n || class.w > class.n {
        "r and w are at most n (0 means a majority)"
    } else if spec.ttl_s == Some(0) {
        ZERO_TTL
    } else {
        return Ok(());
    };
    Err(RequestError::BadRequest { reason: reason.into() })
}

fn saturated(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// Keyspaces ever created, dropped ones included: their ids stay in every node's state.
pub const KEYSPACES_COUNT_MAX: usize = 10_000;
/// As in the ring: what a preference list may hold.
const REPLICAS_MAX: u8 = 15;
const ZERO_TTL: &str = "ttl is at least one second";
