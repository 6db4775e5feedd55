//! The scope of `containers`, judged on a container as it was just inspected: each rule by
//! its own name, so that a refusal says which.

use viworks_signing::grant::{ContainersScope, Granted};

use super::super::wit::viworks::gateway::containers::Filter;
use super::container::Container;

/// A rule's name, and what it lets pass.
pub(super) type Rule = (&'static str, fn(&ContainersScope, &Container, i64) -> bool);

/// A container exists for a plugin if these hold.
pub(super) const SEEN: [Rule; 2] = [
    ("containers.names", |scope, container, _| scope.names.match_any(&container.name)),
    ("containers.labels", |scope, container, _| scope.labels.iter().all(|label| container.has_label(label))),
];

/// It may be removed if these hold as well, and it does not run.
pub(super) const REMOVED: [Rule; 2] = [
    ("containers.remove_states", |scope, container, _| scope.remove_states.contains(&container.state)),
    ("containers.min_age_secs", |scope, container, now| container.age(now) >= scope.min_age_secs),
];

/// Whether every layer of the grant lets it pass.
pub(super) fn passes(granted: &Granted<ContainersScope>, rules: &[Rule], container: &Container, now: i64) -> bool {
    granted.scopes().all(|scope| rules.iter().all(|(_, rule)| rule(scope, container, now)))
}

/// Whether all conditions of a plugin's filter hold.
pub(super) fn matches(filter: &Filter, container: &Container, now: i64) -> bool {
    (filter.states.is_empty() || filter.states.contains(&container.state))
        && filter.labels.iter().all(|label| container.has_label(label))
        && filter.name.as_ref().is_none_or(|name| *name == container.name)
        && filter.older_than_secs.is_none_or(|secs| container.age(now) >= secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use viworks_signing::grant::{Grant, Patterns, Scopes};

    fn container() -> Container {
        Container {
            id: "a".repeat(64),
            name: "web-1".into(),
            image: "i".into(),
            state: "exited".into(),
            created: 100,
            stopped: Some(500),
            labels: [("tier".to_owned(), "test".to_owned())].into(),
        }
    }

    fn granted(change: impl Fn(&mut ContainersScope)) -> Granted<ContainersScope> {
        let mut scope = ContainersScope::default();
        change(&mut scope);
        let policy = Scopes { containers: Some(scope), ..Scopes::default() };
        let release = Scopes { containers: Some(ContainersScope::default()), ..Scopes::default() };
        Grant::of(&release, [], &policy).containers.unwrap()
    }

    #[test]
    fn each_rule_decides() {
        let seen = |g: &Granted<ContainersScope>| passes(g, &SEEN, &container(), 600);
        let removed = |g: &Granted<ContainersScope>, now| passes(g, &REMOVED, &container(), now);
        assert!(seen(&granted(|_| {})) && removed(&granted(|_| {}), 600));
        assert!(!seen(&granted(|s| s.names = Patterns::parse(["db-*"]).unwrap())));
        assert!(seen(&granted(|s| s.labels = vec!["tier".into(), "tier=test".into()])));
        assert!(!seen(&granted(|s| s.labels = vec!["tier=test".into(), "other".into()])));
        assert!(!seen(&granted(|s| s.labels = vec!["tier=prod".into()])));
        assert!(!removed(&granted(|s| s.remove_states = vec!["created".into()]), 600));
        let old = granted(|s| s.min_age_secs = 100);
        assert!(!removed(&old, 599) && removed(&old, 600), "its age counts from when it stopped");
    }

    #[test]
    fn all_conditions_of_a_filter_must_hold() {
        let filter = Filter {
            states: vec!["dead".into(), "exited".into()],
            labels: vec!["tier=test".into()],
            name: Some("web-1".into()),
            older_than_secs: Some(100),
        };
        assert!(matches(&filter, &container(), 600) && !matches(&filter, &container(), 599));
        for other in [
            Filter { states: vec!["dead".into()], ..filter.clone() },
            Filter { labels: vec!["tier=prod".into()], ..filter.clone() },
            Filter { name: Some("web".into()), ..filter.clone() },
        ] {
            assert!(!matches(&other, &container(), 600), "{other:?}");
        }
    }

    #[test]
    fn ages_never_wrap() {
        let young = Container { stopped: None, created: 1_000, ..container() };
        assert_eq!((young.age(500), young.age(1_007)), (0, 7));
    }
}
