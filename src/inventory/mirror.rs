//! A copy of what matters of the objects of one kind, kept by a watch; pure.
//!
//! A watch that has to begin anew lists everything first. What is not in that list has gone while
//! nobody looked; until the list is complete the former copy stands.

use std::collections::{BTreeMap, HashSet};

use crate::names::ObjectRef;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<T> {
    /// A list begins.
    ListBegins,
    /// The list is complete.
    ListEnds,
    /// An object is as it says; `None` if nothing of it matters.
    Is(ObjectRef, Option<T>),
    /// An object has gone.
    Gone(ObjectRef),
}

/// What matters of the objects of one kind.
#[derive(Clone, Debug)]
pub(super) struct Mirror<T> {
    known: BTreeMap<ObjectRef, T>,
    /// Names on the list that is being told.
    listed: Option<HashSet<ObjectRef>>,
    is_complete: bool,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            listed: None,
            is_complete: false,
        }
    }
}

impl<T> Mirror<T> {
    /// A copy of a list.
    pub(super) fn of(listed: impl IntoIterator<Item = (ObjectRef, T)>) -> Self {
        Self {
            known: listed.into_iter().collect(),
            listed: None,
            is_complete: true,
        }
    }

    /// Whether everything has been listed once.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn get(&self, at: &ObjectRef) -> Option<&T> {
        self.known.get(at)
    }

    /// In the order of namespaces and names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectRef, &T)> {
        self.known.iter()
    }

    /// Follows the watch.
    pub(super) fn follow(&mut self, change: Change<T>) {
        match change {
            Change::ListBegins => self.listed = Some(HashSet::new()),
            Change::ListEnds => {
                if let Some(listed) = self.listed.take() {
                    self.known.retain(|at, _| listed.contains(at));
                }
                self.is_complete = true;
            }
            Change::Is(at, Some(facts)) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(at.clone());
                }
                self.known.insert(at, facts);
            }
            Change::Is(at, None) | Change::Gone(at) => {
                self.known.remove(&at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str) -> ObjectRef {
        ObjectRef::new("treasury", name)
    }

    fn names(mirror: &Mirror<u8>) -> Vec<&str> {
        mirror.iter().map(|(at, _)| at.name.as_str()).collect()
    }

    #[test]
    fn what_is_not_listed_any_more_goes_when_the_list_is_complete() {
        let mut mirror = Mirror::default();
        let one = |name, n| Change::Is(at(name), Some(n));
        for change in [Change::ListBegins, one("a", 1), one("b", 2)] {
            mirror.follow(change);
        }
        assert!(!mirror.is_complete());
        mirror.follow(Change::ListEnds);
        assert!(mirror.is_complete());
        for change in [Change::ListBegins, one("b", 3)] {
            mirror.follow(change);
        }
        assert_eq!(names(&mirror), ["a", "b"], "the list is not complete yet");
        mirror.follow(Change::ListEnds);
        assert_eq!(
            (names(&mirror), mirror.get(&at("b"))),
            (vec!["b"], Some(&3))
        );
    }

    #[test]
    fn what_does_not_matter_any_more_is_forgotten() {
        let mut mirror = Mirror::of([(at("a"), 1), (at("b"), 2)]);
        mirror.follow(Change::Is(at("a"), None));
        mirror.follow(Change::Gone(at("b")));
        assert!(names(&mirror).is_empty());
    }
}
