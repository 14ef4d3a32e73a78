//! Every node's view of the members, side by side: so a partition that only one side sees becomes visible.
//!
//! Shape: a client's question goes to every member that can be asked; the answer leaves when all have answered, or at the
//! deadline with what is there. Invariant: who did not answer is listed as such, never left out.

use std::collections::BTreeMap;

use shoal_protocol::client::{ClientResponse, MemberStatus, MemberView};
use shoal_protocol::id::{NodeId, RequestId};
use shoal_protocol::peer::{PeerRequest, PeerResponse};
use shoal_protocol::time::{Instant, Now};

use super::{ClientTag, Effect, Node, clients};

/// The questions under way.
#[derive(Debug, Default)]
pub(super) struct Views {
    open: Vec<Gathering>,
}

#[derive(Debug)]
struct Gathering {
    tag: ClientTag,
    until: Instant,
    waiting: BTreeMap<RequestId, NodeId>,
    views: BTreeMap<NodeId, MemberView>,
}

impl Views {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open.iter().map(|gathering| gathering.until).min()
    }

    /// Nobody waits for these answers.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&ClientTag) -> bool) {
        self.open.retain(|gathering| !is_gone(&gathering.tag));
    }

    /// A member will not answer.
    pub(super) fn lose(&mut self, node: NodeId) {
        for gathering in &mut self.open {
            gathering.waiting.retain(|_, asked| *asked != node);
        }
    }

    /// Whether an answer was to one of these questions.
    fn answered(&mut self, from: NodeId, (id, response): (RequestId, &PeerResponse)) -> bool {
        let Some(open) = self.open.iter_mut().find(|open| open.waiting.get(&id) == Some(&from)) else { return false };
        open.waiting.remove(&id);
        if let PeerResponse::Members(members) = response
            && let Some(view) = open.views.get_mut(&from)
        {
            view.members = Some(members.clone());
        }
        true
    }
}

impl Node {
    /// A client asks for all views.
    pub(super) fn gather_views(&mut self, now: Now, (tag, deadline): (ClientTag, Instant), out: &mut Vec<Effect>) {
        // The answer has to get there in time.
        let until = now.instant + deadline.since(now.instant) / 2;
        let own = self.members_status();
        let view = |status: &MemberStatus| {
            let (node, name) = (status.endpoint.node, status.endpoint.name.clone());
            let members = (node == self.config.node).then(|| own.clone());
            (node, MemberView { node, name, members })
        };
        let views: BTreeMap<NodeId, MemberView> = own.iter().map(view).collect();
        let mut waiting = BTreeMap::new();
        for to in views.keys().copied().filter(|node| *node != self.config.node && self.alive.contains(node)) {
            let id = self.system_calls.fresh();
            waiting.insert(id, to);
            out.push(self.call(to, id, (until.since(now.instant), PeerRequest::Members)));
        }
        self.views.open.push(Gathering { tag, until, waiting, views });
        self.advance_views(now, out);
    }

    /// A peer answers; whether it answers a question of this room.
    pub(super) fn view_answered(
        &mut self,
        now: Now,
        from: NodeId,
        answer: (RequestId, &PeerResponse),
        out: &mut Vec<Effect>,
    ) -> bool {
        let is_ours = self.views.answered(from, answer);
        self.advance_views(now, out);
        is_ours
    }

    /// Answers whoever has waited long enough, or has everything.
    pub(super) fn advance_views(&mut self, now: Now, out: &mut Vec<Effect>) {
        for gathering in std::mem::take(&mut self.views.open) {
            if gathering.waiting.is_empty() || gathering.until <= now.instant {
                let views = gathering.views.into_values().collect();
                clients::answer(gathering.tag, Ok(ClientResponse::MemberViews(views)), out);
            } else {
                self.views.open.push(gathering);
            }
        }
    }
}
