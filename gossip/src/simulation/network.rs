//! The network: queues, faults and counters.
//!
//! Units: `Instant` in µs of virtual time from 0; members are numbered from 0 and have that number as id. Loss is a share of
//! datagrams; a stream sends again after 200 ms, 400 ms and so on, and loses only what is sent into a cut.
//! Invariants: what happens at one time happens in the order in which it was caused; a dead member does nothing and gets nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use super::{Effect, Protocol};
use crate::member::Liveness;
use crate::random;

/// Members and what is between them.
#[derive(Debug)]
pub struct Network<P> {
    now: Instant,
    rng: ChaCha8Rng,
    seats: Vec<Seat<P>>,
    queue: BTreeMap<(Instant, u64), Event>,
    events_count: u64,
    loss: f64,
    /// (from, to) between whom nothing passes.
    cuts: BTreeSet<(usize, usize)>,
    history: Vec<Seen>,
    probes: Vec<(Instant, usize)>,
}

#[derive(Debug)]
struct Seat<P> {
    protocol: P,
    mode: Mode,
    wake: Option<Instant>,
    /// What waits for a blocked or frozen member: what it is sent, and what it sends.
    arrivals: Vec<(usize, Bytes)>,
    departures: Vec<Departure>,
    traffic: Traffic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Running,
    /// Its timers run, but it neither sends nor receives.
    Blocked,
    /// It does nothing at all.
    Frozen,
    Dead,
}

#[derive(Debug)]
struct Departure {
    to: usize,
    bytes: Bytes,
    is_stream: bool,
}

#[derive(Debug)]
enum Event {
    Arrive { from: usize, to: usize, bytes: Bytes },
    Wake { at: usize },
}

/// One change of belief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Who believes it.
    pub observer: usize,
    /// Of whom.
    pub subject: usize,
    /// What.
    pub liveness: Liveness,
}

/// What a member sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Bytes in them, without the transport's.
    pub packet_bytes: u64,
    /// Messages on streams.
    pub messages: u64,
    /// Bytes in them, without the transport's.
    pub message_bytes: u64,
}

impl<P: Protocol> Network<P> {
    /// A network without faults, whose members know nobody.
    pub fn new(seed: u64, count: usize, make: impl Fn(NodeId) -> P) -> Self {
        let seat = |index: usize| Seat {
            protocol: make(NodeId(index as u64)),
            mode: Mode::Running,
            wake: None,
            arrivals: Vec::new(),
            departures: Vec::new(),
            traffic: Traffic::default(),
        };
        let mut network = Self {
            now: Instant(0),
            rng: ChaCha8Rng::seed_from_u64(seed),
            seats: (0..count).map(seat).collect(),
            queue: BTreeMap::new(),
            events_count: 0,
            loss: 0.0,
            cuts: BTreeSet::new(),
            history: Vec::new(),
            probes: Vec::new(),
        };
        (0..count).for_each(|index| network.schedule(index));
        network
    }

    /// A network in which everybody joined through member 0 and what followed has calmed down.
    pub fn joined(seed: u64, count: usize, make: impl Fn(NodeId) -> P) -> Self {
        let mut network = Self::new(seed, count, make);
        for index in 1..count {
            network.introduce(index, 0);
            network.run_for(Duration::from_millis(10));
        }
        network.run_for(CALM);
        network
    }

    /// Now.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// How many members there are, dead ones included.
    pub const fn count(&self) -> usize {
        self.seats.len()
    }

    /// A member's part.
    pub fn protocol(&self, index: usize) -> &P {
        &self.seats[index].protocol
    }

    /// Everything that members believed newly, since the last call.
    pub fn take_history(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.history)
    }

    /// When whom was probed directly, since the last call.
    pub fn take_probes(&mut self) -> Vec<(Instant, usize)> {
        std::mem::take(&mut self.probes)
    }

    /// What each member sent, since the last call.
    pub fn take_traffic(&mut self) -> Vec<Traffic> {
        self.seats.iter_mut().map(|seat| std::mem::take(&mut seat.traffic)).collect()
    }

    /// A number below `bound`, from the network's own seed.
    pub fn chance(&mut self, bound: usize) -> usize {
        random::below(&mut self.rng, bound)
    }

    /// Two members meet.
    pub fn introduce(&mut self, one: usize, other: usize) {
        for (at, with) in [(one, other), (other, one)] {
            self.act(at, |protocol, now, out| protocol.meet(now, NodeId(with as u64), out));
        }
    }

    /// Lets a member do something by hand.
    pub fn act(&mut self, index: usize, act: impl FnOnce(&mut P, Instant, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        act(&mut self.seats[index].protocol, self.now, &mut effects);
        self.perform(index, effects);
    }

    /// The share of datagrams lost from now on.
    pub const fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    /// Nothing passes from one to another any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Nothing passes between members for which `side` differs.
    pub fn partition(&mut self, side: impl Fn(usize) -> bool) {
        for from in 0..self.count() {
            self.cuts.extend((0..self.count()).filter(|to| side(from) != side(*to)).map(|to| (from, to)));
        }
    }

    /// Everything passes again.
    pub fn mend(&mut self) {
        self.cuts.clear();
    }

    /// The member neither sends nor receives from now on, but its timers run: Lifeguard's anomaly.
    pub fn block(&mut self, index: usize) {
        self.seats[index].mode = Mode::Blocked;
    }

    /// The member does nothing at all from now on, as a stopped process.
    pub fn freeze(&mut self, index: usize) {
        self.seats[index].mode = Mode::Frozen;
    }

    /// A blocked or frozen member goes on, with everything that waited.
    pub fn release(&mut self, index: usize) {
        let seat = &mut self.seats[index];
        seat.mode = Mode::Running;
        let (arrivals, departures) = (std::mem::take(&mut seat.arrivals), std::mem::take(&mut seat.departures));
        departures.into_iter().for_each(|departure| self.depart(index, departure));
        // A stopped process finds its timers over before it reads its sockets.
        self.wake(index);
        arrivals.into_iter().for_each(|(from, bytes)| self.arrive(from, index, bytes));
    }

    /// The member dies.
    pub fn kill(&mut self, index: usize) {
        self.seats[index].mode = Mode::Dead;
    }

    /// The member begins a new life that knows nobody.
    pub fn restart(&mut self, index: usize, protocol: P) {
        let seat = &mut self.seats[index];
        (seat.protocol, seat.mode, seat.wake) = (protocol, Mode::Running, None);
        self.schedule(index);
    }

    /// Whether the member is not dead.
    pub fn lives(&self, index: usize) -> bool {
        self.seats[index].mode != Mode::Dead
    }

    /// Whether every living member believes every living member alive, and every dead one not live.
    pub fn agrees(&self) -> bool {
        let living: Vec<_> = (0..self.count()).filter(|index| self.lives(*index)).collect();
        let fits = |observer: usize, subject: usize| {
            let believed = self.protocol(observer).believes(NodeId(subject as u64));
            if self.lives(subject) { believed == Liveness::Alive } else { !believed.is_live() }
        };
        living
            .iter()
            .all(|&observer| (0..self.count()).filter(|&other| other != observer).all(|other| fits(observer, other)))
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_while(self.now + time, |_| true);
    }

    /// Lets time pass until `end` or until `goes_on` does not hold; returns whether it stopped before the end.
    pub fn run_while(&mut self, end: Instant, goes_on: impl Fn(&Self) -> bool) -> bool {
        while let Some((&(at, _), _)) = self.queue.first_key_value()
            && at <= end
        {
            if !goes_on(self) {
                return true;
            }
            self.now = at;
            if let Some((_, event)) = self.queue.pop_first() {
                self.happen(event);
            }
        }
        self.now = end;
        !goes_on(self)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, bytes } => match self.seats[to].mode {
                Mode::Running => self.arrive(from, to, bytes),
                Mode::Blocked | Mode::Frozen => self.seats[to].arrivals.push((from, bytes)),
                Mode::Dead => {}
            },
            Event::Wake { at } if self.seats[at].wake == Some(self.now) => match self.seats[at].mode {
                Mode::Running | Mode::Blocked => self.wake(at),
                Mode::Frozen | Mode::Dead => {}
            },
            Event::Wake { .. } => {}
        }
    }

    fn arrive(&mut self, from: usize, to: usize, bytes: Bytes) {
        self.act(to, |protocol, now, out| protocol.receive(now, NodeId(from as u64), bytes, out));
    }

    fn wake(&mut self, index: usize) {
        self.seats[index].wake = None;
        self.act(index, |protocol, now, out| protocol.tick(now, out));
    }

    fn schedule(&mut self, index: usize) {
        let seat = &mut self.seats[index];
        if let Some(deadline) = seat.protocol.next_deadline().map(|deadline| deadline.max(self.now))
            && seat.wake.is_none_or(|wake| deadline < wake)
        {
            seat.wake = Some(deadline);
            self.push(deadline, Event::Wake { at: index });
        }
    }

    fn perform(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, bytes, is_stream, is_probe } => {
                    let to = to.0 as usize;
                    if is_probe {
                        self.probes.push((self.now, to));
                    }
                    let departure = Departure { to, bytes, is_stream };
                    match self.seats[index].mode {
                        Mode::Running => self.depart(index, departure),
                        Mode::Blocked | Mode::Frozen => self.seats[index].departures.push(departure),
                        Mode::Dead => {}
                    }
                }
                Effect::Believe(subject, liveness) => {
                    let subject = subject.0 as usize;
                    self.history.push(Seen { at: self.now, observer: index, subject, liveness });
                }
            }
        }
        self.schedule(index);
    }

    fn depart(&mut self, from: usize, Departure { to, bytes, is_stream }: Departure) {
        let traffic = &mut self.seats[from].traffic;
        if is_stream {
            traffic.messages += 1;
            traffic.message_bytes += bytes.len() as u64;
        } else {
            traffic.packets += 1;
            traffic.packet_bytes += bytes.len() as u64;
        }
        if to >= self.count() || self.cuts.contains(&(from, to)) {
            return;
        }
        let mut delay = LATENCY_MIN + random::time_below(&mut self.rng, LATENCY_SPREAD);
        let mut pause = STREAM_RETRY;
        while self.loss > 0.0 && f64::from(self.rng.next_u32()) < self.loss * f64::from(u32::MAX) {
            if !is_stream {
                return;
            }
            delay += pause;
            pause *= 2;
        }
        self.push(self.now + delay, Event::Arrive { from, to, bytes });
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.events_count += 1;
        self.queue.insert((at, self.events_count), event);
    }
}

/// One way through a data centre: 0.2 to 1.5 ms.
const LATENCY_MIN: Duration = Duration::from_micros(200);
const LATENCY_SPREAD: Duration = Duration::from_micros(1300);
/// A stream's first retransmission.
const STREAM_RETRY: Duration = Duration::from_millis(200);
/// Until a cluster that was just formed talks of nothing any more.
const CALM: Duration = Duration::from_secs(20);
