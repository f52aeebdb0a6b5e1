//! Private keys: make, read, write, sign. They do not print and are zeroed when dropped; the copy with
//! which ring signs is not, because ring has no way to.

mod elliptic;
mod encoding;
mod public;
mod rsa_crate;

use std::fmt;
use std::sync::OnceLock;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use self::encoding::RsaNumbers;
pub use self::public::PublicKey;
use self::rsa_crate::OtherRsaKey;
use super::pem::{self, Label, PemError};
use crate::opaque::assert_opaque;
use crate::redacted::Redacted;

/// Smallest RSA modulus that is accepted: below it, TLS libraries refuse the certificate.
pub const RSA_MIN_BITS: usize = 2048;
/// Largest RSA modulus that is signed with.
pub const RSA_MAX_BITS: usize = 4096;

/// Largest public exponent of RSA that readers take.
const EXPONENT_MAX_BITS: usize = 33;

/// Which key to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// ECDSA on the curve P-256: the default, because it is read everywhere and fast.
    #[default]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// RSA with a modulus of 2048 bits: what KubeDB issues.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
}

/// What a key that exists is; RSA may have sizes that nobody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on the curve P-256.
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa {
        /// Size of the modulus.
        bits: usize,
    },
    /// Anything else, by the dotted identifier of its algorithm (or curve): readable in a
    /// certificate, of no use for signing.
    Other(&'static str),
}

/// `privateKey.encoding`, as cert-manager means it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyEncoding {
    /// The traditional form of each kind: PKCS#1 for RSA, SEC 1 for ECDSA; Ed25519 has none and is
    /// written as PKCS#8.
    #[default]
    Pkcs1,
    /// PKCS#8 for every kind.
    Pkcs8,
}

const _: () = assert_opaque::<KeyError>();

/// Why a key could not be made or read. It carries nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The document is no PEM, or has no private key in it.
    #[error("cannot read a private key")]
    Document(#[from] PemError),
    /// The key is protected by a passphrase.
    #[error(
        "the private key is encrypted, and encrypted keys are not supported: store it without a passphrase, as `openssl pkey` writes it"
    )]
    Encrypted,
    /// Broken inside, or inconsistent.
    #[error("the private key is damaged: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// An algorithm or curve that is not supported.
    #[error(
        "a private key of kind {kind} is not supported: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits"
    )]
    Unsupported {
        /// What it is.
        kind: &'static str,
    },
    /// RSA below [`RSA_MIN_BITS`].
    #[error("an RSA key of {bits} bits is too small: at least {RSA_MIN_BITS} are needed")]
    TooSmall {
        /// Its size.
        bits: usize,
    },
    /// RSA above [`RSA_MAX_BITS`].
    #[error("an RSA key of {bits} bits is too large: at most {RSA_MAX_BITS} are supported")]
    TooLarge {
        /// Its size.
        bits: usize,
    },
    /// The system's source of randomness failed, or a generator gave up.
    #[error("cannot make a {algorithm} key: no randomness")]
    Generate {
        /// What was to be made.
        algorithm: KeyAlgorithm,
    },
    /// The signature could not be made.
    #[error("cannot sign with the {kind} key")]
    Sign {
        /// The key's kind.
        kind: KeyKind,
    },
}

/// A private key with its public half.
pub struct PrivateKey {
    material: Material,
    public: PublicKey,
    /// Made when the key first signs: the key of a leaf under a CA of ours never does.
    signer: OnceLock<Signer>,
}

/// The private numbers, each in the form that the encodings are built from.
enum Material {
    Ec {
        curve: Curve,
        scalar: Redacted<Vec<u8>>,
    },
    Ed25519 {
        seed: Redacted<Vec<u8>>,
    },
    /// `RSAPrivateKey` (RFC 8017 A.1.2).
    Rsa {
        pkcs1: Redacted<Vec<u8>>,
    },
}

enum Signer {
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    OtherRsa(Box<OtherRsaKey>),
}

/// The curves that ring signs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

// === impl PrivateKey ===

impl PrivateKey {
    /// Makes a new key from the system's randomness.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        match algorithm {
            KeyAlgorithm::EcdsaP256 => Self::generate_ec(Curve::P256, algorithm),
            KeyAlgorithm::EcdsaP384 => Self::generate_ec(Curve::P384, algorithm),
            KeyAlgorithm::Ed25519 => {
                let mut seed = Zeroizing::new(vec![0_u8; 32]);
                SystemRandom::new()
                    .fill(&mut seed)
                    .map_err(|_| KeyError::Generate { algorithm })?;
                Self::from_ed25519_seed(&seed)
            }
            KeyAlgorithm::Rsa2048 => Self::generate_rsa(2048, algorithm),
            KeyAlgorithm::Rsa3072 => Self::generate_rsa(3072, algorithm),
            KeyAlgorithm::Rsa4096 => Self::generate_rsa(4096, algorithm),
        }
    }

    /// Reads the first private key of a PEM document: PKCS#8, SEC 1 or PKCS#1.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::with_encoding(text).map(|(key, _)| key)
    }

    /// Reads the first private key of a PEM document, and tells how it was written.
    pub fn with_encoding(text: &str) -> Result<(Self, KeyEncoding), KeyError> {
        let block = pem::blocks(text)?.first("private key", Label::is_private_key)?;
        // The second is how OpenSSL before 1.0 wrote encrypted keys.
        if block.label == Label::EncryptedKey || block.is_encrypted {
            return Err(KeyError::Encrypted);
        }
        let der = block.contents();
        let key = match block.label {
            Label::Pkcs8Key => encoding::read_pkcs8(der)?,
            Label::EcKey => encoding::read_sec1(der)?,
            Label::RsaKey => Self::from_pkcs1(der)?,
            other => return Err(KeyError::Unsupported { kind: other.text() }),
        };
        let encoding = match block.label {
            Label::Pkcs8Key => KeyEncoding::Pkcs8,
            _ => KeyEncoding::Pkcs1,
        };
        Ok((key, encoding))
    }

    /// The key as PKCS#8, for rustls.
    pub fn to_pkcs8(&self) -> PrivateKeyDer<'static> {
        let (_, der) = encoding::write(self, KeyEncoding::Pkcs8);
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()))
    }

    /// Writes the key as a PEM document.
    pub fn to_pem(&self, encoding: KeyEncoding) -> Redacted<String> {
        let (label, der) = encoding::write(self, encoding);
        Redacted::new(pem::write_block(label, &der))
    }

    /// What the key is.
    pub fn kind(&self) -> KeyKind {
        self.public.kind()
    }

    /// The public half.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The public half as a DER `SubjectPublicKeyInfo`.
    pub fn public_key_der(&self) -> &[u8] {
        self.public.spki()
    }

    /// Signs `message` with the algorithm that [`PublicKey::signature_algorithm`] names.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Sign { kind: self.kind() };
        match self.signer()? {
            Signer::Ec(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(failed),
            Signer::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .map_err(failed)?;
                Ok(signature)
            }
            Signer::OtherRsa(key) => {
                let signature = key.sign(message);
                signature.ok_or_else(|| KeyError::Sign { kind: self.kind() })
            }
        }
    }

    fn generate_ec(curve: Curve, algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(curve.signing(), &SystemRandom::new())
            .map_err(|_| KeyError::Generate { algorithm })?;
        let numbers = encoding::EcNumbers::in_pkcs8(document.as_ref(), curve)?;
        // ring has just computed the public half from the scalar; a key that is read has to prove it.
        Ok(Self::of_ec_pair(&numbers))
    }

    fn generate_rsa(bits: usize, algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let pkcs1 = rsa_crate::pkcs1(bits).ok_or(KeyError::Generate { algorithm })?;
        Self::from_pkcs1(&pkcs1)
    }

    /// Takes numbers that somebody wrote, and proves that they belong together.
    fn from_ec(numbers: &encoding::EcNumbers) -> Result<Self, KeyError> {
        let key = Self::of_ec_pair(numbers);
        key.signer()?;
        Ok(key)
    }

    fn of_ec_pair(numbers: &encoding::EcNumbers) -> Self {
        Self {
            public: PublicKey::from_ec(numbers.curve, &numbers.public),
            material: Material::Ec {
                curve: numbers.curve,
                scalar: Redacted::new(numbers.scalar.to_vec()),
            },
            signer: OnceLock::new(),
        }
    }

    fn signer(&self) -> Result<&Signer, KeyError> {
        if let Some(signer) = self.signer.get() {
            return Ok(signer);
        }
        let signer = match &self.material {
            Material::Ec { curve, scalar } => ec_signer(*curve, scalar.expose(), &self.public)?,
            Material::Ed25519 { seed } => Signer::Ed25519(ed25519_pair(seed.expose())?),
            Material::Rsa { pkcs1 } => {
                rsa_signer(pkcs1.expose(), &RsaNumbers::read(pkcs1.expose())?)?
            }
        };
        Ok(self.signer.get_or_init(|| signer))
    }

    fn from_ed25519_seed(seed: &[u8]) -> Result<Self, KeyError> {
        let pair = ed25519_pair(seed)?;
        Ok(Self {
            public: PublicKey::from_ed25519(pair.public_key().as_ref()),
            material: Material::Ed25519 {
                seed: Redacted::new(seed.to_vec()),
            },
            signer: OnceLock::from(Signer::Ed25519(pair)),
        })
    }

    fn from_pkcs1(pkcs1: &[u8]) -> Result<Self, KeyError> {
        let numbers = RsaNumbers::read(pkcs1)?;
        let public = PublicKey::from_rsa(&numbers.public())?;
        if encoding::integer_bits(numbers.public_exponent) > EXPONENT_MAX_BITS {
            return Err(KeyError::Unsupported {
                kind: "RSA with a public exponent of more than 33 bits",
            });
        }
        let signer = rsa_signer(pkcs1, &numbers)?;
        Ok(Self {
            public,
            material: Material::Rsa {
                pkcs1: Redacted::new(pkcs1.to_vec()),
            },
            signer: OnceLock::from(signer),
        })
    }
}

fn ec_signer(curve: Curve, scalar: &[u8], public: &PublicKey) -> Result<Signer, KeyError> {
    EcdsaKeyPair::from_private_key_and_public_key(
        curve.signing(),
        scalar,
        public.bits(),
        &SystemRandom::new(),
    )
    .map(Signer::Ec)
    .map_err(|_| KeyError::Malformed {
        detail: "its private and public halves do not belong together",
    })
}

fn ed25519_pair(seed: &[u8]) -> Result<Ed25519KeyPair, KeyError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Malformed {
        detail: "an Ed25519 key has 32 bytes",
    })
}

fn rsa_signer(pkcs1: &[u8], numbers: &RsaNumbers<'_>) -> Result<Signer, KeyError> {
    let signer = if numbers.is_rings() {
        RsaKeyPair::from_der(pkcs1).ok().map(Signer::Rsa)
    } else {
        OtherRsaKey::new(numbers).map(|key| Signer::OtherRsa(Box::new(key)))
    };
    signer.ok_or(KeyError::Malformed {
        detail: "its RSA numbers do not belong together",
    })
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, <redacted>)", self.kind())
    }
}

// === impl KeyAlgorithm, KeyKind, Curve ===

impl KeyAlgorithm {
    /// What a key made so is.
    pub const fn kind(self) -> KeyKind {
        match self {
            Self::EcdsaP256 => KeyKind::EcdsaP256,
            Self::EcdsaP384 => KeyKind::EcdsaP384,
            Self::Ed25519 => KeyKind::Ed25519,
            Self::Rsa2048 => KeyKind::Rsa { bits: 2048 },
            Self::Rsa3072 => KeyKind::Rsa { bits: 3072 },
            Self::Rsa4096 => KeyKind::Rsa { bits: 4096 },
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa2048 => "RSA 2048",
            Self::Rsa3072 => "RSA 3072",
            Self::Rsa4096 => "RSA 4096",
        })
    }
}

impl KeyKind {
    /// Whether another key can be encrypted with it, as TLS 1.2 did with RSA.
    pub const fn enciphers(self) -> bool {
        matches!(self, Self::Rsa { .. })
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl Curve {
    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        }
    }
}

#[cfg(test)]
mod tests;
