//! What is taken notice of, and what the index learns from it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use kube::ResourceExt;
use time::OffsetDateTime;

use super::RotationOptions;
use crate::api::Located;
use crate::api::annotations::class_of;
use crate::api::holder::controller;
use crate::api::{ClusterIssuer, Issuer, PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::certificates::LoadBalancer;
use crate::blueprint::labels;
use crate::cluster::reference;
use crate::names::{Area, ObjectRef};
use crate::rotation::drift;
use crate::rotation::index::{Index, Kind};
use crate::surroundings;

/// An object that rotation takes notice of.
#[derive(Debug)]
pub enum Object {
    /// What is rotated.
    Bouncer(Box<PgBouncer>),
    /// What is created.
    Request(Box<PgBouncerOpsRequest>),
    /// What is stored.
    Secret(Box<Secret>),
    /// What a load balancer has given addresses to.
    Service(Box<Service>),
    /// Where annotations may stand.
    Namespace(Box<Namespace>),
    /// Who signs.
    Issuer(Box<Issuer>),
    /// Who signs for all namespaces.
    ClusterIssuer(Box<ClusterIssuer>),
}

/// Something to take notice of.
#[derive(Debug)]
pub enum Note {
    /// It is there, or has changed.
    Set(Object),
    /// It has gone.
    Gone(Object),
    /// These are all there are in an area.
    Listed(Kind, Area, BTreeSet<ObjectRef>),
    /// We have no right to list them there: nobody shall wait for it.
    Barred(Kind, Area),
}

/// Tells `index` what is there now; whom it concerns.
pub(super) fn set(
    index: &mut Index,
    options: &RotationOptions,
    object: Object,
    now: OffsetDateTime,
) -> Vec<ObjectRef> {
    match object {
        Object::Bouncer(bouncer) if class_of(bouncer.as_ref()) != options.class => {
            gone(index, &Object::Bouncer(bouncer))
        }
        Object::Bouncer(bouncer) => vec![index.set_bouncer(*bouncer)],
        Object::Request(request) => vec![index.set_request(&request)],
        Object::Secret(secret) => {
            index.set_secret(&reference(secret.as_ref()), drift::read(&secret, now))
        }
        Object::Service(service) => {
            set_outside(index, &service, surroundings::load_balancer(&service))
        }
        Object::Namespace(namespace) => {
            index.set_namespace(&namespace.name_any(), namespace.annotations())
        }
        Object::Issuer(issuer) => {
            let namespace = issuer.home();
            let ca = issuer.spec.ca.as_ref();
            let secret = ca.map(|ca| ObjectRef::new(&namespace, &ca.secret_name));
            index.set_issuer("Issuer", &reference(issuer.as_ref()), secret)
        }
        Object::ClusterIssuer(issuer) => {
            let namespace = &options.cluster_resource_namespace;
            let ca = issuer.spec.issuer.ca.as_ref();
            let secret = ca.map(|ca| ObjectRef::new(namespace, &ca.secret_name));
            let at = ObjectRef::new("", issuer.name_any());
            index.set_issuer("ClusterIssuer", &at, secret)
        }
    }
}

/// Tells `index` what has gone; whom it concerns.
pub(super) fn gone(index: &mut Index, object: &Object) -> Vec<ObjectRef> {
    match object {
        Object::Bouncer(bouncer) => {
            let at = reference(bouncer.as_ref());
            index.remove_bouncer(&at);
            vec![at]
        }
        Object::Request(request) => index
            .remove_request(&reference(request.as_ref()))
            .into_iter()
            .collect(),
        Object::Secret(secret) => index.set_secret(&reference(secret.as_ref()), None),
        Object::Service(service) => set_outside(index, service, LoadBalancer::default()),
        Object::Namespace(namespace) => {
            index.set_namespace(&namespace.name_any(), &BTreeMap::new())
        }
        Object::Issuer(issuer) => index.set_issuer("Issuer", &reference(issuer.as_ref()), None),
        Object::ClusterIssuer(issuer) => {
            let at = ObjectRef::new("", issuer.name_any());
            index.set_issuer("ClusterIssuer", &at, None)
        }
    }
}

/// Of the Services of a PgBouncer, the one by its name is for clients.
fn set_outside(index: &mut Index, service: &Service, given: LoadBalancer) -> Vec<ObjectRef> {
    let at = reference(service);
    let is_its_own = controller(service)
        .is_some_and(|holder| holder.kind == "PgBouncer" && holder.name == at.name);
    if is_its_own && labels::instance(service.labels()) == Some(at.name.as_str()) {
        index.set_outside(&at, given)
    } else {
        Vec::new()
    }
}
