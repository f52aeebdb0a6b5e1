//! The path that OpenSSL builds, and its checks of it: `X509_verify_cert` with its defaults, as libpq
//! and PgBouncer call it. `tests/it/readers` compares it with the program.
//!
//! OpenSSL looks for an issuer in its trust store first and, once it has taken one from there, nowhere
//! else. Of several it takes the first that is valid now, else the one that ends last. It goes by name,
//! key identifiers and the kind of the key, and ends at the first self-signed certificate of the store.
//! Only then it verifies signatures; where one does not fit it refuses.

use time::OffsetDateTime;

use super::certificate::{CaKind, Certificate, Usage};
use super::defect::Defect;
use super::names;
use super::search::no_ca;
use crate::pki::signature::Fit;

/// The certificates of a path, leaf first and root last.
pub(in crate::pki) type Path<'a> = Vec<&'a Certificate>;

/// Builds the path from the first of `served` into `store`, and checks it for `usage` at `at`. `is_known`
/// says which certificates are known to be signed by which.
pub(in crate::pki) fn verify<'a>(
    served: &'a [Certificate],
    store: &'a [Certificate],
    (usage, at): (Usage, OffsetDateTime),
    is_known: impl Fn(&Certificate, &Certificate) -> bool,
) -> Result<Path<'a>, Defect> {
    let path = build(served, store, at)?;
    check_extensions(&path, usage)?;
    check_strength(&path)?;
    check_signatures(&path, is_known)?;
    if let Some(certificate) = path.iter().find(|certificate| !certificate.is_valid_at(at)) {
        return Err(Defect::OutOfDate {
            certificate: certificate.subject(),
        });
    }
    names::check(&path)?;
    Ok(path)
}

fn build<'a>(
    served: &'a [Certificate],
    store: &'a [Certificate],
    at: OffsetDateTime,
) -> Result<Path<'a>, Defect> {
    let Some(leaf) = served.first() else {
        return Ok(Vec::new());
    };
    let mut path: Path<'a> = vec![leaf];
    let mut n_served = 1;
    let mut current = leaf;
    let mut is_in_store = false;
    // Every certificate enters a path once.
    for _ in 0..=served.len() + store.len() {
        if current.is_root() {
            break;
        }
        let trusted = best(store.iter(), current, at);
        let others = served.iter().filter(|other| !path.contains(other));
        let next = match trusted {
            Some(trusted) => Some((trusted, true)),
            None if is_in_store => None,
            None => best(others, current, at).map(|other| (other, false)),
        };
        let Some((next, from_store)) = next else {
            break;
        };
        if path.contains(&next) {
            break;
        }
        path.push(next);
        is_in_store |= from_store;
        n_served += usize::from(!from_store);
        current = next;
    }
    let no_root = || Defect::NoRoot {
        certificate: current.subject(),
        issuer: current.issuer_name(),
    };
    if !current.is_root() {
        let mut all = served.iter().chain(store);
        // The issuer may be there, and be another certificate of its name to OpenSSL.
        let near = all.find_map(|issuer| current.judge(issuer).err().flatten());
        return Err(match near {
            Some(defect) => defect,
            None if current.is_self_issued() => Defect::Link {
                certificate: current.subject(),
            },
            None => no_root(),
        });
    }
    // A root that was served counts if the very same is in the store.
    if n_served == path.len() && !store.contains(current) {
        return Err(no_root());
    }
    Ok(path)
}

fn best<'a>(
    candidates: impl Iterator<Item = &'a Certificate>,
    below: &Certificate,
    at: OffsetDateTime,
) -> Option<&'a Certificate> {
    let mut latest: Option<&Certificate> = None;
    for candidate in candidates.filter(|candidate| below.is_likely_of(candidate)) {
        if candidate.is_valid_at(at) {
            return Some(candidate);
        }
        if latest.is_none_or(|known| known.not_after < candidate.not_after) {
            latest = Some(candidate);
        }
    }
    latest
}

fn check_extensions(path: &[&Certificate], usage: Usage) -> Result<(), Defect> {
    let mut n_below = 0_u64;
    for (place, certificate) in path.iter().enumerate() {
        let subject = || certificate.subject();
        if let Some(extension) = &certificate.unreadable {
            return Err(Defect::Unreadable {
                certificate: subject(),
                extension: extension.clone(),
            });
        }
        if let Some(extension) = &certificate.critical {
            return Err(Defect::CriticalExtension {
                certificate: subject(),
                extension: extension.clone(),
            });
        }
        let is_last = place + 1 == path.len();
        let kind = certificate.ca_kind();
        let may_issue = kind == CaKind::Full || (kind == CaKind::RootOnly && is_last);
        if place > 0 && !may_issue {
            return Err(no_ca(certificate));
        }
        if !certificate.allows(usage) {
            return Err(Defect::Purpose {
                certificate: subject(),
                purpose: purpose(usage),
            });
        }
        if place == 0 && !certificate.may_shake_hands(usage) {
            return Err(Defect::KeyUsage {
                certificate: subject(),
                purpose: purpose(usage),
            });
        }
        if let Some(allowed) = certificate.path_length()
            && place > 1
            && n_below > u64::from(allowed)
        {
            return Err(Defect::PathLength {
                certificate: subject(),
                allowed,
            });
        }
        n_below += u64::from(place > 0 && !certificate.is_self_issued());
    }
    Ok(())
}

/// Security level 2: keys of CAs, and the signatures below the root.
fn check_strength(path: &[&Certificate]) -> Result<(), Defect> {
    for pair in path.windows(2) {
        let (below, above) = (pair[0], pair[1]);
        let weak = |algorithm| Defect::Weak {
            certificate: below.subject(),
            issuer: above.subject(),
            algorithm,
        };
        if let Some(bits) = above.rsa_bits().filter(|bits| *bits < 2048) {
            return Err(weak(format!("an RSA key of {bits} bits")));
        }
    }
    Ok(())
}

fn check_signatures(
    path: &[&Certificate],
    is_known: impl Fn(&Certificate, &Certificate) -> bool,
) -> Result<(), Defect> {
    for pair in path.windows(2) {
        let (below, above) = (pair[0], pair[1]);
        if is_known(below, above) {
            continue;
        }
        let (certificate, issuer) = (below.subject(), above.subject());
        match below.fit_of(above) {
            Fit::Valid => {}
            Fit::Invalid => {
                return Err(Defect::Namesake {
                    certificate,
                    issuer,
                });
            }
            Fit::Weak(algorithm) => {
                return Err(Defect::Weak {
                    certificate,
                    issuer,
                    algorithm,
                });
            }
            Fit::Unknown(algorithm) => {
                return Err(Defect::Algorithm {
                    certificate,
                    issuer,
                    algorithm,
                });
            }
        }
    }
    Ok(())
}

const fn purpose(usage: Usage) -> &'static str {
    match usage {
        Usage::Server => "serverAuth",
        Usage::Client => "clientAuth",
        Usage::Any => "a purpose",
    }
}
