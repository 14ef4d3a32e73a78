//! One machine: a disk that outlives everything, and a process that runs the real node over the real engine.
//!
//! Units: the process' monotonic clock has an arbitrary zero of its own; its wall clock is off by `skew_ms`.

use std::collections::{BTreeMap, BTreeSet};

use shoal_node::node::{ConnectionId, Node, NodeConfig};
use shoal_node::storage::engine::Doubt;
use shoal_protocol::id::{Actor, RequestId};
use shoal_protocol::time::{Instant, Now, WallTime};

use super::storage::Storage;
use crate::sim::disk::SimDisk;

/// A machine.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) config: NodeConfig,
    pub(super) disk: SimDisk,
    pub(super) process: Option<Process>,
    /// Counts processes.
    pub(super) boot: u32,
    pub(super) skew_ms: i64,
    /// What a failure of the disk left in doubt, of each cell's files. (A process killed before it reopened its store would not know; that is a
    /// known gap, docs/decisions/0009, so here the machine remembers until it loses power.)
    pub(super) doubt: Vec<Doubt>,
    /// Makes the disk so many times slower.
    pub(super) slow_disk: u32,
    /// It does not start, whoever tries.
    pub(super) is_lost: bool,
}

/// A running node.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) node: Node,
    /// The threads of each cell, by its number.
    pub(super) storage: Vec<Storage>,
    /// What its monotonic clock shows at the beginning of time.
    pub(super) zero: u64,
    pub(super) tick_at: Option<Instant>,
    /// Ticks in a row that changed nothing about when the next one is due: a real host would spin.
    pub(super) vain_ticks_count: u32,
    pub(super) door: Door,
}

/// The clients of one process.
#[derive(Debug, Default)]
pub(super) struct Door {
    connections: BTreeMap<(usize, Actor), ConnectionId>,
    clients: BTreeMap<ConnectionId, usize>,
    gone: BTreeSet<ConnectionId>,
    /// Requests without an answer, and when it is due.
    asked: BTreeMap<(ConnectionId, RequestId), Instant>,
    next: u64,
}

impl Host {
    /// Both clocks as this machine shows them.
    pub(super) fn clock(&self, now: Instant) -> Now {
        let zero = self.process.as_ref().map_or(0, |process| process.zero);
        Now { instant: Instant(now.0 + zero), wall: wall(now, self.skew_ms) }
    }

    /// Nothing is in doubt: what is on the disk after a loss of power is what there is.
    pub(super) fn trust(&mut self) {
        self.doubt.fill(Doubt::Nothing);
    }

    /// The running process' number.
    pub(super) fn running(&self) -> Option<u32> {
        self.process.as_ref().map(|_| self.boot)
    }
}

impl Door {
    /// The connection of a client's session.
    pub(super) fn connection(&self, client: usize, session: Actor) -> Option<ConnectionId> {
        self.connections.get(&(client, session)).copied()
    }

    pub(super) fn open(&mut self, client: usize, session: Actor) -> ConnectionId {
        self.next += 1;
        let connection = ConnectionId(self.next);
        self.connections.insert((client, session), connection);
        self.clients.insert(connection, client);
        connection
    }

    pub(super) fn ask(&mut self, connection: ConnectionId, request: RequestId, due: Instant) {
        self.asked.insert((connection, request), due);
    }

    /// Closes a connection; its requests have no more answer.
    pub(super) fn close(&mut self, connection: ConnectionId) -> Vec<RequestId> {
        self.connections.retain(|_, open| *open != connection);
        self.gone.insert(connection);
        let asked: Vec<RequestId> =
            self.asked.keys().filter(|(open, _)| *open == connection).map(|(_, request)| *request).collect();
        self.asked.retain(|(open, _), _| *open != connection);
        asked
    }

    /// Who is to get this answer: `Ok(None)` when nobody waits any more.
    ///
    /// # Errors
    /// Nobody asked, or was answered already.
    pub(super) fn answer(&mut self, connection: ConnectionId, request: RequestId) -> Result<Option<usize>, ()> {
        if self.gone.contains(&connection) {
            return Ok(None);
        }
        self.asked.remove(&(connection, request)).ok_or(())?;
        Ok(self.clients.get(&connection).copied())
    }

    /// Requests that should have been answered before `now`.
    pub(super) fn overdue(&self, now: Instant) -> usize {
        self.asked.values().filter(|due| **due < now).count()
    }

    /// Every client that waits, with its request.
    pub(super) fn waiting(&self) -> Vec<(usize, RequestId)> {
        self.asked.keys().filter_map(|(open, request)| Some((*self.clients.get(open)?, *request))).collect()
    }
}

/// The wall clock of somebody whose clock is off by `skew_ms`.
pub(in crate::sim) fn wall(now: Instant, skew_ms: i64) -> WallTime {
    WallTime((BEGINNING_MS + now.0 / 1000).saturating_add_signed(skew_ms))
}

/// The wall time at the beginning of every history: 2027-01-15.
const BEGINNING_MS: u64 = 1_800_000_000_000;
