//! Reads from the API what a pod's files are made of, and writes them.
//!
//! Everything is read again for every start: a watch may lag behind, and a pooler that started with
//! the former certificate would serve it until its next restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, Volume};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::dirs::PodDirs;
use super::dns::{self, Answer};
use super::files::{make_dir, replace_file, write_volume};
use super::identity::Identity;
use super::payload::{File, Payload, Sources, VolumeError, payload, references};
use super::status::CONTAINER;
use super::translate::{Mount, Overrides, host_paths, hosts, translate};
use crate::cluster::{Cluster, ClusterError};
use crate::names::ObjectRef;

/// Ini that the pooler image reads when the container gives no argument.
pub const DEFAULT_INI: &str = "/etc/config/pgbouncer.ini";

/// A pod's files cannot be made now.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The pod has no container to run.
    #[error("the local platform runs containers named {CONTAINER} only, and the pod has none")]
    NoContainer,
    /// A volume has no source.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The ini is in no volume.
    #[error("the container reads {path}, which no mounted volume holds")]
    NoIni {
        /// Path in the container.
        path: String,
    },
    /// A Service of `[databases]` has no address yet.
    #[error("Service {service} has no address yet")]
    NoAddressYet {
        /// The Service.
        service: ObjectRef,
    },
    /// The API did not answer.
    #[error("cannot read what the pod mounts")]
    Api(#[from] ClusterError),
    /// The disk did not take it.
    #[error("cannot write the pod's files")]
    Write(#[from] io::Error),
}

/// Whose files, for whom, at which address.
pub struct Task<'a> {
    /// The API.
    pub cluster: &'a Cluster,
    /// The pod.
    pub pod: &'a Pod,
    /// Its directories.
    pub dirs: &'a PodDirs,
    /// As whom the process runs.
    pub identity: Option<Identity>,
    /// The pod's address.
    pub address: Ipv4Addr,
}

/// What names of `[databases]` mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Addresses by name.
    pub addresses: BTreeMap<String, String>,
    /// Services that a name may mean, whether they exist or not.
    pub services: BTreeSet<ObjectRef>,
}

/// What changed by writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Whether any volume did.
    pub volumes: bool,
    /// Whether the translated ini did.
    pub ini: bool,
    /// What it says about names.
    pub resolved: Resolved,
}

// === impl Task ===

impl Task<'_> {
    /// Brings the pod's directories into step with the API.
    pub async fn write(&self) -> Result<Written, GatherError> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let volumes = spec.volumes.unwrap_or_default();
        let sources = self.sources(&volumes).await?;
        let payloads: Vec<(&Volume, Payload)> = volumes
            .iter()
            .map(|volume| payload(volume, &sources).map(|p| (volume, p)))
            .collect::<Result<_, _>>()?;
        for (dir, mode) in [
            (&self.dirs.root, 0o750),
            (&self.dirs.volumes, 0o750),
            (&self.dirs.run, 0o750),
        ] {
            make_dir(dir, mode, self.identity)?;
        }
        let mut changed = false;
        for (volume, payload) in &payloads {
            let dir = self.dirs.volumes.join(&volume.name);
            match payload {
                Payload::Files(files) => changed |= write_volume(&dir, files, self.identity)?,
                Payload::Scratch => make_dir(&dir, 0o770, self.identity)?,
                Payload::Host(_) => {}
            }
        }
        let (ini, resolved) = self.write_ini(&payloads).await?;
        Ok(Written {
            volumes: changed,
            ini,
            resolved,
        })
    }

    /// The host path of `path` in the pooler's container.
    pub fn host_path(&self, path: &str) -> Option<std::path::PathBuf> {
        let mounts = self.mounts(|_| None)?;
        let found = host_paths(path, &mounts);
        (found != path).then(|| found.into())
    }

    async fn write_ini(
        &self,
        payloads: &[(&Volume, Payload)],
    ) -> Result<(bool, Resolved), GatherError> {
        let host_of = |name: &str| {
            let found = payloads.iter().find(|(volume, _)| volume.name == name);
            found.and_then(|(_, payload)| match payload {
                Payload::Host(path) => Some(path.clone()),
                _ => None,
            })
        };
        let mounts = self.mounts(host_of).ok_or(GatherError::NoContainer)?;
        let path = self.ini_path();
        let source = host_paths(&path, &mounts);
        let ini = std::fs::read(&source).map_err(|_| GatherError::NoIni { path })?;
        let ini = String::from_utf8_lossy(&ini);
        let resolved = self.resolve(&ini).await?;
        let overrides = Overrides {
            listen_addr: self.address.to_string(),
            socket_dir: self.dirs.run.display().to_string(),
            pidfile: self.dirs.run.join("pgbouncer.pid").display().to_string(),
        };
        let contents = translate(&ini, &mounts, &resolved.addresses, &overrides).into_bytes();
        if std::fs::read(&self.dirs.ini).is_ok_and(|there| there == contents) {
            return Ok((false, resolved));
        }
        let file = File {
            mode: 0o600,
            contents,
        };
        replace_file(&self.dirs.ini, &file, self.identity)?;
        Ok((true, resolved))
    }

    /// Path of the ini in the container: the argument that names one, or else the usual place.
    fn ini_path(&self) -> String {
        let container = self.container();
        let mut words = container
            .iter()
            .flat_map(|c| c.command.iter().chain(c.args.iter()))
            .flatten();
        words
            .rfind(|word| {
                word.starts_with('/') && Path::new(word).extension() == Some("ini".as_ref())
            })
            .map_or_else(|| DEFAULT_INI.to_owned(), Clone::clone)
    }

    fn container(&self) -> Option<&k8s_openapi::api::core::v1::Container> {
        let containers = &self.pod.spec.as_ref()?.containers;
        containers.iter().find(|c| c.name == CONTAINER)
    }

    fn mounts(&self, host_of: impl Fn(&str) -> Option<String>) -> Option<Vec<Mount>> {
        let container = self.container()?;
        let mounts = container.volume_mounts.iter().flatten().map(|mount| {
            let dir = host_of(&mount.name)
                .unwrap_or_else(|| self.dirs.volumes.join(&mount.name).display().to_string());
            let host = match mount.sub_path.as_deref().filter(|p| !p.is_empty()) {
                Some(below) => format!("{dir}/{below}"),
                None => dir,
            };
            Mount {
                container: mount.mount_path.clone(),
                host,
            }
        });
        Some(mounts.collect())
    }

    async fn sources(&self, volumes: &[Volume]) -> Result<Sources, ClusterError> {
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        let (secrets, maps) = references(volumes);
        let mut sources = Sources::default();
        for name in secrets {
            let at = ObjectRef::new(&*namespace, &*name);
            if let Some(secret) = self.cluster.get::<Secret>(&at).await? {
                sources.secrets.insert(name, secret);
            }
        }
        for name in maps {
            let at = ObjectRef::new(&*namespace, &*name);
            if let Some(map) = self.cluster.get::<ConfigMap>(&at).await? {
                sources.config_maps.insert(name, map);
            }
        }
        Ok(sources)
    }

    /// The addresses of the names in `[databases]`, as far as they are ours.
    async fn resolve(&self, ini: &str) -> Result<Resolved, GatherError> {
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        let mut resolved = Resolved::default();
        for host in hosts(ini) {
            for name in dns::names(&host, &namespace) {
                let at = ObjectRef::new(&*name.namespace, &*name.service);
                resolved.services.insert(at.clone());
                let Some(service) = self.cluster.get::<Service>(&at).await? else {
                    continue;
                };
                let label = format!("{}={}", dns::SERVICE_NAME, name.service);
                let slices = self
                    .cluster
                    .list::<EndpointSlice>(&name.namespace, &label)
                    .await?;
                match dns::answer(&name, &service, &slices) {
                    Answer::Is(address) => {
                        resolved.addresses.insert(host.clone(), address);
                    }
                    Answer::Nobody => {}
                    Answer::NotYet => return Err(GatherError::NoAddressYet { service: at }),
                }
                break;
            }
        }
        Ok(resolved)
    }
}
