//! Roles and the actions that they may do. The table is here and nowhere else; an action
//! that is not listed for a role is refused. Duties are apart: who publishes plugins does
//! not thereby run them, and who runs them does not publish.

use crate::store::model::Role;

/// Something that needs a [`super::Permit`]. The list is closed.
pub trait Action: sealed::Sealed + Send + Sync + 'static {
    /// As refusals call it.
    const NAME: &'static str;
    /// The roles that may.
    const ROLES: &'static [Role];
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal: $($role:ident)*;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl sealed::Sealed for $name {}
        impl Action for $name {
            const NAME: &'static str = $text;
            const ROLES: &'static [Role] = &[$(Role::$role),*];
        }
    )*};
}

actions! {
    /// Look at agents, commands, verbs, plugins and metrics.
    Read = "read": Viewer Operator Publisher Admin;
    /// Run and cancel commands.
    Command = "command": Operator Admin;
    /// Publish plugins.
    Publish = "publish": Publisher Admin;
    /// Deactivate plugins, manage tokens, read the audit log.
    Administer = "administer": Admin;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        fn row<A: Action>() -> Vec<&'static str> {
            Role::ALL.iter().filter(|r| A::ROLES.contains(r)).map(|r| r.as_str()).collect()
        }
        assert_eq!(row::<Read>(), ["viewer", "operator", "publisher", "admin"]);
        assert_eq!(row::<Command>(), ["operator", "admin"]);
        assert_eq!(row::<Publish>(), ["publisher", "admin"]);
        assert_eq!(row::<Administer>(), ["admin"]);
    }
}
