//! The store on a real database: grouped writes, what a kill leaves, pages, bounds.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::outcome::Outcome;
use viworks_protocol::warrant::Mode;

use super::Store;
use super::model::{
    AgentFilter, AuditEntry, Command, CommandFilter, CommandState, Counts, Decision, IdempotencyKey, InvocationState,
    Owner, PageOf, Plugin, Resolution, Role, Selector, Standing, Token,
};
use super::url::{DatabaseUrl, StoreUrl};
use super::write::{
    Acceptance, AgentHello, Horizon, NewCommand, NewPlugin, Note, Publication, Settlement, Target, Verdict,
};
use crate::testing::postgres::Server;
use crate::testing::{agent, hello, owner, report, sample};

const NOW: u64 = 1_800_000_000_000;

/// Where a test's store is.
pub(crate) enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(String),
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a directory"))
    }

    /// A new database of the process's own server.
    pub(crate) fn postgres() -> Self {
        static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start_with(false).expect("PostgreSQL"));
        Self::Postgres(SERVER.database().expect("a database"))
    }

    pub(crate) fn url(&self) -> StoreUrl {
        match self {
            Self::Sqlite(dir) => dir.path().join("viworks.db").into(),
            Self::Postgres(url) => StoreUrl::Postgres(Box::new(DatabaseUrl::new(url).options().expect("a URL"))),
        }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url()).await.expect("a store")
    }

    /// Past the store.
    pub(crate) async fn sql(&self, statement: &'static str) -> Result<(), sqlx::Error> {
        match self.url() {
            StoreUrl::Sqlite(file) => {
                let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await?;
                sqlx::raw_sql(statement).execute(&pool).await.map(drop)
            }
            StoreUrl::Postgres(options) => {
                let pool = sqlx::PgPool::connect_with(*options).await?;
                sqlx::raw_sql(statement).execute(&pool).await.map(drop)
            }
        }
    }
}

/// The same tests on both engines.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::Place::sqlite()).await; })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::Place::postgres()).await; })* }
    };
}

on_both! {
    a_command_is_stored_with_its_audit_entry_alone_and_in_a_group
    nobody_settles_anothers_and_nothing_twice
    one_alone_settles_as_many_do
    a_key_names_one_command
    one_bad_change_in_a_group_harms_no_other
    queued_expires_delivered_becomes_unknown
    cancelling_ends_what_no_agent_has
    claims_and_running_move_the_counts_once
    lists_are_pages_in_their_order
    agents_are_what_they_said_last
    samples_roll_up_and_go
    ended_commands_go_and_open_ones_stay
    tokens_are_found_by_hash_and_the_audit_record_only_grows
    a_fan_out_costs_few_statements
    texts_with_nul_harm_nothing
    a_lease_has_one_holder
    a_session_is_its_instances_until_that_is_gone
}

pub(crate) fn audit(action: &str) -> AuditEntry {
    AuditEntry {
        at_ms: NOW,
        actor: "alice".into(),
        action: action.into(),
        subject: "s".into(),
        decision: Decision::Allowed,
        detail: String::new(),
    }
}

/// A command for `agents`, of which the first `deliver` are handed to delivery at once.
pub(crate) fn command(agents: usize, deliver: usize, key: Option<&str>) -> NewCommand {
    let id = CommandId::new(NOW);
    let targets: Vec<Target> = (0..agents)
        .map(|n| {
            let agent = agent(&format!("agent-{n:05}"));
            let invocation = InvocationId::derive(&id, &[0; 32], &agent);
            Target { invocation, agent, deliver: n < deliver }
        })
        .collect();
    let command = Command {
        id,
        verb: "ping".into(),
        plugin: "probe".into(),
        digest: "d".into(),
        also: vec![],
        mode: Mode::Apply,
        args: "{}".into(),
        caller: "alice".into(),
        state: CommandState::Queued,
        created_ms: NOW,
        expires_ms: NOW + 10_000,
        finished_ms: None,
        timeout_secs: 5,
        batch: None,
        targets: u32::try_from(agents).unwrap_or(0),
        targets_root: "r".into(),
        idempotency_key: key.map(IdempotencyKey::from),
        plans: vec![],
        undo_of: None,
        undone_by: None,
        approvals_needed: 0,
        approvals: vec![],
        cancel_requested: false,
        counts: Counts::default(),
        last_seq: 0,
    };
    NewCommand { command, targets, audit: audit("command.accept") }
}

pub(crate) fn settlement(target: &Target, by: &AgentId) -> Settlement {
    Settlement {
        invocation: target.invocation.clone(),
        agent: by.clone(),
        state: InvocationState::Succeeded,
        report: serde_json::to_string(&report(Outcome::Succeeded)).expect("a report"),
        plan: None,
        receipt: None,
        started_ms: Some(NOW + 1),
        finished_ms: NOW + 2,
    }
}

pub(crate) async fn accept(store: &Store, new: NewCommand) -> Command {
    match store.accept(new).await.expect("accepted") {
        Acceptance::Stored(command) => command,
        other => panic!("{other:?}"),
    }
}

async fn a_command_is_stored_with_its_audit_entry_alone_and_in_a_group(place: Place) {
    let store = place.open().await;
    accept(&store, command(3, 2, Some("k"))).await;
    let undo = NewCommand {
        command: Command { undo_of: Some(CommandId::new(1)), ..command(1, 0, None).command },
        ..command(1, 0, None)
    };
    assert!(matches!(store.accept(undo).await, Ok(Acceptance::Stored(_))));
    let page = store.audit_page(&PageOf::first(10)).await.expect("read");
    let actions: Vec<_> = page.items.iter().map(|row| row.entry.action.as_str()).collect();
    assert_eq!(actions, ["command.accept"; 2]);
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let (dir, killed) = (tempfile::tempdir().expect("a directory"), Place::sqlite());
    let store = Store::open(&dir.path().join("viworks.db").into()).await.expect("a store");
    let new = command(3, 2, None);
    let targets = new.targets.clone();
    let id = accept(&store, new).await.id;
    let settled = store.settle(vec![settlement(&targets[0], &targets[0].agent)]).await.expect("settled");
    assert!(matches!(settled.verdicts[..], [Verdict::Settled { seq: 1, ordinal: 0, .. }]));
    // What a kill leaves: the files as they are now, with nothing closed.
    for file in ["viworks.db", "viworks.db-wal"] {
        std::fs::copy(dir.path().join(file), killed.url().shown().replace("viworks.db", file)).expect("a copy");
    }
    let store = killed.open().await;
    let command = store.command(&id).await.expect("read").expect("there");
    assert_eq!((command.state, command.last_seq), (CommandState::Running, 1));
    assert_eq!(command.counts, Counts { queued: 1, sent: 1, succeeded: 1, ..Counts::default() });
    let open = store.open_for(&targets[1].agent, None, 10).await.expect("read");
    assert_eq!(
        open.iter().map(|o| (&o.invocation, o.state)).collect::<Vec<_>>(),
        [(&targets[1].invocation, InvocationState::Sent)]
    );
    assert!(store.open_for(&targets[0].agent, None, 10).await.expect("read").is_empty(), "settled is not owed");
}

async fn nobody_settles_anothers_and_nothing_twice(place: Place) {
    let store = place.open().await;
    let new = command(2, 2, None);
    let targets = new.targets.clone();
    let id = accept(&store, new).await.id;
    let absent = Target { invocation: InvocationId::derive(&id, &[9; 32], &targets[0].agent), ..targets[0].clone() };
    let settled = store
        .settle(vec![
            settlement(&targets[0], &targets[1].agent),
            settlement(&targets[0], &targets[0].agent),
            settlement(&targets[0], &targets[0].agent),
            settlement(&absent, &targets[0].agent),
        ])
        .await
        .expect("settled");
    let twice = Verdict::Duplicate { command: id.clone() };
    let once = Verdict::Settled { command: id.clone(), ordinal: 0, seq: 1 };
    assert_eq!(settled.verdicts, [Verdict::Foreign, once, twice.clone(), Verdict::Absent]);
    let again = store.settle(vec![settlement(&targets[0], &targets[0].agent)]).await.expect("settled");
    assert_eq!(again.verdicts, [twice]);
    assert!(again.commands.is_empty(), "nothing moved");
    let last = store.settle(vec![settlement(&targets[1], &targets[1].agent)]).await.expect("settled");
    assert_eq!(last.commands[0].state, CommandState::Finished);
    assert_eq!(last.commands[0].finished_ms, Some(NOW + 2));
    let seen = store.settled_after(&id, 1, 10).await.expect("read");
    assert_eq!(
        seen.iter().map(|i| (i.seq, i.report().map(|r| r.outcome))).collect::<Vec<_>>(),
        [(Some(2), Some(Outcome::Succeeded))]
    );
}

async fn one_alone_settles_as_many_do(place: Place) {
    let store = place.open().await;
    let ends = InvocationState::ALL.iter().filter(|s| Outcome::ALL.iter().any(|o| InvocationState::from(*o) == **s));
    for state in ends {
        let mut ends = Vec::new();
        for _ in 0..2 {
            let new = command(1, 1, None);
            let end = Settlement { state: *state, ..settlement(&new.targets[0], &new.targets[0].agent) };
            let id = accept(&store, new).await.id;
            ends.push((id, end));
        }
        let [(id, alone), (_, grouped)] = &ends[..] else { panic!("two") };
        let one = store.settle(vec![alone.clone()]).await.expect("settled");
        let absent = Settlement { invocation: InvocationId::derive(id, &[7; 32], &grouped.agent), ..grouped.clone() };
        let many = store.settle(vec![grouped.clone(), absent]).await.expect("settled");
        let (a, b) = (&one.commands[0], &many.commands[0]);
        assert_eq!(
            (a.state, a.counts, a.last_seq, a.finished_ms),
            (b.state, b.counts, b.last_seq, b.finished_ms),
            "{state}"
        );
        assert!(matches!(one.verdicts[0], Verdict::Settled { ordinal: 0, seq: 1, .. }));
    }
}

async fn a_key_names_one_command(place: Place) {
    let store = place.open().await;
    let first = accept(&store, command(1, 0, Some("k"))).await;
    assert!(matches!(store.accept(command(1, 0, Some("k"))).await, Ok(Acceptance::Replayed(c)) if c.id == first.id));
    let mut other = command(1, 0, Some("k"));
    other.command.idempotency_key = Some(IdempotencyKey { key: "k".into(), request_sha256: "other".into() });
    assert!(matches!(store.accept(other).await, Ok(Acceptance::KeyReused(id)) if id == first.id));
    let mut by_bob = command(1, 0, Some("k"));
    by_bob.command.caller = "bob".into();
    assert!(matches!(store.accept(by_bob).await, Ok(Acceptance::Stored(_))), "a key is its caller's");
}

async fn one_bad_change_in_a_group_harms_no_other(place: Place) {
    let store = place.open().await;
    let good = command(1, 1, None);
    let mut bad = command(1, 1, None);
    bad.targets[0].invocation = good.targets[0].invocation.clone();
    let again = command(1, 1, None);
    // Polled together, so that they share a group.
    let (a, b, c) = tokio::join!(store.accept(good), store.accept(bad.clone()), store.accept(again));
    assert!(a.is_ok() && b.is_err() && c.is_ok(), "{a:?} {b:?} {c:?}");
    assert!(store.command(&bad.command.id).await.expect("read").is_none(), "nothing of it is there");
}

async fn queued_expires_delivered_becomes_unknown(place: Place) {
    let store = place.open().await;
    let id = accept(&store, command(3, 1, None)).await.id;
    assert_eq!(store.next_due().await.expect("read"), Some(NOW + 10_000));
    assert_eq!(store.expire(NOW + 9_999, 1_000).await.expect("expired").expired, 0);
    let first = store.expire(NOW + 10_000, 1_000).await.expect("expired");
    assert_eq!((first.expired, first.unknown, first.more), (2, 0, false));
    assert_eq!(first.commands[0].state, CommandState::Running, "one may still answer");
    // Expiry, the timeout of five seconds and the grace of one.
    assert_eq!(store.next_due().await.expect("read"), Some(NOW + 16_000));
    let last = store.expire(NOW + 16_000, 1_000).await.expect("expired");
    assert_eq!((last.expired, last.unknown), (0, 1));
    let command = store.command(&id).await.expect("read").expect("there");
    assert_eq!(command.state, CommandState::Finished);
    assert_eq!(command.counts, Counts { expired: 2, unknown: 1, ..Counts::default() });
    assert_eq!(store.next_due().await.expect("read"), None);
    let late = command_target(&store, &id, 0).await;
    let verdict = store.settle(vec![settlement(&late, &late.agent)]).await.expect("settled").verdicts;
    assert!(matches!(verdict[..], [Verdict::Duplicate { .. }]), "settled is settled");
}

async fn command_target(store: &Store, id: &CommandId, ordinal: u32) -> Target {
    let page = store.invocations(id, None, &PageOf::first(1_000)).await.expect("read");
    let found = page.items.into_iter().find(|i| i.ordinal == ordinal).expect("there");
    Target { invocation: found.id, agent: found.agent, deliver: true }
}

async fn cancelling_ends_what_no_agent_has(place: Place) {
    let store = place.open().await;
    let id = accept(&store, command(3, 1, None)).await.id;
    let done = store.cancel(id.clone(), NOW + 1, audit("command.cancel")).await.expect("cancelled").expect("there");
    assert_eq!(done.in_flight.len(), 1);
    assert_eq!(done.command.counts, Counts { sent: 1, cancelled: 2, ..Counts::default() });
    assert!(done.command.cancel_requested && done.command.state == CommandState::Running);
    let alone = accept(&store, command(2, 0, None)).await.id;
    let done = store.cancel(alone, NOW + 1, audit("command.cancel")).await.expect("cancelled").expect("there");
    assert_eq!((done.command.state, done.command.finished_ms), (CommandState::Cancelled, Some(NOW + 1)));
    let none = store.cancel(CommandId::new(NOW), NOW, audit("command.cancel")).await.expect("asked");
    assert!(none.is_none());
}

async fn claims_and_running_move_the_counts_once(place: Place) {
    let store = place.open().await;
    let new = command(2, 0, None);
    let targets = new.targets.clone();
    let id = accept(&store, new).await.id;
    let both: Vec<_> = targets.iter().map(|t| t.invocation.clone()).collect();
    assert_eq!(store.claim(both.clone(), NOW).await.expect("claimed").invocations.len(), 2);
    assert!(store.claim(both, NOW).await.expect("claimed").invocations.is_empty(), "only once");
    for by in [&targets[0].agent, &targets[1].agent, &targets[0].agent] {
        let note = Note::Running { agent: by.clone(), invocation: targets[0].invocation.clone(), at_ms: NOW + 3 };
        store.note(note).await.expect("noted");
    }
    store.flush().await.expect("written");
    let command = store.command(&id).await.expect("read").expect("there");
    assert_eq!(command.counts, Counts { sent: 1, running: 1, ..Counts::default() });
    let running = store.invocation(&targets[0].invocation).await.expect("read").expect("there");
    assert_eq!((running.state, running.started_ms), (InvocationState::Running, Some(NOW + 3)));
}

async fn lists_are_pages_in_their_order(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let mut new = command(3, 0, None);
        new.command.caller = if n % 2 == 0 { "alice".into() } else { "bob".into() };
        ids.push(accept(&store, new).await.id);
    }
    ids.sort();
    ids.reverse();
    let filter = CommandFilter::default();
    let first = store.commands(&filter, &PageOf::first(2)).await.expect("read");
    assert_eq!(first.items.iter().map(|c| &c.id).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    let rest = store.commands(&filter, &PageOf { after: first.next, limit: 10 }).await.expect("read");
    assert_eq!(rest.items.iter().map(|c| &c.id).collect::<Vec<_>>(), [&ids[2], &ids[3], &ids[4]]);
    assert_eq!(rest.next, None);
    let bobs =
        CommandFilter { caller: Some("bob".into()), state: Some(CommandState::Queued), verb: Some("ping".into()) };
    assert_eq!(store.commands(&bobs, &PageOf::first(10)).await.expect("read").items.len(), 2);
    let page = store.invocations(&ids[0], Some(InvocationState::Queued), &PageOf::first(2)).await.expect("read");
    assert_eq!((page.items.len(), page.next.as_deref()), (2, Some("1")));
    let page = store.invocations(&ids[0], None, &PageOf { after: page.next, limit: 2 }).await.expect("read");
    assert_eq!(page.items[0].agent.as_str(), "agent-00002");
    let bad = store.invocations(&ids[0], None, &PageOf { after: Some("x".into()), limit: 2 }).await;
    assert!(matches!(bad, Err(super::StoreError::Cursor(_))));
}

async fn agents_are_what_they_said_last(place: Place) {
    let store = place.open().await;
    for id in ["web-1", "web-2", "db-1"] {
        let mut said = hello(id, NOW);
        if id == "db-1" {
            said.site = None;
            said.labels = BTreeMap::from([("tier".into(), "db".into()), ("env".into(), "prod".into())]);
        }
        store.note(Note::Hello(Box::new(said))).await.expect("noted");
    }
    store.note(Note::Gone { agent: agent("web-2"), owner: owner(), at_ms: NOW + 5 }).await.expect("noted");
    store.flush().await.expect("written");
    let web1 = store.agent(&agent("web-1")).await.expect("read").expect("there");
    assert!(web1.online && web1.plugins.len() == 1 && web1.first_seen_ms == NOW);
    let labels = BTreeMap::from([("tier".to_owned(), "web".to_owned())]);
    let online = AgentFilter { online: Some(true), site: Some("north".into()), labels: labels.clone() };
    let found = store.agents(&online, &PageOf::first(10)).await.expect("read");
    assert_eq!(found.items.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), ["web-1"]);
    assert_eq!(store.count_agents().await.expect("read"), (3, 2));

    let select = |selector: Selector| {
        let store = store.clone();
        async move { store.select_agents(&selector, 10).await.expect("read").len() }
    };
    assert_eq!(select(Selector::default()).await, 0, "nothing never means all");
    assert_eq!(select(Selector { all: true, ..Selector::default() }).await, 3);
    assert_eq!(select(Selector { labels, ..Selector::default() }).await, 2);
    let both = BTreeMap::from([("tier".into(), "db".into()), ("env".into(), "prod".into())]);
    assert_eq!(select(Selector { labels: both, site: None, all: true }).await, 1);
    let unknown = store.unknown_agents(&[agent("web-1"), agent("nobody")]).await.expect("read");
    assert_eq!(unknown, [agent("nobody")]);

    let mut changed = hello("web-1", NOW + 9);
    changed.labels.clear();
    changed.plugins.clear();
    store.note(Note::Hello(Box::new(changed))).await.expect("noted");
    store.flush().await.expect("written");
    let web1 = store.agent(&agent("web-1")).await.expect("read").expect("there");
    assert_eq!((web1.labels.len(), web1.plugins.len(), web1.first_seen_ms, web1.last_seen_ms), (0, 0, NOW, NOW + 9));
    assert_eq!(store.mark_stale(NOW + 6, NOW + 10).await.expect("marked"), [agent("web-2")], "online ones are not");
    assert!(store.agent(&agent("web-2")).await.expect("read").expect("there").stale);
    assert_eq!(store.audit_page(&PageOf::first(1)).await.expect("read").items[0].entry.action, "agent.stale");
}

async fn samples_roll_up_and_go(place: Place) {
    let store = place.open().await;
    let hour = NOW - NOW % 3_600_000;
    for (n, cpu) in [(0, 10.0), (1, 20.0), (2, 60.0)] {
        let at_ms = hour + n * 1_000;
        let note = Note::Sample { agent: agent("a"), at_ms, sample: Box::new(sample(at_ms, cpu)) };
        store.note(note).await.expect("noted");
    }
    store.flush().await.expect("written");
    let page = PageOf::first(2);
    let raw = store.telemetry(&agent("a"), hour, Resolution::Raw, &page).await.expect("read");
    assert_eq!(raw.items.iter().map(|s| s.sample.cpu_percent).collect::<Vec<_>>(), [10.0, 20.0]);
    assert!(raw.next.is_some());
    let hours = store.telemetry(&agent("a"), hour, Resolution::Hour, &page).await.expect("read");
    assert_eq!(
        hours.items.iter().map(|s| (s.at_ms, s.samples, s.sample.cpu_percent)).collect::<Vec<_>>(),
        [(hour, 3, 30.0)]
    );
    let horizon = Horizon { telemetry_ms: hour + 2_000, hours_ms: hour, commands_ms: 0, receipts_ms: 0, audit_ms: 0 };
    assert_eq!(store.prune(horizon).await.expect("pruned"), 2);
    let raw = store.telemetry(&agent("a"), 0, Resolution::Raw, &page).await.expect("read");
    assert_eq!(raw.items.len(), 1);
}

async fn ended_commands_go_and_open_ones_stay(place: Place) {
    let store = place.open().await;
    let new = command(2, 2, None);
    let targets = new.targets.clone();
    let ended = accept(&store, new).await.id;
    store.settle(targets.iter().map(|t| settlement(t, &t.agent)).collect()).await.expect("settled");
    let open = accept(&store, command(1, 0, None)).await.id;
    let horizon = Horizon { telemetry_ms: 0, hours_ms: 0, commands_ms: NOW + 1, receipts_ms: 0, audit_ms: 0 };
    assert_eq!(store.prune(horizon).await.expect("pruned"), 3);
    assert!(store.command(&ended).await.expect("read").is_none());
    assert!(store.command(&open).await.expect("read").is_some());
}

async fn tokens_are_found_by_hash_and_the_audit_record_only_grows(place: Place) {
    let store = place.open().await;
    let token =
        Token { name: "ops".into(), role: Role::Operator, sha256: [7; 32], created_ms: NOW, expires_ms: Some(NOW + 1) };
    assert!(store.create_token(token.clone(), audit("token.create")).await.expect("created"));
    assert!(!store.create_token(token.clone(), audit("token.create")).await.expect("asked"), "the name is taken");
    assert_eq!(store.token_by_hash(&[7; 32]).await.expect("read"), Some(token));
    assert_eq!(store.token_by_hash(&[8; 32]).await.expect("read"), None);
    assert!(store.revoke_token("ops".into(), audit("token.revoke")).await.expect("revoked"));
    assert!(store.tokens(&PageOf::first(10)).await.expect("read").items.is_empty());
    let rows = store.audit_page(&PageOf::first(10)).await.expect("read").items;
    assert_eq!(rows.iter().map(|r| r.entry.action.as_str()).collect::<Vec<_>>(), ["token.revoke", "token.create"]);
    assert!(place.sql("UPDATE audit SET actor = 'mallory'").await.is_err());
}

async fn a_fan_out_costs_few_statements(place: Place) {
    let store = place.open().await;
    let new = command(5_000, 5_000, None);
    let targets = new.targets.clone();
    let at = std::time::Instant::now();
    accept(&store, new).await;
    let accepted = at.elapsed();
    let settled = store.settle(targets.iter().map(|t| settlement(t, &t.agent)).collect()).await.expect("settled");
    assert_eq!(settled.commands[0].counts.succeeded, 5_000);
    // A statement an agent would take many seconds in a build that is not optimised.
    assert!(at.elapsed().as_secs() < 5, "accepted in {accepted:?}, all in {:?}", at.elapsed());
    println!("accepted in {accepted:?}, all in {:?}", at.elapsed());
    store.close().await;
    assert!(matches!(store.flush().await, Err(super::StoreError::Closed)));
}

async fn a_lease_has_one_holder(place: Place) {
    let store = place.open().await;
    assert!(store.lease("retention", "one", 60_000).await.expect("asked"));
    assert!(!store.lease("retention", "two", 60_000).await.expect("asked"), "another has it");
    assert!(store.lease("retention", "one", 60_000).await.expect("asked"), "it is renewed");
    assert!(store.lease("schedule", "two", 60_000).await.expect("asked"), "one of another name");
    assert!(!store.give_up("retention", "two").await.expect("asked"));
    assert!(store.give_up("retention", "one").await.expect("asked"));
    assert!(store.lease("retention", "two", 0).await.expect("asked"));
    assert!(store.lease("retention", "one", 60_000).await.expect("asked"), "the other's ran out");
}

async fn a_session_is_its_instances_until_that_is_gone(place: Place) {
    let store = place.open().await;
    let at = |instance: &str, session: &str| Owner { instance: instance.into(), session: session.into() };
    let said = |id: &str, owner: Owner, at_ms| AgentHello { owner, ..hello(id, at_ms) };
    let is_online = |id: &'static str| {
        let store = store.clone();
        async move {
            store.flush().await.expect("written");
            store.agent(&agent(id)).await.expect("read").expect("there").online
        }
    };
    assert!(store.beat("one", 60_000).await.expect("beaten").fresh);
    let beat = store.beat("two", 60_000).await.expect("beaten");
    assert_eq!((beat.fresh, beat.living), (true, vec!["one".to_owned(), "two".to_owned()]));
    assert!(!store.beat("one", 60_000).await.expect("beaten").fresh);

    store.note(Note::Hello(Box::new(said("web-1", at("one", "a"), NOW)))).await.expect("noted");
    store.note(Note::Hello(Box::new(said("web-2", at("two", "b"), NOW)))).await.expect("noted");
    assert!(is_online("web-1").await && is_online("web-2").await);
    // It moves, and the old session's end comes late.
    store.note(Note::Hello(Box::new(said("web-1", at("two", "c"), NOW + 5)))).await.expect("noted");
    store.note(Note::Gone { agent: agent("web-1"), owner: at("one", "a"), at_ms: NOW + 6 }).await.expect("noted");
    assert!(is_online("web-1").await);
    store.note(Note::Gone { agent: agent("web-1"), owner: at("one", "a"), at_ms: NOW + 6 }).await.expect("noted");
    assert!(is_online("web-1").await, "also in a group of its own");
    // A hello that was written late does not take it back.
    store.note(Note::Hello(Box::new(said("web-1", at("one", "a"), NOW)))).await.expect("noted");
    assert!(is_online("web-1").await);
    let owner = store.agent(&agent("web-1")).await.expect("read").expect("there").owner;
    assert_eq!(owner, Some(at("two", "c")));

    // One starts anew: two's sessions are none of its business, while two lives.
    assert!(!store.all_offline("one").await.expect("asked"));
    assert!(is_online("web-2").await);
    store.beat("two", 0).await.expect("beaten");
    let beat = store.beat("one", 60_000).await.expect("beaten");
    assert_eq!((beat.dead, beat.living), (vec!["two".to_owned()], vec!["one".to_owned()]));
    assert_eq!(beat.orphaned, [agent("web-1"), agent("web-2")]);
    assert!(!is_online("web-2").await);
    // It was only slow: it says again whose sessions it has.
    assert!(store.beat("two", 60_000).await.expect("beaten").fresh);
    let sessions = vec![(agent("web-1"), "c".to_owned()), (agent("web-2"), "old".to_owned())];
    store.note(Note::Seen { instance: "two".into(), sessions, at_ms: NOW + 9 }).await.expect("noted");
    assert!(is_online("web-1").await && !is_online("web-2").await, "a session that it has, and one that was another");
    assert!(store.lease("anchors", "two", 60_000).await.expect("asked"));
    assert!(store.leave("two").await.expect("asked"));
    assert!(!is_online("web-1").await);
    assert!(store.lease("anchors", "one", 60_000).await.expect("asked"), "its leases went with it");
}

/// One of most things; answers a command that is open.
pub(crate) async fn furnish(store: &Store) -> CommandId {
    let sequence = 1 + u32::try_from(store.plugins().await.expect("read").len()).expect("few");
    store.note(Note::Hello(Box::new(hello("web-1", NOW)))).await.expect("noted");
    store
        .note(Note::Sample { agent: agent("web-1"), at_ms: NOW, sample: Box::new(sample(NOW, 12.5)) })
        .await
        .expect("noted");
    let new = command(2, 2, None);
    let targets = new.targets.clone();
    accept(store, new).await;
    let ends = targets.iter().map(|t| Settlement { report: NUL_REPORT.into(), ..settlement(t, &t.agent) }).collect();
    store.settle(ends).await.expect("settled");
    let open = accept(store, command(3, 1, None)).await.id;
    let name = format!("ops-{sequence}");
    let token = Token { name, role: Role::Admin, sha256: [sequence as u8; 32], created_ms: NOW, expires_ms: None };
    assert!(store.create_token(token, audit("token.create")).await.expect("created"));
    let plugin = Plugin {
        plugin: "probe".into(),
        version: format!("1.0.{sequence}"),
        digest: format!("{sequence:064x}"),
        epoch: 0,
        sequence,
        release: "{}".into(),
        component_size: 3,
        statements_size: 2,
        published_ms: NOW,
        published_by: "alice".into(),
        standing: Standing::Active,
        wanted: Standing::Active,
        activated_ms: None,
        note: String::new(),
    };
    let new = NewPlugin {
        plugin,
        component: vec![0, 255, 7].into(),
        statements: b"{}".to_vec().into(),
        audit: audit("plugin.publish"),
    };
    assert!(matches!(store.publish(new).await, Ok(Publication::Stored(_))));
    store.flush().await.expect("written");
    open
}

/// What PostgreSQL's JSON can't hold as it is.
const NUL_REPORT: &str = r#"{"outcome":"succeeded","result":"a\u0000b","effects":[{"state":"applied"}]}"#;

/// What a gateway says may hold NUL, which one of the engines can't store.
async fn texts_with_nul_harm_nothing(place: Place) {
    let store = place.open().await;
    let mut said = hello("web-1", NOW);
    said.site = Some("no\0rth".into());
    said.labels = BTreeMap::from([("ti\0er".into(), "we\0b".into())]);
    store.note(Note::Hello(Box::new(said))).await.expect("noted");
    let entry = AuditEntry { detail: "de\0tail \\u0000".into(), ..audit("agent.refused") };
    store.audit(entry).await;
    store.flush().await.expect("written");
    let site = store.agent(&agent("web-1")).await.expect("read").expect("there").site.expect("a site");
    assert!(site.starts_with("no") && site.ends_with("rth"));
    let detail = store.audit_page(&PageOf::first(1)).await.expect("read").items[0].entry.detail.clone();
    assert!(detail.ends_with("tail \\u0000"), "{detail}");
    let new = command(1, 1, None);
    let end = Settlement { report: NUL_REPORT.into(), ..settlement(&new.targets[0], &new.targets[0].agent) };
    let id = accept(&store, new).await.id;
    store.settle(vec![end]).await.expect("settled");
    assert_eq!(store.undo_targets(&id).await.expect("read").len(), 1, "its effects are read");
}
