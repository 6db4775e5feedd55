//! Who asks, and the proof that they may. A [`Permit`] has one maker, which compares the
//! principal's role with the action's; what needs the right takes the type.

use std::marker::PhantomData;

use super::action::Action;
use crate::store::model::Role;

/// The holder of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub name: String,
    pub role: Role,
}

/// A principal that may do `A`.
#[derive(Debug, Clone)]
pub struct Permit<A: Action> {
    principal: Principal,
    action: PhantomData<A>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the role {} may not {action}", .principal.role.as_str())]
pub struct Forbidden {
    pub principal: Principal,
    pub action: &'static str,
}

impl<A: Action> Permit<A> {
    /// # Errors
    /// When the principal's role does not allow the action.
    pub fn grant(principal: Principal) -> Result<Self, Forbidden> {
        if A::ROLES.contains(&principal.role) {
            Ok(Self { principal, action: PhantomData })
        } else {
            Err(Forbidden { principal, action: A::NAME })
        }
    }

    /// The principal's name, as commands and the audit log record it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.principal.name
    }

    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}
