//! Object identifiers, as the content octets of their DER encoding.

pub(super) const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
pub(super) const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
pub(super) const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
pub(super) const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
pub(super) const CURVE_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
pub(super) const CURVE_P384: &[u8] = &[0x2b, 0x81, 0x04, 0, 34];
pub(super) const CURVE_P521: &[u8] = &[0x2b, 0x81, 0x04, 0, 35];
pub(super) const ED25519: &[u8] = &[0x2b, 101, 112];

/// Algorithms and curves of keys that are not supported, with what they are called.
pub(super) const UNSUPPORTED: [(&[u8], &str); 15] = [
    (CURVE_P521, "ECDSA P-521"),
    (&[0x2b, 0x81, 0x04, 0, 10], "ECDSA secp256k1 (1.3.132.0.10)"),
    (&[0x2b, 0x81, 0x04, 0, 33], "ECDSA P-224"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1], "ECDSA P-192"),
    (&[0x2b, 36, 3, 3, 2, 8, 1, 1, 7], "ECDSA brainpoolP256r1"),
    (&[0x2b, 36, 3, 3, 2, 8, 1, 1, 11], "ECDSA brainpoolP384r1"),
    (&[0x2b, 36, 3, 3, 2, 8, 1, 1, 13], "ECDSA brainpoolP512r1"),
    (&[0x2b, 101, 110], "X25519"),
    (&[0x2b, 101, 111], "X448"),
    (&[0x2b, 101, 113], "Ed448"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], "RSA-PSS"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 17], "ML-DSA-44"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 18], "ML-DSA-65"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 19], "ML-DSA-87"),
];

/// id-RSASSA-PSS, as the signature's or the key's algorithm; the latter with absent parameters.
pub(super) const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
pub(super) const RSASSA_PSS_ALGORITHM: &[u8] =
    &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
pub(super) const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
pub(super) const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
pub(super) const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
pub(super) const SHA512: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];

/// The arcs that signatures by RSA and by ECDSA lie under.
pub(super) const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
pub(super) const ECDSA_SIGNATURES: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4];

pub(super) const DSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1];
pub(super) const DSA_SIGNATURES: [&[u8]; 3] = [
    &[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 3],
    &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 1],
    &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 2],
];

/// Signatures that OpenSSL refuses on certificates at security level 2.
pub(super) const WEAK_SIGNATURES: [(&[u8], &str); 5] = [
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 2],
        "RSA with MD2",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4],
        "RSA with MD5",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5],
        "RSA with SHA-1",
    ),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], "ECDSA with SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 3], "DSA with SHA-1"),
];

/// Other signatures that have names.
pub(super) const OTHER_SIGNATURES: [(&[u8], &str); 16] = [
    (DSA_SIGNATURES[1], "DSA with SHA-224"),
    (DSA_SIGNATURES[2], "DSA with SHA-256"),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11],
        "RSA with SHA-256",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12],
        "RSA with SHA-384",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13],
        "RSA with SHA-512",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 14],
        "RSA with SHA-224",
    ),
    (RSASSA_PSS, "RSASSA-PSS"),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1],
        "ECDSA with SHA-224",
    ),
    (ECDSA_WITH_SHA256, "ECDSA with SHA-256"),
    (ECDSA_WITH_SHA384, "ECDSA with SHA-384"),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
        "ECDSA with SHA-512",
    ),
    (ED25519, "Ed25519"),
    (&[0x2b, 101, 113], "Ed448"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 17], "ML-DSA-44"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 18], "ML-DSA-65"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 19], "ML-DSA-87"),
];
pub(super) const COMMON_NAME: &[u8] = &[0x55, 4, 3];
pub(super) const SERIAL_NUMBER: &[u8] = &[0x55, 4, 5];
pub(super) const COUNTRY: &[u8] = &[0x55, 4, 6];
pub(super) const LOCALITY: &[u8] = &[0x55, 4, 7];
pub(super) const PROVINCE: &[u8] = &[0x55, 4, 8];
pub(super) const STREET_ADDRESS: &[u8] = &[0x55, 4, 9];
pub(super) const ORGANIZATION: &[u8] = &[0x55, 4, 10];
pub(super) const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 4, 11];
pub(super) const POSTAL_CODE: &[u8] = &[0x55, 4, 17];

pub(super) const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 29, 14];
pub(super) const KEY_USAGE: &[u8] = &[0x55, 29, 15];
pub(super) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 29, 17];
pub(super) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 29, 19];
pub(super) const NAME_CONSTRAINTS: &[u8] = &[0x55, 29, 30];
pub(super) const CRL_DISTRIBUTION_POINTS: &[u8] = &[0x55, 29, 31];
pub(super) const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 29, 35];
pub(super) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 29, 37];
pub(super) const CERTIFICATE_POLICIES: &[u8] = &[0x55, 29, 32];
pub(super) const POLICY_MAPPINGS: &[u8] = &[0x55, 29, 33];
pub(super) const POLICY_CONSTRAINTS: &[u8] = &[0x55, 29, 36];
pub(super) const INHIBIT_ANY_POLICY: &[u8] = &[0x55, 29, 54];
pub(super) const NETSCAPE_CERT_TYPE: &[u8] = &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 1, 1];

pub(super) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(super) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

pub(super) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];

pub(super) const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
pub(super) const ACCESS_OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1];
pub(super) const ACCESS_CA_ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 2];

/// What RFC 5280 and others call an extension, else its dotted form.
pub(super) fn extension_name(identifier: &[u8], dotted: &str) -> String {
    let name = match identifier {
        SUBJECT_KEY_IDENTIFIER => "subjectKeyIdentifier",
        AUTHORITY_KEY_IDENTIFIER => "authorityKeyIdentifier",
        KEY_USAGE => "keyUsage",
        EXTENDED_KEY_USAGE => "extendedKeyUsage",
        BASIC_CONSTRAINTS => "basicConstraints",
        NAME_CONSTRAINTS => "nameConstraints",
        CERTIFICATE_POLICIES => "certificatePolicies",
        POLICY_MAPPINGS => "policyMappings",
        POLICY_CONSTRAINTS => "policyConstraints",
        INHIBIT_ANY_POLICY => "inhibitAnyPolicy",
        CRL_DISTRIBUTION_POINTS => "cRLDistributionPoints",
        AUTHORITY_INFO_ACCESS => "authorityInfoAccess",
        [0x55, 29, 18] => "issuerAltName",
        _ => dotted,
    };
    name.to_owned()
}
