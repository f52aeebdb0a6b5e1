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

pub(super) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(super) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

pub(super) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];

pub(super) const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
pub(super) const ACCESS_OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1];
pub(super) const ACCESS_CA_ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 2];
