//! The labels of PEM blocks. What is told of a document are these, and never the text that stood there.

use std::fmt;

/// The kinds of blocks that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// `CERTIFICATE`, and its old form `X509 CERTIFICATE`.
    Certificate,
    /// `TRUSTED CERTIFICATE`: OpenSSL's own form.
    TrustedCertificate,
    /// `CERTIFICATE REQUEST`, and its old form with `NEW`.
    CertificateRequest,
    /// `PRIVATE KEY`: PKCS#8.
    Pkcs8Key,
    /// `EC PRIVATE KEY`: SEC 1.
    EcKey,
    /// `RSA PRIVATE KEY`: PKCS#1.
    RsaKey,
    /// `ENCRYPTED PRIVATE KEY`: PKCS#8 with a passphrase.
    EncryptedKey,
    /// `DSA PRIVATE KEY`.
    DsaKey,
    /// `OPENSSH PRIVATE KEY`.
    OpensshKey,
    /// Any other label that ends in `PRIVATE KEY`.
    OtherKey,
    /// `PUBLIC KEY`.
    PublicKey,
    /// `RSA PUBLIC KEY`.
    RsaPublicKey,
    /// `EC PARAMETERS`.
    EcParameters,
    /// `DH PARAMETERS`.
    DhParameters,
    /// `X509 CRL`.
    Crl,
    /// `PKCS7`.
    Pkcs7,
    /// Any other label.
    Other,
}

/// A set of labels.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Labels(u32);

// === impl Label ===

impl Label {
    /// All labels, with the text that stands for each.
    const ALL: [(Self, &'static str); 17] = [
        (Self::Certificate, "CERTIFICATE"),
        (Self::TrustedCertificate, "TRUSTED CERTIFICATE"),
        (Self::CertificateRequest, "CERTIFICATE REQUEST"),
        (Self::Pkcs8Key, "PRIVATE KEY"),
        (Self::EcKey, "EC PRIVATE KEY"),
        (Self::RsaKey, "RSA PRIVATE KEY"),
        (Self::EncryptedKey, "ENCRYPTED PRIVATE KEY"),
        (Self::DsaKey, "DSA PRIVATE KEY"),
        (Self::OpensshKey, "OPENSSH PRIVATE KEY"),
        (Self::OtherKey, "a private key of another kind"),
        (Self::PublicKey, "PUBLIC KEY"),
        (Self::RsaPublicKey, "RSA PUBLIC KEY"),
        (Self::EcParameters, "EC PARAMETERS"),
        (Self::DhParameters, "DH PARAMETERS"),
        (Self::Crl, "X509 CRL"),
        (Self::Pkcs7, "PKCS7"),
        (Self::Other, "a block of another kind"),
    ];

    pub(super) fn read(name: &str) -> Self {
        let known = Self::ALL.iter().find(|(_, text)| *text == name);
        match (known, name) {
            (Some((label, _)), _) => *label,
            (None, "X509 CERTIFICATE") => Self::Certificate,
            (None, "NEW CERTIFICATE REQUEST") => Self::CertificateRequest,
            (None, name) if name.ends_with("PRIVATE KEY") => Self::OtherKey,
            (None, _) => Self::Other,
        }
    }

    /// How it is told: never as it was read.
    pub fn text(self) -> &'static str {
        let known = Self::ALL.iter().find(|(label, _)| *label == self);
        known.map_or("a block of another kind", |(_, text)| text)
    }

    /// Whether it may stand among certificates: a key with its parameters, as many tools write both into
    /// one document.
    pub(super) const fn is_beside_certificates(self) -> bool {
        self.is_private_key() || matches!(self, Self::EcParameters | Self::DhParameters)
    }

    /// What to do about it where certificates are wanted.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::TrustedCertificate => "write it as CERTIFICATE, as `openssl x509` does",
            Self::Pkcs7 => {
                "write its certificates one by one, as `openssl pkcs7 -print_certs` does"
            }
            _ => "remove it, or write CERTIFICATE if it is one",
        }
    }

    /// Whether it says that a private key follows, of whatever kind.
    pub(in crate::pki) const fn is_private_key(self) -> bool {
        matches!(
            self,
            Self::Pkcs8Key
                | Self::EcKey
                | Self::RsaKey
                | Self::EncryptedKey
                | Self::DsaKey
                | Self::OpensshKey
                | Self::OtherKey
        )
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Labels {
    pub(super) const fn insert(&mut self, label: Label) {
        self.0 |= 1 << label as u32;
    }

    fn contains(self, label: Label) -> bool {
        self.0 & (1 << label as u32) != 0
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut set = Self::default();
        labels.into_iter().for_each(|label| set.insert(label));
        set
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str(" (it has no PEM block)");
        }
        let found = Label::ALL.iter().filter(|(label, _)| self.contains(*label));
        let found: Vec<&str> = found.map(|(_, text)| *text).collect();
        write!(f, " (it has {})", found.join(", "))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Labels{self}")
    }
}
