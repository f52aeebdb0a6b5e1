//! A signing request in, `Issued · Pending · Denied · Failed` out.
