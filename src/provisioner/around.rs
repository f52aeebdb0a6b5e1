//! What watches have told of the objects that PgBouncers are made from and into: a number for each
//! that changes whenever the object does. Pure.
//!
//! The *mark* of a PgBouncer is one number for all of these. A look that leaves everything as it is to
//! be writes down the mark that it began with, and whoever can compute the same one later knows that
//! nothing has changed since: not while it watched, and not while nobody did. So a daemon that has just
//! begun looks in full only at what did change.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use kube::{Resource, ResourceExt};

use crate::api::Located;
use crate::api::PgBouncer;
use crate::api::holder::controller_reference;
use crate::blueprint::{labels, names};
use crate::cluster::Change;
use crate::names::{Alias, Area, ObjectRef};

/// Kinds of objects that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// AppBindings: of backends, and our own.
    AppBinding,
    /// `PodDisruptionBudget`s.
    DisruptionBudget,
    /// Namespaces, by whose annotations references into them are granted. Nobody waits for them: a
    /// daemon that may not read them works without.
    Namespace,
    /// Secrets: our own, users', and the superuser's.
    Secret,
    /// Services.
    Service,
    /// `ServiceAccount`s.
    ServiceAccount,
    /// `PgBouncerVersion`s.
    Version,
    /// `PetSet`s or `StatefulSet`s.
    Workload,
}

/// What is known of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Changes whenever the object does.
    number: u64,
    /// Its own UID, and that of its controller.
    uid: Option<Uid>,
    controller: Option<Uid>,
    /// Its namespace, if it was not made for a PgBouncer.
    home: Option<u64>,
}

/// A UID in sixteen bytes: of as many objects as a fleet has, no text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uid(u128);

/// What watches tell of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Not everything has been listed yet.
    Unlisted,
    /// No object with our labels has that name.
    Absent,
    /// There is an object.
    There {
        /// Its UID, and that of its controller.
        uid: Option<Uid>,
        controller: Option<Uid>,
    },
}

/// The objects of one kind in one area, by numbers for their names.
#[derive(Debug, Default)]
struct List {
    known: HashMap<u64, Told>,
    /// What a list that has begun has shown so far.
    fresh: Option<HashMap<u64, Told>>,
    /// By namespace, the sum over what was not made for a PgBouncer.
    strangers: HashMap<u64, u64>,
    is_complete: bool,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Around {
    lists: BTreeMap<(Kind, Area), List>,
}

// === impl Told ===

impl Told {
    /// An object with a generation counts as changed when that, its labels, annotations or owners do:
    /// what a workload says of its pods is of no interest here. Any other does whenever it is written.
    pub(super) fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        let is_ours = labels::instance(object.labels()).is_some();
        let what = if meta.generation.is_some() {
            let owners = object.owner_references().iter();
            let owners: Vec<_> = owners.map(|owner| (&owner.uid, owner.controller)).collect();
            let going = meta.deletion_timestamp.is_some();
            number(&(object.labels(), object.annotations(), owners, going))
        } else {
            number(&meta.resource_version)
        };
        Self {
            number: number(&(&meta.uid, meta.generation, what)),
            uid: meta.uid.as_deref().and_then(Uid::parse),
            controller: controller_of(object),
            home: (!is_ours).then(|| number(&meta.namespace.as_deref().unwrap_or_default())),
        }
    }
}

// === impl Uid ===

impl Uid {
    /// Reads a UID in the form that API servers write; `None` for any other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uid = Self(u128::from_str_radix(&text.replace('-', ""), 16).ok()?);
        (uid.to_string() == text).then_some(uid)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (parts, ends) = ([0, 8, 12, 16, 20], [8, 12, 16, 20, 32]);
        for (part, end) in parts.into_iter().zip(ends) {
            let between = if part == 0 { "" } else { "-" };
            write!(f, "{between}{}", &hex[part..end])?;
        }
        Ok(())
    }
}

/// UID of the controller of an object.
pub(super) fn controller_of<K: Resource>(object: &K) -> Option<Uid> {
    controller_reference(object).and_then(|owner| Uid::parse(&owner.uid))
}

// === impl List ===

impl List {
    fn follow(&mut self, change: Change<Told>) {
        match change {
            Change::ListBegins(_) => self.fresh = Some(HashMap::new()),
            Change::ListEnds(_) => {
                self.known = self.fresh.take().unwrap_or_default();
                self.strangers = HashMap::new();
                for told in self.known.values() {
                    count(&mut self.strangers, *told, u64::wrapping_add);
                }
                self.is_complete = true;
            }
            Change::Is(at, Some(told)) => {
                let at = number(&at);
                if let Some(fresh) = &mut self.fresh {
                    fresh.insert(at, told);
                }
                self.put(at, Some(told));
            }
            Change::Is(at, None) | Change::Gone(at) => {
                let at = number(&at);
                if let Some(fresh) = &mut self.fresh {
                    fresh.remove(&at);
                }
                self.put(at, None);
            }
        }
    }

    fn put(&mut self, at: u64, told: Option<Told>) {
        let former = match told {
            Some(told) => self.known.insert(at, told),
            None => self.known.remove(&at),
        };
        if let Some(former) = former {
            count(&mut self.strangers, former, u64::wrapping_sub);
        }
        if let Some(told) = told {
            count(&mut self.strangers, told, u64::wrapping_add);
        }
    }
}

// === impl Around ===

impl Around {
    /// Nothing is complete before this has been listed, too.
    pub(super) fn expect(&mut self, kind: Kind, area: Area) {
        self.lists.entry((kind, area)).or_default();
    }

    /// Follows the watch of a kind over an area.
    pub(super) fn follow(&mut self, kind: Kind, area: &Area, change: Change<Told>) {
        let list = self.lists.entry((kind, area.clone())).or_default();
        list.follow(change);
    }

    /// Whether everything that is expected has been listed once.
    pub(super) fn is_complete(&self) -> bool {
        let mut lists = self.lists.iter();
        lists.all(|((kind, _), list)| list.is_complete || *kind == Kind::Namespace)
    }

    /// One number for all that `bouncer` is made from and into; `None` before everything is known.
    ///
    /// Which Secrets a backend's users have only their labels and the AppBinding say, so all that were
    /// made for nobody here count, in the backend's namespace.
    pub(super) fn mark(&self, bouncer: &PgBouncer) -> Option<u64> {
        // Nobody was asked to tell anything: then nothing is known.
        if self.lists.is_empty() || !self.is_complete() {
            return None;
        }
        let (name, namespace) = (bouncer.name_any(), bouncer.home());
        let one = |kind, name: &str| self.number(kind, &ObjectRef::new(&namespace, name));
        let backend = &bouncer.spec.database.database_ref;
        let custom = bouncer.spec.configuration.as_ref();
        let custom = custom.and_then(|custom| custom.secret_name.clone());
        let secrets = [
            names::auth_secret(bouncer),
            names::backend_secret(&name),
            names::config_secret(bouncer),
            custom.unwrap_or_default(),
        ];
        let certificates = Alias::ALL.map(|alias| names::certificate_secret(bouncer, alias));
        let secrets: Vec<u64> = secrets
            .iter()
            .chain(&certificates)
            .map(|secret| one(Kind::Secret, secret))
            .collect();
        let services = [
            name.clone(),
            names::governing_service(&name),
            names::stats_service(&name),
        ]
        .map(|service| one(Kind::Service, &service));
        let like_it = [
            Kind::AppBinding,
            Kind::DisruptionBudget,
            Kind::ServiceAccount,
            Kind::Workload,
        ]
        .map(|kind| one(kind, &name));
        let version = ObjectRef::new("", &bouncer.spec.version);
        let application = ObjectRef::new(&backend.namespace, &backend.name);
        let outside = (
            self.number(Kind::Version, &version),
            self.number(Kind::AppBinding, &application),
            self.strangers(&backend.namespace),
            (backend.namespace != namespace).then(|| self.home(&backend.namespace)),
        );
        Some(number(&(secrets, services, like_it, outside)))
    }

    /// What is known of the object at a name.
    pub(super) fn known(&self, kind: Kind, at: &ObjectRef) -> Known {
        let key = number(at);
        let mut found = Known::Unlisted;
        for list in self.covering(kind, &at.namespace) {
            if let Some(told) = list.known.get(&key) {
                let (uid, controller) = (told.uid, told.controller);
                return Known::There { uid, controller };
            }
            if list.is_complete {
                found = Known::Absent;
            }
        }
        found
    }

    /// The number of an object; zero where there is none.
    fn number(&self, kind: Kind, at: &ObjectRef) -> u64 {
        let key = number(at);
        self.covering(kind, &at.namespace)
            .find_map(|list| list.known.get(&key))
            .map_or(0, |told| told.number)
    }

    /// The number of a Namespace; zero where nothing is known of it.
    fn home(&self, namespace: &str) -> u64 {
        let key = number(&ObjectRef::new("", namespace));
        self.covering(Kind::Namespace, namespace)
            .find_map(|list| list.known.get(&key))
            .map_or(0, |told| told.number)
    }

    fn strangers(&self, namespace: &str) -> u64 {
        let home = number(&namespace);
        self.covering(Kind::Secret, namespace)
            .find_map(|list| list.strangers.get(&home).copied())
            .unwrap_or_default()
    }

    fn covering(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &List> {
        self.lists
            .iter()
            .filter(move |((of, area), _)| *of == kind && area.covers(namespace))
            .map(|(_, list)| list)
    }
}

// === helpers ===

fn count(strangers: &mut HashMap<u64, u64>, told: Told, how: fn(u64, u64) -> u64) {
    if let Some(home) = told.home {
        let sum = strangers.entry(home).or_default();
        *sum = how(*sum, told.number);
    }
}

/// A number that is the same for the same value, in any process of the same build.
pub(super) fn number<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;
    use k8s_openapi::api::core::v1::{Namespace, Secret};
    use serde_json::{Value, json};

    use super::*;
    use crate::blueprint::testing;

    fn secret(namespace: &str, name: &str, version: &str, labels: &Value) -> Secret {
        serde_json::from_value(json!({ "metadata": {
            "namespace": namespace, "name": name, "uid": name, "resourceVersion": version,
            "labels": labels,
        }}))
        .unwrap()
    }

    fn is(secret: &Secret) -> Change<Told> {
        let at = ObjectRef::new(secret.namespace().unwrap(), secret.name_any());
        Change::Is(at, Some(Told::of(secret)))
    }

    fn ours() -> Value {
        json!({
            "app.kubernetes.io/name": "pgbouncers.kubedb.com",
            "app.kubernetes.io/instance": "billing",
        })
    }

    /// A world in which those Secrets have been listed, and nothing else is expected.
    fn listed(secrets: &[Secret]) -> Around {
        let mut around = Around::default();
        around.expect(Kind::Secret, Area::Everywhere);
        relist(&mut around, secrets);
        around
    }

    fn relist(around: &mut Around, secrets: &[Secret]) {
        let list = [Change::ListBegins(Area::Everywhere)]
            .into_iter()
            .chain(secrets.iter().map(is))
            .chain([Change::ListEnds(Area::Everywhere)]);
        for change in list {
            around.follow(Kind::Secret, &Area::Everywhere, change);
        }
    }

    #[test]
    fn there_is_no_mark_before_everything_is_known() {
        let bouncer = testing::bouncer("billing");
        assert_eq!(Around::default().mark(&bouncer), None);
        let mut around = listed(&[]);
        assert!(around.mark(&bouncer).is_some());
        around.expect(Kind::Service, Area::Everywhere);
        assert_eq!(around.mark(&bouncer), None);
    }

    #[test]
    fn the_mark_is_the_same_however_the_same_was_told_and_another_for_every_change() {
        let bouncer = testing::bouncer("billing");
        let auth = |version| secret("shop", "billing-auth", version, &ours());
        let mark = |secrets: &[Secret]| listed(secrets).mark(&bouncer);
        let before = mark(&[auth("7")]);
        assert_ne!(mark(&[auth("8")]), before, "it was written");
        assert_ne!(mark(&[]), before, "it is gone");
        let mut around = listed(&[auth("6")]);
        around.follow(Kind::Secret, &Area::Everywhere, is(&auth("7")));
        assert_eq!(around.mark(&bouncer), before);
        relist(&mut around, &[]);
        assert_eq!(
            around.mark(&bouncer),
            mark(&[]),
            "gone while nobody watched"
        );
        // Whatever becomes of another one's is of no interest.
        let other = secret("shop", "orders-auth", "9", &ours());
        assert_eq!(mark(&[auth("7"), other]), before);
    }

    #[test]
    fn any_secret_of_a_person_counts_beside_the_backend_and_none_elsewhere() {
        let bouncer = testing::bouncer("billing");
        let of = |namespace, version| secret(namespace, "superuser", version, &json!({}));
        let mark = |secrets: &[Secret]| listed(secrets).mark(&bouncer);
        assert_ne!(mark(&[of("vault", "1")]), mark(&[of("vault", "2")]));
        assert_eq!(mark(&[of("attic", "1")]), mark(&[of("attic", "2")]));
        let mut around = listed(&[of("vault", "1"), of("attic", "1")]);
        let gone = Change::Gone(ObjectRef::new("vault", "superuser"));
        around.follow(Kind::Secret, &Area::Everywhere, gone);
        assert_eq!(around.mark(&bouncer), mark(&[]));
    }

    #[test]
    fn a_namespace_that_is_referred_to_counts_and_is_not_waited_for() {
        let bouncer = testing::bouncer("billing");
        let of = |name: &str, version: &str| -> Namespace {
            let meta = json!({ "name": name, "uid": name, "resourceVersion": version });
            serde_json::from_value(json!({ "metadata": meta })).unwrap()
        };
        let mut around = listed(&[]);
        around.expect(Kind::Namespace, Area::Everywhere);
        let before = around.mark(&bouncer);
        assert!(before.is_some());
        let mut tell = |namespace: &Namespace| {
            let at = ObjectRef::new("", namespace.name_any());
            let change = Change::Is(at, Some(Told::of(namespace)));
            around.follow(Kind::Namespace, &Area::Everywhere, change);
            around.mark(&bouncer)
        };
        assert_eq!(tell(&of("attic", "1")), before);
        let known = tell(&of("vault", "1"));
        assert_ne!(known, before);
        assert_ne!(tell(&of("vault", "2")), known);
    }

    #[test]
    fn a_uid_is_kept_as_a_number_and_read_back_as_the_text_it_was() {
        let text = "00c0ffee-0a1b-4c2d-8e3f-0123456789ab";
        assert_eq!(Uid::parse(text).unwrap().to_string(), text);
        for other in ["", "7", "00C0FFEE-0a1b-4c2d-8e3f-0123456789ab", "00c0ffee"] {
            assert_eq!(Uid::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_object_is_known_once_its_kind_has_been_listed() {
        let mut around = Around::default();
        let at = ObjectRef::new("shop", "billing-auth");
        assert_eq!(around.known(Kind::Secret, &at), Known::Unlisted);
        let mut made = secret("shop", "billing-auth", "7", &ours());
        let uid = "00c0ffee-0a1b-4c2d-8e3f-0123456789ab";
        made.metadata.uid = Some(uid.to_owned());
        made.metadata.owner_references = serde_json::from_value(json!([{
            "apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true,
        }]))
        .unwrap();
        relist(&mut around, &[made]);
        let uid = Uid::parse(uid);
        let there = Known::There {
            uid,
            controller: uid,
        };
        assert_eq!(around.known(Kind::Secret, &at), there);
        let other = ObjectRef::new("shop", "other");
        assert_eq!(around.known(Kind::Secret, &other), Known::Absent);
    }

    #[test]
    fn a_workload_has_not_changed_by_what_it_says_of_its_pods() {
        let set = |version: &str, generation: i64, label: &str| -> StatefulSet {
            serde_json::from_value(json!({ "metadata": {
                "name": "billing", "namespace": "shop", "uid": "w",
                "resourceVersion": version, "generation": generation, "labels": { "team": label },
            }}))
            .unwrap()
        };
        let told = Told::of(&set("1", 1, "books"));
        assert_eq!(Told::of(&set("2", 1, "books")), told);
        assert_ne!(Told::of(&set("2", 2, "books")), told);
        assert_ne!(Told::of(&set("2", 1, "toys")), told);
    }
}
