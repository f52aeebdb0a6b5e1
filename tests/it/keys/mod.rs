//! Invariant I7 where documents are read: no piece of a private key in an error, however the key is
//! damaged, and whatever field it is in.
//!
//! `mutant` makes the keys and finds what is left of them, `readers` are all ways in that need no
//! cluster, `cluster` are those through objects of the API, `errors` lists what users are told.

mod answers;
pub(crate) mod cluster;
mod errors;
mod mutant;
mod readers;
