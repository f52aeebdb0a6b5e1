//! The resources that are served: a fixed table, and those that definitions add at run time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::builtin::{self, BUILT_IN, BuiltIn};
use super::openapi::Scope;
use super::schema::{CompiledCrdVersion, Shape};
use super::table::Columns;
use crate::local::store::{Key, Scope as Collection};

/// JSON paths of a custom resource's scale subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// `.spec.replicas` as a JSON pointer.
    pub spec: String,
    /// `.status.replicas` as a JSON pointer.
    pub status: String,
    /// The label selector's place, as a JSON pointer.
    pub selector: Option<String>,
}

/// Where the resource's rules come from.
#[derive(Debug)]
pub enum Origin {
    /// One of [`BUILT_IN`].
    BuiltIn(&'static BuiltIn),
    /// A version of a definition.
    Custom(Box<CompiledCrdVersion>),
}

/// One served resource in one version.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Kind of its list.
    pub list_kind: String,
    /// Name in URLs.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names of `kubectl`.
    pub short_names: Vec<String>,
    /// Groups of resources it belongs to, `all`.
    pub categories: Vec<String>,
    /// Namespaced or not.
    pub scope: Scope,
    /// `status`, `scale`, `eviction`, ….
    pub subresources: Vec<String>,
    /// Where the scale subresource reads and writes.
    pub scale: Option<ScalePaths>,
    /// Columns of its tables.
    pub columns: Columns,
    /// Rules.
    pub origin: Origin,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        join_version(&self.group, &self.version)
    }

    /// Whether the resource lives in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether it has this subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|known| known == subresource)
    }

    /// Whether this is the built-in of that group and plural.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        matches!(self.origin, Origin::BuiltIn(_)) && self.group == group && self.plural == plural
    }

    /// Whether changes of the spec are counted in `metadata.generation`.
    pub const fn counts_generations(&self) -> bool {
        match &self.origin {
            Origin::BuiltIn(built_in) => built_in.generation,
            Origin::Custom(_) => true,
        }
    }

    /// How objects of this kind merge.
    pub fn shape(&self) -> Shape<'_> {
        match &self.origin {
            Origin::BuiltIn(_) => Shape::built_in(&self.group, &self.kind),
            Origin::Custom(version) => version.shape(),
        }
    }

    /// Where an object of this resource is stored. Both faces of `Event` share one place.
    pub fn key(&self, namespace: &str, name: &str) -> Key {
        Key {
            group: self.storage_group().to_owned(),
            resource: self.plural.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The stored collection.
    pub fn collection(&self, namespace: Option<&str>) -> Collection {
        Collection {
            group: self.storage_group().to_owned(),
            resource: self.plural.clone(),
            namespace: namespace.map(ToOwned::to_owned),
        }
    }

    fn storage_group(&self) -> &str {
        if self.is(builtin::EVENTS_GROUP, "events") {
            ""
        } else {
            &self.group
        }
    }
}

/// `v1` or `group/version`.
pub fn join_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// All served resources. Immutable: a changed definition makes a new one.
#[derive(Debug, Default)]
pub struct Registry {
    by_path: BTreeMap<(String, String, String), Arc<Resource>>,
    /// Name of each definition, what it said, and what it makes served.
    definitions: BTreeMap<String, Definition>,
}

/// A definition, compiled. Compiling is the expensive part, so an unchanged one is taken over.
#[derive(Clone, Debug)]
struct Definition {
    said: Arc<Value>,
    served: Vec<Arc<Resource>>,
}

impl Registry {
    /// The fixed table and the given definitions; `former` lends what it has compiled.
    pub fn new(definitions: impl IntoIterator<Item = Arc<Value>>, former: &Self) -> Self {
        let mut registry = Self::default();
        for row in BUILT_IN {
            registry.add(Arc::new(row.resource()));
        }
        for said in definitions {
            let name = said
                .pointer("/metadata/name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let known = former
                .definitions
                .get(name)
                .filter(|known| known.said["spec"] == said["spec"]);
            let served = match known {
                Some(known) => known.served.clone(),
                None => compiled(name, &said),
            };
            for resource in &served {
                registry.add(Arc::clone(resource));
            }
            let name = name.to_owned();
            registry
                .definitions
                .insert(name, Definition { said, served });
        }
        registry
    }

    fn add(&mut self, resource: Arc<Resource>) {
        let path = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        // A definition never takes the place of something that is served already.
        self.by_path.entry(path).or_insert(resource);
    }

    /// The resource at `/apis/{group}/{version}/…/{plural}`.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_path.get(&path).cloned()
    }

    /// A resource by where it is stored, in any served version.
    pub fn stored(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.all()
            .find(|r| r.storage_group() == group && r.plural == plural)
            .cloned()
    }

    /// All resources, by group, version and plural.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_path.values()
    }

    /// Groups with their versions, the preferred version first.
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for resource in self.all() {
            let versions = groups.entry(&resource.group).or_default();
            if !versions.contains(&resource.version.as_str()) {
                versions.push(&resource.version);
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        }
        groups
    }

    /// The resources of one group and version.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.all()
            .filter(move |r| r.group == group && r.version == version)
    }
}

/// What a definition makes served. Only definitions that compile are stored, so a refusal means
/// that the data directory is from a program that was more lenient.
fn compiled(name: &str, said: &Value) -> Vec<Arc<Resource>> {
    match super::definitions::served(said) {
        Ok(resources) => resources.into_iter().map(Arc::new).collect(),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, definition = name, "a definition is not served");
            Vec::new()
        }
    }
}

/// Kubernetes' order of version names: `v2` before `v1` before `v1beta2` before `v1alpha1`.
fn priority(version: &str) -> (u32, u32, u32) {
    let digits = |text: &str| text.parse::<u32>().unwrap_or(0);
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    if let Some((major, minor)) = rest.split_once("beta") {
        (2, digits(major), digits(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (1, digits(major), digits(minor))
    } else {
        (3, digits(rest), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_before_beta_before_alpha() {
        let mut versions = vec!["v1alpha1", "v1beta2", "v1", "v2", "v1beta10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta10", "v1beta2", "v1alpha1"]);
    }

    #[test]
    fn both_faces_of_an_event_are_stored_in_one_place() {
        let registry = Registry::new([], &Registry::default());
        let old = registry.find("", "v1", "events").unwrap();
        let new = registry.find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(old.key("books", "e"), new.key("books", "e"));
    }
}
