//! The FTP grammar and the state of one control connection (RFC 959, RFC 2428).
#![forbid(unsafe_code)]
