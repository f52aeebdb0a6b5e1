//! Which URIs a certificate may carry: those that RFC 3986 allows and every reader can parse. Go refuses the
//! whole certificate for one that its `net/url` cannot parse, or whose host is not a domain name.

use std::net::Ipv6Addr;

/// Whether `text` is an absolute URI that every client can read.
pub(crate) fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let (before, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (hierarchy, query) = before.split_once('?').unwrap_or((before, ""));
    let (authority, path) = match hierarchy.strip_prefix("//") {
        Some(after) => {
            let slash = after.find('/').unwrap_or(after.len());
            (Some(&after[..slash]), &after[slash..])
        }
        None => (None, hierarchy),
    };
    is_scheme(scheme)
        && !rest.is_empty()
        && authority.is_none_or(is_authority)
        && consists_of(path, "/:@!$&'()*+,;=")
        && consists_of(query, "/?:@!$&'()*+,;=")
        && consists_of(fragment, "/?:@!$&'()*+,;=")
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Letters, digits, `-._~`, octets as `%41`, and what is in `others`.
fn consists_of(text: &str, others: &str) -> bool {
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        let is_good = match octet {
            b'%' => {
                let digits = [rest.next(), rest.next()];
                digits
                    .iter()
                    .all(|digit| digit.is_some_and(|d| d.is_ascii_hexdigit()))
            }
            other => {
                let c = char::from(other);
                c.is_ascii_alphanumeric() || "-._~".contains(c) || others.contains(c)
            }
        };
        if !is_good {
            return false;
        }
    }
    true
}

fn is_authority(text: &str) -> bool {
    // Go writes other characters of a user anew when it shows a URI, so that policies see another.
    let (user, place) = text.rsplit_once('@').unwrap_or(("", text));
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let Some((address, after)) = bracketed.split_once(']') else {
                return false;
            };
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("v6", port),
                None if after.is_empty() => ("v6", ""),
                None => return false,
            }
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
    let is_host = host.is_empty() && port.is_empty() || host.split('.').all(is_label);
    is_host
        && host.len() <= 247
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
        && port.len() <= 5
        && port.bytes().all(|digit| digit.is_ascii_digit())
        && !user.contains('%')
        && consists_of(user, ":$&+,;=")
}

#[cfg(test)]
mod tests {
    use super::is_uri;

    #[test]
    fn what_every_client_can_read_is_a_uri() {
        for uri in [
            "spiffe://treasury/clerk",
            "spiffe://cluster.local/ns/shop/sa/desk",
            "https://a.example:8443/x?y=1&z=%C3%A9#part",
            "http://user:pass@a.example/",
            "http://[2001:db8::1]:80/",
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "ldap://a_b.example/cn=x,o=y?z",
            "file:///etc/ssl",
            "mailto:ops@example.org",
            "X:y",
        ] {
            assert!(is_uri(uri), "{uri}");
        }
        for text in [
            "",
            "x:",
            "a/b",
            ":x",
            "1x:y",
            "x y:z",
            "https://a.example/%zz",
            "https://a.example/%4",
            "urn:%zz",
            "https://a%zz.example/",
            "https://a%41.example/",
            "https://a.example./",
            "https://a..b/",
            "https://.a/",
            "https://:80/",
            "https://a:b/",
            "https://a:1:2/",
            "https://[::1/",
            "https://[::1]x/",
            "https://[fe80::1%25eth0]/",
            "https://[a]/",
            "https://a b/",
            "https://a/<b>",
            "https://a/{b}",
            "https://a/b|c",
            "https://a/b\\c",
            "https://a/#b#c",
            "https://u%41@a/",
            "x:\u{fc}",
            "x:a\nb",
        ] {
            assert!(!is_uri(text), "{text}");
        }
        assert!(!is_uri(&format!("https://{}.example/", "a".repeat(64))));
    }
}
