//! The oracle world: random causal histories of one key, judged by a model that knows nothing of contexts or dots.
//!
//! What: replicas (what is live, what is synced), sessions (bound operations, retried anywhere) and a network that loses,
//! repeats and reorders; crashes, lost rows, refusals. The objects, deltas and limits are the product's own
//! (`shoal_protocol::object`). Beside every state goes its `History`: the set of bindings that made it. From that set alone
//! the ledger says what a reader must see; every state a replica or session ever has is compared with it.
//! Shape: one seed is one history. `Mutant` breaks one rule of DESIGN §4 on purpose; the oracle must notice.
//! Source: notes/model.md §2, spikes/binding.rs.

mod dice;
mod ledger;
mod marks;
mod profile;
mod replica;
mod session;
mod world;

pub use profile::Profile;

/// A rule of DESIGN §4, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A coordinator gives a blind `lww` put its whole context.
    WholeContextPut,
    /// A replica skips a bound delta whose dot it covers.
    SkipCovered,
    /// After a lost row a replica mints on under its actor, `prev` from what is left.
    PrevZeroAfterLostRow,
    /// After a lost row a replica mints on under its actor, `prev` = dot - 1.
    OldIncarnationAfterLostRow,
    /// A session fixes a counter total while an earlier operation has no verdict.
    EagerTotal,
    /// A replica-minted delta leaves before its sync.
    EarlyDelta,
    /// A replica refuses in merge what is over a limit.
    LimitInMerge,
    /// A set or nested removal covers the whole observed context.
    WholeContextRemove,
}

/// What went wrong in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which promise was broken.
    pub fault: Fault,
    /// At which step.
    pub step: usize,
    /// Who saw what, and what the ledger says.
    pub detail: String,
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A state does not show what its history says.
    Read,
    /// Replicas that exchanged everything differ.
    Diverged,
    /// Joining the deltas in another order gives another state, or the bytes do not survive decoding.
    NotCanonical,
    /// An acknowledged operation is neither in the final state nor replaced.
    AckedLost,
    /// What an acknowledged operation replaced is back.
    ReplacedIsBack,
    /// An operation that was reported refused has an effect.
    RefusedCounted,
    /// With right clocks, an `lww` value that was acknowledged before another acknowledged one began still wins.
    StaleWinner,
    /// Two operations have one dot.
    DotReused,
}

/// Runs the history of `seed`, of the kind that the seed picks.
///
/// # Errors
/// The first broken promise.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), Finding> {
    let profile = Profile::ALL[(seed % Profile::ALL.len() as u64) as usize];
    world::World::new(seed, profile, mutant).run()
}

/// What happened in the history of `seed`, line by line.
#[must_use]
pub fn explain(seed: u64, mutant: Option<Mutant>) -> String {
    let profile = Profile::ALL[(seed % Profile::ALL.len() as u64) as usize];
    let mut world = world::World::new(seed, profile, mutant);
    world.trace = Some(Vec::new());
    let outcome = world.run();
    let lines = world.trace.unwrap_or_default().join("\n");
    format!("seed {seed}, {profile:?}, {mutant:?}\n{lines}\n{outcome:?}")
}
