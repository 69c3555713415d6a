//! Values that no field of a Tenant expects.

use serde_json::{Value, json};

use crate::{
    documents::name,
    trial::{same, settled, unbroken},
};

/// Values that no field expects.
fn hostile() -> Vec<Value> {
    vec![
        Value::Null,
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x".repeat(70_000)),
        json!("../../etc/passwd"),
        json!("'; DROP TABLE acb.tenant; --"),
        json!("${jndi:ldap://x}"),
        json!("\u{202e}\u{0}\u{1b}[2J"),
        json!([]),
        json!(vec![json!({}); 2000]),
        json!({}),
        json!({"$ref": "#"}),
        json!(true),
        json!("9999999999999999999d"),
        json!("10.0.0.0/99"),
    ]
}

/// Every place in a document.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| places(value, &format!("{at}/{field}"), all)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| places(value, &format!("{at}/{index}"), all)),
        _ => {}
    }
    all.push(at.to_owned());
}

#[test]
fn no_value_of_any_field_does_harm() {
    let full = json!({
        "tier": "Enterprise", "deletionPolicy": "Delete", "suspend": false, "registration": "Declared",
        "contextTypes": [{"name": "documents", "partitions": 4, "retention": "7d", "cleanup": "Delete", "maxMessageBytes": 2000}],
        "limits": {"maxAgents": 5, "messagesPerMonth": 100, "storageBytes": 1000}, "agentLimits": {"messagesPerMinute": 5},
        "admins": [{"kind": "Group", "name": "team"}],
        "hub": {"replicas": 2, "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m"}}, "service": {"type": "ClusterIP"},
                "nodeSelector": {"a": "b"}, "ingressPeers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    });
    let at = name("Tenant", "", "acme");
    let mut start = settled(true, "Delete");
    let document = json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant", "metadata": {"name": "acme"}, "spec": full});
    acb_crds::schema::check(&document, None).unwrap();
    assert!(start.documents.put(&at, &full), "the document itself is good");
    start.settle_late();
    unbroken(&start).unwrap();
    let good = start.snapshot();
    let (mut all, mut taken) = (Vec::new(), 0);
    places(&full, "", &mut all);
    for place in all.iter().filter(|place| !place.is_empty()) {
        for value in hostile() {
            let mut bad = full.clone();
            *bad.pointer_mut(place).unwrap() = value.clone();
            let mut operator = start.clone();
            if !operator.documents.put(&at, &bad) {
                continue;
            }
            taken += 1;
            operator.settle();
            unbroken(&operator).unwrap_or_else(|why| panic!("{place}: {value}: {why}"));
            assert!(operator.documents.put(&at, &full));
            operator.settle_late();
            let held = unbroken(&operator).and_then(|()| same(&operator.snapshot(), &good));
            held.unwrap_or_else(|why| panic!("{place}: {value}, and back: {why}"));
        }
    }
    assert!(taken > 20, "{taken} were taken: the schema's rules are tried elsewhere");
}
