//! A register: values under dots, each a sibling of the others.
//!
//! `lww` is a way to read it, not another lattice: the greatest (hlc, dot) wins.

use crate::causality::Dot;
use crate::object::dot_map::{DotMap, Payload};
use crate::object::value::Value;
use crate::time::Hlc;

/// One written value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) hlc: Hlc,
    pub(crate) value: Value,
}

impl Payload for Entry {
    fn weight(&self) -> usize {
        ENTRY_WEIGHT + self.value.bytes.len() + self.value.content_type.name().len()
    }
}

/// The value with the greatest (hlc, dot).
pub(crate) fn winner(register: &DotMap<Entry>) -> Option<(Dot, &Entry)> {
    register.iter().max_by_key(|(dot, entry)| (entry.hlc, *dot))
}

/// Bytes of an hlc, an expiry and the headers.
const ENTRY_WEIGHT: usize = 24;
