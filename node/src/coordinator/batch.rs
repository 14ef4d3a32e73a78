//! A batch: independent operations, one verdict each, answered together.
//!
//! Invariant: the answer has as many verdicts as the question had items, in the same order.

use shoal_protocol::client::{BATCH_COUNT_MAX, ClientRequest, ClientResponse};
use shoal_protocol::error::RequestError;

use super::Step;

/// The verdicts so far.
#[derive(Debug)]
pub(crate) struct Batch {
    results: Vec<Option<Result<ClientResponse, RequestError>>>,
    missing: usize,
    answered: bool,
}

/// Checks a batch before anything of it starts.
pub(crate) fn check(items: &[ClientRequest]) -> Result<(), RequestError> {
    if items.is_empty() || items.len() > BATCH_COUNT_MAX {
        return Err(RequestError::Limit {
            limit: "batch".into(),
            actual: items.len() as u64,
            max: BATCH_COUNT_MAX as u64,
        });
    }
    let plain =
        |r: &ClientRequest| matches!(r, ClientRequest::Get(_) | ClientRequest::Write(_) | ClientRequest::Operate(_));
    if items.iter().all(plain) {
        Ok(())
    } else {
        Err(RequestError::BadRequest { reason: "a batch holds gets, writes and operates only".into() })
    }
}

impl Batch {
    pub(crate) fn new(count: usize) -> Self {
        Self { results: vec![None; count], missing: count, answered: false }
    }

    /// One item has its verdict.
    pub(crate) fn record(&mut self, index: usize, result: Result<ClientResponse, RequestError>) -> Step {
        if self.results[index].replace(result).is_none() {
            self.missing -= 1;
        }
        if self.missing == 0 { self.answer() } else { Step::Pending }
    }

    /// The deadline: every item has the same one and answered before; what is missing all the same is unknown.
    pub(crate) fn expired(&mut self) -> Step {
        if self.answered { Step::Pending } else { self.answer() }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.answered
    }

    fn answer(&mut self) -> Step {
        self.answered = true;
        let unknown = || Err(RequestError::Unknown { acked: 0, needed: 1 });
        Step::Answer(Ok(ClientResponse::Batch(
            self.results.drain(..).map(|result| result.unwrap_or_else(unknown)).collect(),
        )))
    }
}
