//! Points of elliptic curves: the public half where a key lacks it, and the long form of one that is written
//! short. ring does neither.

use super::Curve;

/// The public half of `scalar`; `None` where it is out of range.
pub(super) fn public_half(curve: Curve, scalar: &[u8]) -> Option<Vec<u8>> {
    match curve {
        Curve::P256 => {
            let key = p256::SecretKey::from_slice(scalar).ok()?;
            Some(long_p256(&key.public_key()))
        }
        Curve::P384 => {
            let key = p384::SecretKey::from_slice(scalar).ok()?;
            Some(long_p384(&key.public_key()))
        }
    }
}

/// The long form of a point; `None` where it is not on the curve.
pub(super) fn long_form(curve: Curve, point: &[u8]) -> Option<Vec<u8>> {
    match curve {
        Curve::P256 => p256::PublicKey::from_sec1_bytes(point)
            .ok()
            .map(|key| long_p256(&key)),
        Curve::P384 => p384::PublicKey::from_sec1_bytes(point)
            .ok()
            .map(|key| long_p384(&key)),
    }
}

fn long_p256(key: &p256::PublicKey) -> Vec<u8> {
    use p256::elliptic_curve::sec1::ToSec1Point as _;
    key.to_sec1_point(false).as_bytes().to_vec()
}

fn long_p384(key: &p384::PublicKey) -> Vec<u8> {
    use p384::elliptic_curve::sec1::ToSec1Point as _;
    key.to_sec1_point(false).as_bytes().to_vec()
}
