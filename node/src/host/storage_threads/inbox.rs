//! What waits for one lane's thread.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::locked;

/// Effects in the order they came. Cleared, stopped and waited on from several threads.
#[derive(Debug)]
pub(super) struct Inbox<E> {
    queue: Mutex<Queue<E>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queue<E> {
    effects: Vec<E>,
    reopen: bool,
    stopped: bool,
}

/// What an inbox gives.
pub(super) enum Taken<E> {
    /// The engine is to be opened again, before anything else.
    Reopen,
    /// Everything pending.
    Work(Vec<E>),
    /// There was nothing for as long as was asked.
    Idle,
    /// There is nothing and never will be.
    Stopped,
}

impl<E> Default for Inbox<E> {
    fn default() -> Self {
        let queue = Queue { effects: Vec::new(), reopen: false, stopped: false };
        Self { queue: Mutex::new(queue), changed: Condvar::new() }
    }
}

impl<E> Inbox<E> {
    pub(super) fn push(&self, effects: Vec<E>) {
        if !effects.is_empty() {
            locked(&self.queue).effects.extend(effects);
            self.changed.notify_one();
        }
    }

    /// Forgets what waits, and asks for the engine to be opened again.
    pub(super) fn reopen(&self) {
        let mut queue = locked(&self.queue);
        queue.effects.clear();
        queue.reopen = true;
        self.changed.notify_one();
    }

    /// Forgets what waits.
    pub(super) fn clear(&self) {
        locked(&self.queue).effects.clear();
    }

    /// Lets what waits be done and ends.
    pub(super) fn stop(&self) {
        locked(&self.queue).stopped = true;
        self.changed.notify_one();
    }

    /// Forgets what waits and ends.
    pub(super) fn forget(&self) {
        self.clear();
        self.stop();
    }

    /// What there is to do, once there is something.
    pub(super) fn take(&self, idle_after: Option<Duration>) -> Taken<E> {
        let nothing = |queue: &mut Queue<E>| queue.effects.is_empty() && !queue.reopen && !queue.stopped;
        let queue = locked(&self.queue);
        let mut queue = match idle_after {
            None => self.changed.wait_while(queue, nothing).unwrap_or_else(PoisonError::into_inner),
            Some(after) => {
                self.changed.wait_timeout_while(queue, after, nothing).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if std::mem::take(&mut queue.reopen) {
            Taken::Reopen
        } else if !queue.effects.is_empty() {
            Taken::Work(std::mem::take(&mut queue.effects))
        } else if queue.stopped {
            Taken::Stopped
        } else {
            Taken::Idle
        }
    }

    /// Waits, but no longer than until stopped.
    pub(super) fn is_stopped_within(&self, wait: Duration) -> bool {
        let going = |queue: &mut Queue<E>| !queue.stopped;
        let waited = self.changed.wait_timeout_while(locked(&self.queue), wait, going);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }
}
