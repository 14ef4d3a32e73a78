//! The words between a node and its system state, and those that nodes exchange about it.

use bytes::Bytes;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, Class, LayoutId, NodeId, RequestId, SystemId};
use shoal_protocol::layout::NodeRole;

use super::changes::{Change, Verdict};
use super::intents::IntentChange;
use super::state::StateError;

/// What the node tells its system state.
#[derive(Clone, Debug)]
pub enum SystemInput {
    /// A peer can be reached, or says something new of itself. May be repeated.
    PeerUp {
        /// The peer.
        node: NodeId,
        /// Its zone and weight in a first layout.
        role: NodeRole,
        /// Its store.
        incarnation: Actor,
    },
    /// A peer cannot be reached.
    PeerDown(NodeId),
    /// A peer turned out to have another view: exchange with it now.
    Differs(NodeId),
    /// The node behind a configured seed address; it may be this one.
    SeedFound {
        /// The address as configured.
        seed: String,
        /// Who answered there.
        node: NodeId,
    },
    /// A peer asks. Answered by one `Answer` with the same request.
    Asked {
        /// The peer.
        from: NodeId,
        /// Names the answer.
        request: RequestId,
        /// The question.
        ask: SystemAsk,
    },
    /// A peer answers the last `Ask` to it. An `Ask` that fails needs no input: it is given up after a while.
    Answered {
        /// The peer.
        from: NodeId,
        /// The answer.
        answer: SystemAnswer,
    },
    /// A peer's durable state, asked for outside of the exchange.
    Heard {
        /// The peer.
        from: NodeId,
        /// Canonical bytes.
        state: Bytes,
    },
    /// This node's store goes on under a new incarnation, which is durable there: it lost what was acknowledged.
    Replaced {
        /// The new one.
        incarnation: Actor,
    },
    /// This store knows these layouts durably, and what it refuses since then nobody takes for refused before.
    Fenced {
        /// Which.
        layouts: Vec<LayoutId>,
    },
    /// This store has pulled what it holds of a class under `to` from enough holders of `from`.
    Synced {
        /// The older layout.
        from: LayoutId,
        /// The newer one.
        to: LayoutId,
        /// The class.
        class: Class,
    },
    /// This store has pulled everything that active layouts want it to hold: it is to be named.
    CaughtUp,
    /// Nothing depends on this layout any more.
    Retire {
        /// Which.
        layout: LayoutId,
    },
    /// The state of this `Persist` is on stable storage.
    Persisted {
        /// From the effect.
        version: u64,
    },
    /// Change a keyspace. Answered by one `Verdict`.
    Change(Change),
    /// Change the layout. Answered by one `Intended`.
    Intend(IntentChange),
    /// Time passed.
    Tick,
}

/// What the system state wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemEffect {
    /// Replace the stored state by these bytes, sync, then send `Persisted`. None other comes before that.
    Persist {
        /// Names the input.
        version: u64,
        /// The bytes for `System::open`.
        state: Bytes,
    },
    /// Ask a peer.
    Ask {
        /// The peer.
        to: NodeId,
        /// The question.
        ask: SystemAsk,
    },
    /// Answer a peer.
    Answer {
        /// The peer.
        to: NodeId,
        /// From `Asked`.
        request: RequestId,
        /// The answer.
        answer: SystemAnswer,
    },
    /// The durable state changed: look at `view`, `formed`, `keyspaces` again.
    Changed,
    /// The end of a change.
    Verdict {
        /// From `Change`.
        request: RequestId,
        /// How it ended.
        verdict: Verdict,
    },
    /// The end of a change of the layout.
    Intended {
        /// From `Intend`.
        request: RequestId,
        /// Whether a majority stored it.
        result: Result<(), RequestError>,
    },
    /// A peer sent bytes that are no system state. Nothing was taken; log it and close the connection.
    Distrust {
        /// The peer.
        node: NodeId,
        /// What was wrong.
        error: StateError,
    },
}

/// What nodes ask each other about system state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemAsk {
    /// Is yours the same? `Same` or `State`.
    Compare(SystemId),
    /// Join this; `State` with the result once it is durable, or `Malformed`.
    Join(Bytes),
}

/// The answer to a `SystemAsk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemAnswer {
    /// The fingerprints are equal.
    Same,
    /// The durable state of the answering node.
    State(Bytes),
    /// The bytes were no system state; nothing was taken.
    Malformed,
}
