//! A session that several calls use at once.
//!
//! Invariant: every bound operation gets a verdict, also when its caller stops waiting: what was sent is then unknown, what
//! was not is refused.

use std::sync::{Arc, Mutex};

use shoal_protocol::client::SessionGrant;
use shoal_protocol::error::RequestError;
use shoal_protocol::object::Object;
use shoal_protocol::time::Hlc;
use tokio::sync::Notify;
use tokio::time::{Instant as HostInstant, timeout_at};

use crate::error::Error;
use crate::session::{BindError, BoundOperation, Intent, Session, StoredSession, Verdict};
use crate::transport::{Clock, locked};

/// The session of a client.
#[derive(Debug)]
pub(super) struct SharedSession {
    grant: SessionGrant,
    /// `None` once it was suspended.
    core: Mutex<Option<Session>>,
    decided: Notify,
}

impl SharedSession {
    pub(super) fn new(session: Session) -> Self {
        Self { grant: session.grant(), core: Mutex::new(Some(session)), decided: Notify::new() }
    }

    pub(super) const fn grant(&self) -> SessionGrant {
        self.grant
    }

    /// Whether another session is needed.
    pub(super) fn is_over(&self, clock: &Clock) -> bool {
        locked(&self.core).as_ref().is_none_or(|session| session.is_over(clock.now().wall))
    }

    pub(super) fn suspend(&self) -> Option<StoredSession> {
        locked(&self.core).take().map(Session::suspend)
    }

    pub(super) fn observe(&self, object: &Object) {
        if let Some(session) = locked(&self.core).as_mut() {
            session.observe(object);
        }
    }

    pub(super) fn answered(&self, hlc: Hlc) {
        if let Some(session) = locked(&self.core).as_mut() {
            session.answered(hlc);
        }
    }

    /// Binds now, or after the verdicts that must come first.
    pub(super) async fn bind(
        self: &Arc<Self>,
        clock: &Clock,
        deadline: HostInstant,
        intent: &Intent<'_>,
    ) -> Result<Open, BindFailure> {
        loop {
            let mut decided = std::pin::pin!(self.decided.notified());
            // From here on a verdict wakes us, even one that comes before we wait.
            decided.as_mut().enable();
            match self.try_bind(clock, intent) {
                Err(BindError::EarlierOpen) => {
                    timeout_at(deadline, decided).await.map_err(|_| BindFailure::Error(Error::Timeout))?;
                }
                Err(BindError::SessionOver) => return Err(BindFailure::SessionOver),
                Err(BindError::Invalid { reason }) => {
                    return Err(BindFailure::Error(RequestError::BadRequest { reason }.into()));
                }
                Ok(bound) => return Ok(bound),
            }
        }
    }

    /// Binds now.
    pub(super) fn try_bind(self: &Arc<Self>, clock: &Clock, intent: &Intent<'_>) -> Result<Open, BindError> {
        let mut core = locked(&self.core);
        let session = core.as_mut().ok_or(BindError::SessionOver)?;
        let operation = session.bind(clock.now(), intent)?;
        Ok(Open { session: Arc::clone(self), operation, sent: false, decided: false })
    }

    fn verdict(&self, operation: &BoundOperation, verdict: Verdict) {
        if let Some(session) = locked(&self.core).as_mut() {
            session.verdict(operation.dot, verdict);
        }
        self.decided.notify_waiters();
    }
}

/// Why nothing was bound.
pub(super) enum BindFailure {
    /// Take another session.
    SessionOver,
    /// Tell the caller.
    Error(Error),
}

/// A bound operation on its way to a verdict.
pub(super) struct Open {
    session: Arc<SharedSession>,
    pub(super) operation: BoundOperation,
    sent: bool,
    decided: bool,
}

impl Open {
    /// From now on an attempt may be admitted.
    pub(super) const fn sending(&mut self) {
        self.sent = true;
    }

    pub(super) fn decide(&mut self, verdict: Verdict) {
        self.decided = true;
        self.session.verdict(&self.operation, verdict);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.decided {
            self.session.verdict(&self.operation, if self.sent { Verdict::Unknown } else { Verdict::Refused });
        }
    }
}
