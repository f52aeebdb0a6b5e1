//! A copy of what matters of the objects of one kind, kept by a watch; pure.
//!
//! A watch that has to begin anew lists everything first. What is not in that list has gone while
//! nobody looked; until the list is complete the former copy stands. Where some namespaces are
//! watched and not all, each has a watch of its own, and a list says nothing about the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::names::{Area, ObjectRef};

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A list begins.
    ListBegins(Area),
    /// The list is complete.
    ListEnds(Area),
    /// An object is as it says; `None` if nothing of it matters.
    Is(ObjectRef, Option<T>),
    /// An object has gone.
    Gone(ObjectRef),
}

/// What matters of the objects of one kind.
#[derive(Clone, Debug)]
pub struct Mirror<T> {
    known: BTreeMap<ObjectRef, T>,
    /// Names on the lists that are being told.
    listed: HashMap<Area, HashSet<ObjectRef>>,
    /// What has not been listed yet.
    unlisted: BTreeSet<Area>,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self::over(&[])
    }
}

impl<T> Mirror<T> {
    /// An empty copy of what there is in `namespaces`; everywhere if there are none.
    pub fn over(namespaces: &[String]) -> Self {
        Self::within(Area::covering(namespaces))
    }

    /// An empty copy of what there is in these areas, of which each has a watch of its own.
    pub fn within(areas: BTreeSet<Area>) -> Self {
        Self {
            known: BTreeMap::new(),
            listed: HashMap::new(),
            unlisted: areas,
        }
    }

    /// A copy of a list.
    pub fn of(listed: impl IntoIterator<Item = (ObjectRef, T)>) -> Self {
        Self {
            known: listed.into_iter().collect(),
            listed: HashMap::new(),
            unlisted: BTreeSet::new(),
        }
    }

    /// Whether everything has been listed once.
    pub fn is_complete(&self) -> bool {
        self.unlisted.is_empty()
    }

    /// What is known of an object.
    pub fn get(&self, at: &ObjectRef) -> Option<&T> {
        self.known.get(at)
    }

    /// In the order of namespaces and names.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectRef, &T)> {
        self.known.iter()
    }

    /// Follows the watch.
    pub fn follow(&mut self, change: Change<T>) {
        match change {
            Change::ListBegins(area) => {
                self.listed.insert(area, HashSet::new());
            }
            Change::ListEnds(area) => {
                if let Some(listed) = self.listed.remove(&area) {
                    let stays = |at: &ObjectRef| !area.covers(&at.namespace) || listed.contains(at);
                    self.known.retain(|at, _| stays(at));
                }
                self.unlisted.remove(&area);
            }
            Change::Is(at, Some(facts)) => {
                let lists = self.listed.iter_mut();
                for (_, listed) in lists.filter(|(area, _)| area.covers(&at.namespace)) {
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
        for change in [
            Change::ListBegins(Area::Everywhere),
            one("a", 1),
            one("b", 2),
        ] {
            mirror.follow(change);
        }
        assert!(!mirror.is_complete());
        mirror.follow(Change::ListEnds(Area::Everywhere));
        assert!(mirror.is_complete());
        for change in [Change::ListBegins(Area::Everywhere), one("b", 3)] {
            mirror.follow(change);
        }
        assert_eq!(names(&mirror), ["a", "b"], "the list is not complete yet");
        mirror.follow(Change::ListEnds(Area::Everywhere));
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

    #[test]
    fn the_list_of_one_namespace_says_nothing_about_another() {
        let place = |name: &str| Area::Namespace(name.to_owned());
        let is = |namespace: &str, name: &str| Change::Is(ObjectRef::new(namespace, name), Some(1));
        let mut mirror = Mirror::over(&["mint".to_owned(), "treasury".to_owned()]);
        // Both watches begin at once.
        for change in [
            Change::ListBegins(place("mint")),
            Change::ListBegins(place("treasury")),
            is("mint", "a"),
            is("treasury", "b"),
            Change::ListEnds(place("mint")),
        ] {
            mirror.follow(change);
        }
        assert!(!mirror.is_complete(), "the treasury is not listed yet");
        mirror.follow(Change::ListEnds(place("treasury")));
        assert!(mirror.is_complete());
        assert_eq!(names(&mirror), ["a", "b"]);
        for change in [
            Change::ListBegins(place("mint")),
            Change::ListEnds(place("mint")),
        ] {
            mirror.follow(change);
        }
        assert_eq!(names(&mirror), ["b"], "what was in the mint is gone");
        assert!(mirror.is_complete());
    }
}
