//! Validated names and numbers: one fallible constructor each, private fields, no bare `&str`
//! names inside the program.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name that also has to be a DNS label or a label value (RFC 1123).
pub const NAME_LABEL_MAX: usize = 63;

/// `name-suffix`, with `name` cut so that the whole stays within [`NAME_LABEL_MAX`] characters, and
/// trimmed of `-` (docs/kubedb-compatibility.md, "Names of objects").
pub fn name_with_suffix(name: &str, suffix: &str) -> String {
    let room = NAME_LABEL_MAX.saturating_sub(suffix.len() + 1);
    let cut: String = name.chars().take(room).collect();
    format!("{cut}-{suffix}").trim_matches('-').to_owned()
}

/// Whether `name` is a DNS label (RFC 1123), as names of namespaces are.
pub fn is_label(name: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=NAME_LABEL_MAX).contains(&name.len())
        && name.bytes().all(|byte| is_inner(&byte))
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Longest name of an object (RFC 1123, a subdomain).
pub const OBJECT_NAME_MAX: usize = 253;

/// Whether `name` is a DNS subdomain (RFC 1123), as names of Secrets, issuers and most objects are.
pub fn is_object_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(is_inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= OBJECT_NAME_MAX && name.split('.').all(is_part)
}

/// Whether `name` stays one segment of a URL's path. Names in specifications become parts of paths at
/// the API server, and one with a slash would lead to another object, in another namespace too.
pub fn is_path_segment(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:*".contains(&byte);
    !name.is_empty() && name != "." && name != ".." && name.bytes().all(is_plain)
}

/// `text` as a label value: cut to [`NAME_LABEL_MAX`] characters, and ending in a letter or digit.
pub fn label_value(text: &str) -> String {
    let cut: String = text.chars().take(NAME_LABEL_MAX).collect();
    cut.trim_end_matches(|end: char| !end.is_ascii_alphanumeric())
        .to_owned()
}

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// Names the object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Where one list or watch looks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Area {
    /// All namespaces.
    Everywhere,
    /// One.
    Namespace(String),
}

impl Area {
    /// The areas that cover `namespaces`, none of them twice; one for everything if there are none.
    pub fn covering(namespaces: &[String]) -> BTreeSet<Self> {
        if namespaces.is_empty() {
            return BTreeSet::from([Self::Everywhere]);
        }
        namespaces.iter().cloned().map(Self::Namespace).collect()
    }

    /// Whether the objects of `namespace` are in it.
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Namespace(own) => own == namespace,
        }
    }
}

/// What a certificate is for (`tls.certificates[].alias`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alias {
    /// What the pooler shows to its clients.
    Server,
    /// What clients show to the pooler.
    Client,
    /// What the metrics exporter uses.
    MetricsExporter,
}

impl Alias {
    /// All aliases, in the order in which defaulting appends them.
    pub const ALL: [Self; 3] = [Self::Server, Self::Client, Self::MetricsExporter];

    /// The name in manifests and Secret names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::MetricsExporter => "metrics-exporter",
        }
    }

    /// The alias of that name; `None` for names the schema lets through but nobody knows.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alias| alias.as_str() == name)
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Number of an issued material, per PgBouncer and alias; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct Revision(u32);

impl Revision {
    /// The first revision.
    pub const FIRST: Self = Self(1);

    /// The revision with that number; 0 is none.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The one after this; `None` after the last that there can be.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl TryFrom<u32> for Revision {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("a revision has a number from 1 on")
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// SHA-256 of a certificate's DER encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Takes a SHA-256 digest.
    pub const fn from_sha256(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Reads what [`fmt::Display`] writes: 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        let mut digest = [0_u8; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256 fingerprint"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_to_leave_room_for_the_suffix() {
        assert_eq!(
            name_with_suffix("billing", "server-cert"),
            "billing-server-cert"
        );
        let long = name_with_suffix(&"b".repeat(80), "pods");
        assert_eq!(long.len(), NAME_LABEL_MAX);
        assert!(long.ends_with("b-pods"));
    }

    #[test]
    fn a_label_value_ends_as_kubernetes_asks() {
        assert_eq!(label_value("change-7"), "change-7");
        let long = format!("{}-.{}", "c".repeat(61), "x".repeat(90));
        assert_eq!(label_value(&long), "c".repeat(61));
        assert_eq!(label_value("-."), "");
    }

    #[test]
    fn a_name_that_would_lead_to_another_path_is_not_a_segment() {
        for name in ["till", "till-0", "a.b", "system:node", "*"] {
            assert!(is_path_segment(name), "{name}");
        }
        for name in [
            "", ".", "..", "../x", "a/b", "a%2fb", "a?b", "a#b", "a b", "a\\b", "\u{e9}",
        ] {
            assert!(!is_path_segment(name), "{name}");
        }
    }

    #[test]
    fn the_name_of_an_object_is_a_dns_subdomain() {
        for name in ["till", "till-0", "a.b", "1.18.0", &"a".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a.-b",
            "a-.b",
            "A",
            "a_b",
            "a b",
            "a/b",
            "../a",
            "a%2fb",
            "a?b",
            "a#b",
            "a:b",
            "*",
            "a\n",
            "\u{e9}",
            &"a".repeat(254),
        ] {
            assert!(!is_object_name(name), "{name}");
        }
    }

    #[test]
    fn after_the_last_revision_there_is_none() {
        let last = Revision::new(u32::MAX).unwrap();
        assert_eq!(last.next(), None);
        assert_eq!(Revision::FIRST.next(), Revision::new(2));
        assert!(serde_json::from_str::<Revision>("0").is_err());
    }

    #[test]
    fn a_fingerprint_reads_what_it_writes() {
        let print = Fingerprint::from_sha256([0xa7; 32]);
        assert_eq!(Fingerprint::parse(&print.to_string()), Some(print));
        assert_eq!(Fingerprint::parse("a7"), None);
    }
}
