//! From what a PgBouncer wants to what a signer is asked for. Pure.

use crate::blueprint::certificates::{Usage, Wanted};
use crate::pki::profile::{LeafProfile, LeafUsage, Subject};

/// The profile that `wanted` asks an issuer for. A leaf that would outlive its CA is refused, unless
/// `bouncert.dev/outliving` says otherwise: the user is told which of the two lives to change, and
/// nothing expires earlier than was promised.
pub(super) fn leaf_profile(wanted: &Wanted) -> LeafProfile {
    let profile = &wanted.profile;
    let subject = profile.subject.clone();
    LeafProfile {
        common_name: Some(profile.common_name.clone()),
        subject: Subject {
            organizations: subject.organizations,
            organizational_units: subject.organizational_units,
            countries: subject.countries,
            localities: subject.localities,
            provinces: subject.provinces,
            street_addresses: subject.street_addresses,
            postal_codes: subject.postal_codes,
            serial_number: subject.serial_number,
        },
        dns_names: profile.dns_names.clone(),
        ip_addresses: profile.ip_addresses.clone(),
        uris: profile.uris.clone(),
        email_addresses: profile.email_addresses.clone(),
        usage: match profile.usage {
            Usage::ServerAndClient => LeafUsage::ServerAndClient,
            Usage::Server => LeafUsage::Server,
            Usage::Client => LeafUsage::Client,
        },
        lifetime: profile.duration,
        outliving: wanted.outliving,
    }
}
