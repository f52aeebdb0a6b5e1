//! How the parts of an object merge: which lists are sets or maps, which maps are one value.

use std::borrow::Cow;

/// A place in an object, as far as merging is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    _of: std::marker::PhantomData<&'a ()>,
}

/// What a list is to server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind<'a> {
    /// One value, replaced as a whole.
    Atomic,
    /// Items are told apart by their value.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<Cow<'a, str>>),
}

impl Shape<'_> {
    /// Nothing is known: maps merge field by field, lists are replaced.
    pub fn unknown() -> Self {
        Self {
            _of: std::marker::PhantomData,
        }
    }

    /// A kind that Kubernetes brings itself; group `""` is core.
    pub fn built_in(_group: &str, _kind: &str) -> Self {
        Self::unknown()
    }
}
