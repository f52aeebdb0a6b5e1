//! What a running daemon shows of itself: metrics, what it believes, and whether it is ready.
//!
//! There is no global registry: whoever runs a daemon makes a [`Monitor`], the daemon's parts
//! register with it, and the admin server ([`super::admin`]) reads it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::clock::Clock;

/// Writes what the daemon believes, as a JSON document.
type State = Box<dyn Fn() -> String + Send + Sync>;

/// What a running daemon shows of itself. A clone shows the same.
#[derive(Clone, Default)]
pub struct Monitor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    registry: Mutex<Registry>,
    state: OnceLock<State>,
    is_ready: AtomicBool,
}

impl Monitor {
    /// A monitor of a daemon that is not ready, and of which only the program is known.
    pub fn new(clock: Clock) -> Self {
        let monitor = Self::default();
        monitor.register(|registry| registry.register_collector(Box::new(Program { clock })));
        monitor
    }

    /// Lets a part of the daemon register its metrics. Once per part: a second time would show them
    /// twice.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        let mut registry = self
            .0
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        register(&mut registry);
    }

    /// Says who writes what the daemon believes; the first one does.
    pub fn believe(&self, state: impl Fn() -> String + Send + Sync + 'static) {
        let _ = self.0.state.set(Box::new(state));
    }

    /// The daemon does its work from now on.
    pub fn ready(&self) {
        self.0.is_ready.store(true, Ordering::Release);
    }

    /// The daemon does not do its work any more, or not yet.
    pub fn not_ready(&self) {
        self.0.is_ready.store(false, Ordering::Release);
    }

    /// Whether the daemon does its work.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::Acquire)
    }

    /// All metrics, as OpenMetrics text.
    pub fn metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.write_metrics(&mut text)?;
        Ok(text)
    }

    /// Writes all metrics, as OpenMetrics text. Nobody else registers or reads any meanwhile.
    pub fn write_metrics(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let registry = self
            .0
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        text::encode(out, &registry)
    }

    /// What the daemon believes; `None` before it believes anything.
    pub fn state(&self) -> Option<String> {
        self.0.state.get().map(|state| state())
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

/// What there is to tell about the program itself.
#[derive(Debug)]
struct Program {
    clock: Clock,
}

impl Collector for Program {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut info = encoder.encode_descriptor(
            "bouncert_build_info",
            "The program that runs: always 1.",
            None,
            MetricType::Gauge,
        )?;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1_i64).encode(info.encode_family(&labels)?)?;
        let now = encoder.encode_descriptor(
            "bouncert_clock_timestamp_seconds",
            "The time on the daemon's clock when it was asked.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.clock.now().unix_timestamp()).encode(now)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_monitor_tells_version_and_time_before_anything_runs() {
        let monitor = Monitor::new(Clock::Fixed(datetime!(2031-04-05 06:07:08 UTC)));
        let text = monitor.metrics().unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!("bouncert_build_info{{version=\"{version}\"}} 1\n");
        assert!(text.contains(&expected), "{text}");
        assert!(
            text.contains("bouncert_clock_timestamp_seconds 1933135628\n"),
            "{text}"
        );
        assert!(!monitor.is_ready());
        assert_eq!(monitor.state(), None);
    }
}
