//! Connections to several nodes, and what their recent answers say of them.
//!
//! Shape: one connection per (node, session); a connection carries one session for life, so an operation bound by an earlier
//! session gets a connection of its own. Whoever needs a connection makes it, others wait for the same attempt.
//! Invariant: a configured address is never given up: an open breaker only puts its node behind the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use shoal_protocol::client::{ClientHello, PROTOCOL_VERSIONS, SessionGrant};
use shoal_protocol::id::{Actor, NodeId};
use shoal_protocol::time::Instant;

use super::connection::OpenError;
use super::{Connection, Dial, DialError, locked};
use crate::retry::{Breaker, End};

/// One node, as far as a request cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, the first choice first; never empty.
    pub(crate) addresses: Vec<String>,
}

impl Target {
    /// What names the node here: its first address.
    pub(crate) fn name(&self) -> &str {
        self.addresses.first().map_or("", String::as_str)
    }
}

/// What every hello says beside the session.
pub(crate) struct Greeting {
    pub(crate) access_token: Option<String>,
    pub(crate) software: String,
}

/// The nodes a client talks to.
pub(crate) struct Pool {
    dial: Arc<dyn Dial>,
    greeting: Greeting,
    nodes: Mutex<BTreeMap<String, Node>>,
    /// Why the latest connection could not be made: what an error tells when no node answered at all.
    failure: Mutex<Option<DialError>>,
}

#[derive(Default)]
struct Node {
    breaker: Breaker,
    /// Who answered at this address.
    id: Option<NodeId>,
    slots: BTreeMap<Actor, Arc<Slot>>,
}

#[derive(Default)]
struct Slot {
    current: Mutex<Option<Arc<Connection>>>,
    dialing: tokio::sync::Mutex<()>,
}

impl Slot {
    fn live(&self) -> Option<Arc<Connection>> {
        locked(&self.current).clone().filter(|connection| !connection.is_closed())
    }
}

impl Pool {
    pub(crate) fn new(dial: Arc<dyn Dial>, greeting: Greeting) -> Self {
        Self { dial, greeting, nodes: Mutex::default(), failure: Mutex::default() }
    }

    /// A connection of `grant`'s session to the node, the one there is or a new one.
    pub(crate) async fn connection(&self, target: &Target, grant: SessionGrant) -> Result<Arc<Connection>, End> {
        let slot = {
            let mut nodes = locked(&self.nodes);
            let slots = &mut nodes.entry(target.name().into()).or_default().slots;
            Arc::clone(slots.entry(grant.actor).or_default())
        };
        if let Some(live) = slot.live() {
            return Ok(live);
        }
        let Ok(_dialing) = slot.dialing.try_lock() else {
            // Somebody is dialing: its result is ours.
            drop(slot.dialing.lock().await);
            return slot.live().ok_or(End::NotSent);
        };
        let connection = Arc::new(self.open(target, Some(grant)).await?);
        *locked(&slot.current) = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// A connection to the node with a session that it has just granted.
    pub(crate) async fn fresh_session(&self, target: &Target) -> Result<SessionGrant, End> {
        let connection = self.open(target, None).await?;
        let grant = connection.welcome().session;
        let slot = Slot { current: Mutex::new(Some(Arc::new(connection))), ..Slot::default() };
        locked(&self.nodes).entry(target.name().into()).or_default().slots.insert(grant.actor, Arc::new(slot));
        Ok(grant)
    }

    /// Lets the connections of every other session go, once nothing waits on them.
    pub(crate) fn keep_only(&self, actor: Actor) {
        for node in locked(&self.nodes).values_mut() {
            node.slots.retain(|of, _| *of == actor);
        }
    }

    /// The node that answered at `address`, if one has.
    pub(crate) fn id_at(&self, address: &str) -> Option<NodeId> {
        locked(&self.nodes).get(address).and_then(|node| node.id)
    }

    /// Requests in flight to the node over connections of `actor`.
    pub(crate) fn load(&self, target: &Target, actor: Actor) -> usize {
        let slot = locked(&self.nodes).get(target.name()).and_then(|node| node.slots.get(&actor).cloned());
        slot.and_then(|slot| slot.live()).map_or(0, |connection| connection.in_flight_count())
    }

    /// The next of `targets` to ask, skipping those already `tried` in this round where others are left.
    pub(crate) fn pick(
        &self,
        targets: &[Arc<Target>],
        tried: &mut Vec<usize>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Option<Arc<Target>> {
        if tried.len() >= targets.len() {
            tried.clear();
        }
        let mut nodes = locked(&self.nodes);
        let left: Vec<usize> = (0..targets.len()).filter(|at| !tried.contains(at)).collect();
        let admitted = left
            .iter()
            .copied()
            .find(|at| nodes.get_mut(targets[*at].name()).is_none_or(|node| node.breaker.admit(now, rng)));
        let reopens = |at: &usize| nodes.get(targets[*at].name()).and_then(|node| node.breaker.open_until());
        let at = admitted.or_else(|| left.iter().copied().min_by_key(|at| reopens(at)))?;
        tried.push(at);
        targets.get(at).cloned()
    }

    /// The node answered.
    pub(crate) fn answered(&self, target: &Target) {
        locked(&self.nodes).entry(target.name().into()).or_default().breaker.succeeded();
    }

    /// An attempt at the node ended without success.
    pub(crate) fn ended(&self, target: &Target, end: &End, now: Instant, rng: &mut ChaCha8Rng) {
        use shoal_protocol::error::RequestError;
        let mut nodes = locked(&self.nodes);
        let breaker = &mut nodes.entry(target.name().into()).or_default().breaker;
        match end {
            End::NotSent | End::Lost => breaker.disconnected(now, rng),
            End::Answered(RequestError::Overloaded { .. } | RequestError::NotServing { .. }) => {
                breaker.failed(now, rng);
            }
            End::Answered(_) => breaker.succeeded(),
        }
    }

    /// The node has let an attempt wait for too long.
    pub(crate) fn silent(&self, target: &Target, now: Instant, rng: &mut ChaCha8Rng) {
        locked(&self.nodes).entry(target.name().into()).or_default().breaker.failed(now, rng);
    }

    /// Why the latest connection could not be made.
    pub(crate) fn failure(&self) -> Option<DialError> {
        locked(&self.failure).clone()
    }

    async fn open(&self, target: &Target, session: Option<SessionGrant>) -> Result<Connection, End> {
        let hello = ClientHello {
            versions: PROTOCOL_VERSIONS,
            session,
            access_token: self.greeting.access_token.clone(),
            software: self.greeting.software.clone(),
        };
        for address in &target.addresses {
            let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.open_at(address, &hello)).await;
            let error = match opened {
                Ok(Ok(connection)) => {
                    let mut nodes = locked(&self.nodes);
                    for known in [address.as_str(), target.name()] {
                        nodes.entry(known.into()).or_default().id = Some(connection.welcome().node);
                    }
                    return Ok(connection);
                }
                Ok(Err(Failed::Refused(error))) => return Err(End::Answered(error)),
                Ok(Err(Failed::NoStream(error))) => error,
                Err(_elapsed) => DialError::Unreachable { address: address.clone(), reason: "no answer".into() },
            };
            tracing::debug!(%error, "no connection");
            *locked(&self.failure) = Some(error);
        }
        Err(End::NotSent)
    }

    async fn open_at(&self, address: &str, hello: &ClientHello) -> Result<Connection, Failed> {
        let stream = self.dial.dial(address).await.map_err(Failed::NoStream)?;
        Connection::open(stream, hello).await.map_err(|error| match error {
            OpenError::Refused(error) => Failed::Refused(error),
            OpenError::Broken(reason) => Failed::NoStream(DialError::Unreachable { address: address.into(), reason }),
        })
    }
}

enum Failed {
    Refused(shoal_protocol::error::RequestError),
    NoStream(DialError),
}

/// For one address, from the name to the welcome. A node that is up answers within a few round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
