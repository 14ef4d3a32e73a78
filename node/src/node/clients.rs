//! Clients: their hello, and the routing of what they ask.
//!
//! Data requests go to the coordinator, keyspace administration to the system state, the rest is answered here from what
//! the node knows. Source: DESIGN §4 (session grants), §6 (overload).

use std::time::Duration;

use rand_core::Rng;
use shoal_protocol::client::{
    ClientCall, ClientHello, ClientRequest, ClientResponse, PROTOCOL_VERSIONS, SessionGrant, Welcome,
};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::Actor;
use shoal_protocol::time::Now;

use super::lookups::Asked;
use super::{ClientTag, Effect, Node};
use crate::coordinator::{Call, session_lives};
use crate::system::SessionKey;

impl Node {
    /// Answers a client's hello: confirms its session, or grants a fresh one when it brings none.
    ///
    /// # Errors
    /// No common version; a session of another cluster or past the days in which what it minted is taken; not serving yet.
    pub fn welcome(&mut self, now: Now, hello: &ClientHello) -> Result<Welcome, RequestError> {
        let (low, high) = (hello.versions.0.max(PROTOCOL_VERSIONS.0), hello.versions.1.min(PROTOCOL_VERSIONS.1));
        if low > high {
            return Err(RequestError::Incompatible {
                reason: format!(
                    "this node speaks protocol versions {PROTOCOL_VERSIONS:?}, the client {:?}",
                    hello.versions
                ),
            });
        }
        let key = match self.system.keys() {
            Some(keys) => keys.session,
            None => return Err(self.not_serving()),
        };
        let session = match hello.session {
            Some(grant) if grant.mac != mac(&key, grant.actor) => return Err(RequestError::SessionExpired),
            // Past its last minting day a session still repeats what it bound before.
            Some(grant) => session_lives(grant.actor, now.wall).map(|()| grant)?,
            None => {
                let last_day = now.wall.day() + MINT_WINDOW_DAYS;
                let actor = Actor::session(u16::try_from(last_day).unwrap_or(u16::MAX), self.rng.next_u64());
                SessionGrant { actor, mac: mac(&key, actor) }
            }
        };
        Ok(Welcome { version: high, cluster: self.config.cluster, node: self.config.node, session, wall: now.wall })
    }

    pub(super) fn client_call(
        &mut self,
        now: Now,
        tag: ClientTag,
        (session, call): (Actor, ClientCall),
        out: &mut Vec<Effect>,
    ) {
        let deadline = now.instant + Duration::from_millis(u64::from(call.deadline_ms.min(DEADLINE_MS_MAX)));
        let asked = Asked { tag, session, deadline, request: call.request };
        if let Some(error) = self.not_now(&asked.request) {
            answer(tag, Err(error), out);
        } else if self.names_unknown(&asked.request) {
            self.look_up(now, asked, out);
        } else {
            self.begin(now, asked, out);
        }
    }

    /// Takes a request, as far as keyspaces are known to this node.
    pub(super) fn begin(&mut self, now: Now, asked: Asked, out: &mut Vec<Effect>) {
        let Asked { tag, session, deadline, request } = asked;
        match request {
            request @ (ClientRequest::Get(_)
            | ClientRequest::Write(_)
            | ClientRequest::Operate(_)
            | ClientRequest::Scan(_)
            | ClientRequest::Batch(_)) => {
                let call = Call { session, deadline, request };
                self.coordinate(now, out, |coordinator, around, effects| {
                    coordinator.start(around, tag, call, effects);
                });
            }
            ClientRequest::Status => answer(tag, Ok(ClientResponse::Status(self.status(now.instant))), out),
            ClientRequest::MemberViews => self.gather_views(now, (tag, deadline), out),
            ClientRequest::Layouts => answer(tag, Ok(ClientResponse::Layouts(self.layouts_report())), out),
            ClientRequest::ChangeLayout(change) => self.change_layout(now, (tag, deadline), change, out),
            ClientRequest::Routes { class } => answer(tag, self.routes(class).map(ClientResponse::Routes), out),
            ClientRequest::ShowKeyspace { name } => {
                let found = self.system.keyspace_by_name(&name);
                answer(tag, found.map(ClientResponse::Keyspace).ok_or(RequestError::UnknownKeyspace { name }), out);
            }
            ClientRequest::ListKeyspaces => {
                let all = self.system.keyspaces().values().cloned().collect();
                answer(tag, Ok(ClientResponse::Keyspaces(all)), out);
            }
            change @ (ClientRequest::CreateKeyspace { .. }
            | ClientRequest::SetKeyspace { .. }
            | ClientRequest::DropKeyspace { .. }) => self.administer(now, (tag, deadline), change, out),
        }
    }

    /// Why a request cannot be taken at this moment, before any work is done for it.
    fn not_now(&self, request: &ClientRequest) -> Option<RequestError> {
        if matches!(request, ClientRequest::Status) {
            return None;
        }
        if self.rings.is_none() && !matches!(request, ClientRequest::MemberViews) {
            return Some(self.not_serving());
        }
        let writes = matches!(request, ClientRequest::Write(_) | ClientRequest::Operate(_) | ClientRequest::Batch(_));
        let waiting = self.lookups.len() + self.views.len() + self.system_calls.changes.len();
        let full = self.coordinator.in_flight() + waiting >= self.config.limits.requests_max
            || (writes && self.cells.pressure() >= 1.0);
        full.then_some(RequestError::Overloaded { retry_after_ms: RETRY_AFTER_MS })
    }

    pub(super) fn not_serving(&self) -> RequestError {
        RequestError::NotServing { reason: self.standing() }
    }
}

pub(super) fn answer(tag: ClientTag, result: Result<ClientResponse, RequestError>, out: &mut Vec<Effect>) {
    out.push(Effect::AnswerClient { connection: tag.connection, request: tag.request, result });
}

/// The proof that this cluster granted a session. Principals come with access control; until then it binds the actor.
fn mac(key: &SessionKey, actor: Actor) -> [u8; 16] {
    let hash = blake3::keyed_hash(&key.0, &actor.0.to_be_bytes());
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Days a fresh session may mint (DESIGN §4, Actors).
const MINT_WINDOW_DAYS: u64 = 30;
/// A request may not stay longer than this.
const DEADLINE_MS_MAX: u32 = 120_000;
/// What an overloaded client waits at least. Guess: a few hundred round trips.
const RETRY_AFTER_MS: u32 = 50;
