//! Secrets that do not print.
//!
//! [`Redacted`] holds private keys, passwords and tokens. It has no `Display` and no `Serialize`;
//! `Debug` writes `<redacted>`; the memory is zeroed when it is dropped. Reading the value is a
//! visible act: [`Redacted::expose`].
//!
//! [`Wiped`] does the same for a whole Secret of the API.
//!
//! Some copies cannot be overwritten from here: the PKCS#8 document of a new EC key and the pairs that ring
//! signs with (ring has no way to), the JSON of a Secret on its way to or from the API server, and the
//! buffers of HTTP and TLS around it. `cli::memory` keeps all of them out of core dumps.

use std::fmt;
use std::ops::{Deref, DerefMut};

use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroize;

/// A value that must never be printed, logged or serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<T: Zeroize>(T);

impl<T: Zeroize> Redacted<T> {
    /// Takes the secret in.
    pub const fn new(secret: T) -> Self {
        Self(secret)
    }

    /// The secret itself. Every call is a place to look at in review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Redacted<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl<T: Zeroize> From<T> for Redacted<T> {
    fn from(secret: T) -> Self {
        Self::new(secret)
    }
}

/// A Secret whose values are overwritten when it is dropped, and of which `Debug` writes the name only.
pub struct Wiped(Secret);

impl From<Secret> for Wiped {
    fn from(secret: Secret) -> Self {
        Self(secret)
    }
}

impl Deref for Wiped {
    type Target = Secret;

    fn deref(&self) -> &Secret {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Secret {
        &mut self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        for value in self.0.data.iter_mut().flat_map(|data| data.values_mut()) {
            value.0.zeroize();
        }
        let texts = self.0.string_data.iter_mut();
        texts
            .flat_map(|data| data.values_mut())
            .for_each(Zeroize::zeroize);
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.metadata.name.as_deref().unwrap_or_default();
        write!(f, "Secret({name}, <redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Tells how often it was zeroed.
    struct Told(Rc<Cell<u32>>);

    impl Zeroize for Told {
        fn zeroize(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_secret_is_zeroed_when_it_is_dropped() {
        let zeroed = Rc::new(Cell::new(0));
        let secret = Redacted::new(Told(Rc::clone(&zeroed)));
        assert_eq!(zeroed.get(), 0);
        drop(secret);
        assert_eq!(zeroed.get(), 1);
    }

    #[test]
    fn a_secret_of_the_api_does_not_print_but_its_name() {
        let json = serde_json::json!({
            "metadata": {"name": "mint"}, "data": {"tls.key": "aHVudGVyMg=="},
            "stringData": {"note": "hunter2"},
        });
        let secret = Wiped::from(serde_json::from_value::<Secret>(json).unwrap());
        assert_eq!(format!("{secret:?}"), "Secret(mint, <redacted>)");
        assert_eq!(secret.data.as_ref().unwrap()["tls.key"].0, b"hunter2");
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Redacted::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "<redacted>");
        assert_eq!(secret.expose(), "hunter2");
    }
}
