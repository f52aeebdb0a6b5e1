//! What a cert-manager `CertificateRequest` asks for: names and key from its PKCS#10 request, the
//! rest from its spec.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::ResourceExt;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::Request;
use crate::api::Located;
use crate::api::certmanager::CertificateRequest;
use crate::api::tls::IssuerRef;
use crate::duration::{GoDuration, ParseDurationError};
use crate::pki::csr::{self, CsrError};
use crate::pki::profile::Subject;

/// Why a `CertificateRequest` cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// `spec.request` is not base64 of text.
    #[error("spec.request is not the base64 of a PEM document")]
    Base64,
    /// The request in it cannot be read or does not prove its key.
    #[error("spec.request cannot be read")]
    Csr(#[from] CsrError),
    /// The request in it has something that no policy here can speak of.
    #[error("spec.request has {what}, which policies cannot judge here")]
    Unjudged {
        /// What.
        what: String,
    },
    /// `spec.duration` is no duration.
    #[error("spec.duration cannot be read")]
    Duration(#[from] ParseDurationError),
}

impl TryFrom<&CertificateRequest> for Request {
    type Error = RequestError;

    fn try_from(asked: &CertificateRequest) -> Result<Self, RequestError> {
        let spec = &asked.spec;
        let pem = STANDARD
            .decode(&spec.request)
            .ok()
            .and_then(|octets| String::from_utf8(octets).ok())
            .ok_or(RequestError::Base64)?;
        let key = csr::read(&pem)?.public_key.kind();
        let der = csr::read_der(&pem).map_err(CsrError::from)?;
        let (_, parsed) =
            X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
        let duration = spec.duration.as_deref().filter(|text| !text.is_empty());
        let duration = duration.map(str::parse::<GoDuration>).transpose()?;
        let issuer = &spec.issuer_ref;
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let mut request = Self {
            namespace: asked.home(),
            namespace_labels: BTreeMap::new(),
            name: asked.name_any(),
            issuer: IssuerRef {
                api_group: issuer.group.clone(),
                kind: named(&issuer.kind).unwrap_or_else(|| "Issuer".to_owned()),
                name: issuer.name.clone(),
            },
            common_name: None,
            subject: Subject::default(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            uris: Vec::new(),
            email_addresses: Vec::new(),
            usages: spec.usages.clone(),
            is_ca: spec.is_ca.unwrap_or_default(),
            duration: duration.map(GoDuration::to_time),
            key,
        };
        request.read_subject(&parsed.certification_request_info.subject)?;
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                request.read_names(&names.general_names)?;
            }
        }
        Ok(request)
    }
}

impl Request {
    fn read_subject(&mut self, subject: &X509Name<'_>) -> Result<(), RequestError> {
        for attribute in subject.iter_attributes() {
            let oid = attribute.attr_type().to_id_string();
            let unjudged = || RequestError::Unjudged {
                what: format!("the subject attribute {oid} twice or in an unknown form"),
            };
            let value = attribute.as_str().map_err(|_| unjudged())?.to_owned();
            let fields = &mut self.subject;
            match oid.as_str() {
                "2.5.4.3" if self.common_name.is_none() => self.common_name = Some(value),
                "2.5.4.5" if fields.serial_number.is_none() => fields.serial_number = Some(value),
                "2.5.4.6" => fields.countries.push(value),
                "2.5.4.7" => fields.localities.push(value),
                "2.5.4.8" => fields.provinces.push(value),
                "2.5.4.9" => fields.street_addresses.push(value),
                "2.5.4.10" => fields.organizations.push(value),
                "2.5.4.11" => fields.organizational_units.push(value),
                "2.5.4.17" => fields.postal_codes.push(value),
                _ => return Err(unjudged()),
            }
        }
        Ok(())
    }

    fn read_names(&mut self, names: &[GeneralName<'_>]) -> Result<(), RequestError> {
        for name in names {
            match name {
                GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(address) => {
                    self.email_addresses.push((*address).to_owned());
                }
                GeneralName::IPAddress(octets) => {
                    self.ip_addresses
                        .push(address(octets).ok_or(CsrError::Malformed)?);
                }
                other => {
                    return Err(RequestError::Unjudged {
                        what: format!("the name {other}"),
                    });
                }
            }
        }
        Ok(())
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}
