//! One step of one operation: what it may look at, and what it wants done.

use std::time::Duration;

use shoal_protocol::client::ClientResponse;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{NodeId, RequestId};
use shoal_protocol::peer::PeerRequest;
use shoal_protocol::time::Instant;

use super::{Owing, Surroundings};

/// What an operation decided in one step.
pub(crate) enum Step {
    /// Nothing yet.
    Pending,
    /// The caller gets this; the operation may linger to repair.
    Answer(Result<ClientResponse, RequestError>),
}

/// What an operation may touch while it takes a step.
pub(crate) struct Cx<'a> {
    pub(crate) around: Surroundings<'a>,
    pub(crate) deadline: Instant,
    pub(crate) hedge_delay: Duration,
    pub(super) next_id: &'a mut u64,
    pub(super) outbox: Vec<(Option<RequestId>, NodeId, RequestId, PeerRequest)>,
    pub(super) exchange: Vec<NodeId>,
    pub(super) owing: Vec<Owing>,
    pub(super) wake: Option<Instant>,
    /// Whether a write may wait for more acks than it needs.
    pub(crate) may_linger: bool,
}

impl Cx<'_> {
    /// Asks a replica; the answer comes to this operation.
    pub(crate) fn ask(&mut self, to: NodeId, request: PeerRequest) {
        let id = self.fresh();
        self.outbox.push((Some(id), to, id, request));
    }

    /// Tells a replica something whose answer is of no interest.
    pub(crate) fn tell(&mut self, to: NodeId, request: PeerRequest) {
        let id = self.fresh();
        self.outbox.push((None, to, id, request));
    }

    /// Exchange system state with a node whose view differs.
    pub(crate) fn exchange(&mut self, with: NodeId) {
        self.exchange.push(with);
    }

    /// A primary did not acknowledge.
    pub(crate) fn owe(&mut self, owing: Owing) {
        self.owing.push(owing);
    }

    /// Wake this operation at `at`; a later call replaces an earlier one.
    pub(crate) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(at);
    }

    fn fresh(&mut self) -> RequestId {
        *self.next_id += 1;
        RequestId(*self.next_id)
    }
}
