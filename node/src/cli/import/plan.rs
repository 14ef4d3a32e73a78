//! What has to be done so that a key holds what its record says.
//!
//! Import adds and replaces; it never removes what a record does not name: elements and fields that are there stay, and so
//! does a value that somebody else writes at the same time. A register that already shows the record's values is left alone.

use std::collections::BTreeSet;

use shoal_client::nested;
use shoal_protocol::object::{Conflict, Operation, Path, Value, View};

/// One operation on a record's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// May be done again without harm.
    Operate(Operation),
    /// Counts each time it is bound anew.
    Count(Operation),
}

/// Whether the record can be written without having read its key.
pub(super) fn is_blind(record: &View, conflict: Conflict) -> bool {
    conflict == Conflict::Lww && matches!(record, View::Register { .. })
}

/// The steps from what is `there` to what the record says.
pub(super) fn steps(record: &View, there: &View, conflict: Conflict) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let there = nested::views_at(there.clone(), &Path::new()).map_err(|error| error.to_string())?;
    Planner { conflict, steps: &mut steps }.plan(record, &Path::new(), &there)?;
    Ok(steps)
}

struct Planner<'a> {
    conflict: Conflict,
    steps: &'a mut Vec<Step>,
}

impl Planner<'_> {
    fn plan(&mut self, record: &View, path: &Path, there: &[View]) -> Result<(), String> {
        let one = expect(record, there)?;
        match (record, one) {
            (View::Register { values }, one) => self.register(values, path, one)?,
            (View::Flag(true), Some(View::Flag(true))) | (View::Flag(false), None) => {}
            (View::Flag(true), _) => self.operate(path, Operation::Enable),
            (View::Flag(false), _) => self.operate(path, Operation::Disable),
            (View::Set(elements), one) => {
                let known = if let Some(View::Set(known)) = one { &known[..] } else { &[] };
                for element in elements.iter().filter(|element| !known.contains(element)) {
                    self.operate(path, Operation::SetAdd { element: element.clone() });
                }
            }
            (View::Counter(0), Some(_)) => {}
            // Adding nothing would leave nothing; a counter that is there at zero has been elsewhere.
            (View::Counter(0), None) => [1, -1].into_iter().for_each(|by| self.count(path, by)),
            (View::Counter(by), _) => self.count(path, *by),
            (View::Map(fields), one) => {
                for (field, views) in fields {
                    let path: Path = path.iter().chain([field]).cloned().collect();
                    let there = if let Some(View::Map(known)) = one { known.get(field) } else { None };
                    for view in views {
                        self.plan(view, &path, there.map_or(&[], Vec::as_slice))?;
                    }
                }
            }
            (View::Absent | View::Conflict(_), _) => {}
        }
        Ok(())
    }

    fn register(&mut self, values: &[Value], path: &Path, there: Option<&View>) -> Result<(), String> {
        let shown: BTreeSet<&Value> =
            if let Some(View::Register { values }) = there { values.iter().collect() } else { BTreeSet::new() };
        if values.iter().collect::<BTreeSet<_>>() == shown {
            return Ok(());
        }
        match (self.conflict, values) {
            (Conflict::Lww, [value]) => self.operate(path, Operation::Put { value: value.clone() }),
            (Conflict::Lww, several) => {
                return Err(format!("{} values, and the keyspace keeps one (lww)", several.len()));
            }
            (Conflict::Siblings, values) => {
                for (at, value) in values.iter().cloned().enumerate() {
                    let operation =
                        if at == 0 { Operation::Replace { value } } else { Operation::AddSibling { value } };
                    self.operate(path, operation);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, path: &Path, by: i64) {
        self.steps.push(Step::Count(nested::wrap(path, Operation::CounterAdd { by })));
    }

    fn operate(&mut self, path: &Path, operation: Operation) {
        self.steps.push(Step::Operate(nested::wrap(path, operation)));
    }
}

/// What is there, if it is of the record's type.
fn expect<'a>(record: &View, there: &'a [View]) -> Result<Option<&'a View>, String> {
    let Some(wanted) = nested::tag(record) else { return Ok(None) };
    match there {
        [] => Ok(None),
        [one] if nested::tag(one) == Some(wanted) => Ok(Some(one)),
        [one] => Err(format!("error[wrong_type]: the key holds a {}, not a {wanted}", name(one))),
        several => {
            let names: Vec<_> = several.iter().map(name).collect();
            Err(format!("error[type_conflict]: several types are live: {}", names.join(", ")))
        }
    }
}

fn name(view: &View) -> String {
    nested::tag(view).map_or_else(|| "nothing".to_owned(), |tag| tag.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shoal_protocol::object::Element;

    use super::*;

    fn register(values: &[&'static str]) -> View {
        View::Register { values: values.iter().map(|text| Value::json(*text)).collect() }
    }

    fn siblings(record: &View, there: &View) -> Vec<Step> {
        steps(record, there, Conflict::Siblings).unwrap()
    }

    #[test]
    fn what_is_there_already_is_left_alone() {
        let map = View::Map(BTreeMap::from([("f".to_owned(), vec![register(&["1"])])]));
        let set = View::Set(vec![Element::Int(1)]);
        for view in [register(&["1", "2"]), View::Flag(true), set, map] {
            assert_eq!(siblings(&view, &view), [], "{view:?}");
        }
        assert_eq!(siblings(&register(&["2", "1"]), &register(&["1", "2"])), [], "siblings have no order");
    }

    #[test]
    fn several_values_become_siblings_and_the_first_replaces_what_is_there() {
        let operate = |operation| Step::Operate(operation);
        let value = Value::json;
        let expected =
            [operate(Operation::Replace { value: value("1") }), operate(Operation::AddSibling { value: value("2") })];
        assert_eq!(siblings(&register(&["1", "2"]), &register(&["1"])), expected);
        let refused = steps(&register(&["1", "2"]), &View::Absent, Conflict::Lww).unwrap_err();
        assert!(refused.contains("keeps one"), "{refused}");
    }

    #[test]
    fn a_counter_counts_wherever_it_is_nested() {
        let map = View::Map(BTreeMap::from([("n".to_owned(), vec![View::Counter(3)])]));
        let path: Path = vec!["n".into()];
        let expected = nested::wrap(&path, Operation::CounterAdd { by: 3 });
        assert_eq!(siblings(&map, &map), [Step::Count(expected)]);
        let count = |by| Step::Count(Operation::CounterAdd { by });
        assert_eq!(siblings(&View::Counter(0), &View::Absent), [count(1), count(-1)], "zero is not absent");
        assert_eq!(siblings(&View::Counter(0), &View::Counter(7)), []);
    }

    #[test]
    fn another_type_is_refused_by_its_code() {
        let refused = |record: &View, there: &View| steps(record, there, Conflict::Siblings).unwrap_err();
        assert!(refused(&View::Counter(1), &View::Flag(true)).contains("[wrong_type]"));
        let several = View::Conflict(vec![View::Flag(true), View::Counter(1)]);
        assert!(refused(&View::Counter(1), &several).contains("[type_conflict]"));
        let record = View::Map(BTreeMap::from([("f".to_owned(), vec![View::Flag(true), View::Counter(1)])]));
        assert_eq!(siblings(&record, &View::Absent).len(), 2, "the cluster will refuse the second");
    }
}
