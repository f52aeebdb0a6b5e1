//! Which namespaces a controller looks at.
//!
//! A controller watches all namespaces or one. Where several are to be looked after and the others
//! must not even be read, each has controllers of its own; what lives elsewhere among them (the
//! AppBinding of a backend and its Secrets) is watched from each.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// Where one controller looks.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The namespace of its objects; all if none.
    own: Option<String>,
    /// All that are looked after; all there are if empty.
    watched: Vec<String>,
}

impl Scope {
    /// The scopes that cover `watched`; one for everything if it is empty.
    pub fn covering(watched: &[String]) -> Vec<Self> {
        let scope = |own| Self {
            own,
            watched: watched.to_vec(),
        };
        if watched.is_empty() {
            return vec![scope(None)];
        }
        watched.iter().cloned().map(Some).map(scope).collect()
    }

    /// The controller's own objects and what is made for them.
    pub(super) fn own<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        at(client, self.own.as_deref())
    }

    /// What its objects may refer to.
    pub(super) fn watched<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if self.watched.is_empty() {
            return vec![at(client, None)];
        }
        let each = self.watched.iter();
        each.map(|namespace| at(client, Some(namespace))).collect()
    }
}

fn at<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_named_is_one_scope_over_everything() {
        assert_eq!(Scope::covering(&[]).len(), 1);
        assert_eq!(Scope::covering(&[])[0].own, None);
        let two = Scope::covering(&["books".to_owned(), "shops".to_owned()]);
        let own: Vec<_> = two.iter().map(|scope| scope.own.as_deref()).collect();
        assert_eq!(own, [Some("books"), Some("shops")]);
        assert_eq!(two[0].watched.len(), 2);
    }
}
