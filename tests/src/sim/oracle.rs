//! The oracle: what a key must hold in the end, computed from what clients asked and were told.
//!
//! Three judgements. Contexts: everything acknowledged and everything ever shown is covered. Items: by causal histories
//! alone, without any merge: what somebody added is there unless an operation that had seen it removed it. Counters: sums per
//! session, less what resets had observed. Where sessions alone wrote, the bytes must be those of the join of all deltas.
//! Source: Shapiro et al. (2011), the specification of add-wins sets; DESIGN §4.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::causality::Dot;
use shoal_protocol::id::Actor;
use shoal_protocol::object::{Conflict, Element, Object, Operation, View, merge, own_total};
use shoal_protocol::time::{Hlc, WallTime};

use super::history::{Fate, History, Key, Write};
use super::scenario::KeyKind;
use super::world::World;

/// Judges the final object of a key.
pub(super) fn judge(world: &mut World, history: &History, key: usize, object: &Object) {
    let conflict = history.space_of(key).spec.conflict;
    let record = &history.keys[key];
    let mut wrong = Vec::new();
    for (acks, context) in &record.acked {
        if !object.context().covers_all(context) {
            wrong.push(format!(
                "lost what {acks} replicas had acknowledged: {context:?} is not in {:?}",
                object.context()
            ));
        }
    }
    // A read shows more than what is acknowledged; what nobody acknowledged, nobody repeats.
    let may_be_lost = world.is_risky() && record.kind.is_loose();
    if !may_be_lost && !object.context().covers_all(&record.shown) {
        wrong.push(format!("lost what was shown: {:?} is not in {:?}", record.shown, object.context()));
    }
    let view = object.view(conflict, WallTime(0));
    match record.kind {
        KeyKind::LooseSet => wrong.extend(loose_set(record, &view)),
        KeyKind::LooseCounter => wrong.extend(loose_counter(record, &view)),
        KeyKind::Register | KeyKind::Flag | KeyKind::Set | KeyKind::Counter | KeyKind::Map | KeyKind::Mixed => {
            let standing: Vec<&Write> = record.writes.iter().filter(|write| stands(write, object)).collect();
            wrong.extend(joined(&standing, conflict, object));
            wrong.extend(items(&standing, conflict, &view));
            wrong.extend(counters(&record.writes, &standing, &view));
        }
    }
    if view_is_over(&view, world) {
        world.count("keys over a limit");
    }
    for what in wrong {
        world.find("oracle", format!("{:?}: {what}", record.place));
    }
}

fn view_is_over(view: &View, world: &World) -> bool {
    matches!(view, View::Register { values } if values.len() > world.siblings_max())
}

/// Whether a write counts: acknowledged, or unknown and found to have arrived.
fn stands(write: &Write, object: &Object) -> bool {
    match write.fate {
        Fate::Applied => true,
        Fate::Refused => false,
        Fate::Open | Fate::Unknown => write.bound.as_ref().is_some_and(|(dot, _)| object.context().covers(*dot)),
    }
}

/// The join of all deltas is the object, byte by byte; under `lww` replicas may have dropped losers, never contexts.
fn joined(standing: &[&Write], conflict: Conflict, object: &Object) -> Option<String> {
    let deltas = standing.iter().filter_map(|write| write.bound.as_ref()).map(|(_, delta)| delta);
    let expected = deltas.fold(Object::default(), |joined, delta| merge(&joined, delta));
    let same = match conflict {
        Conflict::Siblings => expected.encode() == object.encode(),
        Conflict::Lww => expected.context() == object.context(),
    };
    (!same).then(|| format!("is {object:?}, the join of its writes is {expected:?}"))
}

/// A piece of content that an operation adds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Value(Vec<u8>),
    Flag,
    Element(Element),
}

type Located = (Vec<String>, Item);

/// What an operation adds and removes, and where.
struct Meaning<'a> {
    path: Vec<String>,
    leaf: Leaf<'a>,
}

enum Leaf<'a> {
    /// Removes everything at and below the path.
    RemoveAll,
    Other(&'a Operation),
}

fn meaning(operation: &Operation) -> Meaning<'_> {
    let (mut path, mut operation) = (Vec::new(), operation);
    while let Operation::MapUpdate { field, operation: inner } = operation {
        path.push(field.clone());
        operation = inner;
    }
    match operation {
        Operation::MapRemove { field } => {
            path.push(field.clone());
            Meaning { path, leaf: Leaf::RemoveAll }
        }
        Operation::Delete => Meaning { path, leaf: Leaf::RemoveAll },
        other => Meaning { path, leaf: Leaf::Other(other) },
    }
}

impl Meaning<'_> {
    fn adds(&self) -> Option<Located> {
        let Leaf::Other(operation) = &self.leaf else { return None };
        let item = match operation {
            Operation::Put { value } | Operation::Replace { value } | Operation::AddSibling { value } => {
                Item::Value(value.bytes.to_vec())
            }
            Operation::Enable => Item::Flag,
            Operation::SetAdd { element } => Item::Element(element.clone()),
            _ => return None,
        };
        Some((self.path.clone(), item))
    }

    /// Whether it removes this, if it saw it.
    fn removes(&self, (path, item): &Located) -> bool {
        match &self.leaf {
            Leaf::RemoveAll => path.starts_with(&self.path),
            Leaf::Other(Operation::Replace { .. }) if self.path.is_empty() => true,
            Leaf::Other(operation) if *path == self.path => match (operation, item) {
                (Operation::Replace { .. }, Item::Value(_))
                | (Operation::Enable | Operation::Disable, Item::Flag)
                | (Operation::SetClear, Item::Element(_)) => true,
                (Operation::SetAdd { element } | Operation::SetRemove { element }, Item::Element(other)) => {
                    element == other
                }
                _ => false,
            },
            Leaf::Other(_) => false,
        }
    }

    /// Whether it resets the counter at `path`, as far as it saw it.
    fn resets(&self, path: &[String]) -> bool {
        match &self.leaf {
            Leaf::RemoveAll => path.starts_with(&self.path),
            Leaf::Other(Operation::Replace { .. }) => self.path.is_empty(),
            Leaf::Other(Operation::CounterReset) => self.path == path,
            Leaf::Other(_) => false,
        }
    }
}

/// What is shown is what was added and not removed by an operation that had seen it.
fn items(standing: &[&Write], conflict: Conflict, view: &View) -> Option<String> {
    let removed = |dot: Dot, located: &Located| {
        standing.iter().any(|write| {
            let own = write.bound.as_ref().is_some_and(|(own, _)| *own == dot);
            !own && write.has_seen(dot) && meaning(&write.operation).removes(located)
        })
    };
    let mut expected = BTreeSet::new();
    let mut candidates = Vec::new();
    for write in standing {
        let Some(((dot, delta), located)) = write.bound.as_ref().zip(meaning(&write.operation).adds()) else {
            continue;
        };
        if conflict == Conflict::Lww && matches!(located.1, Item::Value(_)) {
            candidates.push(((delta.hlc_max(), *dot), located));
        } else if !removed(*dot, &located) {
            expected.insert(located);
        }
    }
    let mut shown = BTreeSet::new();
    flatten(view, &[], &mut shown);
    let values = |(_, item): &Located| matches!(item, Item::Value(_));
    if conflict == Conflict::Lww {
        let (winners, others) = shown.into_iter().partition(values);
        if let Some(wrong) = losers(standing, &winners, &candidates) {
            return Some(wrong);
        }
        shown = others;
    }
    (shown != expected).then(|| format!("shows {shown:?}, expected {expected:?}"))
}

/// Under `lww` the greatest (hlc, dot) is shown. A replica may drop what lost before the winner is removed, so where
/// something was removed other than by a greater one (deleted, or replaced by somebody who knew only the context and so not
/// its hlc), any value or none may be left.
fn losers(standing: &[&Write], shown: &BTreeSet<Located>, candidates: &[((Hlc, Dot), Located)]) -> Option<String> {
    let mut winners: BTreeMap<&Vec<String>, &((Hlc, Dot), Located)> = BTreeMap::new();
    for candidate in candidates {
        let winner = winners.entry(&candidate.1.0).or_insert(candidate);
        if winner.0 < candidate.0 {
            *winner = candidate;
        }
    }
    for (path, (_, winner)) in &winners {
        let deleted = standing.iter().any(|write| {
            let meaning = meaning(&write.operation);
            let knows_none = write.observed.is_vacant() && !write.observed.context().is_empty();
            let replaces_all = matches!(write.operation, Operation::Replace { .. }) && (!path.is_empty() || knows_none);
            replaces_all || (matches!(meaning.leaf, Leaf::RemoveAll) && path.starts_with(&meaning.path))
        });
        if !deleted && !shown.contains(winner) {
            return Some(format!("shows {shown:?}, not the last write {winner:?}"));
        }
    }
    let unknown = shown.iter().find(|value| candidates.iter().all(|(_, written)| written != *value));
    unknown.map(|value| format!("shows {value:?}, which nobody wrote"))
}

fn flatten(view: &View, path: &[String], shown: &mut BTreeSet<Located>) {
    let mut insert = |item: Item| _ = shown.insert((path.to_vec(), item));
    match view {
        View::Absent | View::Flag(false) | View::Counter(_) => {}
        View::Register { values } => values.iter().for_each(|value| insert(Item::Value(value.bytes.to_vec()))),
        View::Flag(true) => insert(Item::Flag),
        View::Set(elements) => elements.iter().for_each(|element| insert(Item::Element(element.clone()))),
        View::Map(fields) => {
            for (field, views) in fields {
                let inner: Vec<String> = path.iter().cloned().chain([field.clone()]).collect();
                views.iter().for_each(|view| flatten(view, &inner, shown));
            }
        }
        View::Conflict(views) => views.iter().for_each(|view| flatten(view, path, shown)),
    }
}

/// Each counter is the sum of what its sessions added, less what resets had observed of them. An addition whose outcome
/// stayed unknown travels in the running total of every later one.
fn counters(writes: &[Write], standing: &[&Write], view: &View) -> Option<String> {
    let addition = |write: &Write| {
        let path = write.operation.counter_path()?;
        Some((path, write.operation.counter_by()?, write.bound.as_ref()?.0))
    };
    let carried = |write: &Write| {
        let Some((path, _, dot)) = addition(write) else { return false };
        let later = standing.iter().filter_map(|later| addition(later));
        write.fate == Fate::Unknown
            && later.into_iter().any(|(p, _, d)| p == path && d.actor == dot.actor && d.n > dot.n)
    };
    let counts = |write: &&Write| standing.iter().any(|other| std::ptr::eq(*other, *write)) || carried(write);
    let mut sums: BTreeMap<(Vec<String>, Actor), (u64, u64)> = BTreeMap::new();
    for write in writes.iter().filter(counts) {
        if let Some((path, by, dot)) = addition(write) {
            let sum = sums.entry((path, dot.actor)).or_default();
            if by > 0 { sum.0 += by.unsigned_abs() } else { sum.1 += by.unsigned_abs() }
        }
    }
    let mut expected: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    for ((path, actor), (p, n)) in &sums {
        let resets = standing.iter().filter(|write| meaning(&write.operation).resets(path));
        let seen = resets.map(|write| own_total(&write.observed, *actor, path));
        let (pr, nr) = seen.fold((0, 0), |(pr, nr), seen| (pr.max(seen.p), nr.max(seen.n)));
        let left = |total: u64, floor: u64| i64::try_from(total.saturating_sub(floor)).unwrap_or(i64::MAX);
        *expected.entry(path.clone()).or_default() += left(*p, pr) - left(*n, nr);
    }
    let wrong = expected.iter().find(|(path, sum)| counted(view, path) != **sum);
    wrong.map(|(path, sum)| format!("counts {} at {path:?}, the operations sum up to {sum}", counted(view, path)))
}

/// What the counter at `path` shows.
fn counted(view: &View, path: &[String]) -> i64 {
    match (view, path) {
        (View::Counter(value), []) => *value,
        (View::Conflict(views), _) => views.iter().map(|view| counted(view, path)).sum(),
        (View::Map(fields), [field, rest @ ..]) => {
            fields.get(field).map_or(0, |views| views.iter().map(|view| counted(view, rest)).sum())
        }
        _ => 0,
    }
}

/// Each element was added once: there unless an operation that had seen it removed it.
fn loose_set(key: &Key, view: &View) -> Option<String> {
    let mut shown = BTreeSet::new();
    flatten(view, &[], &mut shown);
    for write in &key.writes {
        let Operation::SetAdd { element } = &write.operation else { continue };
        let is_removal =
            |other: &&Write| matches!(&other.operation, Operation::SetRemove { element: e } if e == element);
        let removed = |fate: Fate| key.writes.iter().filter(is_removal).any(|other| other.fate == fate);
        let is_there = shown.contains(&(Vec::new(), Item::Element(element.clone())));
        let may = write.fate != Fate::Refused && !removed(Fate::Applied);
        let must = may && write.fate == Fate::Applied && !removed(Fate::Unknown) && !removed(Fate::Open);
        if is_there && !may {
            return Some(format!("{element:?} is there: {:?}, removed {}", write.fate, removed(Fate::Applied)));
        }
        if !is_there && must {
            return Some(format!("{element:?} is lost"));
        }
    }
    None
}

/// Between what is certain and what may be.
fn loose_counter(key: &Key, view: &View) -> Option<String> {
    let (mut low, mut high) = (0, 0);
    for write in &key.writes {
        let by = write.operation.counter_by().unwrap_or(0);
        match write.fate {
            Fate::Applied => (low, high) = (low + by, high + by),
            Fate::Refused => {}
            Fate::Open | Fate::Unknown => (low, high) = (low + by.min(0), high + by.max(0)),
        }
    }
    let value = counted(view, &[]);
    (value < low || value > high).then(|| format!("counts {value}, expected {low}..={high}"))
}
