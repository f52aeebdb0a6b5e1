//! The program: its ini file, userlist, admin console, and what it serves on the wire.
