//! A panic costs the object that it came from, and nothing else.
//!
//! Each look at one object is guarded: a panic ends that look, is counted, and is told on the object
//! with the place in the source. The panic's message is neither logged nor told, because a message of
//! the standard library may quote the text at fault, and that may be a key. What panics outside such a
//! guard is a fault of the daemon's own parts, and ends it.

use std::cell::Cell;
use std::fmt::{self, Display, Formatter};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, set_hook};
use std::sync::Arc;

use futures::FutureExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The parts of the daemon that look at objects one by one.
pub const PARTS: [&str; 5] = ["pgbouncers", "requests", "rotation", "inventory", "orphans"];

thread_local! {
    /// Where this thread has panicked last.
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
}

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    line: u32,
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Panicked(Option<Place>);

/// Counts panics that were caught. A clone counts the same.
#[derive(Clone, Debug)]
pub struct InternalErrors {
    caught: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    controller: &'static str,
}

/// Replaces the report of a panic: the log gets its place, and not its message.
pub fn install() {
    set_hook(Box::new(|panic| {
        let shown = Panicked(panic.location().map(Place::of));
        tracing::error!(place = %shown, "internal error");
        PLACE.set(shown.0);
    }));
}

impl Place {
    fn of(location: &Location<'_>) -> Self {
        Self {
            file: location.file().into(),
            line: location.line(),
        }
    }
}

impl Display for Panicked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(Place { file, line }) => write!(f, "panic at {file}:{line}"),
            None => f.write_str("panic at an unknown place"),
        }
    }
}

impl Default for InternalErrors {
    fn default() -> Self {
        let caught = Family::default();
        for controller in PARTS {
            drop(caught.get_or_create(&Labels { controller }));
        }
        Self { caught }
    }
}

/// Reads something; `None` if that panics, which the log tells.
pub fn readable<T>(read: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let place = Panicked(PLACE.take());
        tracing::error!(%place, "one object is not read");
        None
    })
}

impl InternalErrors {
    /// Registers the metric.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bouncert_internal_errors",
            "Looks at an object that a fault of the daemon's own ended (condition InternalError); \
             others are served, and the object is tried again at growing intervals",
            self.caught.clone(),
        );
    }

    /// Does something about one object; a panic in it is counted and returned.
    pub fn guard<T>(
        &self,
        controller: &'static str,
        work: impl FnOnce() -> T,
    ) -> Result<T, Panicked> {
        let done = catch_unwind(AssertUnwindSafe(work));
        done.map_err(|_| self.count(controller))
    }

    /// The same for a future.
    pub async fn guarded<T>(
        &self,
        controller: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, Panicked> {
        let done = AssertUnwindSafe(work).catch_unwind().await;
        done.map_err(|_| self.count(controller))
    }

    /// Counts a panic that a task ended with.
    pub fn count_one(&self, controller: &'static str) {
        let _counted = self.count(controller);
    }

    /// How often it was counted.
    pub fn caught(&self, controller: &'static str) -> u64 {
        self.caught.get_or_create(&Labels { controller }).get()
    }

    fn count(&self, controller: &'static str) -> Panicked {
        self.caught.get_or_create(&Labels { controller }).inc();
        let panicked = Panicked(PLACE.take());
        tracing::error!(controller, place = %panicked, "one object is given up for now");
        panicked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_counted_and_says_nothing_of_its_text() {
        let errors = InternalErrors::default();
        assert_eq!(errors.guard("rotation", || 7), Ok(7));
        let odd = errors.guard("rotation", || -> u8 { panic!("a secret text") });
        let panicked = odd.unwrap_err();
        assert!(!panicked.to_string().contains("secret"), "{panicked}");
        let late = async {
            tokio::task::yield_now().await;
            panic!("a secret text");
        };
        assert!(errors.guarded::<()>("rotation", late).await.is_err());
        assert_eq!(
            (errors.caught("rotation"), errors.caught("requests")),
            (2, 0)
        );
    }

    #[test]
    fn a_panic_that_was_caught_names_its_place() {
        let place = Place::of(Location::caller());
        let shown = Panicked(Some(place)).to_string();
        assert!(shown.contains("panics.rs:"), "{shown}");
    }
}
