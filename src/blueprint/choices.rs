//! What annotations choose about keys and lives, because KubeDB's schema has no field for it. Pure.

use kube::ResourceExt;

use super::certificates::error::WantedError;
use crate::api::PgBouncer;
use crate::api::annotations::{KEY_ALGORITHM, OUTLIVING, ROTATION_POLICY};
use crate::pki::key::KeyAlgorithm;
use crate::pki::profile::Outliving;

/// Whether a rotation makes a new key: cert-manager's `privateKey.rotationPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationPolicy {
    /// It does.
    #[default]
    Always,
    /// The key of the newest revision is certified again, if it is of the wanted kind.
    Never,
}

/// What the annotations of a PgBouncer choose for all its certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// Kind of new keys.
    pub algorithm: KeyAlgorithm,
    /// Whether a rotation makes a new key.
    pub rotation: RotationPolicy,
    /// What happens to a certificate that would outlive its CA.
    pub outliving: Outliving,
}

const ALGORITHMS: [(&str, KeyAlgorithm); 6] = [
    ("ECDSA-P256", KeyAlgorithm::EcdsaP256),
    ("ECDSA-P384", KeyAlgorithm::EcdsaP384),
    ("Ed25519", KeyAlgorithm::Ed25519),
    ("RSA-2048", KeyAlgorithm::Rsa2048),
    ("RSA-3072", KeyAlgorithm::Rsa3072),
    ("RSA-4096", KeyAlgorithm::Rsa4096),
];
const ROTATIONS: [(&str, RotationPolicy); 2] = [
    ("Always", RotationPolicy::Always),
    ("Never", RotationPolicy::Never),
];
const OUTLIVINGS: [(&str, Outliving); 2] =
    [("Refuse", Outliving::Refuse), ("Clamp", Outliving::Clamp)];

impl Choices {
    /// Reads the annotations; what is absent has its default.
    pub fn of(bouncer: &PgBouncer) -> Result<Self, WantedError> {
        Ok(Self {
            algorithm: choice(bouncer, KEY_ALGORITHM, &ALGORITHMS)?,
            rotation: choice(bouncer, ROTATION_POLICY, &ROTATIONS)?,
            outliving: choice(bouncer, OUTLIVING, &OUTLIVINGS)?,
        })
    }
}

fn choice<T: Copy + Default>(
    bouncer: &PgBouncer,
    annotation: &'static str,
    allowed: &[(&'static str, T)],
) -> Result<T, WantedError> {
    let Some(value) = bouncer.annotations().get(annotation) else {
        return Ok(T::default());
    };
    match allowed.iter().find(|(name, _)| name == value) {
        Some((_, chosen)) => Ok(*chosen),
        None => Err(WantedError::Annotation {
            annotation,
            value: value.clone(),
            allowed: allowed.iter().map(|(name, _)| *name).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::testing;

    #[test]
    fn annotations_choose_and_what_they_do_not_say_has_its_default() {
        let mut bouncer = testing::tls_bouncer("billing");
        assert_eq!(Choices::of(&bouncer), Ok(Choices::default()));
        for (name, value) in [
            (KEY_ALGORITHM, "Ed25519"),
            (ROTATION_POLICY, "Never"),
            (OUTLIVING, "Clamp"),
        ] {
            bouncer.annotations_mut().insert(name.into(), value.into());
        }
        let chosen = Choices {
            algorithm: KeyAlgorithm::Ed25519,
            rotation: RotationPolicy::Never,
            outliving: Outliving::Clamp,
        };
        assert_eq!(Choices::of(&bouncer), Ok(chosen));
    }

    #[test]
    fn a_choice_that_means_nothing_is_refused_with_those_that_do() {
        let mut bouncer = testing::tls_bouncer("billing");
        let annotations = bouncer.annotations_mut();
        annotations.insert(ROTATION_POLICY.into(), "Sometimes".into());
        let error = Choices::of(&bouncer).unwrap_err().to_string();
        assert_eq!(
            error,
            "annotation bouncert.dev/rotation-policy: \"Sometimes\" is none of Always, Never"
        );
    }
}
