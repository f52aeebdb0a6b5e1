//! Kubernetes' protobuf, read only, for the kinds that `kubectl create secret|configmap|namespace|…`
//! and `kubectl drain` send in it. Everything else speaks JSON.
//!
//! A body is `k8s\0` and an envelope that names the kind and holds the object. Text that is empty
//! counts as not set, because the encoding cannot tell the two apart.

mod kinds;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use serde_json::{Map, Value, json};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What stands before every object.
const MAGIC: &[u8] = b"k8s\0";

/// A body that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It does not begin as Kubernetes' protobuf does, or ends too early.
    #[error("the body is no protobuf of Kubernetes: {0}")]
    Malformed(&'static str),
    /// A kind whose encoding is not known here.
    #[error("{kind} of {api_version} cannot be read from protobuf, send JSON")]
    UnknownKind {
        /// Version of the kind.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

/// The fields of a message that are read: number, name, type.
#[derive(Debug)]
struct Message(&'static [(u64, &'static str, Type)]);

/// What a field holds.
#[derive(Debug)]
enum Type {
    Text,
    Integer,
    Boolean,
    One(&'static Message),
    Texts,
    Many(&'static Message),
    TextMap,
    /// Binary values, which JSON shows in base64.
    BytesMap,
    IntOrString,
}

/// One field as it is on the wire.
#[derive(Clone, Copy)]
enum Wire<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The object in a body, with `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or(ProtobufError::Malformed("no envelope"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    each_field(envelope, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(type_meta)) => each_field(type_meta, |number, wire| {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                    (2, Wire::Bytes(text)) => kind = utf8(text)?,
                    _ => {}
                }
                Ok(())
            })?,
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
        Ok(())
    })?;
    let Some(message) = kinds::find(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = message.decode(raw)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

// === impl Message ===

impl Message {
    fn decode(&self, bytes: &[u8]) -> Result<Map<String, Value>, ProtobufError> {
        let mut object = Map::new();
        each_field(bytes, |number, wire| {
            match self.0.iter().find(|(known, ..)| *known == number) {
                Some((_, name, field)) => field.read(wire, name, &mut object),
                None => Ok(()),
            }
        })?;
        Ok(object)
    }
}

// === impl Type ===

impl Type {
    fn read(
        &self,
        wire: Wire<'_>,
        name: &str,
        object: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        let value = match (self, wire) {
            (Self::Text, Wire::Bytes([])) => return Ok(()),
            (Self::Text, Wire::Bytes(text)) => json!(utf8(text)?),
            (Self::Integer, Wire::Number(number)) => json!(number.cast_signed()),
            (Self::Boolean, Wire::Number(number)) => json!(number != 0),
            (Self::One(message), Wire::Bytes(bytes)) => Value::Object(message.decode(bytes)?),
            (Self::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
            (Self::Texts, Wire::Bytes(text)) => return push(object, name, json!(utf8(text)?)),
            (Self::Many(message), Wire::Bytes(bytes)) => {
                return push(object, name, Value::Object(message.decode(bytes)?));
            }
            (Self::TextMap, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                return put(object, name, key, json!(utf8(value)?));
            }
            (Self::BytesMap, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                let value = base64::engine::general_purpose::STANDARD.encode(value);
                return put(object, name, key, json!(value));
            }
            _ => return Err(ProtobufError::Malformed("a field has another type")),
        };
        object.insert(name.to_owned(), value);
        Ok(())
    }
}

fn push(object: &mut Map<String, Value>, name: &str, item: Value) -> Result<(), ProtobufError> {
    match object.entry(name).or_insert_with(|| json!([])) {
        Value::Array(items) => items.push(item),
        _ => return Err(ProtobufError::Malformed("a list has another type")),
    }
    Ok(())
}

fn put(
    object: &mut Map<String, Value>,
    name: &str,
    key: String,
    value: Value,
) -> Result<(), ProtobufError> {
    match object.entry(name).or_insert_with(|| json!({})) {
        Value::Object(map) => map.insert(key, value),
        _ => return Err(ProtobufError::Malformed("a map has another type")),
    };
    Ok(())
}

fn entry(bytes: &[u8]) -> Result<(String, &[u8]), ProtobufError> {
    let (mut key, mut value) = (String::new(), &[][..]);
    each_field(bytes, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    each_field(bytes, |field, wire| {
        match (field, wire) {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(int)) => number = int.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(if is_text { json!(text) } else { json!(number) })
}

/// Calls `read` with each field of a message.
fn each_field<'b>(
    mut bytes: &'b [u8],
    mut read: impl FnMut(u64, Wire<'b>) -> Result<(), ProtobufError>,
) -> Result<(), ProtobufError> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => Wire::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                Wire::Bytes(take(&mut bytes, length)?)
            }
            5 => Wire::Bytes(take(&mut bytes, 4)?),
            _ => return Err(ProtobufError::Malformed("unknown wire type")),
        };
        read(tag >> 3, wire)?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes
            .split_first()
            .ok_or(ProtobufError::Malformed("it ends early"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Malformed("a number is too long"))
}

fn take<'b>(bytes: &mut &'b [u8], length: u64) -> Result<&'b [u8], ProtobufError> {
    let split = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length));
    let (taken, rest) = split.ok_or(ProtobufError::Malformed("it ends early"))?;
    *bytes = rest;
    Ok(taken)
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed("text is not UTF-8"))
}
