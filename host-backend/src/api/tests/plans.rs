//! Plans and taking back: what is grouped, what a command may be bound to, which commands
//! can be undone and where.

use serde_json::{Value, json};
use viworks_protocol::outcome::EffectState;
use viworks_protocol::warrant::{Mode, Warrant};

use super::fixture::{Fixture, Session, connect, finish_with, ordered};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const AGENTS: [&str; 3] = ["db-01", "web-01", "web-02"];

/// An agent's effects, and its plan's digest.
type End<'a> = (&'a [(&'a str, EffectState)], Option<&'a str>);

struct Fleet {
    fixture: Fixture,
    sessions: Vec<Session>,
}

impl Fleet {
    async fn new() -> Self {
        let fixture = Fixture::with_plugin().await;
        let mut sessions = Vec::new();
        for id in AGENTS {
            sessions.push(connect(&fixture, id).await);
        }
        Self { fixture, sessions }
    }

    fn greet(name: &str) -> Value {
        json!({"verb": "greet", "args": {"name": name}, "agent_targets": AGENTS})
    }

    /// Post a command, let each agent answer with these effects and plans; its end.
    async fn run(&mut self, path: &str, mut body: Value, ends: &[End<'_>]) -> Value {
        body["wait_secs"] = json!(20);
        let answer = self.fixture.send("POST", path, "operator", &body);
        let agents = async {
            for (id, session) in AGENTS.iter().zip(&mut self.sessions) {
                let Some((effects, plan)) = ends.get(AGENTS.iter().position(|a| a == id).unwrap()) else { continue };
                let (invocation, _) = ordered(session).await;
                finish_with(&self.fixture, id, invocation, effects, *plan).await;
            }
        };
        tokio::join!(answer, agents).0.expect(200)
    }

    async fn planned(&mut self) -> String {
        let mut body = Self::greet("ada");
        body["mode"] = json!("plan");
        let planned: &[_] = &[("create ada", EffectState::Planned)];
        let done = self.run("/commands", body, &[(planned, Some(A)), (&[], Some(B)), (planned, Some(A))]).await;
        assert_eq!((&done["mode"], &done["counts"]["succeeded"]), (&json!("plan"), &json!(3)));
        done["id"].as_str().unwrap().to_owned()
    }

    async fn warrant(&mut self, agent: usize) -> Warrant {
        ordered(&mut self.sessions[agent]).await.1
    }
}

#[tokio::test]
async fn agents_with_equal_plans_are_one_group() {
    let mut fleet = Fleet::new().await;
    let id = fleet.planned().await;
    let groups = fleet.fixture.get(&format!("/commands/{id}/plan"), "viewer").await.expect(200);
    let [first, second] = &groups["items"].as_array().unwrap()[..] else { panic!("{groups}") };
    assert_eq!(
        (&first["digest"], &first["count"], &first["agents"]),
        (&json!(A), &json!(2), &json!(["db-01", "web-02"]))
    );
    assert_eq!(
        (&first["effects"][0]["state"], &first["effects"][0]["diff"][0]["after"]),
        (&json!("planned"), &json!("ada"))
    );
    assert_eq!((&second["agents"], &second["effects"]), (&json!(["web-01"]), &json!([])));
    let page = fleet.fixture.get(&format!("/commands/{id}/plan?limit=1"), "viewer").await.expect(200);
    let next = page["next"].as_str().unwrap();
    let rest = fleet.fixture.get(&format!("/commands/{id}/plan?after={next}"), "viewer").await.expect(200);
    assert_eq!((&rest["items"][0]["digest"], &rest["next"]), (&json!(B), &Value::Null));
}

#[tokio::test]
async fn a_command_is_bound_to_what_its_agents_planned() {
    let mut fleet = Fleet::new().await;
    let id = fleet.planned().await;
    for (plan, wanted) in [(id.as_str(), vec![A, B]), (A, vec![A])] {
        let mut body = Fleet::greet("ada");
        body["plan"] = json!(plan);
        let accepted = fleet.fixture.send("POST", "/commands", "operator", &body).await.expect(202);
        let warrant = fleet.warrant(0).await;
        assert_eq!((warrant.mode, warrant.plans), (Mode::Apply, wanted.iter().map(|p| (*p).to_owned()).collect()));
        let path = format!("/commands/{}", accepted["id"].as_str().unwrap());
        let command = fleet.fixture.get(&path, "viewer").await.expect(200);
        assert_eq!(command["plans"], json!(wanted));
        fleet.fixture.get(&format!("{path}/plan"), "viewer").await.problem(409, "conflict");
    }
}

#[tokio::test]
async fn a_plan_of_something_else_binds_nothing() {
    let mut fleet = Fleet::new().await;
    let id = fleet.planned().await;
    let before = fleet.fixture.commands().await;
    let mut other = Fleet::greet("bob");
    other["args"]["tags"] = json!([]);
    other["plan"] = json!(id);
    let problem = fleet.fixture.send("POST", "/commands", "operator", &other).await.problem(422, "plan-mismatch");
    let paths: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/args/name", "/args/tags"]);
    let told = problem["errors"].to_string();
    assert!(!told.contains("ada") && !told.contains("bob"), "values may be secrets: {told}");
    let look = json!({"verb": "look", "agent_targets": AGENTS, "plan": id});
    let problem = fleet.fixture.send("POST", "/commands", "operator", &look).await.problem(422, "plan-mismatch");
    assert_eq!(problem["errors"][0]["path"], "/verb");
    assert_eq!(fleet.fixture.commands().await, before);

    let mut open = Fleet::greet("ada");
    open["mode"] = json!("plan");
    let open = fleet.fixture.send("POST", "/commands", "operator", &open).await.expect(202);
    let mut early = Fleet::greet("ada");
    early["plan"] = open["id"].clone();
    fleet.fixture.send("POST", "/commands", "operator", &early).await.problem(409, "conflict");
}

#[tokio::test]
async fn an_undo_goes_where_effects_are_and_once() {
    let mut fleet = Fleet::new().await;
    let applied: &[_] = &[("create ada", EffectState::Applied)];
    let rolled: &[_] = &[("create ada", EffectState::RolledBack)];
    let done = fleet.run("/commands", Fleet::greet("ada"), &[(applied, None), (rolled, None), (applied, None)]).await;
    let path = format!("/commands/{}/undo", done["id"].as_str().unwrap());

    let plan = fleet.fixture.send("POST", &path, "operator", &json!({"mode": "plan"})).await.expect(202);
    assert_eq!((&plan["verb"], &plan["mode"], &plan["targets"]), (&json!("greet"), &json!("plan"), &json!(2)));
    assert_eq!(fleet.warrant(0).await.undo.map(String::from), done["id"].as_str().map(str::to_owned));

    // The first of the two is taken back, the other not yet.
    let undo = fleet.fixture.send("POST", &path, "operator", &Value::Null).await.expect(202);
    let (invocation, warrant) = ordered(&mut fleet.sessions[0]).await;
    assert_eq!((warrant.mode, warrant.verb.as_str()), (Mode::Apply, "greet"));
    finish_with(&fleet.fixture, "db-01", invocation, applied, None).await;
    let problem = fleet.fixture.send("POST", &path, "operator", &Value::Null).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains(undo["id"].as_str().unwrap()), "{problem}");
    let listed = fleet.fixture.get("/commands", "viewer").await.expect(200);
    let find = |id: &Value| listed["items"].as_array().unwrap().iter().find(|c| c["id"] == *id).unwrap().clone();
    assert_eq!((&find(&undo["id"])["undo_of"], &find(&done["id"])["undone_by"]), (&done["id"], &undo["id"]));

    // It fails there: the rest can be tried again, the first is not asked twice.
    fleet
        .fixture
        .send("POST", &format!("/commands/{}/cancel", undo["id"].as_str().unwrap()), "operator", &Value::Null)
        .await;
    let _planned = ordered(&mut fleet.sessions[2]).await;
    let (invocation, _) = ordered(&mut fleet.sessions[2]).await;
    let failed =
        viworks_protocol::outcome::Report::refused(viworks_protocol::outcome::Outcome::Failed, "conflict", "", 1);
    fleet.fixture.app.engine.result(&super::fixture::agent("web-02"), invocation, &failed).await;
    let ended = async {
        loop {
            let reply = fleet.fixture.send("POST", &path, "operator", &Value::Null).await;
            if reply.status == 202 {
                return reply.json();
            }
            tokio::task::yield_now().await;
        }
    };
    let again = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    assert_eq!(again["targets"], 1);
    let audited = fleet.fixture.audited().await;
    assert!(audited.iter().any(|line| line.starts_with("operator-1 command.undo")), "{audited:?}");
}

#[tokio::test]
async fn an_undo_is_bound_to_its_plan_and_undone_in_its_turn() {
    let mut fleet = Fleet::new().await;
    let applied: &[_] = &[("create ada", EffectState::Applied)];
    let taken: &[_] = &[("remove ada", EffectState::Applied)];
    let planned: &[_] = &[("remove ada", EffectState::Planned)];
    let digest = "ab".repeat(32);
    let other = fleet.planned().await;
    let done = fleet.run("/commands", Fleet::greet("ada"), &[(applied, None), (&[], None), (&[], None)]).await;
    let path = format!("/commands/{}/undo", done["id"].as_str().unwrap());
    let plan = fleet.fixture.send("POST", &path, "operator", &json!({"mode": "plan"})).await.expect(202);
    let (invocation, _) = ordered(&mut fleet.sessions[0]).await;
    let reply = fleet.fixture.send("POST", &path, "operator", &json!({"plan": plan["id"]})).await;
    reply.problem(409, "conflict");
    finish_with(&fleet.fixture, "db-01", invocation, planned, Some(&digest)).await;
    for wrong in [&json!(other), &done["id"]] {
        let reply = fleet.fixture.send("POST", &path, "operator", &json!({"plan": wrong})).await;
        reply.problem(422, "plan-mismatch");
    }
    let body = json!({"plan": plan["id"], "wait_secs": 0});
    // The plan ends on its own task.
    let ended = async {
        loop {
            let reply = fleet.fixture.send("POST", &path, "operator", &body).await;
            if reply.status == 202 {
                return reply.json();
            }
            tokio::task::yield_now().await;
        }
    };
    let undo = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    let (invocation, warrant) = ordered(&mut fleet.sessions[0]).await;
    assert_eq!((warrant.plans, warrant.undo.map(String::from)), (vec![digest], done["id"].as_str().map(str::to_owned)));
    finish_with(&fleet.fixture, "db-01", invocation, taken, None).await;

    let again = format!("/commands/{}/undo", undo["id"].as_str().unwrap());
    let ended = async {
        loop {
            let reply = fleet.fixture.send("POST", &again, "operator", &Value::Null).await;
            if reply.status == 202 {
                return reply.json();
            }
            tokio::task::yield_now().await;
        }
    };
    let redo = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    assert_eq!((&redo["targets"], &redo["verb"]), (&json!(1), &json!("greet")));
    let (_, warrant) = ordered(&mut fleet.sessions[0]).await;
    assert_eq!(warrant.undo.map(String::from), undo["id"].as_str().map(str::to_owned));
    let problem = fleet.fixture.send("POST", &path, "operator", &Value::Null).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("undo cmd-"), "{problem}");
}

#[tokio::test]
async fn what_can_not_be_undone_is_refused() {
    let mut fleet = Fleet::new().await;
    let planned = fleet.planned().await;
    let nothing = fleet.run("/commands", Fleet::greet("ada"), &[(&[], None), (&[], None), (&[], None)]).await;
    let open = fleet.fixture.send("POST", "/commands", "operator", &Fleet::greet("ada")).await.expect(202);
    for (id, why) in [
        (planned.as_str(), "plan"),
        (nothing["id"].as_str().unwrap(), "nothing"),
        (open["id"].as_str().unwrap(), "ended"),
    ] {
        let reply = fleet.fixture.send("POST", &format!("/commands/{id}/undo"), "operator", &Value::Null).await;
        let problem = reply.problem(409, "conflict");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
    }
    fleet
        .fixture
        .send("POST", "/commands/cmd-0/undo", "operator", &json!({"how": 1}))
        .await
        .problem(400, "invalid-request");
}
