//! Connection recovery.
