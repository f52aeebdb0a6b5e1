//! The controllers of one operator process, as a list.
