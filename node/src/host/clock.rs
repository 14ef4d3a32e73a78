//! The clocks: the only place that reads them.
//!
//! Units: µs since this `Clock` was made for `Instant`, ms since 1970 for `WallTime`.

use std::time::{Duration, SystemTime};

use shoal_protocol::time::{Instant, Now, WallTime};

/// Both clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    zero: std::time::Instant,
}

impl Clock {
    /// A clock whose `Instant` begins now.
    pub(super) fn start() -> Self {
        Self { zero: std::time::Instant::now() }
    }

    /// What they show. A wall clock set before 1970 shows 1970.
    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now {
            instant: Instant::default() + self.zero.elapsed(),
            wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The same point for tokio's timers.
    pub(super) fn timer(&self, at: Instant) -> tokio::time::Instant {
        (self.zero + at.since(Instant::default())).into()
    }
}
