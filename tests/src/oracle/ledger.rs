//! The ledger: what was asked for, what each binding had seen, and so what any set of bindings must show.
//!
//! Shape: a binding says which operations it replaces and which counter additions its totals imply. In a history an
//! operation is visible if one of its bindings is there, and no other binding there replaces it. A counter is the sum of
//! the additions that are there or implied, less those that a binding there replaces.
//! Invariant: nothing here looks at a context or a dot store; dots are only names, hlcs only decide `lww`.

use std::collections::BTreeSet;

use shoal_protocol::causality::Dot;
use shoal_protocol::object::{Conflict, Element, Object, Operation, Path, Value, View};
use shoal_protocol::time::Hlc;

use crate::oracle::marks::Marks;

/// The bindings that a state is made of.
pub(super) type History = Marks;

/// A state and how it came about.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) object: Object,
    pub(super) history: History,
}

impl State {
    pub(super) fn merge(&mut self, other: &Self) {
        self.object.merge_into(&other.object);
        self.history |= other.history;
    }
}

/// One operation, as asked for.
pub(super) struct Fact {
    pub(super) operation: Operation,
    pub(super) dot: Dot,
    pub(super) hlc: Hlc,
    /// The map fields around it.
    place: Path,
    effect: Effect,
}

/// What an operation leaves behind.
enum Effect {
    Value(Value),
    On,
    Element(Element),
    Count(i64),
    Nothing,
}

/// One way in which an operation was bound; or a replica's pruning, which is no operation.
pub(super) struct Binding {
    pub(super) op: Option<usize>,
    pub(super) delta: Object,
    pub(super) replaces: Marks,
    pub(super) implies: Marks,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) facts: Vec<Fact>,
    pub(super) bindings: Vec<Binding>,
}

impl Ledger {
    pub(super) fn is_full(&self) -> bool {
        self.bindings.len() + 8 >= Marks::COUNT
    }

    pub(super) fn note(&mut self, operation: Operation, dot: Dot, hlc: Hlc) -> usize {
        let (place, leaf) = split(&operation);
        let effect = match leaf {
            Operation::Put { value } | Operation::Replace { value } | Operation::AddSibling { value } => {
                Effect::Value(value.clone())
            }
            Operation::Enable => Effect::On,
            Operation::SetAdd { element } => Effect::Element(element.clone()),
            Operation::CounterAdd { by } => Effect::Count(*by),
            Operation::Delete
            | Operation::Disable
            | Operation::SetRemove { .. }
            | Operation::SetClear
            | Operation::CounterReset
            | Operation::MapUpdate { .. }
            | Operation::MapRemove { .. } => Effect::Nothing,
        };
        self.facts.push(Fact { operation, dot, hlc, place, effect });
        self.facts.len() - 1
    }

    pub(super) fn bound(&mut self, binding: Binding) -> usize {
        self.bindings.push(binding);
        self.bindings.len() - 1
    }

    /// The state that one binding alone makes.
    pub(super) fn alone(&self, binding: usize) -> State {
        State { object: self.bindings[binding].delta.clone(), history: History::one(binding) }
    }

    /// The operations that `op` replaces when its minter has observed `history`.
    pub(super) fn replaced_by(&self, op: usize, history: History) -> Marks {
        let fact = &self.facts[op];
        let (visible, counted) = (self.visible(history), self.counted(history));
        let (place, leaf) = split(&fact.operation);
        let at_place =
            |of: Marks, wanted: &dyn Fn(&Fact) -> bool| self.those(of, |fact| fact.place == place && wanted(fact));
        let below = |root: &Path| self.those(visible | counted, |fact| fact.place.starts_with(root));
        match leaf {
            Operation::Replace { .. } | Operation::Delete if place.is_empty() => {
                self.present(history) | self.replaced(history)
            }
            Operation::Delete => below(&place),
            Operation::MapRemove { field } => {
                let mut root = place.clone();
                root.push(field.clone());
                below(&root)
            }
            Operation::Replace { .. } => at_place(visible, &|fact| matches!(fact.effect, Effect::Value(_))),
            Operation::Put { .. } => at_place(visible, &|other| {
                matches!(other.effect, Effect::Value(_)) && (other.hlc, other.dot) < (fact.hlc, fact.dot)
            }),
            Operation::Enable | Operation::Disable => at_place(visible, &|fact| matches!(fact.effect, Effect::On)),
            Operation::SetAdd { element } | Operation::SetRemove { element } => {
                at_place(visible, &|fact| matches!(&fact.effect, Effect::Element(e) if e == element))
            }
            Operation::SetClear => at_place(visible, &|fact| matches!(fact.effect, Effect::Element(_))),
            Operation::CounterReset => at_place(counted, &|fact| matches!(fact.effect, Effect::Count(_))),
            Operation::AddSibling { .. } | Operation::CounterAdd { .. } | Operation::MapUpdate { .. } => {
                Marks::default()
            }
        }
    }

    /// The register values that lose under `lww` in `history`.
    pub(super) fn lww_losers(&self, history: History) -> Marks {
        let values = self.those(self.visible(history), |fact| matches!(fact.effect, Effect::Value(_)));
        let beaten = |op: usize| {
            let fact = &self.facts[op];
            values
                .iter()
                .map(|other| &self.facts[other])
                .any(|other| other.place == fact.place && (other.hlc, other.dot) > (fact.hlc, fact.dot))
        };
        values.iter().filter(|op| beaten(*op)).collect()
    }

    /// The operations whose bindings are in `history`, and the additions that their totals imply.
    pub(super) fn present(&self, history: History) -> Marks {
        let each = history.iter().map(|binding| &self.bindings[binding]);
        each.map(|binding| binding.op.map(Marks::one).unwrap_or_default() | binding.implies)
            .fold(Marks::default(), |all, marks| all | marks)
    }

    /// The operations that some binding in `history` replaces.
    pub(super) fn replaced(&self, history: History) -> Marks {
        let each = history.iter().map(|binding| self.bindings[binding].replaces);
        each.fold(Marks::default(), |all, marks| all | marks)
    }

    /// The counter additions of `actor` at `place` that `history` knows of.
    pub(super) fn own_counts(&self, history: History, like: &Fact) -> Marks {
        self.those(self.counted(history), |fact| fact.dot.actor == like.dot.actor && fact.place == like.place)
    }

    /// What a reader of `history` must see.
    pub(super) fn view(&self, history: History, conflict: Conflict) -> View {
        let live = self.present(history) - self.replaced(history);
        let facts: Vec<&Fact> = live.iter().map(|op| &self.facts[op]).collect();
        let mut views = views(&facts, 0, conflict);
        match views.len() {
            0 => View::Absent,
            1 => views.remove(0),
            _ => View::Conflict(views),
        }
    }

    /// The operations that left something which is still there; counters aside.
    fn visible(&self, history: History) -> Marks {
        let live = self.present(history) - self.replaced(history);
        self.those(live, |fact| !matches!(fact.effect, Effect::Nothing | Effect::Count(_)))
    }

    /// The counter additions that anything in `history` knows of: made, implied, or already removed.
    fn counted(&self, history: History) -> Marks {
        let known = self.present(history) | self.replaced(history);
        self.those(known, |fact| matches!(fact.effect, Effect::Count(_)))
    }

    fn those(&self, of: Marks, wanted: impl Fn(&Fact) -> bool) -> Marks {
        of.iter().filter(|op| wanted(&self.facts[*op])).collect()
    }
}

/// The views of what is live at one place, in the order of the types. `facts` are at or below it.
fn views(facts: &[&Fact], depth: usize, conflict: Conflict) -> Vec<View> {
    let here: Vec<&&Fact> = facts.iter().filter(|fact| fact.place.len() == depth).collect();
    let mut views = Vec::new();
    let mut written: Vec<(Hlc, Dot, &Value)> = Vec::new();
    let (mut on, mut elements, mut sum, mut counted) = (false, BTreeSet::new(), 0, false);
    for fact in here {
        match &fact.effect {
            Effect::Value(value) => written.push((fact.hlc, fact.dot, value)),
            Effect::On => on = true,
            Effect::Element(element) => {
                elements.insert(element.clone());
            }
            Effect::Count(by) => {
                counted = true;
                sum += by;
            }
            Effect::Nothing => {}
        }
    }
    match conflict {
        Conflict::Siblings => written.sort_by_key(|(_, dot, _)| *dot),
        Conflict::Lww => {
            written.sort_by_key(|(hlc, dot, _)| (*hlc, *dot));
            written.drain(..written.len().saturating_sub(1));
        }
    }
    if !written.is_empty() {
        views.push(View::Register { values: written.into_iter().map(|(_, _, value)| value.clone()).collect() });
    }
    if on {
        views.push(View::Flag(true));
    }
    if !elements.is_empty() {
        views.push(View::Set(elements.into_iter().collect()));
    }
    if counted {
        views.push(View::Counter(sum));
    }
    let fields: BTreeSet<&String> = facts.iter().filter_map(|fact| fact.place.get(depth)).collect();
    let inside = fields.into_iter().map(|field| {
        let facts: Vec<&Fact> = facts.iter().copied().filter(|fact| fact.place.get(depth) == Some(field)).collect();
        (field.clone(), self::views(&facts, depth + 1, conflict))
    });
    let map: std::collections::BTreeMap<_, _> = inside.filter(|(_, views)| !views.is_empty()).collect();
    if !map.is_empty() {
        views.push(View::Map(map));
    }
    views
}

/// The fields around an operation, and what it does there.
fn split(operation: &Operation) -> (Path, &Operation) {
    let (mut place, mut leaf) = (Path::new(), operation);
    while let Operation::MapUpdate { field, operation } = leaf {
        place.push(field.clone());
        leaf = operation;
    }
    (place, leaf)
}
