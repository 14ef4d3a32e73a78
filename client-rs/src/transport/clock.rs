//! The clocks of this process: the one place where the client asks for the time.

use std::time::Duration;

use shoal_protocol::time::{Instant, Now, WallTime};
use tokio::time::Instant as HostInstant;

/// Turns the runtime's monotonic clock into `Instant`s with a zero of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    zero: HostInstant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { zero: HostInstant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        Now { instant: self.instant(), wall: wall() }
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant::default() + self.zero.elapsed()
    }

    /// The same moment for the runtime's timers.
    pub(crate) fn host(&self, at: Instant) -> HostInstant {
        self.zero + Duration::from_micros(at.0)
    }
}

#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the client's one reading of the wall clock")]
fn wall() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
