//! Closed loops: so many writers or readers, each asking anew when it is answered.
//!
//! Shape: all of them live in this one thread, as requests live in a node's event loop; what a system makes durable comes
//! back as the highest ticket. A writer whose answer the system holds back (slowdown) waits for that too. Units: µs.
//! Invariant: every system is driven by this same code, so its cost is the same for each; `key_making` measures it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Outcome;
use crate::counted_disk::WrittenBytes;
use crate::keys::{Keys, Put};
use crate::meter::Usage;

/// Something that makes puts durable.
pub(crate) trait System {
    /// Takes one put. The ticket is above all before it.
    fn put(&mut self, put: Put) -> Outcome<Taken>;

    /// Lets whatever was taken be worked on.
    fn submit(&mut self);

    /// The highest ticket that is durable, after waiting for news, but no longer than until then.
    fn durable(&mut self, until: Option<Instant>) -> Outcome<u64>;

    /// Returns when no work goes on in the background.
    fn settle(&mut self) -> Outcome<()>;

    /// What it has written so far.
    fn written(&self) -> WrittenBytes;
}

/// What became of a put.
pub(crate) struct Taken {
    pub(crate) ticket: u64,
    /// How long its answer is held back at least.
    pub(crate) hold: Duration,
}

/// When a loop ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    After(Duration),
    /// After so many puts.
    Count(u64),
}

/// What one loop measured.
pub(crate) struct Measured {
    pub(crate) count: u64,
    pub(crate) time: Duration,
    pub(crate) latency: Histogram<u64>,
    /// Until nothing was left to do in the background.
    pub(crate) usage: Usage,
    pub(crate) written: WrittenBytes,
}

struct Waiting {
    ticket: u64,
    since: Instant,
    due: Instant,
}

/// Puts of so many writers. `next` makes each put; it ends the loop early with `None`.
pub(crate) fn puts(
    system: &mut dyn System,
    writers: usize,
    end: End,
    mut next: impl FnMut() -> Option<Outcome<Put>>,
) -> Outcome<Measured> {
    system.settle()?;
    let (usage, written) = (Usage::now(), system.written());
    let start = Instant::now();
    let (mut in_flight, mut held) = (VecDeque::<Waiting>::new(), BTreeMap::<(Instant, u64), Instant>::new());
    let (mut idle, mut taken, mut done) = (writers as u64, 0, 0);
    let mut latency = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?;
    let mut is_over = false;
    loop {
        let now = Instant::now();
        is_over |= match end {
            End::After(time) => now - start >= time,
            End::Count(count) => taken >= count,
        };
        while !is_over && idle > 0 && !matches!(end, End::Count(count) if taken >= count) {
            let Some(put) = next() else {
                is_over = true;
                break;
            };
            let Taken { ticket, hold } = system.put(put?)?;
            in_flight.push_back(Waiting { ticket, since: now, due: now + hold });
            (idle, taken) = (idle - 1, taken + 1);
        }
        if in_flight.is_empty() && held.is_empty() {
            break;
        }
        system.submit();
        let durable = system.durable(held.keys().next().map(|(due, _)| *due))?;
        let now = Instant::now();
        while let Some(Waiting { ticket, since, due }) = in_flight.pop_front_if(|waiting| waiting.ticket <= durable) {
            held.insert((due, ticket), since);
        }
        while let Some(entry) = held.first_entry().filter(|entry| entry.key().0 <= now) {
            let micros = u64::try_from((now - entry.remove()).as_micros()).unwrap_or(u64::MAX);
            latency.saturating_record(micros);
            (idle, done) = (idle + 1, done + 1);
        }
    }
    let time = start.elapsed();
    system.settle()?;
    let (usage, written) = (Usage::now().since(usage), system.written().since(written));
    Ok(Measured { count: done, time, latency, usage, written })
}

/// What making keys and deltas costs by itself, per put.
pub(crate) fn key_making(keys: &mut Keys) -> Outcome<Usage> {
    let before = Usage::now();
    for _ in 0..KEY_MAKING_COUNT {
        std::hint::black_box(keys.random_put()?);
    }
    let used = Usage::now().since(before);
    Ok(Usage {
        cpu_ns: used.cpu_ns / KEY_MAKING_COUNT,
        rows_cpu_ns: 0,
        allocations: used.allocations / KEY_MAKING_COUNT,
    })
}

/// A minute: nothing takes longer.
pub(crate) const LATENCY_MICROS_MAX: u64 = 60_000_000;
const KEY_MAKING_COUNT: u64 = 100_000;
