//! Which verbs of this host need operators' approvals, and whether an order has them. What an
//! approval is and whose it is, `viworks_protocol::approval` says.

use viworks_protocol::approval::approvers;
use viworks_protocol::warrant::Warrant;
use viworks_signing::keys::PublicKey;

/// How many approvals a verb needs, and whose count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub approvals: u32,
    pub keys: Vec<PublicKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unapproved {
    #[error("the host's policy wants {wanted} approvals for {verb} and the warrant has {found}")]
    TooFew { verb: String, wanted: u32, found: usize },
    #[error("another release was approved than the one that is active here")]
    Release,
}

impl Demand {
    /// Whether enough listed keys approved this very order, which is to run as `digest`.
    ///
    /// # Errors
    /// How many did.
    pub fn met(&self, order: &Warrant, digest: &str) -> Result<(), Unapproved> {
        let found = approvers(order, &self.keys).len();
        if found < self.approvals as usize {
            return Err(Unapproved::TooFew { verb: order.verb.clone(), wanted: self.approvals, found });
        }
        // An order may allow other releases besides; nobody approved those. Taking back runs
        // none of them.
        if order.digest == digest || order.undo.is_some() { Ok(()) } else { Err(Unapproved::Release) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use viworks_protocol::approval::Approval;
    use viworks_protocol::id::CommandId;
    use viworks_protocol::warrant::Mode;
    use viworks_signing::keys::SecretKey;

    fn order() -> Warrant {
        Warrant {
            command: CommandId::new(1),
            verb: "delete_user".into(),
            plugin: "accounts".into(),
            digest: "ab".repeat(32),
            also: vec!["cd".repeat(32)],
            args_sha256: "ef".repeat(32),
            mode: Mode::Apply,
            caller: "alice".into(),
            approvals: Vec::new(),
            plans: Vec::new(),
            undo: None,
            not_before_ms: 0,
            expires_ms: 1,
            timeout_secs: 1,
            targets_root: "01".repeat(32),
            targets: 1,
        }
    }

    #[test]
    fn distinct_listed_keys_over_this_very_order_count() {
        let [a, b, stranger] = [(); 3].map(|()| SecretKey::generate());
        let demand = Demand { approvals: 2, keys: vec![a.public(), b.public()] };
        let (mut order, other) = (order(), order());
        let by = |order: &Warrant, key: &SecretKey| Approval::of(order).sign(key).unwrap();
        let few = |found| Err(Unapproved::TooFew { verb: "delete_user".into(), wanted: 2, found });
        for (approvals, met) in [
            (vec![], few(0)),
            (vec![by(&order, &a), by(&order, &a)], few(1)),
            (vec![by(&order, &a), by(&order, &stranger)], few(1)),
            (vec![by(&order, &a), by(&other, &b)], few(1)),
            (vec![by(&order, &a), by(&order, &b)], Ok(())),
        ] {
            order.approvals = approvals;
            assert_eq!(demand.met(&order, &order.digest), met);
        }
        assert_eq!(demand.met(&order, &order.also[0]), Err(Unapproved::Release), "nobody approved that one");
        // Approved as it was, it is no order to take another command back.
        order.undo = Some(CommandId::new(2));
        assert_eq!(demand.met(&order, &order.digest), few(0));
    }
}
