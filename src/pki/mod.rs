//! The PKI core: keys, requests, profiles, signing, verification, trust; pure and synchronous.
