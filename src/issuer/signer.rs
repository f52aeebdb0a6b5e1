//! What an issuer is, from the objects that say so, and what it signs: pure, no client, no clock.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use time::OffsetDateTime;

use super::{Issuance, IssuerError, IssuerName, SigningRequest};
use crate::api::certmanager::{CertManagerCondition, IssuerSpec, IssuerStatus};
use crate::names::ObjectRef;
use crate::opaque;
use crate::pki::authority::{CertificateAuthority, Serial, SignError, self_signed_leaf};
use crate::pki::bundle::TrustBundle;
use crate::pki::profile::Pointers;
use crate::printable::{QUOTE_MAX, printable};

/// How an issuer signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerKind {
    /// With the CA in that Secret.
    Ca {
        /// Namespace and name.
        secret: ObjectRef,
        /// What its spec wants in every certificate.
        pointers: Pointers,
    },
    /// Each certificate signs itself.
    SelfSigned,
    /// Vault signs; its spec, to be read.
    Vault(Value),
    /// Somebody else signs, through a `CertificateRequest`.
    Delegated {
        /// What the issuer's spec trusts, PEM; empty if it names nobody.
        roots: String,
    },
}

/// An issuer as it was read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Which issuer.
    pub name: IssuerName,
    /// Its spec.
    pub spec: IssuerSpec,
    /// Its status, if somebody keeps one.
    pub status: Option<IssuerStatus>,
    /// Its generation.
    pub generation: Option<i64>,
    /// Namespace of its Secrets.
    pub secret_namespace: String,
}

/// An issuer that is ready to sign.
#[derive(Debug)]
pub struct Signer {
    name: IssuerName,
    method: Method,
}

#[derive(Debug)]
enum Method {
    Ca {
        secret: ObjectRef,
        authority: Box<CertificateAuthority>,
    },
    SelfSigned,
}

// === impl Observed ===

impl Observed {
    /// How it signs.
    pub fn kind(&self) -> Result<IssuerKind, IssuerError> {
        let IssuerSpec {
            ca,
            self_signed,
            vault,
            acme,
            venafi,
        } = &self.spec;
        if let Some(ca) = ca {
            return Ok(IssuerKind::Ca {
                secret: ObjectRef::new(&self.secret_namespace, &ca.secret_name),
                pointers: Pointers {
                    crl_distribution_points: ca.crl_distribution_points.clone(),
                    ocsp_servers: ca.ocsp_servers.clone(),
                    issuing_certificate_urls: ca.issuing_certificate_urls.clone(),
                },
            });
        }
        if self_signed.is_some() {
            return Ok(IssuerKind::SelfSigned);
        }
        if let Some(vault) = vault {
            return Ok(IssuerKind::Vault(vault.clone()));
        }
        if acme.is_some() || venafi.is_some() {
            let bundle = |spec: &Option<Value>, at| bundle_at(spec.as_ref()?.pointer(at)?);
            let roots = bundle(acme, "/caBundle").or_else(|| bundle(venafi, "/tpp/caBundle"));
            return Ok(IssuerKind::Delegated {
                roots: roots.unwrap_or_default(),
            });
        }
        Err(IssuerError::NoMethod {
            issuer: self.name.clone(),
        })
    }

    /// What to change where an issuer elsewhere answers without its root.
    pub(super) fn root_remedy(&self) -> &'static str {
        let venafi = self.spec.venafi.as_ref();
        let tpp = venafi.and_then(|venafi| venafi.get("tpp"));
        match (&self.spec.acme, tpp) {
            (Some(_), _) => "write it into spec.acme.caBundle of the issuer",
            (None, Some(_)) => "write it into spec.venafi.tpp.caBundle of the issuer",
            (None, None) => "have the zone's issuing template send its chain with the root",
        }
    }

    /// What cert-manager, where it runs, says is missing: the message of a `Ready` condition that is
    /// `False` and about the present spec. Nobody sets the condition on the local platform, so that
    /// it is absent means nothing.
    pub fn is_held_back(&self) -> Option<String> {
        let conditions = &self.status.as_ref()?.conditions;
        let is_current = |condition: &&CertManagerCondition| {
            condition.observed_generation.is_none()
                || condition.observed_generation >= self.generation
        };
        conditions
            .iter()
            .find(|condition| condition.type_ == "Ready" && condition.status == "False")
            .filter(is_current)
            .map(|condition| {
                printable(
                    &opaque::words(condition.message.as_deref().unwrap_or_default()),
                    QUOTE_MAX * 4,
                )
            })
    }
}

/// PEM in base64.
fn bundle_at(encoded: &Value) -> Option<String> {
    let bytes = BASE64.decode(encoded.as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

// === impl Signer ===

impl Signer {
    /// A signer that has each certificate sign itself.
    pub const fn self_signed(name: IssuerName) -> Self {
        Self {
            name,
            method: Method::SelfSigned,
        }
    }

    /// A signer with the CA in `content`, which is what was found at `secret`.
    pub fn ca(
        name: IssuerName,
        secret: ObjectRef,
        content: Option<&Secret>,
        pointers: Pointers,
    ) -> Result<Self, IssuerError> {
        let Some(content) = content else {
            return Err(IssuerError::SecretNotFound {
                issuer: name,
                secret: Box::new(secret),
            });
        };
        let field = |field| text_of(&name, &secret, content, field);
        let missing = |field| IssuerError::FieldMissing {
            issuer: name.clone(),
            secret: Box::new(secret.clone()),
            field,
        };
        let certificate = field("tls.crt")?.ok_or_else(|| missing("tls.crt"))?;
        let key = field("tls.key")?.ok_or_else(|| missing("tls.key"))?;
        let authority = CertificateAuthority::load(certificate, key, field("ca.crt")?);
        match authority {
            Ok(authority) => Ok(Self {
                name,
                method: Method::Ca {
                    secret,
                    authority: Box::new(authority.with_pointers(pointers)),
                },
            }),
            Err(source) => Err(IssuerError::Authority {
                issuer: name,
                secret: Box::new(secret),
                source: Box::new(source),
            }),
        }
    }

    /// What clients will have to trust, where that is known before anything is signed: not for
    /// `selfSigned`, whose every certificate is an anchor of its own.
    pub fn anchors(&self) -> Option<&TrustBundle> {
        match &self.method {
            Method::Ca { authority, .. } => Some(authority.anchors()),
            Method::SelfSigned => None,
        }
    }

    /// Signs.
    pub fn sign(
        &self,
        request: &SigningRequest<'_>,
        serial: Serial,
        now: OffsetDateTime,
    ) -> Result<Issuance, IssuerError> {
        match &self.method {
            Method::Ca { secret, authority } => {
                let issued = authority
                    .sign(request.profile, request.key.public_key(), serial, now)
                    .map_err(|error| self.refusal(secret, error))?;
                Ok(Issuance {
                    chain: issued.chain,
                    anchors: issued.anchors,
                    clamped: issued.clamped,
                    signer: authority.facts_at(now).clone(),
                })
            }
            Method::SelfSigned => {
                let sign_error = |source| IssuerError::Sign {
                    issuer: self.name.clone(),
                    source: Box::new(source),
                };
                let issued = self_signed_leaf(request.profile, request.key, serial, now)
                    .map_err(sign_error)?;
                let signer = issued.anchors.facts().into_iter().next().ok_or_else(|| {
                    IssuerError::NoMethod {
                        issuer: self.name.clone(),
                    }
                })?;
                Ok(Issuance {
                    chain: issued.chain,
                    anchors: issued.anchors,
                    clamped: issued.clamped,
                    signer,
                })
            }
        }
    }

    /// That the CA itself is at fault is said with its Secret's name.
    fn refusal(&self, secret: &ObjectRef, error: SignError) -> IssuerError {
        let issuer = self.name.clone();
        match error {
            SignError::Authority(source) => IssuerError::Authority {
                issuer,
                secret: Box::new(secret.clone()),
                source: Box::new(source),
            },
            source @ (SignError::Profile(_)
            | SignError::OutlivesIssuer { .. }
            | SignError::Constraints(_)
            | SignError::Key(_)) => IssuerError::Sign {
                issuer,
                source: Box::new(source),
            },
        }
    }
}

fn text_of<'a>(
    issuer: &IssuerName,
    secret: &ObjectRef,
    content: &'a Secret,
    field: &'static str,
) -> Result<Option<&'a str>, IssuerError> {
    let bytes = content.data.as_ref().and_then(|data| data.get(field));
    bytes
        .filter(|bytes| !bytes.0.is_empty())
        .map(|bytes| std::str::from_utf8(&bytes.0))
        .transpose()
        .map_err(|_| IssuerError::NotText {
            issuer: issuer.clone(),
            secret: Box::new(secret.clone()),
            field,
        })
}
