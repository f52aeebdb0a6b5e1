//! What a volume holds: a pure function of its declaration and of the objects it names.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret, Volume, VolumeMount};

use crate::local::rules;

/// Mode of files whose volume gives none.
pub const DEFAULT_MODE: u32 = 0o644;

/// One file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Permission bits.
    pub mode: u32,
    /// Contents; may be key material, so it has no `Debug`.
    pub contents: Vec<u8>,
}

/// Files by their path within the volume.
pub type Files = BTreeMap<String, File>;

/// The objects that volumes name, as far as they exist.
#[derive(Default)]
pub struct Sources {
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// `ConfigMap`s by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
}

/// What stands behind a volume.
#[derive(PartialEq, Eq)]
pub enum Payload {
    /// Files that the runner writes and keeps in step.
    Files(Files),
    /// A directory that the process may write to.
    Scratch,
    /// A directory of this machine.
    Host(String),
}

/// Why a volume cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The Secret or ConfigMap does not exist.
    #[error("{kind} \"{name}\" not found (volume \"{volume}\")")]
    NoObject {
        /// Volume.
        volume: String,
        /// `secret` or `configmap`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It lacks a key that the volume lists.
    #[error("{kind} \"{name}\" has no key \"{key}\" (volume \"{volume}\")")]
    NoKey {
        /// Volume.
        volume: String,
        /// `secret` or `configmap`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A name or path that cannot be a file of the volume.
    #[error("volume {volume:?}: {what} {name:?} {why}")]
    BadName {
        /// Volume.
        volume: String,
        /// `path`, `key` ….
        what: &'static str,
        /// The name or path.
        name: String,
        /// The rule that it breaks.
        why: String,
    },
    /// Two volumes of one name.
    #[error("volume {volume:?} is declared twice; give each volume a name of its own")]
    Twice {
        /// Volume.
        volume: String,
    },
    /// A mount of a volume that the pod does not declare.
    #[error("the container mounts volume {volume:?}, which the pod does not declare")]
    NotDeclared {
        /// Volume.
        volume: String,
    },
    /// A kind of volume that one machine does not offer.
    #[error("volume \"{volume}\" is of a kind that the local platform does not offer")]
    Unsupported {
        /// Volume.
        volume: String,
    },
}

/// The names of the Secrets and `ConfigMap`s that `volumes` refer to.
pub fn references(volumes: &[Volume]) -> (Vec<String>, Vec<String>) {
    let (mut secrets, mut maps) = (Vec::new(), Vec::new());
    for volume in volumes {
        secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
        maps.extend(volume.config_map.as_ref().map(|m| m.name.clone()));
        let sources = volume.projected.iter().flat_map(|p| &p.sources).flatten();
        for source in sources {
            secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
            maps.extend(source.config_map.as_ref().map(|m| m.name.clone()));
        }
    }
    (secrets, maps)
}

/// Whether the names of `volumes` can be names of directories: once each, and DNS labels.
pub fn check_names(volumes: &[Volume]) -> Result<(), VolumeError> {
    let mut seen = BTreeSet::new();
    for Volume { name, .. } in volumes {
        rules::dns_label(name).map_err(|why| bad_name(name, "name", name, why))?;
        if !seen.insert(name) {
            return Err(VolumeError::Twice {
                volume: name.clone(),
            });
        }
    }
    Ok(())
}

/// Whether a container's mounts name declared volumes, at paths that stay where they begin.
pub fn check_mounts(mounts: &[VolumeMount], volumes: &[Volume]) -> Result<(), VolumeError> {
    for mount in mounts {
        let volume = &mount.name;
        if !volumes.iter().any(|declared| declared.name == *volume) {
            return Err(VolumeError::NotDeclared {
                volume: volume.clone(),
            });
        }
        let path = &mount.mount_path;
        rules::mount_path(path).map_err(|why| bad_name(volume, "mountPath", path, why))?;
        let below = mount.sub_path.as_deref().unwrap_or_default();
        rules::descending_path(below).map_err(|why| bad_name(volume, "subPath", below, why))?;
    }
    Ok(())
}

fn bad_name(volume: &str, what: &'static str, name: &str, why: String) -> VolumeError {
    VolumeError::BadName {
        volume: volume.to_owned(),
        what,
        name: name.to_owned(),
        why,
    }
}

/// What `volume` holds.
pub fn payload(volume: &Volume, sources: &Sources) -> Result<Payload, VolumeError> {
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let pick = Pick {
            volume: &volume.name,
            kind: "secret",
            name,
            items: secret.items.as_deref(),
            optional: secret.optional.unwrap_or(false),
            mode: mode(secret.default_mode),
        };
        return Ok(Payload::Files(pick.files(sources.secret(name))?));
    }
    if let Some(map) = &volume.config_map {
        let pick = Pick {
            volume: &volume.name,
            kind: "configmap",
            name: &map.name,
            items: map.items.as_deref(),
            optional: map.optional.unwrap_or(false),
            mode: mode(map.default_mode),
        };
        return Ok(Payload::Files(pick.files(sources.config_map(&map.name))?));
    }
    if volume.projected.is_some() {
        return projected(volume, sources);
    }
    if let Some(host) = &volume.host_path {
        return Ok(Payload::Host(host.path.clone()));
    }
    if volume.empty_dir.is_some() || volume.downward_api.is_some() {
        return Ok(Payload::Scratch);
    }
    Err(VolumeError::Unsupported {
        volume: volume.name.clone(),
    })
}

fn projected(volume: &Volume, sources: &Sources) -> Result<Payload, VolumeError> {
    let mut files = Files::new();
    let Some(projected) = &volume.projected else {
        return Ok(Payload::Files(files));
    };
    let mode = mode(projected.default_mode);
    // Tokens and downward fields are passed over: no pooler reads them.
    for source in projected.sources.iter().flatten() {
        if let Some(secret) = &source.secret {
            let pick = Pick {
                volume: &volume.name,
                kind: "secret",
                name: &secret.name,
                items: secret.items.as_deref(),
                optional: secret.optional.unwrap_or(false),
                mode,
            };
            files.extend(pick.files(sources.secret(&secret.name))?);
        }
        if let Some(map) = &source.config_map {
            let pick = Pick {
                volume: &volume.name,
                kind: "configmap",
                name: &map.name,
                items: map.items.as_deref(),
                optional: map.optional.unwrap_or(false),
                mode,
            };
            files.extend(pick.files(sources.config_map(&map.name))?);
        }
    }
    Ok(Payload::Files(files))
}

/// Which entries of one object a volume takes, and how.
struct Pick<'a> {
    volume: &'a str,
    kind: &'static str,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: bool,
    mode: u32,
}

type Entries = BTreeMap<String, Vec<u8>>;

// === impl Pick ===

impl Pick<'_> {
    fn files(&self, entries: Option<Entries>) -> Result<Files, VolumeError> {
        let Some(entries) = entries else {
            return if self.optional {
                Ok(Files::new())
            } else {
                Err(VolumeError::NoObject {
                    volume: self.volume.to_owned(),
                    kind: self.kind,
                    name: self.name.to_owned(),
                })
            };
        };
        let Some(items) = self.items else {
            let file = |contents| File {
                mode: self.mode,
                contents,
            };
            for key in entries.keys() {
                rules::data_key(key).map_err(|why| bad_name(self.volume, "key", key, why))?;
            }
            return Ok(entries.into_iter().map(|(k, v)| (k, file(v))).collect());
        };
        let mut files = Files::new();
        for item in items {
            let path = &item.path;
            rules::projected_path(path).map_err(|why| bad_name(self.volume, "path", path, why))?;
            match entries.get(&item.key) {
                Some(contents) => {
                    let file = File {
                        mode: item.mode.map_or(self.mode, |m| mode(Some(m))),
                        contents: contents.clone(),
                    };
                    files.insert(item.path.clone(), file);
                }
                None if self.optional => {}
                None => {
                    return Err(VolumeError::NoKey {
                        volume: self.volume.to_owned(),
                        kind: self.kind,
                        name: self.name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(files)
    }
}

// === impl Sources ===

impl Sources {
    fn secret(&self, name: &str) -> Option<Entries> {
        let secret = self.secrets.get(name)?;
        let data = secret.data.iter().flatten();
        Some(data.map(|(k, v)| (k.clone(), v.0.clone())).collect())
    }

    fn config_map(&self, name: &str) -> Option<Entries> {
        let map = self.config_maps.get(name)?;
        let text = map.data.iter().flatten();
        let mut entries: Entries = text
            .map(|(k, v)| (k.clone(), v.clone().into_bytes()))
            .collect();
        let binary = map.binary_data.iter().flatten();
        entries.extend(binary.map(|(k, v)| (k.clone(), v.0.clone())));
        Some(entries)
    }
}

fn mode(given: Option<i32>) -> u32 {
    given
        .and_then(|m| u32::try_from(m).ok())
        .map_or(DEFAULT_MODE, |m| m & 0o777)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(spec: Value) -> Volume {
        serde_json::from_value(spec).unwrap()
    }

    fn sources() -> Sources {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "till-keys"}, "data": {"tls.key": "a2V5", "tls.crt": "Y3J0"}
        }))
        .unwrap();
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "till-notes"}, "data": {"motd": "hello"}
        }))
        .unwrap();
        Sources {
            secrets: BTreeMap::from([("till-keys".into(), secret)]),
            config_maps: BTreeMap::from([("till-notes".into(), map)]),
        }
    }

    fn shown(payload: Result<Payload, VolumeError>) -> Vec<(String, u32, String)> {
        match payload.unwrap() {
            Payload::Files(files) => files
                .into_iter()
                .map(|(k, f)| (k, f.mode, String::from_utf8(f.contents).unwrap()))
                .collect(),
            _ => panic!("files were expected"),
        }
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let v = volume(
            json!({"name": "k", "secret": {"secretName": "till-keys", "defaultMode": 0o400,
            "items": [{"key": "tls.key", "path": "deep/key.pem", "mode": 0o600}, {"key": "tls.crt", "path": "c"}]}}),
        );
        assert_eq!(
            shown(payload(&v, &sources())),
            [
                ("c".to_owned(), 0o400, "crt".to_owned()),
                ("deep/key.pem".to_owned(), 0o600, "key".to_owned())
            ]
        );
    }

    #[test]
    fn a_projection_joins_its_sources() {
        let v = volume(json!({"name": "p", "projected": {"sources": [
            {"secret": {"name": "till-keys", "items": [{"key": "tls.crt", "path": "crt"}]}},
            {"configMap": {"name": "till-notes"}}, {"configMap": {"name": "nowhere", "optional": true}}]}}));
        let names: Vec<_> = shown(payload(&v, &sources()))
            .into_iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(names, ["crt", "motd"]);
    }

    #[test]
    fn a_missing_secret_names_itself_unless_it_is_optional() {
        let spec = |optional: bool| {
            volume(json!({"name": "v", "secret": {"secretName": "gone", "optional": optional}}))
        };
        let error = payload(&spec(false), &sources()).err().unwrap();
        assert_eq!(
            error.to_string(),
            "secret \"gone\" not found (volume \"v\")"
        );
        assert!(shown(payload(&spec(true), &sources())).is_empty());
    }

    #[test]
    fn a_path_that_leaves_the_volume_is_refused() {
        for path in [
            "../../etc/passwd",
            "/etc/passwd",
            "a/../../b",
            "..data",
            "",
            "a//b",
        ] {
            let v = volume(json!({"name": "k", "secret": {"secretName": "till-keys",
                "items": [{"key": "tls.key", "path": path}]}}));
            let refused = payload(&v, &sources());
            assert!(
                matches!(refused, Err(VolumeError::BadName { what: "path", .. })),
                "{path}"
            );
        }
    }

    #[test]
    fn a_key_that_is_no_file_name_is_refused_from_every_source() {
        for key in ["../evil", "..", "/abs", "..data", "a/b", "a\nb"] {
            let mut sources = sources();
            let secret = sources.secrets.get_mut("till-keys").unwrap();
            let data = secret.data.get_or_insert_default();
            data.insert(key.to_owned(), k8s_openapi::ByteString(b"x".to_vec()));
            let map = sources.config_maps.get_mut("till-notes").unwrap();
            let data = map.binary_data.get_or_insert_default();
            data.insert(key.to_owned(), k8s_openapi::ByteString(b"x".to_vec()));
            for spec in [
                json!({"name": "v", "secret": {"secretName": "till-keys"}}),
                json!({"name": "v", "configMap": {"name": "till-notes"}}),
                json!({"name": "v", "projected": {"sources": [{"secret": {"name": "till-keys"}}]}}),
                json!({"name": "v", "projected": {"sources": [{"configMap": {"name": "till-notes"}}]}}),
            ] {
                let refused = payload(&volume(spec), &sources);
                assert!(
                    matches!(refused, Err(VolumeError::BadName { what: "key", .. })),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn names_of_volumes_are_labels_once_each_and_mounts_name_them() {
        let named = |name: &str| volume(json!({"name": name, "emptyDir": {}}));
        check_names(&[named("a"), named("b")]).unwrap();
        assert!(check_names(&[named("a"), named("a")]).is_err());
        for name in ["", "..", "../../keep", "/keep", "a/b", "A"] {
            let error = check_names(&[named(name)]).unwrap_err().to_string();
            assert!(error.contains("lowercase RFC 1123 label"), "{error}");
        }
        let mount = |spec: Value| -> VolumeMount { serde_json::from_value(spec).unwrap() };
        let check = |spec: Value| check_mounts(&[mount(spec)], &[named("a")]);
        check(json!({"name": "a", "mountPath": "/etc", "subPath": "b/c"})).unwrap();
        for broken in [
            json!({"name": "b", "mountPath": "/etc"}),
            json!({"name": "a", "mountPath": "etc"}),
            json!({"name": "a", "mountPath": "/etc:x"}),
            json!({"name": "a", "mountPath": "/etc", "subPath": "../b"}),
            json!({"name": "a", "mountPath": "/etc", "subPath": "/b"}),
        ] {
            assert!(check(broken.clone()).is_err(), "{broken}");
        }
    }
}
