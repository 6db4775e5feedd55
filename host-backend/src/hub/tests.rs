//! The port against real TLS clients.
