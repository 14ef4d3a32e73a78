//! Keyspace administration: a client's change becomes a change of the system state, its verdict the answer.

use shoal_protocol::client::ClientRequest;
use shoal_protocol::error::RequestError;
use shoal_protocol::time::{Instant, Now};

use super::{ClientTag, Effect, Node, clients};
use crate::system::{Change, KeyspaceCommand, SystemInput};

impl Node {
    pub(super) fn administer(
        &mut self,
        now: Now,
        (tag, deadline): (ClientTag, Instant),
        request: ClientRequest,
        out: &mut Vec<Effect>,
    ) {
        let command = match request {
            ClientRequest::CreateKeyspace { name, spec } => KeyspaceCommand::Create { name, spec },
            ClientRequest::SetKeyspace { name, change } => KeyspaceCommand::Set { name, change },
            ClientRequest::DropKeyspace { name } => KeyspaceCommand::Drop { name },
            ClientRequest::Get(_)
            | ClientRequest::Write(_)
            | ClientRequest::Operate(_)
            | ClientRequest::Scan(_)
            | ClientRequest::Batch(_)
            | ClientRequest::ShowKeyspace { .. }
            | ClientRequest::ListKeyspaces
            | ClientRequest::Routes { .. }
            | ClientRequest::MemberViews
            | ClientRequest::ChangeLayout(_)
            | ClientRequest::Layouts
            | ClientRequest::Status => {
                clients::answer(tag, Err(RequestError::BadRequest { reason: "not administration".into() }), out);
                return;
            }
        };
        let request = self.system_calls.fresh();
        self.system_calls.changes.insert(request, tag);
        self.tell_system(now, SystemInput::Change(Change { request, deadline, command }), out);
    }
}
