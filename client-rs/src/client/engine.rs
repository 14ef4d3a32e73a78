//! The engine room: one request from its first attempt to its answer, and the session that all of them share.
//!
//! `retry` decides, `transport` carries; here they meet timers and locks. No lock is held across an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand_chacha::ChaCha8Rng;
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{ClientCall, ClientRequest, ClientResponse, KeyspaceInfo, SessionGrant};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Class, Partition};
use shoal_protocol::time::Instant;
use tokio::time::{sleep_until, timeout_at};

use super::shared_session::SharedSession;
use crate::error::Error;
use crate::retry::{Attempts, End, GiveUp, Repeat, RetryBudget, Step};
use crate::session::{BoundOperation, Session, StoredSession};
use crate::transport::{Candidates, Clock, DialError, Pool, RouteTable, Target, locked};

/// What all clones of a client share.
pub(crate) struct Engine {
    pub(super) settings: Settings,
    pub(super) pool: Pool,
    pub(super) clock: Clock,
    pub(super) rng: Mutex<ChaCha8Rng>,
    pub(super) budget: Mutex<RetryBudget>,
    pub(super) routes: RouteTable,
    pub(super) keyspaces: Mutex<BTreeMap<KeyspaceName, Arc<KeyspaceInfo>>>,
    pub(super) session: Mutex<Option<Arc<SharedSession>>>,
    /// Held by whoever asks for a new session.
    pub(super) renewing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What the builder fixed.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) deadline: Duration,
    pub(super) sessionless: bool,
    /// Whether only the configured nodes are asked.
    pub(super) unrouted: bool,
}

/// One request on its way.
pub(super) struct Ask {
    pub(super) request: ClientRequest,
    pub(super) repeat: Repeat,
    pub(super) partition: Option<Partition>,
    pub(super) deadline: Instant,
    /// An earlier call ended in an unknown outcome.
    pub(super) again: bool,
}

/// Set once an attempt may have reached its node.
type Left = Arc<AtomicBool>;

/// A request that got no answer it asked for.
pub(super) struct Failure {
    pub(super) give_up: GiveUp,
    connect: Option<DialError>,
}

impl Failure {
    /// As the caller sees it. `operation` is what can be repeated.
    pub(super) fn into_error(self, operation: Option<&BoundOperation>) -> Error {
        let answer = self.give_up.answer;
        if self.give_up.may_have_happened {
            let reason = answer.map_or_else(|| "no answer before the deadline".into(), |answer| answer.to_string());
            return Error::Unknown { operation: operation.cloned().map(Box::new), reason };
        }
        match (answer, self.connect) {
            (Some(answer), _) => Error::Request(answer),
            (None, _) if self.give_up.sent => Error::Timeout,
            (None, Some(error @ DialError::Untrusted { .. })) => Error::Untrusted { reason: error.to_string() },
            (None, Some(error @ DialError::Unreachable { .. })) => Error::Connect { reason: error.to_string() },
            (None, None) => Error::Connect { reason: "no connection before the deadline".into() },
        }
    }
}

impl Engine {
    /// When a request that starts now must be done.
    pub(super) fn deadline(&self, asked: Option<Duration>) -> Instant {
        self.clock.instant() + asked.unwrap_or(self.settings.deadline)
    }

    /// Connects to some node; a session that the cluster no longer accepts is replaced.
    pub(super) async fn reach(&self) -> Result<(), Error> {
        let deadline = self.deadline(None);
        let session = self.session(deadline).await?;
        let grant = session.grant();
        let candidates = self.routes.candidates(None);
        let attempts = self.attempts(Repeat::Reads, deadline, &candidates);
        let open = |target: Arc<Target>, _| async move { self.pool.connection(&target, grant).await.map(drop) };
        match self.drive(attempts, &candidates.targets, open).await.map_err(|failure| failure.into_error(None)) {
            Err(Error::Request(RequestError::SessionExpired)) => {
                self.renounce(&session);
                self.session(deadline).await.map(drop)
            }
            verdict => verdict,
        }
    }

    /// The session to bind with; a new one when there is none that may.
    pub(super) async fn session(&self, deadline: Instant) -> Result<Arc<SharedSession>, Error> {
        let current = || locked(&self.session).clone().filter(|session| !session.is_over(&self.clock));
        if let Some(session) = current() {
            return Ok(session);
        }
        let renewing = timeout_at(self.clock.host(deadline), self.renewing.lock()).await;
        let _renewing = renewing.map_err(|_| Error::Timeout)?;
        if let Some(session) = current() {
            return Ok(session);
        }
        let candidates = self.routes.candidates(None);
        let attempts = self.attempts(Repeat::Reads, deadline, &candidates);
        let greet = |target: Arc<Target>, _| async move { self.pool.fresh_session(&target).await };
        let granted = self.drive(attempts, &candidates.targets, greet).await;
        let grant = granted.map_err(|failure| failure.into_error(None))?;
        let session = Arc::new(SharedSession::new(Session::new(grant)));
        *locked(&self.session) = Some(Arc::clone(&session));
        self.pool.keep_only(grant.actor);
        Ok(session)
    }

    /// Lets `session` go: a node does not accept it any more.
    pub(super) fn renounce(&self, session: &Arc<SharedSession>) {
        let mut current = locked(&self.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
        }
    }

    pub(super) fn suspend(&self) -> Option<StoredSession> {
        locked(&self.session).take()?.suspend()
    }

    /// Asks over connections of `grant`'s session until there is an answer, or no hope.
    pub(super) async fn ask(&self, grant: SessionGrant, ask: Ask) -> Result<ClientResponse, Failure> {
        let Candidates { mut targets, replicas_count } = self.routes.candidates(ask.partition);
        // The replica with the least in flight first.
        targets[..replicas_count].sort_by_cached_key(|target| self.pool.load(target, grant.actor));
        let candidates = Candidates { targets, replicas_count };
        let mut attempts = self.attempts(ask.repeat, ask.deadline, &candidates);
        if ask.again {
            attempts = attempts.again();
        }
        let request = &ask.request;
        let send = |target: Arc<Target>, left: Left| async move {
            let connection = self.pool.connection(&target, grant).await?;
            let deadline_ms = self.deadline_ms(ask.deadline);
            connection.call(&ClientCall { deadline_ms, request: request.clone() }, &left).await
        };
        self.drive(attempts, &candidates.targets, send).await
    }

    /// Asks for the routes of `class` in the background when they are missing or old.
    pub(super) fn refresh_routes(self: &Arc<Self>, class: Class) {
        if self.settings.unrouted || !self.routes.wants(class, self.clock.instant()) {
            return;
        }
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            if engine.fetch_routes(class).await.is_err() {
                engine.routes.not_learned(class);
            }
        });
    }

    async fn drive<T, F: Future<Output = Result<T, End>>>(
        &self,
        mut attempts: Attempts,
        targets: &[Arc<Target>],
        start: impl Fn(Arc<Target>, Left) -> F,
    ) -> Result<T, Failure> {
        let (mut tried, mut open) = (Vec::new(), Vec::<(Arc<Target>, Left)>::new());
        let mut running = FuturesUnordered::new();
        loop {
            let now = self.clock.instant();
            attempts.note_left(open.iter().map(|(_, left)| u32::from(left.load(Ordering::Relaxed))).sum());
            let step = attempts.step(now, &mut locked(&self.budget));
            match step {
                Step::Start => {
                    self.note_silence(&open, now);
                    let target = self.pool.pick(targets, &mut tried, now, &mut locked(&self.rng));
                    let target = target.unwrap_or_default();
                    let left = Left::default();
                    open.push((Arc::clone(&target), Arc::clone(&left)));
                    let attempt = start(Arc::clone(&target), left);
                    running.push(async move { (target, attempt.await) });
                }
                Step::Wait(until) if running.is_empty() => sleep_until(self.clock.host(until)).await,
                Step::Wait(until) => {
                    let Ok(Some((target, result))) = timeout_at(self.clock.host(until), running.next()).await else {
                        continue;
                    };
                    open.retain(|(other, _)| *other != target);
                    match result {
                        Ok(answer) => {
                            self.pool.answered(&target);
                            return Ok(answer);
                        }
                        Err(end) => self.note_end(&mut attempts, &target, end),
                    }
                }
                Step::GiveUp(give_up) => {
                    self.note_silence(&open, now);
                    return Err(Failure { give_up, connect: self.pool.failure() });
                }
            }
        }
    }

    fn note_end(&self, attempts: &mut Attempts, target: &Target, end: End) {
        let now = self.clock.instant();
        let mut rng = locked(&self.rng);
        self.pool.ended(target, &end, now, &mut rng);
        if matches!(end, End::NotSent | End::Lost) {
            self.routes.doubt(now);
        }
        attempts.ended(now, end, &mut *rng);
    }

    fn note_silence(&self, open: &[(Arc<Target>, Left)], now: Instant) {
        for (target, left) in open {
            let mut rng = locked(&self.rng);
            if left.load(Ordering::Relaxed) {
                self.pool.silent(target, now, &mut rng);
            } else {
                self.pool.ended(target, &End::NotSent, now, &mut rng);
            }
        }
    }

    fn attempts(&self, repeat: Repeat, deadline: Instant, candidates: &Candidates) -> Attempts {
        let nodes_count = u32::try_from(candidates.targets.len()).unwrap_or(u32::MAX);
        Attempts::new(repeat, self.clock.instant(), deadline, nodes_count)
    }

    /// The time a node gets: a little less than there is, so that its verdict arrives before ours.
    fn deadline_ms(&self, deadline: Instant) -> u32 {
        let left = deadline.since(self.clock.instant());
        let left = left.saturating_sub((left / 10).min(ANSWER_TRAVELS));
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
    }
}

/// Kept back for an answer's way from the node.
const ANSWER_TRAVELS: Duration = Duration::from_millis(100);
