//! A fault for tests: nothing in a build.

/// Panics for the PgBouncers that a test has planted a fault in.
#[cfg(not(test))]
pub(super) const fn planted(_name: &str) {}

/// Panics for the PgBouncers that a test has planted a fault in.
#[cfg(test)]
pub(super) fn planted(name: &str) {
    assert!(!name.ends_with("-planted-panic"), "planted");
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use crate::clock::Clock;
    use crate::cluster::Cluster;
    use crate::local::apiserver::{ApiServer, Options};
    use crate::local::store::Store;
    use crate::material::Materials;
    use crate::names::Area;
    use crate::panics::InternalErrors;
    use crate::rotation::index::Kind;
    use crate::rotation::{Note, Object, RotationOptions, Rotator};

    #[tokio::test]
    async fn one_pgbouncer_that_panics_does_not_end_the_pass_over_the_others() {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let cluster = Cluster::new(server.client());
        let clock = Clock::Fixed(datetime!(2031-06-04 12:00 UTC));
        let materials = Materials::new(cluster.clone(), clock.clone(), "cert-manager");
        let errors = InternalErrors::default();
        let rotator = Rotator::new(cluster, materials, clock, RotationOptions::default())
            .counting(errors.clone());
        for kind in Kind::ALL {
            rotator.note(Note::Listed(
                kind,
                Area::Everywhere,
                std::iter::empty().collect(),
            ));
        }
        for name in ["alpha", "beta-planted-panic", "gamma"] {
            let bouncer = serde_json::from_value(json!({
                "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
                "metadata": { "name": name, "namespace": "shop" },
                "spec": {
                    "version": "1.18.0",
                    "database": { "databaseName": "l", "databaseRef": { "name": "p", "namespace": "s" } },
                },
            }));
            rotator.note(Note::Set(Object::Bouncer(Box::new(bouncer.unwrap()))));
        }
        let wake = rotator.settle().await;
        assert_eq!(errors.caught("rotation"), 1);
        let state = rotator.lock();
        let mut members: Vec<&str> = state.fleet.members().map(|at| &*at.name).collect();
        members.sort_unstable();
        assert_eq!(members, ["alpha", "gamma"]);
        assert!(wake.is_some() && state.dirty.is_empty());
        assert_eq!(state.given_up.len(), 1);
        drop(state);
        let told = rotator.troubles();
        let panicked: Vec<&str> = told.panicked.keys().map(|at| &*at.name).collect();
        assert_eq!(
            (panicked, told.healed.len()),
            (vec!["beta-planted-panic"], 0)
        );
        assert!(rotator.troubles().panicked.is_empty(), "told once");
    }
}
