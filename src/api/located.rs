//! Where an object is, and what stands beside it.

use kube::{Resource, ResourceExt as _};

use crate::names::ObjectRef;

/// An object at its place. One that the API server has not named is in no namespace.
pub trait Located: Resource {
    /// Its namespace.
    fn home(&self) -> String;

    /// Another name in its namespace.
    fn beside(&self, name: impl Into<String>) -> ObjectRef;
}

impl<K: Resource> Located for K {
    fn home(&self) -> String {
        self.namespace().unwrap_or_default()
    }

    fn beside(&self, name: impl Into<String>) -> ObjectRef {
        ObjectRef::new(self.home(), name)
    }
}
