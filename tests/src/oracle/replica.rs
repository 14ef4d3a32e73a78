//! A replica: what is live, what is synced, and what waits for a sync.

use shoal_protocol::id::Actor;

use crate::oracle::ledger::State;
use crate::oracle::world::Message;

pub(super) struct Replica {
    /// With everything received.
    pub(super) live: State,
    /// What a crash leaves.
    pub(super) synced: State,
    pub(super) actor: Actor,
    /// The last number minted, across keys.
    pub(super) minted: u64,
    /// The end of the durable lease.
    pub(super) lease: u64,
    /// Lost its row and has not caught up: it shows nothing.
    pub(super) catching_up: bool,
    /// Attempts that this replica acknowledges with its next sync.
    pub(super) unsynced_attempts: Vec<usize>,
    /// What leaves with the next sync.
    pub(super) held_back: Vec<Message>,
}

impl Replica {
    pub(super) fn new(actor: Actor) -> Self {
        Self {
            live: State::default(),
            synced: State::default(),
            actor,
            minted: 0,
            lease: 0,
            catching_up: false,
            unsynced_attempts: Vec::new(),
            held_back: Vec::new(),
        }
    }

    /// The next number: `skip` went to other keys.
    pub(super) fn next_number(&mut self, skip: u64) -> u64 {
        self.minted += 1 + skip;
        while self.minted > self.lease {
            self.lease += LEASE;
        }
        self.minted
    }

    pub(super) fn crash(&mut self) {
        self.live = self.synced.clone();
        self.unsynced_attempts.clear();
        self.held_back.clear();
        self.minted = self.lease;
    }

    pub(super) fn lose_row(&mut self) {
        self.synced = State::default();
        self.live = State::default();
        self.unsynced_attempts.clear();
        self.held_back.clear();
        self.catching_up = true;
    }

    /// The rule of DESIGN §4: a lost row ends minting under the old actor.
    pub(super) fn renew(&mut self, actor: Actor) {
        self.actor = actor;
        self.minted = 0;
        self.lease = 0;
    }
}

/// Numbers per lease; small, so that histories cross its end.
const LEASE: u64 = 16;
