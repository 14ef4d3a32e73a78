//! Paths into maps: an operation on a nested place, and what is seen there.

use shoal_protocol::error::RequestError;
use shoal_protocol::object::{Operation, Path, TypeTag, View};

use crate::error::Error;

/// `operation` at the place that `path` leads to.
#[must_use]
pub fn wrap(path: &Path, operation: Operation) -> Operation {
    path.iter().rev().fold(operation, |operation, field| Operation::MapUpdate {
        field: field.clone(),
        operation: Box::new(operation),
    })
}

/// Whether what the operation does depends on what was observed: it must be read before it is bound.
#[must_use]
pub const fn observes(operation: &Operation) -> bool {
    match operation {
        Operation::Replace { .. }
        | Operation::Delete
        | Operation::Disable
        | Operation::SetRemove { .. }
        | Operation::SetClear
        | Operation::CounterReset
        | Operation::MapRemove { .. } => true,
        Operation::Put { .. }
        | Operation::AddSibling { .. }
        | Operation::Enable
        | Operation::SetAdd { .. }
        | Operation::CounterAdd { .. } => false,
        Operation::MapUpdate { operation, .. } => observes(operation),
    }
}

/// What is seen at the end of `path`; several views where concurrent writes used several types.
///
/// # Errors
/// The way leads through something that is no map.
pub fn views_at(view: View, path: &Path) -> Result<Vec<View>, Error> {
    path.iter().try_fold(flatten(view), |views, field| {
        let mut fields = match only(views, TypeTag::Map)? {
            Some(View::Map(fields)) => fields,
            _ => return Ok(Vec::new()),
        };
        Ok(fields.remove(field).unwrap_or_default())
    })
}

/// The one view of type `wanted`; `None` when nothing is live.
///
/// # Errors
/// `type_conflict` for several types, `wrong_type` for another one.
pub fn only(mut views: Vec<View>, wanted: TypeTag) -> Result<Option<View>, Error> {
    if views.len() > 1 {
        return Err(Error::TypeConflict { types: views.iter().filter_map(tag).collect() });
    }
    let Some(view) = views.pop() else { return Ok(None) };
    match tag(&view) {
        Some(found) if found == wanted => Ok(Some(view)),
        Some(found) => Err(RequestError::WrongType { found, wanted }.into()),
        None => Ok(None),
    }
}

/// The type of a view; `None` when nothing, or several things, are live.
#[must_use]
pub const fn tag(view: &View) -> Option<TypeTag> {
    match view {
        View::Register { .. } => Some(TypeTag::Register),
        View::Flag(_) => Some(TypeTag::Flag),
        View::Set(_) => Some(TypeTag::Set),
        View::Counter(_) => Some(TypeTag::Counter),
        View::Map(_) => Some(TypeTag::Map),
        View::Absent | View::Conflict(_) => None,
    }
}

fn flatten(view: View) -> Vec<View> {
    match view {
        View::Absent => Vec::new(),
        View::Conflict(views) => views,
        one @ (View::Register { .. } | View::Flag(_) | View::Set(_) | View::Counter(_) | View::Map(_)) => vec![one],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_path_wraps_from_the_inside_and_is_found_again() {
        let path: Path = vec!["a".into(), "b".into()];
        let wrapped = wrap(&path, Operation::Enable);
        let Operation::MapUpdate { field, operation } = wrapped else { panic!("not wrapped") };
        assert_eq!(field, "a");
        assert_eq!(*operation, Operation::MapUpdate { field: "b".into(), operation: Box::new(Operation::Enable) });
        let inner = View::Map(BTreeMap::from([("b".into(), vec![View::Flag(true)])]));
        let view = View::Map(BTreeMap::from([("a".into(), vec![inner])]));
        assert_eq!(views_at(view.clone(), &path).unwrap(), [View::Flag(true)]);
        assert_eq!(views_at(view, &vec!["c".into()]).unwrap(), []);
        assert_eq!(views_at(View::Absent, &path).unwrap(), []);
    }

    #[test]
    fn another_type_and_several_types_are_told_apart() {
        let counter = || View::Counter(1);
        let wrong = views_at(counter(), &vec!["a".into()]).unwrap_err();
        assert_eq!(wrong.code(), "wrong_type");
        assert_eq!(only(vec![View::Flag(true), counter()], TypeTag::Flag).unwrap_err().code(), "type_conflict");
        assert_eq!(only(vec![counter()], TypeTag::Counter).unwrap(), Some(counter()));
        assert_eq!(only(vec![], TypeTag::Counter).unwrap(), None);
    }
}
