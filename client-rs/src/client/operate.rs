//! Reads and writes: what binds, sends and closes an operation.

use std::sync::Arc;
use std::time::Duration;

use shoal_protocol::causality::EncodedContext;
use shoal_protocol::client::{ClientRequest, ClientResponse, Get, Got, KeyspaceInfo, Operate, QuorumMode, Written};
use shoal_protocol::error::RequestError;
use shoal_protocol::object::{Object, Operation};
use shoal_protocol::time::Instant;

use super::Key;
use super::engine::{Ask, Engine};
use super::shared_session::{BindFailure, SharedSession};
use crate::error::Error;
use crate::retry::Repeat;
use crate::session::{BoundOperation, Intent, Observed, Verdict};

/// What a handle asks of its requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) r: Option<u8>,
    pub(super) w: Option<u8>,
    pub(super) quorum: Option<QuorumMode>,
    pub(super) deadline: Option<Duration>,
    pub(super) expires_in: Option<Duration>,
    /// A context that reads must cover.
    pub(super) min_ctx: Option<EncodedContext>,
}

/// One object as a node gave it.
pub(super) struct Read {
    pub(super) got: Got,
    pub(super) object: Object,
}

impl Engine {
    /// Reads one object; `options` may differ from the key's own.
    pub(super) async fn get(self: &Arc<Self>, key: &Key, options: &Options) -> Result<Read, Error> {
        let deadline = self.deadline(options.deadline);
        self.refresh_routes(key.info.spec.class);
        let (place, min_ctx) = (key.place.clone(), options.min_ctx.clone());
        let request = ClientRequest::Get(Get { place, r: options.r, min_ctx });
        let session = self.session(deadline).await?;
        let ask = Ask { request, repeat: Repeat::Reads, partition: key.partition(), deadline, again: false };
        let answer = self.ask(session.grant(), ask).await;
        let answer = answer.map_err(|failure| self.noticed(&key.info, &session, failure.into_error(None)))?;
        if let ClientResponse::Got(got) = answer { read(&session, got) } else { Err(not_a("object")) }
    }

    /// Applies `operation`, given what it has observed.
    pub(super) async fn apply(
        self: &Arc<Self>,
        key: &Key,
        operation: &Operation,
        observed: &Observed,
    ) -> Result<Written, Error> {
        let deadline = self.deadline(key.options.deadline);
        self.refresh_routes(key.info.spec.class);
        let intent = Intent {
            place: &key.place,
            spec: &key.info.spec,
            operation,
            observed,
            w: key.options.w,
            quorum: key.options.quorum,
        };
        if self.settings.sessionless {
            return self.let_a_node_mint(key, &intent, deadline).await;
        }
        // A second round only after a refusal of the session itself: nothing has happened then.
        for _ in 1..ROUNDS_MAX {
            match self.apply_once(key, &intent, deadline).await {
                Err(Error::Request(RequestError::SessionExpired | RequestError::ForeignSession)) => {}
                verdict => return verdict,
            }
        }
        self.apply_once(key, &intent, deadline).await
    }

    /// Sends a bound operation again.
    pub(super) async fn repeat(&self, operation: &BoundOperation) -> Result<Written, Error> {
        let deadline = self.deadline(None);
        let class = self.class_of(operation.place.keyspace);
        let partition = class.map(|class| operation.place.partition(class));
        let request = operation.request();
        let ask = Ask { request, repeat: Repeat::CountsOnce, partition, deadline, again: true };
        let answer = self.ask(operation.grant, ask).await;
        answer.map_err(|failure| failure.into_error(Some(operation))).and_then(written)
    }

    async fn apply_once(&self, key: &Key, intent: &Intent<'_>, deadline: Instant) -> Result<Written, Error> {
        let session = self.session(deadline).await?;
        let mut open = match session.bind(&self.clock, self.clock.host(deadline), intent).await {
            Ok(open) => open,
            Err(BindFailure::SessionOver) => {
                self.renounce(&session);
                return Err(RequestError::SessionExpired.into());
            }
            Err(BindFailure::Error(error)) => return Err(error),
        };
        open.sending();
        let request = open.operation.request();
        let ask = Ask { request, repeat: Repeat::CountsOnce, partition: key.partition(), deadline, again: false };
        match self.ask(open.operation.grant, ask).await {
            Ok(answer) => {
                // An acknowledgement that cannot be read leaves the operation unknown.
                let written = written(answer)?;
                open.decide(Verdict::Applied);
                session.answered(written.hlc);
                Ok(written)
            }
            Err(failure) => {
                let unknown = failure.give_up.may_have_happened;
                open.decide(if unknown { Verdict::Unknown } else { Verdict::Refused });
                Err(self.noticed(&key.info, &session, failure.into_error(Some(&open.operation))))
            }
        }
    }

    async fn let_a_node_mint(&self, key: &Key, intent: &Intent<'_>, deadline: Instant) -> Result<Written, Error> {
        let request = ClientRequest::Operate(operate(intent));
        let session = self.session(deadline).await?;
        let ask = Ask { request, repeat: Repeat::CountsAgain, partition: key.partition(), deadline, again: false };
        let answer = self.ask(session.grant(), ask).await;
        answer.map_err(|failure| self.noticed(&key.info, &session, failure.into_error(None))).and_then(written)
    }

    /// Forgets what an error shows to be out of date.
    pub(super) fn noticed(&self, info: &KeyspaceInfo, session: &Arc<SharedSession>, error: Error) -> Error {
        if let Error::Request(RequestError::KeyspaceGone { .. }) = &error {
            self.forget_keyspace(&info.name);
        }
        if let Error::Request(RequestError::SessionExpired | RequestError::ForeignSession) = &error {
            self.renounce(session);
        }
        error
    }
}

/// What a node is to mint.
pub(super) fn operate(intent: &Intent<'_>) -> Operate {
    Operate {
        place: intent.place.clone(),
        operation: intent.operation.clone(),
        context: intent.observed.contexts.first().cloned(),
        w: intent.w,
        quorum: intent.quorum,
    }
}

/// An object as read through a session.
pub(super) fn read(session: &SharedSession, got: Got) -> Result<Read, Error> {
    let object = decode(&got.object)?;
    session.observe(&object);
    Ok(Read { got, object })
}

/// An object from a node.
pub(super) fn decode(bytes: &bytes::Bytes) -> Result<Object, Error> {
    Object::decode_shared(bytes).map_err(|error| Error::Protocol { reason: error.to_string() })
}

/// An answer to another question.
pub(super) fn not_a(wanted: &str) -> Error {
    Error::Protocol { reason: format!("the answer is no {wanted}") }
}

/// The answer to a write.
pub(super) fn written(response: ClientResponse) -> Result<Written, Error> {
    if let ClientResponse::Written(written) = response { Ok(written) } else { Err(not_a("acknowledgement")) }
}

/// Sessions tried for one operation.
const ROUNDS_MAX: u32 = 2;
