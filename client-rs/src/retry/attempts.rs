//! One request's way through its attempts.
//!
//! Shape: the caller asks `step` what to do, starts attempts, reports each with `ended`, and asks again. A second attempt
//! runs beside a silent first one (a hedge) where repeating is free. Every node is tried once before anybody pauses.
//! Invariants: nothing starts after the deadline; a refusal becomes the outcome only when every other attempt is known not
//! to have been admitted, else the outcome is "may have happened"; what may count twice is never repeated once it may have
//! happened.

use std::time::Duration;

use rand_core::Rng;
use shoal_protocol::error::RequestError;
use shoal_protocol::time::Instant;

use super::{RetryBudget, backoff};

/// What repeating a request would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing: it only reads.
    Reads,
    /// Nothing: its bytes are bound, it counts once however often it arrives.
    CountsOnce,
    /// It may count again (sessionless operations, administration).
    CountsAgain,
}

/// How an attempt ended, other than well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It never left: no connection to the node.
    NotSent,
    /// It left, and the connection ended before an answer.
    Lost,
    /// A node answered.
    Answered(RequestError),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start an attempt at the next node.
    Start,
    /// Wait for an attempt to end, at most until then.
    Wait(Instant),
    /// Stop, and leave what still runs.
    GiveUp(GiveUp),
}

/// Why a request ends without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiveUp {
    /// Some replica may have applied it. Never true for a request that only reads.
    pub may_have_happened: bool,
    /// The most telling answer of a node; `None` when none answered.
    pub answer: Option<RequestError>,
    /// Whether any attempt left this client.
    pub sent: bool,
}

/// One request's attempts.
#[derive(Clone, Debug)]
pub struct Attempts {
    repeat: Repeat,
    deadline: Instant,
    hedge_after: Duration,
    nodes_count: u32,
    started: u32,
    running: u32,
    /// Of the running ones, those that have left this client.
    running_left: u32,
    failures: u32,
    not_before: Instant,
    /// When the latest attempt began, or the budget refused another.
    silent_since: Instant,
    /// The next attempt repeats work that a living node may still be doing or has refused.
    costs_budget: bool,
    may_have_happened: bool,
    sent: bool,
    final_answer: bool,
    answer: Option<RequestError>,
}

impl Attempts {
    /// A request to be answered before `deadline`, for which there are `nodes_count` nodes to ask.
    #[must_use]
    pub fn new(repeat: Repeat, now: Instant, deadline: Instant, nodes_count: u32) -> Self {
        let hedge_after = deadline.since(now) / HEDGE_PART;
        Self {
            repeat,
            deadline,
            hedge_after,
            nodes_count,
            started: 0,
            running: 0,
            running_left: 0,
            failures: 0,
            not_before: now,
            silent_since: now,
            costs_budget: false,
            may_have_happened: false,
            sent: false,
            final_answer: false,
            answer: None,
        }
    }

    /// The same, for a request whose earlier attempts already ended in an unknown outcome.
    #[must_use]
    pub fn again(self) -> Self {
        Self { may_have_happened: true, ..self }
    }

    /// Notes how many of the attempts that still run have left this client: only such a one can have been admitted.
    pub fn note_left(&mut self, count: u32) {
        self.running_left = count;
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant, budget: &mut RetryBudget) -> Step {
        if now >= self.deadline || (self.running == 0 && self.is_settled()) {
            return self.give_up();
        }
        if self.running > 0 {
            return self.step_beside(now, budget);
        }
        if self.started == 0 {
            budget.earn();
            return self.start(now);
        }
        if now < self.not_before {
            return Step::Wait(self.not_before.min(self.deadline));
        }
        if self.costs_budget && !budget.spend() {
            return self.give_up();
        }
        self.start(now)
    }

    /// An attempt ended without success.
    pub fn ended(&mut self, now: Instant, end: End, rng: &mut impl Rng) {
        self.running -= 1;
        self.running_left = self.running_left.min(self.running);
        self.failures += 1;
        let mut pause_min = Duration::ZERO;
        self.costs_budget = false;
        match end {
            End::NotSent => {}
            End::Lost => {
                self.sent = true;
                self.may_have_happened |= self.repeat != Repeat::Reads;
            }
            End::Answered(error) => {
                self.sent = true;
                self.costs_budget = true;
                self.may_have_happened |= self.repeat != Repeat::Reads && error.may_have_happened();
                if let RequestError::Overloaded { retry_after_ms } = &error {
                    pause_min = Duration::from_millis(u64::from(*retry_after_ms));
                }
                self.note(error);
            }
        }
        self.not_before = if self.failures < self.nodes_count {
            now
        } else {
            let rounds = self.failures / self.nodes_count.max(1);
            now + backoff(rounds, rng).max(pause_min)
        };
    }

    /// Remembers the most telling answer: a final one over one that asks to come back.
    fn note(&mut self, error: RequestError) {
        // A stale read was already waited for by the node until the deadline it was given.
        let comes_back = error.is_retryable() && !matches!(error, RequestError::Stale { .. });
        if !comes_back {
            self.final_answer = true;
            self.answer = Some(error);
        } else if !self.final_answer {
            self.answer = Some(error);
        }
    }

    /// Nothing more is to be started.
    fn is_settled(&self) -> bool {
        self.final_answer || (self.may_have_happened && self.repeat == Repeat::CountsAgain)
    }

    fn step_beside(&mut self, now: Instant, budget: &mut RetryBudget) -> Step {
        let may_hedge = self.repeat != Repeat::CountsAgain
            && !self.is_settled()
            && self.running < self.nodes_count
            && self.running_left < LEFT_MAX;
        if !may_hedge {
            return Step::Wait(self.deadline);
        }
        let connecting = self.running_left == 0;
        let after = if connecting { self.hedge_after.min(CONNECTING_AFTER) } else { self.hedge_after };
        if now >= self.silent_since + after {
            if connecting || budget.spend() {
                return self.start(now);
            }
            self.silent_since = now;
        }
        Step::Wait((self.silent_since + after).min(self.deadline))
    }

    fn start(&mut self, now: Instant) -> Step {
        self.started += 1;
        self.running += 1;
        self.silent_since = now;
        Step::Start
    }

    fn give_up(&self) -> Step {
        let open = self.running_left > 0;
        Step::GiveUp(GiveUp {
            may_have_happened: self.may_have_happened || (open && self.repeat != Repeat::Reads),
            answer: self.answer.clone(),
            sent: self.sent || open,
        })
    }
}

/// A silent attempt is hedged after this part of the time there was at the start. Guess, to be measured.
const HEDGE_PART: u32 = 5;
/// The next node is tried beside one whose connection is not there after this. Source: RFC 8305 §5.
const CONNECTING_AFTER: Duration = Duration::from_millis(250);
/// Attempts of one request that wait for an answer at the same time.
const LEFT_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    const UNAVAILABLE: RequestError = RequestError::Unavailable { replied: 1, needed: 2 };
    const UNKNOWN: RequestError = RequestError::Unknown { acked: 1, needed: 2 };

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000)
    }

    fn attempts(repeat: Repeat) -> (Attempts, RetryBudget, ChaCha8Rng) {
        (Attempts::new(repeat, at(0), at(5_000), 3), RetryBudget::default(), ChaCha8Rng::seed_from_u64(1))
    }

    #[test]
    fn every_node_is_tried_before_a_pause() {
        let (mut attempts, mut budget, mut rng) = attempts(Repeat::CountsOnce);
        for _ in 0..3 {
            assert_eq!(attempts.step(at(1), &mut budget), Step::Start);
            attempts.ended(at(1), End::NotSent, &mut rng);
        }
        assert!(matches!(attempts.step(at(1), &mut budget), Step::Wait(until) if until > at(1)));
    }

    #[test]
    fn an_overloaded_cluster_is_left_alone_for_the_time_it_named() {
        let (mut attempts, mut budget, mut rng) = attempts(Repeat::Reads);
        for _ in 0..3 {
            assert_eq!(attempts.step(at(1), &mut budget), Step::Start);
            attempts.ended(at(1), End::Answered(RequestError::Overloaded { retry_after_ms: 3_000 }), &mut rng);
        }
        assert!(matches!(attempts.step(at(1), &mut budget), Step::Wait(until) if until >= at(3_001)));
    }

    #[test]
    fn a_refusal_after_a_lost_attempt_is_no_refusal() {
        let (mut attempts, mut budget, mut rng) = attempts(Repeat::CountsOnce);
        assert_eq!(attempts.step(at(1), &mut budget), Step::Start);
        attempts.ended(at(1), End::Lost, &mut rng);
        assert_eq!(attempts.step(at(1), &mut budget), Step::Start);
        attempts.ended(at(2), End::Answered(RequestError::DiskFull), &mut rng);
        let Step::GiveUp(end) = attempts.step(at(2), &mut budget) else { panic!("goes on") };
        assert!(end.may_have_happened);
        assert_eq!(end.answer, Some(RequestError::DiskFull));
    }

    #[test]
    fn a_refusal_waits_for_the_hedge_beside_it() {
        let (mut attempts, mut budget, mut rng) = attempts(Repeat::CountsOnce);
        assert_eq!(attempts.step(at(0), &mut budget), Step::Start);
        attempts.note_left(1);
        assert_eq!(attempts.step(at(0), &mut budget), Step::Wait(at(1_000)));
        assert_eq!(attempts.step(at(1_000), &mut budget), Step::Start);
        attempts.ended(at(1_001), End::Answered(RequestError::DiskFull), &mut rng);
        assert_eq!(attempts.step(at(1_001), &mut budget), Step::Wait(at(5_000)));
        attempts.ended(at(1_002), End::Answered(RequestError::DiskFull), &mut rng);
        let Step::GiveUp(end) = attempts.step(at(1_002), &mut budget) else { panic!("goes on") };
        assert!(!end.may_have_happened);
    }

    #[test]
    fn nodes_that_cannot_be_connected_to_are_passed_quickly_and_cost_no_budget() {
        let (mut attempts, mut budget, _) = attempts(Repeat::CountsOnce);
        while budget.spend() {}
        for n in 0..3 {
            assert_eq!(attempts.step(at(n * 250), &mut budget), Step::Start);
            let wait = if n < 2 { at((n + 1) * 250) } else { at(5_000) };
            assert_eq!(attempts.step(at(n * 250), &mut budget), Step::Wait(wait));
        }
    }

    #[test]
    fn what_may_count_again_is_repeated_only_while_nothing_happened() {
        let (mut attempts, mut budget, mut rng) = attempts(Repeat::CountsAgain);
        assert_eq!(attempts.step(at(0), &mut budget), Step::Start);
        attempts.ended(at(0), End::Answered(UNAVAILABLE), &mut rng);
        assert_eq!(attempts.step(at(0), &mut budget), Step::Start);
        assert_eq!(attempts.step(at(4_000), &mut budget), Step::Wait(at(5_000)));
        attempts.ended(at(4_000), End::Answered(UNKNOWN), &mut rng);
        let Step::GiveUp(end) = attempts.step(at(4_000), &mut budget) else { panic!("repeated") };
        assert!(end.may_have_happened);
    }

    #[test]
    fn an_attempt_open_at_the_deadline_may_have_happened_if_it_has_left() {
        let (mut attempts, mut budget, _) = attempts(Repeat::CountsOnce);
        assert_eq!(attempts.step(at(0), &mut budget), Step::Start);
        for left in [false, true] {
            attempts.note_left(u32::from(left));
            let gave_up = GiveUp { may_have_happened: left, answer: None, sent: left };
            assert_eq!(attempts.step(at(5_000), &mut budget), Step::GiveUp(gave_up));
        }
    }

    fn end() -> impl Strategy<Value = Option<End>> {
        prop_oneof![
            Just(None),
            Just(Some(End::NotSent)),
            Just(Some(End::Lost)),
            Just(Some(End::Answered(UNAVAILABLE))),
            Just(Some(End::Answered(UNKNOWN))),
            Just(Some(End::Answered(RequestError::DiskFull))),
        ]
    }

    proptest! {
        /// Against a plain account of what was let loose: the report is never milder than the truth.
        #[test]
        fn a_request_is_never_called_undone_when_it_may_have_been_done(
            ends in proptest::collection::vec((end(), 0u64..400), 1..60),
            counts_again in any::<bool>(),
        ) {
            let repeat = if counts_again { Repeat::CountsAgain } else { Repeat::CountsOnce };
            let (mut attempts, mut budget, mut rng) = attempts(repeat);
            let (mut running, mut loose, mut now) = (0u32, false, 0);
            for (end, ms) in ends {
                now += ms;
                attempts.note_left(running);
                match attempts.step(at(now), &mut budget) {
                    Step::Start => {
                        prop_assert!(!(counts_again && (loose || running > 0)), "repeated what may count twice");
                        prop_assert!(now < 5_000);
                        running += 1;
                    }
                    Step::Wait(until) => prop_assert!(until > at(now) && until <= at(5_000)),
                    Step::GiveUp(end) => {
                        prop_assert_eq!(end.may_have_happened, loose || running > 0);
                        return Ok(());
                    }
                }
                if let Some(end) = end.filter(|_| running > 0) {
                    running -= 1;
                    loose |= end == End::Lost || end == End::Answered(UNKNOWN);
                    attempts.ended(at(now), end, &mut rng);
                }
            }
        }
    }
}
