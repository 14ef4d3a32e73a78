//! Batches: many independent operations in few requests, a verdict each. No atomicity.
//!
//! Shape: what depends on what was observed is read first, in one request; then everything is bound and sent. A counter
//! operation that must wait for an earlier one of the same batch goes with the next request.

use std::sync::Arc;
use std::time::Duration;

use shoal_protocol::client::{BATCH_COUNT_MAX, ClientRequest, ClientResponse, Get, Written};
use shoal_protocol::error::RequestError;
use shoal_protocol::object::Operation;
use shoal_protocol::time::Instant;

use super::engine::Ask;
use super::operate::{not_a, operate, read, written};
use super::shared_session::{Open, SharedSession};
use super::{Client, Key, Snapshot};
use crate::error::Error;
use crate::nested;
use crate::retry::Repeat;
use crate::session::{BindError, Intent, Observed, Verdict};

/// Operations to be sent together; the answers come in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Batch {
    client: Client,
    items: Vec<Item>,
    deadline: Option<Duration>,
}

/// The answer to one of them.
#[derive(Clone, Debug)]
pub enum BatchAnswer {
    /// A read.
    Read(Box<Snapshot>),
    /// A write.
    Written(Written),
}

#[derive(Clone, Debug)]
struct Item {
    key: Key,
    /// `None` = read.
    operation: Option<Operation>,
    observed: Option<Observed>,
}

type Verdicts = Vec<Option<Result<BatchAnswer, Error>>>;

impl Batch {
    pub(super) const fn new(client: Client) -> Self {
        Self { client, items: Vec::new(), deadline: None }
    }

    /// Allows each of its requests this much time.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// Adds a read.
    pub fn read(&mut self, key: &Key) {
        self.items.push(Item { key: key.clone(), operation: None, observed: None });
    }

    /// Adds an operation. One that depends on what was observed is read first.
    pub fn operate(&mut self, key: &Key, operation: Operation) {
        let observed = if nested::observes(&operation) { None } else { Some(Observed::default()) };
        let operation = Some(key.timed(operation));
        self.items.push(Item { key: key.clone(), operation, observed });
    }

    /// Adds an operation that has observed `snapshot`.
    pub fn operate_on(&mut self, key: &Key, snapshot: &Snapshot, operation: Operation) {
        let observed = Some(snapshot.observed().clone());
        self.items.push(Item { key: key.clone(), operation: Some(key.timed(operation)), observed });
    }

    /// How many operations it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Sends everything, at most 1,000 operations to a request.
    ///
    /// # Errors
    /// Only when there is no session to be had; every operation has its own verdict.
    pub async fn send(mut self) -> Result<Vec<Result<BatchAnswer, Error>>, Error> {
        let mut verdicts: Verdicts = self.items.iter().map(|_| None).collect();
        let to_read: Vec<usize> = (0..self.items.len()).filter(|at| self.items[*at].observed.is_none()).collect();
        for some in to_read.chunks(BATCH_COUNT_MAX) {
            self.read_some(some, &mut verdicts).await?;
        }
        let mut left: Vec<usize> = (0..self.items.len()).filter(|at| verdicts[*at].is_none()).collect();
        while !left.is_empty() {
            left = self.write_some(&left, &mut verdicts).await?;
        }
        let lost = || Err(Error::Protocol { reason: "an operation without a verdict".into() });
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(lost)).collect())
    }

    async fn read_some(&mut self, some: &[usize], verdicts: &mut Verdicts) -> Result<(), Error> {
        let deadline = self.client.engine.deadline(self.deadline);
        let session = self.client.engine.session(deadline).await?;
        let gets = some.iter().map(|at| {
            let Key { place, options, .. } = &self.items[*at].key;
            ClientRequest::Get(Get { place: place.clone(), r: options.r, min_ctx: options.min_ctx.clone() })
        });
        let gets = gets.collect();
        let answers = self.ask(&session, gets, Repeat::Reads, deadline).await;
        for (at, answer) in some.iter().zip(answers) {
            let item = &mut self.items[*at];
            let wall = self.client.engine.clock.now().wall;
            let snapshot = answer.and_then(|response| {
                let ClientResponse::Got(got) = response else { return Err(not_a("object")) };
                Ok(Snapshot::new(item.key.clone(), read(&session, got)?, wall))
            });
            match snapshot {
                Ok(snapshot) if item.operation.is_some() => item.observed = Some(snapshot.observed().clone()),
                Ok(snapshot) => verdicts[*at] = Some(Ok(BatchAnswer::Read(Box::new(snapshot)))),
                Err(error) => verdicts[*at] = Some(Err(error)),
            }
        }
        Ok(())
    }

    /// Binds and sends what it can; the answer is what is left.
    async fn write_some(&self, left: &[usize], verdicts: &mut Verdicts) -> Result<Vec<usize>, Error> {
        let engine = &self.client.engine;
        let deadline = engine.deadline(self.deadline);
        let session = engine.session(deadline).await?;
        if engine.settings.sessionless {
            return self.let_nodes_mint(left, &session, deadline, verdicts).await;
        }
        let (mut sent, mut open, mut later) = (Vec::new(), Vec::<Open>::new(), Vec::new());
        for at in left {
            if sent.len() == BATCH_COUNT_MAX {
                later.push(*at);
                continue;
            }
            let Some(intent) = self.items[*at].intent() else { continue };
            match session.try_bind(&engine.clock, &intent) {
                Ok(bound) => {
                    sent.push(*at);
                    open.push(bound);
                }
                Err(BindError::EarlierOpen) => later.push(*at),
                Err(BindError::SessionOver) => {
                    engine.renounce(&session);
                    later.push(*at);
                }
                Err(BindError::Invalid { reason }) => {
                    verdicts[*at] = Some(Err(RequestError::BadRequest { reason }.into()));
                }
            }
        }
        if let (true, Some(at)) = (open.is_empty(), later.first()) {
            // Nothing to send: somebody else's operation on the key is open. Wait for it with the first in line.
            return self.write_one(*at, verdicts).await.map(|()| later.split_off(1));
        }
        open.iter_mut().for_each(Open::sending);
        let requests = open.iter().map(|open| open.operation.request()).collect();
        let answers = self.ask(&session, requests, Repeat::CountsOnce, deadline).await;
        for ((at, mut open), answer) in sent.into_iter().zip(open).zip(answers) {
            verdicts[at] = Some(close(&mut open, &session, answer));
        }
        Ok(later)
    }

    async fn write_one(&self, at: usize, verdicts: &mut Verdicts) -> Result<(), Error> {
        let item = &self.items[at];
        let (Some(operation), Some(observed)) = (item.operation.clone(), &item.observed) else { return Ok(()) };
        verdicts[at] = Some(item.key.apply(operation, observed).await.map(BatchAnswer::Written));
        Ok(())
    }

    async fn let_nodes_mint(
        &self,
        left: &[usize],
        session: &Arc<SharedSession>,
        deadline: Instant,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<usize>, Error> {
        let (now, later) = left.split_at(left.len().min(BATCH_COUNT_MAX));
        let intents = now.iter().filter_map(|at| self.items[*at].intent());
        let requests = intents.map(|intent| ClientRequest::Operate(operate(&intent))).collect();
        let answers = self.ask(session, requests, Repeat::CountsAgain, deadline).await;
        for (at, answer) in now.iter().zip(answers) {
            verdicts[*at] = Some(answer.and_then(written).map(BatchAnswer::Written));
        }
        Ok(later.to_vec())
    }

    /// One answer for each request, whatever happened.
    async fn ask(
        &self,
        session: &Arc<SharedSession>,
        requests: Vec<ClientRequest>,
        repeat: Repeat,
        deadline: Instant,
    ) -> Vec<Result<ClientResponse, Error>> {
        let count = requests.len();
        let request = ClientRequest::Batch(requests);
        let ask = Ask { request, repeat, partition: None, deadline, again: false };
        let error = match self.client.engine.ask(session.grant(), ask).await {
            Ok(answer) => match answers(answer, count) {
                Ok(answers) => return answers,
                Err(error) => error,
            },
            Err(failure) => failure.into_error(None),
        };
        vec![Err(error); count]
    }
}

impl Item {
    fn intent(&self) -> Option<Intent<'_>> {
        Some(Intent {
            place: &self.key.place,
            spec: &self.key.info.spec,
            operation: self.operation.as_ref()?,
            observed: self.observed.as_ref()?,
            w: self.key.options.w,
            quorum: self.key.options.quorum,
        })
    }
}

/// The answers inside a batch's.
fn answers(response: ClientResponse, count: usize) -> Result<Vec<Result<ClientResponse, Error>>, Error> {
    let ClientResponse::Batch(answers) = response else { return Err(not_a("batch")) };
    if answers.len() != count {
        return Err(not_a("batch of as many answers"));
    }
    Ok(answers.into_iter().map(|answer| answer.map_err(Error::Request)).collect())
}

/// The verdict on a bound operation, from the answer of the batch that carried it.
fn close(
    open: &mut Open,
    session: &SharedSession,
    answer: Result<ClientResponse, Error>,
) -> Result<BatchAnswer, Error> {
    let error = match answer.and_then(written) {
        Ok(written) => {
            open.decide(Verdict::Applied);
            session.answered(written.hlc);
            return Ok(BatchAnswer::Written(written));
        }
        Err(error) => error,
    };
    let unknown = error.may_have_happened();
    open.decide(if unknown { Verdict::Unknown } else { Verdict::Refused });
    let operation = Some(Box::new(open.operation.clone()));
    Err(if unknown { Error::Unknown { operation, reason: error.to_string() } } else { error })
}
