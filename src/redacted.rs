//! Secrets that do not print.
//!
//! [`Redacted`] holds private keys, passwords and tokens. It has no `Display` and no `Serialize`;
//! `Debug` writes `<redacted>`; the memory is zeroed when it is dropped. Reading the value is a
//! visible act: [`Redacted::expose`].

use std::fmt;

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
    fn a_secret_does_not_print() {
        let secret = Redacted::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "<redacted>");
        assert_eq!(secret.expose(), "hunter2");
    }
}
