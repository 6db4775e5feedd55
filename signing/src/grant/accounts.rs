//! The scope of `accounts`.

use super::Patterns;
use serde::{Deserialize, Serialize};

/// Which accounts may be made and touched. Root and system accounts never are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountsScope {
    /// Supplementary groups that may be given. None by default.
    pub groups: Patterns,
    pub uids: UidRange,
    /// Absolute paths; the first is the default.
    pub shells: Vec<String>,
    /// Homes are made in, and only in, this directory.
    pub home_root: String,
    pub names: Patterns,
    /// Whether password hashes may be set.
    pub password_hashes: bool,
}

/// Both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UidRange {
    pub min: u32,
    pub max: u32,
}

impl UidRange {
    #[must_use]
    pub fn contains(&self, uid: u32) -> bool {
        (self.min..=self.max).contains(&uid)
    }
}

impl Default for AccountsScope {
    fn default() -> Self {
        Self {
            groups: Patterns::default(),
            uids: UidRange { min: 1_000, max: 59_999 },
            shells: vec!["/bin/bash".into(), "/bin/sh".into(), "/usr/sbin/nologin".into()],
            home_root: "/home".into(),
            names: Patterns::any(),
            password_hashes: false,
        }
    }
}
