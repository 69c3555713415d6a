//! The health check of docs/gitops.md, run as Argo CD runs it: Lua 5.1 with the object in `obj`.

use acb_crds::Condition;
use acb_operator::{
    condition::{Basis, Outcome, Problem, Reason, conditions},
    observed::ObservedHub,
};
use mlua::{Lua, LuaSerdeExt as _};
use serde_json::{Value, json};

use crate::read;

/// What the page gives for a kind.
fn script(kind: &str) -> String {
    let page = read("docs/gitops.md");
    let section = page.split("\n## Argo CD: health\n").nth(1).expect("the section");
    let block = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("its YAML");
    let config: Value = serde_saphyr::from_str(block).unwrap();
    config["data"][format!("resource.customizations.health.acb.dev_{kind}")].as_str().expect("a script").to_owned()
}

fn health(kind: &str, object: &Value) -> (String, String) {
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let health: mlua::Table = lua.load(script(kind)).eval().unwrap();
    (health.get("status").unwrap(), health.get("message").unwrap())
}

fn object(outcome: &Outcome, suspended: bool, observed: u64) -> Value {
    object_after(&[], outcome, None, suspended, observed)
}

fn object_after(previous: &[Condition], outcome: &Outcome, hub: Option<&ObservedHub>, suspended: bool, observed: u64) -> Value {
    let basis = Basis { generation: None, previous, suspended, hub, not_acted_on: &[] };
    let conditions = conditions(outcome, &basis);
    json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}})
}

#[test]
fn argo_cd_is_told_what_the_operator_says() {
    let problems = vec![Problem::new(Reason::AboveTier, "spec.hub", "too many")];
    for kind in ["Tenant", "Agent", "Quota"] {
        let says = |object: &Value, status: &str, message: &str| {
            assert_eq!(health(kind, object), (status.to_owned(), message.to_owned()), "{kind}: {object}");
        };
        says(&json!({"metadata": {"generation": 1}}), "Progressing", "waiting for the operator");
        says(&object(&Outcome::Ready, false, 1), "Progressing", "waiting for the operator");
        says(&object(&Outcome::Ready, false, 2), "Healthy", "provisioned");
        says(&object(&Outcome::Waiting("the hub starts".into()), false, 2), "Progressing", "the hub starts");
        says(&object(&Outcome::Retrying("Kafka is away".into()), false, 2), "Progressing", "Kafka is away");
        says(&object(&Outcome::Refused("no such user".into()), false, 2), "Degraded", "no such user");
        says(&object(&Outcome::Stalled(problems.clone()), false, 2), "Degraded", "spec.hub: too many");
        says(&object(&Outcome::Ready, true, 2), "Suspended", "suspended by its spec: set suspend to false to go on");
        // What was ready stays so while the operator can't look, and says where someone has to do something.
        let before = conditions(&Outcome::Ready, &Basis::default());
        let hub = ObservedHub { replicas: 2, ready: 2, rolled_out: true, ..ObservedHub::default() };
        let after = |outcome: Outcome, hub: &ObservedHub| object_after(&before, &outcome, Some(hub), false, 2);
        says(&after(Outcome::Retrying("Kafka is away".into()), &hub), "Healthy", "provisioned");
        says(&after(Outcome::Refused("wrong password".into()), &hub), "Degraded", "wrong password");
        let rolling = ObservedHub { rolled_out: false, rolling: true, ..hub.clone() };
        says(&after(Outcome::Starting("1 of 2".into()), &rolling), "Progressing", "1 of 2");
        let gone = ObservedHub { ready: 0, rolled_out: false, lacks: "0 of 2".into(), ..hub.clone() };
        says(&after(Outcome::Starting("0 of 2".into()), &gone), "Degraded", "0 of 2");
    }
}
