//! What a cert-manager `CertificateRequest` asks for: names and key from its PKCS#10 request, the
//! rest from its spec.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::ResourceExt;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_PKCS9_EXTENSION_REQUEST, OID_X509_EXT_SUBJECT_ALT_NAME};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::Request;
use crate::api::certmanager::CertificateRequest;
use crate::api::tls::IssuerRef;
use crate::duration::{GoDuration, ParseDurationError};
use crate::pki::csr::{self, CsrError};
use crate::pki::profile::{Subject, is_uri};

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
            namespace: asked.namespace().unwrap_or_default(),
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
        for extension in requested_extensions(&parsed)? {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                request.read_names(&names.general_names)?;
            }
        }
        Ok(request)
    }
}

/// All extensions that are asked for. One that is there twice, or that cannot be read, may become
/// something else in the certificate than what is judged here.
fn requested_extensions<'a>(
    parsed: &'a X509CertificationRequest<'a>,
) -> Result<Vec<&'a X509Extension<'a>>, RequestError> {
    let mut found: Vec<&X509Extension<'_>> = Vec::new();
    let mut n_lists = 0;
    for attribute in parsed.certification_request_info.iter_attributes() {
        let is_list = attribute.oid == OID_PKCS9_EXTENSION_REQUEST;
        n_lists += usize::from(is_list);
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(list) => found.extend(&list.extensions),
            _ if is_list => return Err(CsrError::Malformed.into()),
            _ => {}
        }
    }
    let unjudged = |what: String| Err(RequestError::Unjudged { what });
    if n_lists > 1 {
        return unjudged("two lists of extensions".to_owned());
    }
    for (index, extension) in found.iter().enumerate() {
        let oid = &extension.oid;
        if found.iter().skip(index + 1).any(|other| other.oid == *oid) {
            return unjudged(format!("the extension {oid} twice"));
        }
        let is_names = matches!(
            extension.parsed_extension(),
            ParsedExtension::SubjectAlternativeName(_)
        );
        if *oid == OID_X509_EXT_SUBJECT_ALT_NAME && !is_names {
            return unjudged(format!("the extension {oid} in a form that cannot be read"));
        }
    }
    Ok(found)
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
                GeneralName::URI(uri) if is_uri(uri) => self.uris.push((*uri).to_owned()),
                GeneralName::URI(_) => {
                    return Err(RequestError::Unjudged {
                        what: "a URI that is malformed".to_owned(),
                    });
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::key::{KeyAlgorithm, PrivateKey};

    /// A `subjectAltName` extension with that content.
    fn names(content: &[u8]) -> Vec<u8> {
        let mut extension = vec![0x30, 0, 0x06, 3, 0x55, 0x1d, 0x11, 0x04];
        extension.push(u8::try_from(content.len()).unwrap());
        extension.extend(content);
        extension[1] = u8::try_from(extension.len() - 2).unwrap();
        extension
    }

    /// What is made of a request with those attributes.
    fn judged(attributes: &[Vec<u8>]) -> Result<Request, String> {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pem = csr::assemble(&[0x30, 0], attributes, &key).unwrap();
        let asked: CertificateRequest = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "desk-1", "namespace": "shop"},
            "spec": {"request": STANDARD.encode(pem), "issuerRef": {"name": "first"}},
        }))
        .unwrap();
        Request::try_from(&asked).map_err(|error| error.to_string())
    }

    #[test]
    fn names_that_are_doubled_or_cannot_be_read_are_not_judged() {
        let one = |content: &[u8]| csr::extension_request(&[names(content)]);
        let dns = b"\x30\x05\x82\x03a.b";
        assert_eq!(judged(&[one(dns)]).unwrap().dns_names, ["a.b"]);
        assert_eq!(judged(&[]).unwrap().dns_names, [""; 0]);
        for (attributes, told) in [
            (
                vec![csr::extension_request(&[names(dns), names(dns)])],
                "the extension 2.5.29.17 twice",
            ),
            (vec![one(dns), one(dns)], "two lists of extensions"),
            (
                vec![one(b"\x04\x03a.b")],
                "the extension 2.5.29.17 in a form that cannot be read",
            ),
            (vec![one(b"\x30\x07\x82\x03a.b")], "cannot be read"),
            (
                vec![one(b"\x30\x05\x82\x03a\xffb")],
                "spec.request has the name",
            ),
            (vec![one(b"\x30\x05\x86\x03x:%")], "a URI that is malformed"),
            (vec![one(b"\x30\x05\x87\x03abc")], "cannot be read"),
            (
                vec![one(b"\x30\x03\x88\x01\x2a")],
                "spec.request has the name",
            ),
        ] {
            let error = judged(&attributes).unwrap_err();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
