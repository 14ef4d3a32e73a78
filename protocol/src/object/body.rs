//! The body of an object: one store per type, recursively in map fields.
//!
//! Shape: a type without content is an empty store, and vanishes from the encoding. Several types under one place happen
//! only by concurrent writes (a type conflict). Invariant: a counter with any cell never vanishes, everything else does
//! when its last dot goes.

use crate::causality::{Context, Dot};
use crate::id::Actor;
use crate::object::TypeTag;
use crate::object::counter::{Cell, Counter};
use crate::object::dot_map::{DotMap, DotSet};
use crate::object::element::Element;
use crate::object::join::{DotStore, Join, dot_bounds};
use crate::object::keyed::Keyed;
use crate::object::register::{self, Entry};
use crate::time::Hlc;

/// The stores at one place: the top level, or one map field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) register: DotMap<Entry>,
    pub(crate) flag: DotSet,
    pub(crate) set: Keyed<Element, DotSet>,
    pub(crate) counter: Counter,
    pub(crate) map: Keyed<String, Self>,
}

impl Body {
    /// A map with one field; nothing if the field would be empty.
    pub(crate) fn of_field(field: String, body: Self) -> Self {
        Self { map: Keyed::one(field, body), ..Self::default() }
    }

    /// The counters below here, each cell as the floor that removes it.
    pub(crate) fn floors(&self) -> Self {
        let fields = self.map.iter().map(|(field, body)| (field.clone(), body.floors()));
        Self { counter: self.counter.floors(), map: Keyed::from_stores(fields.collect()), ..Self::default() }
    }

    /// What `old`, whose context is `seen`, lacks of this.
    pub(crate) fn unseen_by(&self, old: &Self, seen: &Context) -> Self {
        Self {
            register: self.register.unseen_by(&old.register, seen),
            flag: self.flag.unseen_by(&old.flag, seen),
            set: self.set.parts(&old.set, |dots, before| dots.unseen_by(before, seen)),
            counter: self.counter.beyond(&old.counter),
            map: self.map.parts(&old.map, |field, before| field.unseen_by(before, seen)),
        }
    }

    /// Calls `visit` with every dot that is live here and not at the same place of `new`.
    pub(crate) fn each_gone(&self, new: &Self, visit: &mut dyn FnMut(Dot)) {
        self.register.each_gone(&new.register, visit);
        self.flag.each_gone(&new.flag, visit);
        let nothing = DotSet::default();
        for (element, dots) in self.set.iter() {
            dots.each_gone(new.set.get(element).unwrap_or(&nothing), visit);
        }
        let nowhere = Self::default();
        for (field, body) in self.map.iter() {
            body.each_gone(new.map.get(field).unwrap_or(&nowhere), visit);
        }
    }

    /// The body that `path` leads to.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |body, field| body.map.get(field))
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live_types().next().is_some()
    }

    pub(crate) fn live_types(&self) -> impl Iterator<Item = TypeTag> {
        TypeTag::ALL.into_iter().filter(|tag| match tag {
            TypeTag::Register => !self.register.is_empty(),
            TypeTag::Flag => !self.flag.is_empty(),
            TypeTag::Set => !self.set.is_empty(),
            TypeTag::Counter => self.counter.is_live(),
            TypeTag::Map => self.map.iter().any(|(_, field)| field.is_live()),
        })
    }

    pub(crate) fn hlc_max(&self) -> Hlc {
        let own = self.register.iter().map(|(_, entry)| entry.hlc);
        own.chain(self.map.iter().map(|(_, field)| field.hlc_max())).max().unwrap_or_default()
    }

    pub(crate) fn prune_lww(&mut self, join: &mut Join<'_>) {
        if let Some((winner, _)) = register::winner(&self.register) {
            self.register.retain(join, |dot, _| dot == winner);
        }
        self.map.shrink(join, Self::prune_lww);
    }

    /// Calls `visit` with the dot of every register value that lost, nested ones too.
    pub(crate) fn each_lww_loser(&self, visit: &mut dyn FnMut(Dot)) {
        if let Some((winner, _)) = register::winner(&self.register) {
            self.register.dots().filter(|dot| *dot != winner).for_each(&mut *visit);
        }
        for (_, field) in self.map.iter() {
            field.each_lww_loser(visit);
        }
    }

    /// The live dots that `context` covers, each once. Costs by the smaller of the two, and by what it finds.
    pub(crate) fn covered_by(&self, context: &Context, join: &mut Join<'_>) -> Vec<Dot> {
        let live = self.register.len() + self.flag.len() + self.set.dots_count() + self.map.dots_count();
        let mut covered = Vec::new();
        if live <= context.ranges_count() {
            covered.extend(self.dots().inspect(|_| join.visit()).filter(|dot| context.covers(*dot)));
        } else {
            for range in dot_bounds(context) {
                join.visit();
                covered.extend(self.register.between(range.start, range.end));
                covered.extend(self.flag.between(range.start, range.end));
                covered.extend(self.set.between(range.start, range.end));
                covered.extend(self.map.between(range.start, range.end));
            }
        }
        covered.iter().for_each(|_| join.visit());
        covered
    }

    /// Calls `visit` with every counter cell at or below this place.
    pub(crate) fn each_cell(&self, visit: &mut dyn FnMut(Actor, &Cell)) {
        for (actor, cell) in self.counter.iter() {
            visit(actor, cell);
        }
        for (_, field) in self.map.iter() {
            field.each_cell(visit);
        }
    }
}

impl DotStore for Body {
    fn is_empty(&self) -> bool {
        self.register.is_empty()
            && self.flag.is_empty()
            && self.set.is_empty()
            && self.counter.is_empty()
            && self.map.is_empty()
    }

    fn contains(&self, dot: Dot) -> bool {
        self.register.contains(dot) || self.flag.contains(dot) || self.set.contains(dot) || self.map.contains(dot)
    }

    fn dots(&self) -> impl Iterator<Item = Dot> {
        self.register.dots().chain(self.flag.dots()).chain(self.set.dots()).chain(self.map.dots())
    }

    fn merge(&mut self, other: &Self, join: &mut Join<'_>, covered: &[Dot]) {
        self.register.merge(&other.register, join, covered);
        self.flag.merge(&other.flag, join, covered);
        self.set.merge(&other.set, join, covered);
        self.counter.merge(&other.counter, join);
        self.map.merge(&other.map, join, covered);
    }

    fn weight(&self) -> usize {
        self.register.weight() + self.flag.weight() + self.set.weight() + self.counter.weight() + self.map.weight()
    }
}
