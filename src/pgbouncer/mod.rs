//! The program: its ini file, userlist, admin console, and what it serves on the wire.
//!
//! `ini`, `userlist` and `version` are pure. The rest are edges: asynchronous, bounded by a timeout
//! that the caller gives, and reporting in words that fit a condition message.
//!
//! What the program really does is measured, not assumed (docs/pgbouncer-behaviour.md); three facts
//! shape everything here:
//!
//! * an ini file that does not parse turns TLS **off** at the next reload, so [`ini::check`] runs
//!   before anything is written;
//! * neither the answer to `RELOAD` nor `SHOW CONFIG` proves that new material is in force, so
//!   [`probe`] looks at the handshake;
//! * how a process may be stopped without cutting a transaction depends on its version, so
//!   [`drain`] asks for the version and never assumes it.

pub mod version;

pub mod ini;
pub mod userlist;

pub mod session;
pub mod tls;

pub mod console;
pub mod drain;
pub mod login;
pub mod probe;
pub mod reload;
pub mod stance;

pub use version::Version;
