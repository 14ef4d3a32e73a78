//! Mutants: wrong systems, made by changing what passes between the real parts. The checkers must see each of them.

use std::str::FromStr;

/// A way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The disk says "synced" before it is.
    AckBeforeSync,
    /// A read asks nobody but its own replica and claims that the others agreed.
    QuorumOfOne,
    /// A replica skips a delta whose own dot it has covered already.
    SkipCovered,
    /// A client repeats an operation under a fresh dot.
    FreshDot,
    /// Read repairs are acknowledged and thrown away, and nobody compares anything.
    NoRepair,
    /// What is handed off is acknowledged and thrown away: a hint is forgotten before its target has synced it.
    HintForgotten,
    /// Whoever compares trees goes past a level.
    SkipLevel,
    /// A comparison ends early: the second half of the partitions is taken to be equal.
    TruncatedRanges,
    /// A replica refuses to join what would pass a limit.
    LimitInMerge,
    /// A coordinator takes the answer that a delta was admitted for an ack.
    AdmittedIsAck,
    /// A node answers a request twice.
    AnswerTwice,
    /// A node never answers some requests.
    NeverAnswer,
    /// Nobody acknowledges a write while somebody is away.
    WaitForAll,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::AckBeforeSync,
        Self::QuorumOfOne,
        Self::SkipCovered,
        Self::FreshDot,
        Self::NoRepair,
        Self::HintForgotten,
        Self::SkipLevel,
        Self::TruncatedRanges,
        Self::LimitInMerge,
        Self::AdmittedIsAck,
        Self::AnswerTwice,
        Self::NeverAnswer,
        Self::WaitForAll,
    ];
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mutant| format!("{mutant:?}") == text);
        found.ok_or_else(|| format!("no mutant `{text}`; there are {:?}", Self::ALL))
    }
}
