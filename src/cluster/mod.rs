//! The only user of `kube::Client`: timeouts, field manager, compare-and-swap, events.
