//! Every path from an issuing CA to a root, shortest first.

use std::collections::{HashMap, VecDeque};

use super::certificate::{CaKind, Certificate};
use super::defect::Defect;
use crate::pki::chain::CHAIN_MAX;
use crate::pki::signature::Fit;

/// The CAs of a path: the ones that are served, less the leaf, and the root.
pub(in crate::pki) const CAS_MAX: usize = CHAIN_MAX;
/// Signatures that are verified for one issuing CA: 20 ms of RSA.
const CHECKS_MAX: usize = 256;
/// Paths that are begun. A document holds 512 certificates at most, and sound ones make fewer than ten.
const STEPS_MAX: usize = 1024;
/// Paths that are kept.
const PATHS_MAX: usize = 16;

/// Where the search ended without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pki) enum Stop {
    /// The issuer of a certificate did not come along.
    Missing {
        /// The certificate.
        subject: String,
        /// Its issuer.
        issuer: String,
    },
    /// A CA forbids so many below it.
    TooLong {
        /// The CA.
        above: String,
        /// How many it allows.
        path_length: u32,
    },
    /// The issuer is there and readers refuse it.
    Defect(Defect),
}

struct Search<'a> {
    pool: &'a [Certificate],
    /// For each certificate the first that has its key: a signature is verified once for each key.
    keys: Vec<usize>,
    fits: HashMap<(usize, usize), Fit>,
    /// The reason of the deepest dead end.
    stop: Option<(usize, Stop)>,
}

/// Finds the paths from each of `starts` to a self-signed root, as places in `pool`, issuing CA first,
/// shorter ones first. There is at least one, or a reason.
pub(in crate::pki) fn paths(
    pool: &[Certificate],
    starts: &[usize],
) -> Result<Vec<Vec<usize>>, Stop> {
    let same_key = |it: &Certificate| pool.iter().position(|first| first.spki == it.spki);
    let mut search = Search {
        pool,
        keys: pool.iter().filter_map(same_key).collect(),
        fits: HashMap::new(),
        stop: None,
    };
    let mut found: Vec<Vec<usize>> = Vec::new();
    let mut open: VecDeque<Vec<usize>> = starts.iter().map(|start| vec![*start]).collect();
    let mut n_steps = 0;
    while let Some(path) = open.pop_front() {
        n_steps += 1;
        if n_steps > STEPS_MAX || search.fits.len() > CHECKS_MAX {
            search.stop(usize::MAX, || too_many(pool, &path));
            break;
        }
        match search.extend(&path) {
            Step::Root => found.push(path),
            Step::Longer(above) => open.extend(above.into_iter().map(|above| {
                let mut longer = path.clone();
                longer.push(above);
                longer
            })),
        }
        if found.len() >= PATHS_MAX {
            break;
        }
    }
    match search.stop {
        _ if !found.is_empty() => Ok(found),
        Some((_, stop)) => Err(stop),
        None => Err(Stop::Missing {
            subject: String::new(),
            issuer: String::new(),
        }),
    }
}

enum Step {
    Root,
    Longer(Vec<usize>),
}

impl Search<'_> {
    fn extend(&mut self, path: &[usize]) -> Step {
        let pool = self.pool;
        let Some((&top, &first)) = path.last().zip(path.first()) else {
            return Step::Longer(Vec::new());
        };
        let below = &pool[top];
        if below.is_root() && self.fit(top, top) != Fit::Invalid {
            return Step::Root;
        }
        if path.len() >= CAS_MAX {
            self.stop(path.len(), || {
                Stop::Defect(Defect::TooDeep {
                    certificate: pool[first].subject(),
                    most: CAS_MAX,
                })
            });
            return Step::Longer(Vec::new());
        }
        // A cross-signed pair leads back to where it came from.
        let is_on_path = |candidate: &Certificate| {
            let mut path = path.iter().map(|at| &pool[*at]);
            path.any(|known| known.name == candidate.name && known.spki == candidate.spki)
        };
        let mut above = Vec::new();
        let mut why = None;
        for (at, candidate) in pool.iter().enumerate() {
            if candidate.name != below.issuer || is_on_path(candidate) {
                continue;
            }
            match self.judge(path, (top, at)) {
                Ok(()) => above.push(at),
                Err(None) => {}
                Err(Some(stop)) => why = why.or(Some(stop)),
            }
        }
        // Roots first, so that a short path is found within the bounds.
        above.sort_by_key(|at| !pool[*at].is_root());
        if above.is_empty() {
            self.stop(path.len(), || why.unwrap_or_else(|| missing(below)));
        }
        Step::Longer(above)
    }

    /// Whether the certificate at `at` issued the one at `top`, to every reader; `None` if it did not.
    fn judge(&mut self, path: &[usize], (top, at): (usize, usize)) -> Result<(), Option<Stop>> {
        let pool = self.pool;
        let (below, candidate) = (&pool[top], &pool[at]);
        let fit = self.fit(top, at);
        below
            .judge_fit(candidate, fit)
            .map_err(|defect| defect.map(Stop::Defect))?;
        if !candidate.may_issue() {
            return Err(Some(Stop::Defect(no_ca(candidate))));
        }
        let n_below = path.iter().filter(|at| !pool[**at].is_self_issued());
        let n_below = n_below.count();
        match candidate.path_length() {
            Some(path_length) if n_below as u64 > u64::from(path_length) => {
                Err(Some(Stop::TooLong {
                    above: candidate.subject(),
                    path_length,
                }))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn fit(&mut self, below: usize, above: usize) -> Fit {
        let (pool, key) = (self.pool, self.keys[above]);
        self.fits
            .entry((below, key))
            .or_insert_with(|| pool[below].fit_of(&pool[key]))
            .clone()
    }

    fn stop(&mut self, depth: usize, why: impl FnOnce() -> Stop) {
        if self.stop.as_ref().is_none_or(|(known, _)| *known < depth) {
            self.stop = Some((depth, why()));
        }
    }
}

/// Why a certificate that signed another cannot act as a CA.
pub(super) fn no_ca(certificate: &Certificate) -> Defect {
    let subject = certificate.subject();
    match certificate.ca_kind() {
        CaKind::NoCertSign => Defect::NoCertSign {
            certificate: subject,
        },
        CaKind::None | CaKind::RootOnly | CaKind::Full if certificate.is_version_1() => {
            Defect::Version1 {
                certificate: subject,
            }
        }
        CaKind::None | CaKind::RootOnly | CaKind::Full => Defect::NotCa {
            certificate: subject,
        },
    }
}

fn missing(below: &Certificate) -> Stop {
    if below.is_self_issued() {
        return Stop::Defect(Defect::Link {
            certificate: below.subject(),
        });
    }
    Stop::Missing {
        subject: below.subject(),
        issuer: below.issuer_name(),
    }
}

fn too_many(pool: &[Certificate], path: &[usize]) -> Stop {
    let first = path.first().map(|at| pool[*at].subject());
    Stop::Defect(Defect::TooMany {
        certificate: first.unwrap_or_default(),
        most: CHECKS_MAX,
    })
}
