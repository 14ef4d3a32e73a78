//! What all connections of a node hold together: requests without an answer, and bytes that wait for their readers.
//!
//! Shape: every outbox adds and takes away what it holds; a door asks whether there is room before it takes a request.
//! Source: DESIGN §6 (overload). Invariants: the sums are those of the outboxes alive; a request is refused only while
//! others are held, so that a limit below its size delays it and never forbids it.

use std::cell::Cell;

use super::limits::LoadLimits;

/// The sums, in bytes.
#[derive(Debug)]
pub(super) struct Load {
    limits: LoadLimits,
    of_clients: Cell<usize>,
    of_peers: Cell<usize>,
    outbox: Cell<usize>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A client asks.
    Client,
    /// Another node asks, or is asked.
    Peer,
}

impl Load {
    pub(super) const fn new(limits: LoadLimits) -> Self {
        Self { limits, of_clients: Cell::new(0), of_peers: Cell::new(0), outbox: Cell::new(0) }
    }

    /// Whether a request of so many bytes may come in. Slow readers hold up clients only: what was begun at other nodes
    /// goes on.
    pub(super) fn has_room(&self, side: Side, bytes: usize) -> bool {
        let fits = |held: usize, bytes_max: usize| held == 0 || held + bytes <= bytes_max;
        match side {
            Side::Client => {
                fits(self.of_clients.get(), self.limits.request_bytes_max)
                    && self.outbox.get() <= self.limits.outbox_bytes_max
            }
            Side::Peer => fits(self.of_peers.get(), self.limits.replica_request_bytes_max),
        }
    }

    /// A request was taken.
    pub(super) fn took(&self, side: Side, bytes: usize) {
        let sum = self.requests(side);
        sum.set(sum.get() + bytes);
    }

    /// Requests were answered, or their connection has ended.
    pub(super) fn settled(&self, side: Side, bytes: usize) {
        let sum = self.requests(side);
        sum.set(sum.get() - bytes);
    }

    /// Bytes wait for a reader.
    pub(super) fn queued(&self, bytes: usize) {
        self.outbox.set(self.outbox.get() + bytes);
    }

    /// Bytes have left, or nobody will read them.
    pub(super) fn left(&self, bytes: usize) {
        self.outbox.set(self.outbox.get() - bytes);
    }

    const fn requests(&self, side: Side) -> &Cell<usize> {
        match side {
            Side::Client => &self.of_clients,
            Side::Peer => &self.of_peers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load::new(LoadLimits { request_bytes_max: 100, replica_request_bytes_max: 10, outbox_bytes_max: 50 })
    }

    #[test]
    fn clients_and_nodes_have_room_of_their_own() {
        let load = load();
        load.took(Side::Client, 60);
        assert!(!load.has_room(Side::Client, 41) && load.has_room(Side::Client, 40));
        assert!(load.has_room(Side::Peer, 11), "nothing is held: a single one is always taken");
        load.took(Side::Peer, 11);
        assert!(!load.has_room(Side::Peer, 0));
        load.settled(Side::Peer, 11);
        load.settled(Side::Client, 60);
        assert!(load.has_room(Side::Peer, 11) && load.has_room(Side::Client, 1_000));
    }

    #[test]
    fn what_waits_for_slow_readers_holds_up_clients_until_it_has_left() {
        let load = load();
        load.queued(51);
        assert!(!load.has_room(Side::Client, 1) && load.has_room(Side::Peer, 1));
        load.left(1);
        assert!(load.has_room(Side::Client, 1));
    }
}
