//! Time, always passed in.
//!
//! Units: `Instant` in microseconds of a monotonic clock with an arbitrary zero; `WallTime` in milliseconds since
//! 1970-01-01 UTC; `Hlc` = 48 bits of wall milliseconds, then 16 bits of logical counter (Kulkarni et al. 2014, §3).
//! Invariant: wall time decides only the winner between concurrent `lww` values, and expiry (DESIGN §1).

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the monotonic clock, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub u64);

impl Instant {
    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A point on the wall clock, in ms since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl WallTime {
    const DAY_MS: u64 = 86_400_000;

    /// Whole days since 1970-01-01.
    #[must_use]
    pub const fn day(self) -> u64 {
        self.0 / Self::DAY_MS
    }
}

/// Both clocks at one moment, as the host hands them to a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and delays.
    pub instant: Instant,
    /// For expiry and hlc only.
    pub wall: WallTime,
}

/// A hybrid logical clock reading: later causally means larger, whatever the wall clocks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    const LOGICAL_BITS: u32 = 16;

    /// The wall milliseconds this reading claims.
    #[must_use]
    pub const fn wall(self) -> WallTime {
        WallTime(self.0 >> Self::LOGICAL_BITS)
    }

    /// The next reading: above `self` and not behind the wall clock.
    #[must_use]
    pub fn next(self, wall: WallTime) -> Self {
        Self((self.0 + 1).max(wall.0 << Self::LOGICAL_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hlc_grows_when_the_wall_clock_goes_back() {
        let first = Hlc::default().next(WallTime(1_000));
        let second = first.next(WallTime(10));
        assert!(second > first);
        assert_eq!(second.wall(), WallTime(1_000));
    }
}
