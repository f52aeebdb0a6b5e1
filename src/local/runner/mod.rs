//! One real process per pod.
