//! Kubernetes' rules for names that become file names, in the words of kube-apiserver. Pure.
//!
//! The API server applies them at admission, and the runner again before it writes a file.

/// Longest DNS label (RFC 1123).
const LABEL_MAX: usize = 63;
/// Longest key of a Secret or `ConfigMap`.
const KEY_MAX: usize = 253;
/// Longest path below a volume, as the kernel has it.
const PATH_MAX: usize = 4096;
/// Longest file name.
const NAME_MAX: usize = 255;

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
     characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
     '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
     '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
     '[-._a-zA-Z0-9]+')";

/// The rule that a DNS label breaks, if it breaks one.
pub fn dns_label(text: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = text.as_bytes();
    if bytes.len() > LABEL_MAX {
        return Err(format!("must be no more than {LABEL_MAX} characters"));
    }
    let sound = !bytes.is_empty()
        && bytes.iter().all(|byte| inner(*byte))
        && !text.starts_with('-')
        && !text.ends_with('-');
    if sound {
        Ok(())
    } else {
        Err(LABEL_RULE.to_owned())
    }
}

/// The rule that a key of `data` breaks, if it breaks one.
pub fn data_key(key: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if key.len() > KEY_MAX {
        return Err(format!("must be no more than {KEY_MAX} characters"));
    }
    if key.is_empty() || !key.bytes().all(inner) {
        return Err(KEY_RULE.to_owned());
    }
    match key {
        "." => Err("must not be '.'".to_owned()),
        ".." => Err("must not be '..'".to_owned()),
        _ if key.starts_with("..") => Err("must not start with '..'".to_owned()),
        _ => Ok(()),
    }
}

/// The rule that the path of a projected file breaks: it stays in its volume, and leaves the names
/// with two dots to the runner.
pub fn projected_path(path: &str) -> Result<(), String> {
    descending_path(path)?;
    if path.starts_with("..") {
        return Err("must not start with '..'".to_owned());
    }
    let named = |part: &str| !part.is_empty() && part != ".";
    if path.split('/').all(named) {
        Ok(())
    } else {
        Err("must name a file: no empty part, and no '.'".to_owned())
    }
}

/// The rule that a relative path breaks: it stays below where it begins.
pub fn descending_path(path: &str) -> Result<(), String> {
    if path.starts_with('/') {
        return Err("must be a relative path".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        return Err("must not contain '..'".to_owned());
    }
    printable(path)?;
    if path.len() > PATH_MAX || path.split('/').any(|part| part.len() > NAME_MAX) {
        return Err(format!(
            "must be no more than {PATH_MAX} bytes, and each of its parts no more than {NAME_MAX}"
        ));
    }
    Ok(())
}

/// The rule that the path of a mount in the container breaks.
pub fn mount_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("must be an absolute path".to_owned());
    }
    if path.contains(':') {
        return Err("must not contain ':'".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        return Err("must not contain '..'".to_owned());
    }
    printable(path)
}

/// The rule that the path of a directory of the machine breaks.
pub fn host_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("must be an absolute path on the local platform".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        return Err("must not contain '..'".to_owned());
    }
    printable(path)
}

/// Control characters would end a line of the ini that names the path.
fn printable(path: &str) -> Result<(), String> {
    if path.chars().any(char::is_control) {
        Err("must not contain control characters".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_no_slash_no_dot_and_no_capital() {
        for sound in ["a", "server-cert", "0", &"a".repeat(63)] {
            assert_eq!(dns_label(sound), Ok(()), "{sound}");
        }
        for broken in [
            "",
            "/abs/keep",
            "../../keep",
            "..",
            ".",
            "a.b",
            "A",
            "-a",
            "a-",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(dns_label(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_key_is_one_file_name_that_is_not_the_runners() {
        for sound in ["tls.key", "A_b-c.9", ".hidden", "a..b", &"k".repeat(253)] {
            assert_eq!(data_key(sound), Ok(()), "{sound}");
        }
        for broken in [
            "",
            ".",
            "..",
            "..data",
            "../up",
            "a/b",
            "a\nb",
            "a\0b",
            "é",
            &"k".repeat(254),
        ] {
            assert!(data_key(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_path_below_a_volume_never_climbs() {
        for sound in ["a", "deep/key.pem", "a..b/c", ".x"] {
            assert_eq!(projected_path(sound), Ok(()), "{sound}");
        }
        for broken in [
            "", "/a", "..", "../a", "a/../b", "a/..", "..data", "a//b", "a/", "./a", "a\nb",
        ] {
            assert!(projected_path(broken).is_err(), "{broken:?}");
        }
        assert!(projected_path(&format!("a/{}", "b".repeat(256))).is_err());
        assert_eq!(descending_path("a/b"), Ok(()));
        assert!(descending_path("a/../../b").is_err());
        assert!(descending_path("/a").is_err());
    }

    #[test]
    fn a_mount_is_absolute_and_has_no_colon() {
        assert_eq!(mount_path("/etc/config"), Ok(()));
        for broken in ["", "etc", "/a:b", "/a/../b", "/a\nb"] {
            assert!(mount_path(broken).is_err(), "{broken:?}");
        }
    }
}
