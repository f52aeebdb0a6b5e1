//! Which namespaces a controller looks at.
//!
//! A controller watches all namespaces or one. Where several are to be looked after and the others
//! must not even be read, each has controllers of its own; what lives elsewhere among them (the
//! AppBinding of a backend and its Secrets) is watched from each.

use std::collections::BTreeSet;

use crate::names::Area;

/// Where one controller looks.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Where its objects are.
    own: Area,
    /// Everywhere that is looked.
    watched: BTreeSet<Area>,
}

impl Scope {
    /// The scopes that cover `namespaces`; one for everything if there are none.
    pub fn covering(namespaces: &[String]) -> Vec<Self> {
        let watched = Area::covering(namespaces);
        let scope = |own: &Area| Self {
            own: own.clone(),
            watched: watched.clone(),
        };
        watched.iter().map(scope).collect()
    }

    /// Where the controller's own objects are, and what is made for them.
    pub(super) const fn own(&self) -> &Area {
        &self.own
    }

    /// Where the objects may be that its own refer to.
    pub(super) const fn watched(&self) -> &BTreeSet<Area> {
        &self.watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_named_is_one_scope_over_everything_and_what_is_named_twice_is_one() {
        assert_eq!(Scope::covering(&[]).len(), 1);
        assert_eq!(Scope::covering(&[])[0].own, Area::Everywhere);
        let named = ["books", "shops", "books"].map(str::to_owned);
        let scopes = Scope::covering(&named);
        let own: Vec<_> = scopes.iter().map(|scope| &scope.own).collect();
        let area = |name: &str| Area::Namespace(name.to_owned());
        assert_eq!(own, [&area("books"), &area("shops")]);
        assert_eq!(scopes[0].watched.len(), 2);
    }
}
