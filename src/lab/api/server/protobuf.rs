//! Kubernetes' protobuf, as far as `kubectl` insists on it: the bodies of reviews, and of the small
//! objects that `kubectl create` makes.
//!
//! The envelope is `k8s\0` and a `runtime.Unknown` whose field 1 names the type and whose field 2 is
//! the object. Field numbers are those of the published `generated.proto` files.

use serde_json::{Map, Value, json};

/// The media type.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// A review's JSON from its protobuf; `None` when it is malformed.
pub(super) fn review(bytes: &[u8]) -> Option<Value> {
    let envelope = fields(bytes.strip_prefix(b"k8s\0")?)?;
    let object = fields(bytes_of(&envelope, 2)?)?;
    let mut review = json!({});
    let Some(spec) = bytes_of(&object, 2) else {
        return Some(review);
    };
    let spec = fields(spec)?;
    let mut out = Map::new();
    for (number, raw) in &spec {
        match (number, fields(raw)) {
            (1, Some(inner)) if is_message(raw, &inner) => {
                let names = [
                    "namespace",
                    "verb",
                    "group",
                    "version",
                    "resource",
                    "subresource",
                    "name",
                ];
                out.insert("resourceAttributes".to_owned(), texts(&inner, &names)?);
            }
            (1, _) => {
                let namespace = std::str::from_utf8(raw).ok()?;
                out.insert("namespace".to_owned(), json!(namespace));
            }
            (2, Some(inner)) => {
                out.insert(
                    "nonResourceAttributes".to_owned(),
                    texts(&inner, &["path", "verb"])?,
                );
            }
            _ => {}
        }
    }
    review["spec"] = Value::Object(out);
    Some(review)
}

/// The JSON of a Namespace, ConfigMap, Secret or ServiceAccount; `None` for anything else.
pub(super) fn object(bytes: &[u8]) -> Option<Value> {
    let envelope = fields(bytes.strip_prefix(b"k8s\0")?)?;
    let mut out = texts(&fields(bytes_of(&envelope, 1)?)?, &["apiVersion", "kind"])?;
    let kind = out["kind"].as_str()?.to_owned();
    let object = fields(bytes_of(&envelope, 2)?)?;
    let metadata = fields(bytes_of(&object, 1)?)?;
    let named: Vec<(u64, &[u8])> = metadata
        .iter()
        .filter(|(number, _)| *number <= 3)
        .copied()
        .collect();
    out["metadata"] = texts(&named, &["name", "generateName", "namespace"])?;
    for (number, field) in [(11, "labels"), (12, "annotations")] {
        if let Some(map) = map(&metadata, number, false)? {
            out["metadata"][field] = map;
        }
    }
    match kind.as_str() {
        "Namespace" | "ServiceAccount" => {}
        "ConfigMap" => {
            for (number, field) in [(2, "data"), (3, "binaryData")] {
                if let Some(map) = map(&object, number, number == 3)? {
                    out[field] = map;
                }
            }
        }
        "Secret" => {
            if let Some(map) = map(&object, 2, true)? {
                out["data"] = map;
            }
            if let Some(kind) = bytes_of(&object, 3) {
                out["type"] = json!(std::str::from_utf8(kind).ok()?);
            }
        }
        _ => return None,
    }
    Some(out)
}

/// A map field: `Some(None)` when it is not there; values in base64 where they are bytes.
#[expect(clippy::option_option, reason = "malformed and missing are different")]
fn map(message: &[(u64, &[u8])], number: u64, binary: bool) -> Option<Option<Value>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut map = Map::new();
    for (_, entry) in message.iter().filter(|(found, _)| *found == number) {
        let entry = fields(entry)?;
        let key = std::str::from_utf8(bytes_of(&entry, 1)?).ok()?;
        let value = bytes_of(&entry, 2).unwrap_or(b"");
        let value = if binary {
            json!(STANDARD.encode(value))
        } else {
            json!(std::str::from_utf8(value).ok()?)
        };
        map.insert(key.to_owned(), value);
    }
    Some((!map.is_empty()).then_some(Value::Object(map)))
}

/// A namespace is plain text in the place where other reviews have a message.
fn is_message(raw: &[u8], inner: &[(u64, &[u8])]) -> bool {
    raw.first().is_none_or(|byte| *byte < 0x20 || *byte >= 0x7f)
        && inner.iter().all(|(number, _)| (1..=9).contains(number))
        || raw.first() == Some(&0x0a)
}

fn texts(inner: &[(u64, &[u8])], names: &[&str]) -> Option<Value> {
    let mut out = Map::new();
    for (number, raw) in inner {
        let place = usize::try_from(*number).ok()?.checked_sub(1)?;
        if let Some(name) = names.get(place)
            && !raw.is_empty()
        {
            let text = std::str::from_utf8(raw).ok()?;
            out.insert((*name).to_owned(), json!(text));
        }
    }
    Some(Value::Object(out))
}

fn bytes_of<'a>(fields: &[(u64, &'a [u8])], number: u64) -> Option<&'a [u8]> {
    let (_, bytes) = fields.iter().find(|(found, _)| *found == number)?;
    Some(bytes)
}

/// The length-delimited fields of a message; numbers are skipped.
fn fields(mut rest: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                varint(&mut rest)?;
            }
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let bytes = rest.get(..length)?;
                rest = rest.get(length..)?;
                fields.push((key >> 3, bytes));
            }
            _ => return None,
        }
    }
    Some(fields)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn envelope(spec: &[u8]) -> Vec<u8> {
        let object = [field(1, b""), field(2, spec)].concat();
        [b"k8s\0".to_vec(), field(1, b""), field(2, &object)].concat()
    }

    #[test]
    fn reviews_are_read() {
        let attributes = [field(1, b"default"), field(2, b"get"), field(5, b"pods")].concat();
        assert_eq!(
            review(&envelope(&field(1, &attributes))).unwrap()["spec"],
            json!({"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}})
        );
        assert_eq!(
            review(&envelope(&field(1, b"default"))).unwrap()["spec"],
            json!({"namespace": "default"})
        );
        let path = [field(1, b"/metrics"), field(2, b"get")].concat();
        assert_eq!(
            review(&envelope(&field(2, &path))).unwrap()["spec"],
            json!({"nonResourceAttributes": {"path": "/metrics", "verb": "get"}})
        );
        assert_eq!(review(b"k8s\0\xff\xff"), None);
    }

    #[test]
    fn small_objects_are_read() {
        let kind = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let metadata = [field(1, b"one"), field(11, &entry)].concat();
        let map = [field(1, &metadata), field(2, &entry)].concat();
        let bytes = [b"k8s\0".to_vec(), field(1, &kind), field(2, &map)].concat();
        assert_eq!(
            object(&bytes).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "one", "labels": {"k": "v"}},
                "data": {"k": "v"},
            })
        );
    }
}
