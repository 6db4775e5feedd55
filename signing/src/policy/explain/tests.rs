//! Request, review, policy and grant side by side.

use super::*;
use crate::grant::{AccountsScope, Patterns, StateScope, UidRange};
use crate::policy::Sources;
use crate::review::{Allowance, statement};
use serde_json::json;

fn release() -> Release {
    let manifest = crate::manifest::tests::sample_manifest();
    crate::publish::build_release(&crate::fixture::sample(), &manifest).unwrap().predicate
}

fn policy(text: &str) -> Policy {
    Policy::parse(text, &Sources { known: &[], read: &|_| Err(String::new()) }).unwrap()
}

fn review(release: &Release, change: impl FnOnce(&mut Allowance)) -> Review {
    let mut allowance = Allowance::all(release);
    change(&mut allowance);
    statement(release, "", "", allowance, "2030-01-01T00:00:00Z", "").predicate
}

fn row<'a>(rows: &'a [Row], field: &str) -> &'a Row {
    rows.iter().find(|row| row.field == field).unwrap()
}

#[test]
fn each_layer_narrows_and_the_result_says_how_far() {
    let mut release = release();
    release.capabilities.accounts.as_mut().unwrap().uids = UidRange { min: 1_000, max: 59_999 };
    let policy = policy(
        "[capabilities.accounts]\ngroups = [\"docker\"]\nuids = { min = 20000, max = 29999 }\nshells = [\"/bin/sh\"]\n\
         [capabilities.state]\n[limits]\nmemory_mib = 4",
    );
    let review = review(&release, |allowance| {
        allowance.verbs.remove("put_thing");
        allowance.limits.cpu_ms = 7;
        allowance.capabilities.accounts.as_mut().unwrap().uids.max = 25_000;
    });
    let explained = policy.explain(&release, [&review]);
    let accounts = &explained.capabilities[0];
    assert!(accounts.granted && accounts.missing.is_empty());
    let groups = row(&accounts.fields, "groups");
    assert_eq!(
        (&groups.request, &groups.policy, &groups.result),
        (&json!(["*"]), &json!(["docker"]), &json!(["docker"]))
    );
    assert_eq!(row(&accounts.fields, "uids").result, json!({ "min": 20_000, "max": 25_000 }));
    assert_eq!(row(&accounts.fields, "shells").result, json!(["/bin/sh"]));
    assert_eq!(row(&explained.limits, "memory_mib").result, json!(4));
    assert_eq!(row(&explained.limits, "cpu_ms").result, json!(7));
    let state = &explained.capabilities[1];
    assert_eq!((state.granted, state.missing.as_slice()), (false, ["release", "review"].as_slice()));
    assert!(!explained.verbs.iter().find(|row| row.verb == "put_thing").unwrap().runs);

    let text = explained.to_string();
    for words in [
        "sample 1.2.0\nreviews: 1, and each must allow",
        "put_thing  changes the host for good; NOT ALLOWED by a review",
        "accounts: granted\n",
        "state: allowed, but not asked for",
        "20000 to 25000",
    ] {
        assert!(text.contains(words), "{words}\nin\n{text}");
    }
    let heading = text.lines().find(|line| line.contains("request")).unwrap();
    assert_eq!(heading.split_whitespace().collect::<Vec<_>>(), ["request", "review", "policy", "grant"]);
}

#[test]
fn what_is_not_granted_names_the_layers_that_lack_it() {
    let release = release();
    let no_review = review(&release, |allowance| allowance.capabilities = Scopes::default());
    let explained = policy("plugins = [\"other\"]").explain(&release, [&no_review]);
    let accounts = &explained.capabilities[0];
    assert_eq!((accounts.granted, accounts.missing.as_slice()), (false, ["review", "policy"].as_slice()));
    assert!(accounts.fields.iter().all(|row| row.result.is_null()));
    let text = explained.to_string();
    assert!(text.contains("NOT TAKEN: the policy takes no plugin \"sample\", only other"), "{text}");
    assert!(text.contains("accounts: NOT GRANTED: not in review and policy"), "{text}");
}

#[test]
fn what_is_explained_is_what_the_grant_does() {
    // The result of a field, where it can be written down, agrees with asking every layer.
    let scope = |groups: &[&str], min, max| Scopes {
        accounts: Some(AccountsScope {
            groups: Patterns::parse(groups.iter().copied()).unwrap(),
            uids: UidRange { min, max },
            ..AccountsScope::default()
        }),
        state: Some(StateScope { max_keys: min, max_kib: max }),
        ..Scopes::default()
    };
    let mut release = release();
    release.capabilities = scope(&["*"], 1_000, 3_000);
    let policy = Policy { scopes: scope(&["docker", "dev-*"], 2_000, 4_000), ..Policy::default() };
    let explained = policy.explain(&release, []);
    let grant = crate::grant::Grant::of(&release.capabilities, [], &policy.scopes);
    let accounts = grant.accounts.unwrap();
    let uids = &row(&explained.capabilities[0].fields, "uids").result;
    for uid in [1_999, 2_000, 3_000, 3_001] {
        let allowed = accounts.require("accounts.uids", |s| s.uids.contains(uid)).is_ok();
        let (min, max) = (uids["min"].as_u64().unwrap(), uids["max"].as_u64().unwrap());
        assert_eq!((min..=max).contains(&u64::from(uid)), allowed, "{uid}");
    }
    assert_eq!(row(&explained.capabilities[0].fields, "groups").result, json!(["docker", "dev-*"]));
    assert_eq!(row(&explained.capabilities[1].fields, "max_keys").result, json!(1_000));
}

#[test]
fn fields_meet_by_what_they_mean() {
    let two = |field: &str, a: Value, b: Value| meet::all(field, [a, Value::Null, b].iter());
    assert_eq!(two("stop", json!(true), json!(false)), json!(false));
    assert_eq!(two("min_age_secs", json!(5), json!(9)), json!(9), "the longer wait");
    assert_eq!(two("max_kib", json!(5), json!(9)), json!(5));
    assert_eq!(two("labels", json!(["a"]), json!(["b", "a"])), json!(["a", "b"]), "both are conditions");
    assert_eq!(two("names", json!(["a*"]), json!(["*b"])), json!({ "all": [["a*"], ["*b"]] }));
    assert_eq!(two("names", json!([]), json!(["*b"])), json!([]));
    assert_eq!(two("home_root", json!("/home"), json!("/srv")), json!([]));
    assert_eq!(two("uids", json!({"min": 1, "max": 2}), json!({"min": 3, "max": 4})), json!([]));
}
