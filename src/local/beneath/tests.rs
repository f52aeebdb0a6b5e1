use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A directory for a pod, and beside it a victim that no test may touch.
struct Yard {
    _tmp: tempfile::TempDir,
    pod: Dir,
    path: PathBuf,
    victim: PathBuf,
}

impl Yard {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let (path, victim) = (tmp.path().join("pod"), tmp.path().join("victim"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("keep"), "precious").unwrap();
        fs::set_permissions(&victim, Permissions::from_mode(0o755)).unwrap();
        Self {
            pod: Dir::open(&path).unwrap(),
            _tmp: tmp,
            path,
            victim,
        }
    }

    /// Whether the victim is as it was.
    fn unharmed(&self) -> bool {
        let mode = fs::metadata(&self.victim).unwrap().permissions().mode() & 0o777;
        let names: Vec<_> = fs::read_dir(&self.victim).unwrap().flatten().collect();
        fs::read_to_string(self.victim.join("keep")).unwrap() == "precious"
            && names.len() == 1
            && mode == 0o755
    }
}

#[test]
fn a_name_that_is_a_path_is_refused_by_every_operation() {
    let yard = Yard::new();
    let absolute = yard.victim.display().to_string();
    for name in ["../victim", "..", ".", "", "a/b", "a\0b", &absolute] {
        let owner = Owner::default();
        assert!(yard.pod.make(name, 0o700, owner).is_err(), "{name:?}");
        assert!(yard.pod.create(name, b"x", 0o600, owner).is_err());
        assert!(yard.pod.replace(name, b"x", 0o600, owner).is_err());
        assert!(yard.pod.remove(name).is_err());
        assert!(yard.pod.read(name, 9).is_err());
        assert!(yard.pod.link("x", name).is_err());
        assert!(yard.pod.enter(name).is_err());
    }
    assert!(yard.unharmed());
    assert!(yard.pod.names().unwrap().is_empty());
}

#[test]
fn a_link_in_the_place_of_an_entry_is_never_followed() {
    let yard = Yard::new();
    let owner = Owner::default();
    for target in [yard.victim.clone(), PathBuf::from("../victim")] {
        symlink(&target, yard.path.join("planted")).unwrap();
        assert!(yard.pod.make("planted", 0o700, owner).is_err());
        assert!(yard.pod.enter("planted").is_err());
        assert!(yard.pod.create("planted", b"x", 0o600, owner).is_err());
        yard.pod.remove("planted").unwrap();
        assert!(yard.unharmed());
    }
    symlink(yard.victim.join("keep"), yard.path.join("file")).unwrap();
    assert!(yard.pod.read("file", 99).is_err());
    assert!(yard.pod.file_facts("file").is_err());
    yard.pod.replace("file", b"own", 0o600, owner).unwrap();
    assert_eq!(yard.pod.read("file", 99).unwrap(), b"own");
    assert!(yard.unharmed());
}

#[test]
fn what_lies_where_a_temporary_file_goes_is_replaced_and_not_written_through() {
    let yard = Yard::new();
    symlink(yard.victim.join("keep"), yard.path.join(FILE_BESIDE)).unwrap();
    symlink(&yard.victim, yard.path.join(LINK_BESIDE)).unwrap();
    yard.pod
        .replace("ini", b"own", 0o640, Owner::default())
        .unwrap();
    yard.pod.link("elsewhere", "ini").unwrap();
    assert_eq!(yard.pod.link_target("ini").as_deref(), Some("elsewhere"));
    assert!(yard.unharmed());
}

#[test]
fn a_tree_with_links_to_elsewhere_is_removed_and_elsewhere_stays() {
    let yard = Yard::new();
    fs::create_dir_all(yard.path.join("tree/a/b/c")).unwrap();
    fs::write(yard.path.join("tree/a/b/c/file"), "x").unwrap();
    for place in ["tree", "tree/a", "tree/a/b"] {
        symlink(&yard.victim, yard.path.join(place).join("out")).unwrap();
    }
    fs::create_dir_all(yard.path.join("tree/..gone-1/..gone-2")).unwrap();
    yard.pod.remove("tree").unwrap();
    assert!(yard.pod.names().unwrap().is_empty());
    assert!(yard.unharmed());
}

#[test]
fn a_tree_deeper_than_there_are_descriptors_is_removed() {
    let yard = Yard::new();
    let mut at = yard.pod.make("deep", 0o700, Owner::default()).unwrap();
    for _ in 0..3_000 {
        at = at.make("d", 0o700, Owner::default()).unwrap();
    }
    yard.pod.remove("deep").unwrap();
    assert!(yard.pod.names().unwrap().is_empty());
}

#[test]
fn only_regular_files_within_a_bound_are_read() {
    let yard = Yard::new();
    let fifo = rustix::fs::mknodat(&yard.pod, "fifo", rustix::fs::FileType::Fifo, Mode::RWXU, 0);
    fifo.unwrap();
    assert!(yard.pod.read("fifo", 9).is_err(), "and nothing waits");
    fs::write(yard.path.join("long"), "0123456789").unwrap();
    assert!(yard.pod.read("long", 9).is_err());
    assert_eq!(yard.pod.read("long", 10).unwrap(), b"0123456789");
}

#[test]
fn a_path_within_a_directory_may_use_its_links_and_never_leave() {
    let yard = Yard::new();
    fs::create_dir(yard.path.join("sub")).unwrap();
    fs::write(yard.path.join("sub/file"), "inside").unwrap();
    symlink("sub", yard.path.join("alias")).unwrap();
    symlink("../victim", yard.path.join("out")).unwrap();
    let read = |path: &str| {
        let file = open_within(&yard.pod, Path::new(path), OFlags::RDONLY)?;
        read_regular(&file, 99)
    };
    assert_eq!(read("alias/file").unwrap(), b"inside");
    assert!(read("out/keep").is_err());
    assert!(read("../victim/keep").is_err());
    assert!(read(&yard.victim.join("keep").display().to_string()).is_err());
}
