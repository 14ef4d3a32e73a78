//! How a client's operations end: what it was told goes into the history and, for bound ones, to the session.

use shoal_client::retry::GiveUp;
use shoal_client::session::{Observed, Verdict};
use shoal_protocol::client::ClientResponse;
use shoal_protocol::error::RequestError;

use super::{CLIENTS, Client, Intent, Memory, Task, place_text};
use crate::sim::history::{Fate, History};
use crate::sim::world::World;

impl Client {
    pub(super) fn complete(&mut self, world: &mut World, history: &mut History, done: (Task, ClientResponse)) {
        match done {
            (Task::Read { key, get, floor, then }, ClientResponse::Got(got)) => {
                let object = history.got(world, key, (&get, &floor), &got);
                let view = object.view(history.space_of(key).spec.conflict, self.clock(world).wall);
                let memory = Memory { object, context: got.context, view };
                if let Some((operation, w)) = then {
                    let observed = Observed { object: memory.object.clone(), contexts: vec![memory.context.clone()] };
                    self.bind(world, history, Intent { key, operation, observed, w });
                }
                self.memory.insert(key, memory);
            }
            (Task::Write(write), ClientResponse::Written(written)) => {
                if let Some(session) = self.sessions.get_mut(&write.bound.grant.actor) {
                    session.answered(written.hlc);
                    session.verdict(write.bound.dot, Verdict::Applied);
                }
                history.written(world, (write.key, write.write, write.bound.w), &written);
            }
            (Task::Operate { key, write, operate }, ClientResponse::Written(written)) => {
                history.written(world, (key, write, operate.w), &written);
            }
            (Task::Scan { scan, floors }, ClientResponse::Page(page)) => {
                floors.check(world, history, (&scan, &page));
            }
            (Task::Batch(tasks), ClientResponse::Batch(results)) if tasks.len() == results.len() => {
                for (task, result) in tasks.into_iter().zip(results) {
                    match result {
                        Ok(response) => self.complete(world, history, (task, response)),
                        Err(error) => {
                            judge(world, &error);
                            let may_have_happened = error.may_have_happened();
                            let why = GiveUp { may_have_happened, answer: Some(error), sent: true };
                            self.fail(world, history, (task, &why));
                        }
                    }
                }
            }
            (task, response) => world.find("honest answers", format!("{response:?} to {task:?}")),
        }
    }

    pub(super) fn fail(&mut self, world: &mut World, history: &mut History, (task, why): (Task, &GiveUp)) {
        let fate = if why.may_have_happened { Fate::Unknown } else { Fate::Refused };
        match task {
            Task::Read { .. } | Task::Scan { .. } => world.count("reads failed"),
            Task::Write(write) => {
                let verdict = if why.may_have_happened { Verdict::Unknown } else { Verdict::Refused };
                let session = self.sessions.get_mut(&write.bound.grant.actor);
                let verdict = session.map_or(verdict, |session| session.verdict(write.bound.dot, verdict));
                let fate = if verdict == Verdict::Refused { Fate::Refused } else { Fate::Unknown };
                world.count(if fate == Fate::Refused { "writes refused" } else { "writes unknown" });
                history.keys[write.key].writes[write.write].fate = fate;
                let text = || format!("{} of {:?}: {fate:?}, {why:?}", write.write, place_text(&write.bound));
                world.trace.note(world.now, (CLIENTS + self.index, "gives up"), &[], text);
                let hopeless = why.answer.as_ref().is_some_and(|answer| !answer.is_retryable());
                if fate == Fate::Unknown && !hopeless {
                    self.unknown.push(*write);
                }
            }
            Task::Operate { key, write, .. } => history.keys[key].writes[write].fate = fate,
            Task::Batch(tasks) => {
                for task in tasks {
                    self.fail(world, history, (task, why));
                }
            }
        }
    }
}

/// Some answers must never come to a client that does nothing wrong in a cluster that loses nothing.
pub(super) fn judge(world: &mut World, error: &RequestError) {
    let wrong = matches!(
        error,
        RequestError::BadRequest { .. }
            | RequestError::UnknownKeyspace { .. }
            | RequestError::KeyspaceGone { .. }
            | RequestError::ContextMismatch
            | RequestError::ContextInvalid { .. }
            | RequestError::ForgedContext
            | RequestError::ContextLost { .. }
            | RequestError::ClockSkew { .. }
            | RequestError::SessionExpired
            | RequestError::ForeignSession
            | RequestError::TooFewNodes { .. }
            | RequestError::Incompatible { .. }
    );
    if wrong {
        world.find("honest answers", format!("a correct client was told: {error}"));
    }
}
