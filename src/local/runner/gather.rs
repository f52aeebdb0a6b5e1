//! Reads from the API what a pod's files are made of, and writes them.
//!
//! Everything is read again for every start: a watch may lag behind, and a pooler that started with
//! the former certificate would serve it until its next restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, Volume, VolumeMount};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::confine::Reach;
use super::dirs::Home;
use super::dns::{self, Answer};
use super::files::write_volume;
use super::host::{HostPath, HostPathError, HostPaths};
use super::payload::{
    Payload, Sources, VolumeError, check_mounts, check_names, payload, references,
};
use super::status::CONTAINER;
use super::translate::{Mount, Overrides, hosts, translate};
use crate::cluster::{Cluster, ClusterError};
use crate::local::rules;
use crate::names::ObjectRef;

/// Ini that the pooler image reads when the container gives no argument.
pub const DEFAULT_INI: &str = "/etc/config/pgbouncer.ini";
/// Name of the translated ini in a pod's directory.
const INI: &str = "pgbouncer.ini";
/// Largest ini that is read from a directory of the machine; a Secret holds at most 1 MiB.
const INI_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A pod's files cannot be made now.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The pod has no container to run.
    #[error("the local platform runs containers named {CONTAINER} only, and the pod has none")]
    NoContainer,
    /// A volume has no source.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A directory of the machine is not given to the pod.
    #[error("volume {volume:?}: hostPath {path:?} is refused")]
    HostPath {
        /// Volume.
        volume: String,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: HostPathError,
    },
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
    /// Its directory and user.
    pub home: &'a Home,
    /// The directories of the machine that it may name.
    pub host_paths: &'a HostPaths,
    /// The pod's address.
    pub address: Ipv4Addr,
}

/// What stands behind a volume, made.
enum Backing {
    Files(super::payload::Files),
    Scratch,
    Host(HostPath),
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
    /// Files outside of what the platform writes that the process may reach.
    pub reach: Reach,
}

// === impl Task ===

impl Task<'_> {
    /// Brings the pod's directories into step with the API.
    pub async fn write(&self) -> Result<Written, GatherError> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let volumes = spec.volumes.unwrap_or_default();
        check_names(&volumes)?;
        let container = self.container().ok_or(GatherError::NoContainer)?;
        let mounts = container.volume_mounts.clone().unwrap_or_default();
        check_mounts(&mounts, &volumes)?;
        let sources = self.sources(&volumes).await?;
        let backings = volumes
            .iter()
            .map(|volume| Ok((volume.name.as_str(), self.backing(volume, &sources)?)))
            .collect::<Result<BTreeMap<_, _>, GatherError>>()?;
        let changed = self.write_volumes(&backings)?;
        let (ini, resolved) = self.write_ini(&mounts, &backings).await?;
        Ok(Written {
            volumes: changed,
            ini,
            resolved,
            reach: self.reach(&backings),
        })
    }

    fn backing(&self, volume: &Volume, sources: &Sources) -> Result<Backing, GatherError> {
        Ok(match payload(volume, sources)? {
            Payload::Files(files) => Backing::Files(files),
            Payload::Scratch => Backing::Scratch,
            Payload::Host(path) => match self.host_paths.open(&path) {
                Ok(opened) => Backing::Host(opened),
                Err(source) => {
                    let volume = volume.name.clone();
                    return Err(GatherError::HostPath {
                        volume,
                        path,
                        source,
                    });
                }
            },
        })
    }

    fn reach(&self, backings: &BTreeMap<&str, Backing>) -> Reach {
        let mut reach = Reach::default();
        for (name, backing) in backings {
            match backing {
                Backing::Files(_) => {}
                Backing::Scratch => reach.write.push(self.home.paths.volumes.join(name)),
                Backing::Host(host) => reach.read.push(host.real.clone()),
            }
        }
        reach
    }

    fn write_volumes(&self, backings: &BTreeMap<&str, Backing>) -> io::Result<bool> {
        let home = self.home;
        let root = home.root.make("volumes", 0o750, home.read_only())?;
        home.root.make("run", 0o750, home.writable())?;
        let mut changed = false;
        for (name, backing) in backings {
            match backing {
                Backing::Files(files) => {
                    let volume = root.make(name, 0o750, home.read_only())?;
                    changed |= write_volume(&volume, files, home.read_only())?;
                }
                Backing::Scratch => {
                    root.make(name, 0o770, home.writable())?;
                }
                Backing::Host(_) => {}
            }
        }
        Ok(changed)
    }

    async fn write_ini(
        &self,
        mounted: &[VolumeMount],
        backings: &BTreeMap<&str, Backing>,
    ) -> Result<(bool, Resolved), GatherError> {
        let path = self.ini_path();
        let ini = read_ini(&path, mounted, backings).ok_or(GatherError::NoIni { path })?;
        let ini = String::from_utf8_lossy(&ini);
        let resolved = self.resolve(&ini).await?;
        let run = &self.home.paths.run;
        let overrides = Overrides {
            listen_addr: self.address.to_string(),
            socket_dir: run.display().to_string(),
            pidfile: run.join("pgbouncer.pid").display().to_string(),
        };
        let mounts = self.mounts(mounted, backings);
        let contents = translate(&ini, &mounts, &resolved.addresses, &overrides).into_bytes();
        let root = &self.home.root;
        let size = contents.len() as u64;
        if root.read(INI, size).is_ok_and(|there| there == contents) {
            return Ok((false, resolved));
        }
        root.replace(INI, &contents, 0o640, self.home.read_only())?;
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

    fn mounts(&self, mounted: &[VolumeMount], backings: &BTreeMap<&str, Backing>) -> Vec<Mount> {
        let mount = |mount: &VolumeMount| {
            let dir = match backings.get(mount.name.as_str()) {
                Some(Backing::Host(host)) => host.real.clone(),
                _ => self.home.paths.volumes.join(&mount.name),
            };
            let host = match mount.sub_path.as_deref().filter(|p| !p.is_empty()) {
                Some(below) => dir.join(below),
                None => dir,
            };
            Mount {
                container: mount.mount_path.clone(),
                host: host.display().to_string(),
            }
        };
        mounted.iter().map(mount).collect()
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

/// The file at `path` of the container: from what the platform writes, or from a directory of the
/// machine. What the process itself can write is not read.
fn read_ini(
    path: &str,
    mounts: &[VolumeMount],
    backings: &BTreeMap<&str, Backing>,
) -> Option<Vec<u8>> {
    let below = |mount: &VolumeMount| {
        let at = mount.mount_path.trim_end_matches('/');
        let rest = path.strip_prefix(at)?;
        (rest.is_empty() || rest.starts_with('/'))
            .then(|| (at.len(), rest.trim_matches('/').to_owned()))
    };
    let (mount, (_, rest)) = mounts
        .iter()
        .filter_map(|mount| Some((mount, below(mount)?)))
        .max_by_key(|(_, (length, _))| *length)?;
    let sub_path = mount.sub_path.as_deref().unwrap_or_default();
    let parts = [sub_path.trim_matches('/'), &rest];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let name = parts.join("/");
    rules::descending_path(&name).ok()?;
    match backings.get(mount.name.as_str())? {
        Backing::Files(files) => files.get(&name).map(|file| file.contents.clone()),
        Backing::Host(host) => host.read(&name, INI_MAX_BYTES).ok(),
        Backing::Scratch => None,
    }
}
