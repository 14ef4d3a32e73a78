//! Binding: fixing what an operation does, before it is first sent.
//!
//! Shape: an operation, the minter's next dot and what the minter has observed become a delta; every retry sends the same
//! bytes. The delta covers `(prev, dot]` of its own actor, so that a lost predecessor shows as a gap, and what it replaces.
//! Source: DESIGN §4 "Binding"; spikes/binding.rs.
//! Invariants: `Replace` and `Delete` at the top level cover the whole observed context (what a client holds may be nothing
//! but an encoded context); every other operation covers only the observed dots of the store it works on. A bound delta is
//! always merged, never skipped because its dot is covered.

use crate::causality::{Context, Dot};
use crate::id::Actor;
use crate::object::body::Body;
use crate::object::counter::{Cell, Counter, Totals};
use crate::object::dot_map::{DotMap, DotSet};
use crate::object::join::DotStore;
use crate::object::keyed::Keyed;
use crate::object::register::Entry;
use crate::object::value::Value;
use crate::object::{DEPTH_MAX, Object, Operation};
use crate::time::Hlc;

/// What the minter gives to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mint {
    /// The operation's own dot, never used before.
    pub dot: Dot,
    /// The number of the same actor's previous dot on this key: 0 if there is none, `dot.n - 1` if it was forgotten.
    pub prev: u64,
    /// Above every hlc the minter has read.
    pub hlc: Hlc,
    /// For a counter operation: the actor's running totals of this counter, with this operation.
    pub total: Option<Totals>,
}

/// Why an operation cannot be bound. Nothing was minted or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// `prev` must be below the dot.
    #[error("the previous dot {prev} is not below {dot}")]
    PrevNotBelowDot {
        /// The previous dot's number.
        prev: u64,
        /// The dot's number.
        dot: u64,
    },
    /// A counter operation needs the running totals.
    #[error("a counter operation without its running totals")]
    TotalMissing,
    /// The operation nests maps deeper than can be encoded.
    #[error("maps are nested deeper than {DEPTH_MAX}")]
    TooDeep,
}

/// The delta of `operation`, given what was `observed`.
///
/// # Errors
/// See `BindError`.
pub fn bind(operation: &Operation, mint: &Mint, observed: &Object) -> Result<Object, BindError> {
    if mint.prev >= mint.dot.n {
        return Err(BindError::PrevNotBelowDot { prev: mint.prev, dot: mint.dot.n });
    }
    let mut context = Context::default();
    context.insert_range(mint.dot.actor, mint.prev, mint.dot.n);
    let mut binding = Binding { mint, observed, context };
    let body = binding.top_level(operation)?;
    Ok(Object::new(binding.context, body))
}

/// The running totals of `actor` on the counter at `path`, as far as `observed` knows: all a replica needs, which applies
/// its own operations in order.
#[must_use]
pub fn own_total(observed: &Object, actor: Actor, path: &[String]) -> Totals {
    observed.body.at(path).map(|body| body.counter.cell(actor).totals()).unwrap_or_default()
}

struct Binding<'a> {
    mint: &'a Mint,
    observed: &'a Object,
    context: Context,
}

impl Binding<'_> {
    fn top_level(&mut self, operation: &Operation) -> Result<Body, BindError> {
        match operation {
            Operation::Replace { value } => {
                self.context.join(&self.observed.context);
                Ok(Body { register: self.write(value), ..self.observed.body.floors() })
            }
            Operation::Delete => {
                self.context.join(&self.observed.context);
                Ok(self.observed.body.floors())
            }
            Operation::Put { .. }
            | Operation::AddSibling { .. }
            | Operation::Enable
            | Operation::Disable
            | Operation::SetAdd { .. }
            | Operation::SetRemove { .. }
            | Operation::SetClear
            | Operation::CounterAdd { .. }
            | Operation::CounterReset
            | Operation::MapUpdate { .. }
            | Operation::MapRemove { .. } => self.at(operation, &self.observed.body, 0),
        }
    }

    /// `seen` is what was observed at this place, `depth` the number of maps around it.
    fn at(&mut self, operation: &Operation, seen: &Body, depth: usize) -> Result<Body, BindError> {
        let mint = self.mint;
        match operation {
            Operation::Put { value } => {
                let lower = |(dot, entry): &(Dot, &Entry)| (entry.hlc, *dot) < (mint.hlc, mint.dot);
                seen.register.iter().filter(lower).for_each(|(dot, _)| self.context.insert(dot));
                Ok(Body { register: self.write(value), ..Body::default() })
            }
            Operation::Replace { value } => {
                self.cover_store(&seen.register);
                Ok(Body { register: self.write(value), ..Body::default() })
            }
            Operation::AddSibling { value } => Ok(Body { register: self.write(value), ..Body::default() }),
            Operation::Delete => Ok(self.remove_all(seen)),
            Operation::Enable => {
                self.cover_store(&seen.flag);
                Ok(Body { flag: DotSet::one(mint.dot, ()), ..Body::default() })
            }
            Operation::Disable => {
                self.cover_store(&seen.flag);
                Ok(Body::default())
            }
            Operation::SetAdd { element } => {
                seen.set.get(element).iter().for_each(|dots| self.cover_store(*dots));
                let dots = DotSet::one(mint.dot, ());
                Ok(Body { set: Keyed::one(element.clone(), dots), ..Body::default() })
            }
            Operation::SetRemove { element } => {
                seen.set.get(element).iter().for_each(|dots| self.cover_store(*dots));
                Ok(Body::default())
            }
            Operation::SetClear => {
                self.cover_store(&seen.set);
                Ok(Body::default())
            }
            Operation::CounterAdd { .. } => {
                let Totals { p, n } = mint.total.ok_or(BindError::TotalMissing)?;
                let cell = (mint.dot.actor, Cell { p, n, ..Cell::default() });
                Ok(Body { counter: Counter::from_cells([cell].into_iter()), ..Body::default() })
            }
            Operation::CounterReset => Ok(Body { counter: seen.counter.floors(), ..Body::default() }),
            Operation::MapUpdate { .. } if depth == DEPTH_MAX => Err(BindError::TooDeep),
            Operation::MapUpdate { field, operation } => {
                let absent = Body::default();
                let inner = self.at(operation, seen.map.get(field).unwrap_or(&absent), depth + 1)?;
                Ok(Body::of_field(field.clone(), inner))
            }
            Operation::MapRemove { field } => {
                let floors = seen.map.get(field).map(|body| self.remove_all(body)).unwrap_or_default();
                Ok(Body::of_field(field.clone(), floors))
            }
        }
    }

    fn write(&self, value: &Value) -> DotMap<Entry> {
        DotMap::one(self.mint.dot, Entry { hlc: self.mint.hlc, value: value.clone() })
    }

    fn remove_all(&mut self, seen: &Body) -> Body {
        self.cover_store(seen);
        seen.floors()
    }

    fn cover_store(&mut self, seen: &impl DotStore) {
        seen.dots().for_each(|dot| self.context.insert(dot));
    }
}
