//! How the parts of an object merge: which lists are sets or maps, which maps are one value.
//!
//! Custom resources say it in their schema. For the kinds Kubernetes brings itself `builtin`
//! holds what matters of it.

use serde_json::Value;

use super::builtin::{self, Field, Struct};
use super::node::{ListType, Node};

/// A place in an object, as far as merging is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a>(Of<'a>);

#[derive(Clone, Copy, Debug)]
enum Of<'a> {
    /// A custom resource as a whole: its metadata is Kubernetes', the rest is in the schema.
    Object(&'a Node),
    Schema(&'a Node),
    Struct(&'static Struct),
    Field(&'static Field),
    Unknown,
}

/// What a list is to server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind<'a> {
    /// One value, replaced as a whole.
    Atomic,
    /// Items are told apart by their value.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<Key<'a>>),
}

/// A field that tells the items of a list apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// Name of the field.
    pub name: &'a str,
    /// What it is where an item does not say.
    pub default: Option<Value>,
}

/// What a list is to a strategic merge patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// The patch's list takes the place of the object's.
    Replace,
    /// A list of plain values: those of the patch are added.
    MergeValues,
    /// Items with the same value of this field are merged.
    MergeBy(&'static str),
}

impl<'a> Shape<'a> {
    /// A kind that Kubernetes brings itself; group `""` is core.
    pub fn built_in(group: &str, kind: &str) -> Self {
        Self(builtin::find(group, kind).map_or(Of::Struct(&builtin::ANY_OBJECT), Of::Struct))
    }

    pub(crate) fn custom(root: &'a Node) -> Self {
        Self(Of::Object(root))
    }

    /// The shape of a field of what stands here.
    #[must_use]
    pub fn field(self, name: &str) -> Self {
        Self(match self.0 {
            Of::Object(_) if name == "metadata" => Of::Struct(&builtin::OBJECT_META),
            Of::Object(node) | Of::Schema(node) => match node.field(name) {
                Some(sub) if sub.embedded_resource => Of::Object(sub),
                Some(sub) => Of::Schema(sub),
                None => Of::Unknown,
            },
            Of::Struct(of) => of.field(name),
            Of::Field(_) | Of::Unknown => Of::Unknown,
        })
    }

    /// The shape of the items of the list that stands here.
    #[must_use]
    pub fn item(self) -> Self {
        Self(match self.0 {
            Of::Schema(node) => node.items.as_deref().map_or(Of::Unknown, Of::Schema),
            Of::Field(Field::List { item, .. }) => Of::Struct(item),
            _ => Of::Unknown,
        })
    }

    /// What the list that stands here is to server-side apply.
    pub fn list(self) -> ListKind<'a> {
        match self.0 {
            Of::Schema(node) => match &node.list {
                ListType::Atomic => ListKind::Atomic,
                ListType::Set => ListKind::Set,
                ListType::Map(names) => {
                    let item = node.items.as_deref();
                    let default = |name| item?.properties.get(name)?.default.clone();
                    let key = |name: &'a String| Key {
                        name,
                        default: default(name.as_str()),
                    };
                    ListKind::Map(names.iter().map(key).collect())
                }
            },
            Of::Field(Field::Set) => ListKind::Set,
            Of::Field(Field::List { keys: [_, ..], .. }) => self.built_in_keys(),
            _ => ListKind::Atomic,
        }
    }

    /// What the list that stands here is to a strategic merge patch.
    pub fn patch_list(self) -> PatchKind {
        match self.0 {
            Of::Field(Field::Set) => PatchKind::MergeValues,
            Of::Field(Field::List {
                merge: Some(key), ..
            }) => PatchKind::MergeBy(key),
            _ => PatchKind::Replace,
        }
    }

    /// Whether the map that stands here is one value.
    pub fn map_is_atomic(self) -> bool {
        match self.0 {
            Of::Schema(node) => node.map_is_atomic,
            Of::Field(field) => matches!(field, Field::Atomic),
            Of::Object(_) | Of::Struct(_) | Of::Unknown => false,
        }
    }

    /// Whether null is a value here rather than "not set".
    pub fn allows_null(self) -> bool {
        matches!(self.0, Of::Schema(node) if node.nullable)
    }

    fn built_in_keys(self) -> ListKind<'a> {
        let Of::Field(Field::List { keys, .. }) = self.0 else {
            return ListKind::Atomic;
        };
        let default = |name| (name == "protocol").then(|| Value::from("TCP"));
        let key = |name: &&'static str| Key {
            name,
            default: default(*name),
        };
        ListKind::Map(keys.iter().map(key).collect())
    }
}

impl Struct {
    fn field(&'static self, name: &str) -> Of<'static> {
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, Field::Object(of))) => Of::Struct(of),
            Some((_, field)) => Of::Field(field),
            None => Of::Unknown,
        }
    }
}
