//! The rules of a pod's specification: names that become file names, paths, and numbers. Pure.
//!
//! A path of a mount has to be absolute here, which kube-apiserver leaves to the container runtime.

use std::collections::BTreeSet;

use serde_json::Value;

use super::admit::invalid;
use super::admit_workload::GRACE_MAX_S;
use super::schema::errors::{FieldError, Reason};
use crate::local::rules;

/// Largest port.
const PORT_MAX: i64 = 65_535;
/// Largest mode of a file in a volume.
const MODE_MAX: i64 = 0o777;

/// Checks the specification at `path`.
pub fn check(path: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let mut check = Check { errors };
    let volumes = check.volumes(path, spec);
    check.containers(path, spec, &volumes);
    check.seconds(path, spec, "terminationGracePeriodSeconds", 0);
    check.seconds(path, spec, "activeDeadlineSeconds", 1);
}

/// Gathers errors.
struct Check<'a> {
    errors: &'a mut Vec<FieldError>,
}

type Rule = fn(&str) -> Result<(), String>;

// === impl Check ===

impl Check<'_> {
    fn volumes<'a>(&mut self, path: &str, spec: &'a Value) -> BTreeSet<&'a str> {
        let mut names = BTreeSet::new();
        for (n, volume) in list(&spec["volumes"]).enumerate() {
            let at = format!("{path}.volumes[{n}]");
            self.name(&at, volume, &mut names);
            for kind in ["secret", "configMap"] {
                self.items(&format!("{at}.{kind}"), &volume[kind]);
            }
            self.mode(
                &format!("{at}.projected.defaultMode"),
                &volume["projected"]["defaultMode"],
            );
            for (n, source) in list(&volume["projected"]["sources"]).enumerate() {
                for kind in ["secret", "configMap"] {
                    self.items(
                        &format!("{at}.projected.sources[{n}].{kind}"),
                        &source[kind],
                    );
                }
            }
            if volume["hostPath"].is_object() {
                let at = format!("{at}.hostPath.path");
                self.text(&at, &volume["hostPath"]["path"], rules::host_path);
            }
        }
        names
    }

    /// The keys that a volume takes, and where they go.
    fn items(&mut self, at: &str, source: &Value) {
        self.mode(&format!("{at}.defaultMode"), &source["defaultMode"]);
        for (n, item) in list(&source["items"]).enumerate() {
            let at = format!("{at}.items[{n}]");
            self.text(&format!("{at}.key"), &item["key"], |_| Ok(()));
            self.text(&format!("{at}.path"), &item["path"], rules::projected_path);
            self.mode(&format!("{at}.mode"), &item["mode"]);
        }
    }

    fn containers(&mut self, path: &str, spec: &Value, volumes: &BTreeSet<&str>) {
        if list(&spec["containers"]).next().is_none() {
            self.required(&format!("{path}.containers"));
        }
        let mut names = BTreeSet::new();
        for kind in ["initContainers", "containers"] {
            for (n, container) in list(&spec[kind]).enumerate() {
                let at = format!("{path}.{kind}[{n}]");
                self.name(&at, container, &mut names);
                self.mounts(&at, container, volumes);
                for (n, port) in list(&container["ports"]).enumerate() {
                    self.port(&format!("{at}.ports[{n}]"), port);
                }
            }
        }
    }

    fn seconds(&mut self, path: &str, spec: &Value, field: &str, least: i64) {
        let given = &spec[field];
        let fits = |n: i64| (least..=GRACE_MAX_S).contains(&n);
        if !given.is_null() && !given.as_i64().is_some_and(fits) {
            let message = format!(
                "Invalid value: {given}: must be between {least} and {GRACE_MAX_S}, inclusive"
            );
            self.errors
                .push(invalid(&format!("{path}.{field}"), message));
        }
    }

    fn mounts(&mut self, at: &str, container: &Value, volumes: &BTreeSet<&str>) {
        let mut places = BTreeSet::new();
        for (n, mount) in list(&container["volumeMounts"]).enumerate() {
            let at = format!("{at}.volumeMounts[{n}]");
            let name = mount["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                self.required(&format!("{at}.name"));
            } else if !volumes.contains(name) {
                self.push(
                    &format!("{at}.name"),
                    Reason::NotFound,
                    format!("Not found: {name:?}"),
                );
            }
            let field = format!("{at}.mountPath");
            self.text(&field, &mount["mountPath"], rules::mount_path);
            let place = mount["mountPath"].as_str().unwrap_or_default();
            if !places.insert(place) {
                self.invalid(&field, place, "must be unique");
            }
            if let Some(below) = mount["subPath"].as_str()
                && let Err(why) = rules::descending_path(below)
            {
                self.invalid(&format!("{at}.subPath"), below, &why);
            }
        }
    }

    fn port(&mut self, at: &str, port: &Value) {
        let Some(number) = port["containerPort"].as_i64() else {
            return self.required(&format!("{at}.containerPort"));
        };
        let host = port["hostPort"].as_i64().filter(|number| *number != 0);
        for (field, number) in [("containerPort", Some(number)), ("hostPort", host)] {
            if let Some(number) = number.filter(|number| !(1..=PORT_MAX).contains(number)) {
                let message =
                    format!("Invalid value: {number}: must be between 1 and {PORT_MAX}, inclusive");
                self.errors.push(invalid(&format!("{at}.{field}"), message));
            }
        }
    }

    /// A DNS label that no other entry has.
    fn name<'a>(&mut self, at: &str, entry: &'a Value, seen: &mut BTreeSet<&'a str>) {
        let at = format!("{at}.name");
        self.text(&at, &entry["name"], rules::dns_label);
        let name = entry["name"].as_str().unwrap_or_default();
        if !seen.insert(name) && !name.is_empty() {
            self.push(&at, Reason::Duplicate, format!("Duplicate value: {name:?}"));
        }
    }

    fn mode(&mut self, at: &str, mode: &Value) {
        if let Some(mode) = mode.as_i64().filter(|mode| !(0..=MODE_MAX).contains(mode)) {
            let message = format!(
                "Invalid value: {mode}: must be a number between 0 and 0777 (octal), both inclusive"
            );
            self.errors.push(invalid(at, message));
        }
    }

    /// A text that must be there and obey a rule.
    fn text(&mut self, at: &str, value: &Value, rule: Rule) {
        match value.as_str().unwrap_or_default() {
            "" => self.required(at),
            text => {
                if let Err(why) = rule(text) {
                    self.invalid(at, text, &why);
                }
            }
        }
    }

    fn invalid(&mut self, at: &str, value: &str, why: &str) {
        self.errors
            .push(invalid(at, format!("Invalid value: {value:?}: {why}")));
    }

    fn required(&mut self, at: &str) {
        self.push(at, Reason::Required, "Required value".to_owned());
    }

    fn push(&mut self, at: &str, reason: Reason, message: String) {
        self.errors.push(FieldError {
            field: at.to_owned(),
            reason,
            message,
        });
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut spec = json!({
            "containers": [{
                "name": "pgbouncer", "ports": [{"containerPort": 5432}],
                "volumeMounts": [{"name": "keys", "mountPath": "/etc/keys", "subPath": "a/b"}]
            }],
            "volumes": [{"name": "keys", "secret": {"secretName": "k", "defaultMode": 0o440,
                "items": [{"key": "tls.key", "path": "deep/tls.key", "mode": 0o400}]}}]
        });
        change(&mut spec);
        let mut errors = Vec::new();
        check("spec", &spec, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_pod_has_no_errors() {
        assert!(errors(|_| {}).is_empty());
    }

    #[test]
    fn names_that_would_leave_the_pods_directory_are_refused() {
        for name in ["/root/keep", "../../../../etc/cron.d", "..", "a/b", "A"] {
            let found = errors(|spec| {
                spec["volumes"][0]["name"] = json!(name);
                spec["containers"][0]["volumeMounts"][0]["name"] = json!(name);
            });
            assert_eq!(found.len(), 1, "{found:?}");
            let begins = format!("spec.volumes[0].name: Invalid value: {name:?}: a lowercase");
            assert!(found[0].starts_with(&begins), "{found:?}");
        }
    }

    #[test]
    fn each_path_that_climbs_is_named_by_its_field() {
        type Case = (&'static str, &'static str, &'static str);
        let cases: [Case; 8] = [
            (
                "/volumes/0/secret/items/0/path",
                "../x",
                "must not contain '..'",
            ),
            (
                "/volumes/0/secret/items/0/path",
                "/x",
                "must be a relative path",
            ),
            (
                "/volumes/0/secret/items/0/path",
                "..x",
                "must not start with '..'",
            ),
            (
                "/containers/0/volumeMounts/0/subPath",
                "../x",
                "must not contain '..'",
            ),
            (
                "/containers/0/volumeMounts/0/subPath",
                "/x",
                "must be a relative path",
            ),
            (
                "/containers/0/volumeMounts/0/mountPath",
                "/a:b",
                "must not contain ':'",
            ),
            (
                "/containers/0/volumeMounts/0/mountPath",
                "a",
                "must be an absolute path",
            ),
            ("/containers/0/name", "../x", "a lowercase RFC 1123 label"),
        ];
        for (pointer, value, why) in cases {
            let found = errors(|spec| *spec.pointer_mut(pointer).unwrap() = json!(value));
            assert_eq!(found.len(), 1, "{pointer} {found:?}");
            assert!(found[0].contains(why), "{found:?}");
        }
        let found = errors(|spec| {
            spec["volumes"][0] = json!({"name": "keys", "projected": {"sources": [{"configMap":
                {"name": "m", "items": [{"key": "k", "path": "a/../../b"}]}}]}});
        });
        assert!(
            found[0].starts_with("spec.volumes[0].projected.sources[0].configMap.items[0].path"),
            "{found:?}"
        );
        let host = errors(|spec| {
            spec["volumes"][0] = json!({"name": "keys", "hostPath": {"path": "/srv/../etc"}});
        });
        assert!(host[0].contains("hostPath.path"), "{host:?}");
    }

    #[test]
    fn names_are_declared_once_and_mounts_name_them() {
        let twice = errors(|spec| {
            let volume = spec["volumes"][0].clone();
            spec["volumes"].as_array_mut().unwrap().push(volume);
            let container = spec["containers"][0].clone();
            spec["containers"].as_array_mut().unwrap().push(container);
        });
        let expected = [
            "spec.volumes[1].name: Duplicate value: \"keys\"",
            "spec.containers[1].name: Duplicate value: \"pgbouncer\"",
        ];
        assert_eq!(twice, expected);
        let gone = errors(|spec| spec["volumes"] = json!([]));
        assert_eq!(
            gone,
            ["spec.containers[0].volumeMounts[0].name: Not found: \"keys\""]
        );
        let empty = errors(|spec| spec["containers"] = json!([]));
        assert_eq!(empty, ["spec.containers: Required value"]);
    }

    #[test]
    fn seconds_have_bounds() {
        for seconds in [-1, i64::from(i32::MAX) + 1, i64::MAX, i64::MIN] {
            let found = errors(|spec| spec["terminationGracePeriodSeconds"] = json!(seconds));
            assert!(found[0].contains("must be between 0 and"), "{found:?}");
        }
        assert!(errors(|spec| spec["terminationGracePeriodSeconds"] = json!(0)).is_empty());
    }

    #[test]
    fn ports_and_modes_have_bounds() {
        for port in [-1_i64, 0, 65_536, i64::MAX] {
            let found =
                errors(|spec| spec["containers"][0]["ports"][0]["containerPort"] = json!(port));
            assert!(
                found[0].contains("must be between 1 and 65535"),
                "{found:?}"
            );
        }
        for mode in [-1, 0o1000] {
            let found =
                errors(|spec| spec["volumes"][0]["secret"]["items"][0]["mode"] = json!(mode));
            assert!(found[0].contains("between 0 and 0777"), "{found:?}");
        }
    }
}
