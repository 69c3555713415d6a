//! Resources that come back without their UIDs, as from a backup of a cluster's objects: the data waits until it is asked for.

use std::{fs, time::Duration};

use acb_sdk::{Client, Message};
use acb_testbed::standalone::{Home, Standalone};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

const LONG: Duration = Duration::from_secs(120);

fn tenant(name: &str, adopt: &str) -> String {
    let annotations = if adopt.is_empty() { String::new() } else { format!(", annotations: {{acb.dev/adopt: {adopt:?}}}") };
    format!("apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}{annotations}}}\nspec: {{tier: Starter}}\n")
}

fn agent(name: &str) -> String {
    format!(
        "apiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}, namespace: acb-acme}}\n\
         spec: {{type: worker, role: AgentFull}}\n"
    )
}

async fn connect(dev: &Standalone, agent: &str) -> Client {
    let acme = dev.tenant("acme").unwrap();
    let builder = Client::builder().endpoints(acme.endpoints.clone()).ca_pem(acme.ca_pem.clone());
    builder.api_key(acme.api_key(agent).unwrap().parse().unwrap()).connect().await.unwrap()
}

/// Null where there is no such Tenant, or nothing was said of it yet.
async fn status(dev: &Standalone, tenant: &str) -> Value {
    let tenant: Value = dev.acb_json(&["get", "tenant", tenant, "-o", "json"]).await.unwrap_or_default();
    tenant["status"].clone()
}

/// Waits until `acme` says so, with this reason.
async fn until(dev: &Standalone, reason: &str, says: &str) {
    let deadline = Instant::now() + LONG;
    loop {
        let status = status(dev, "acme").await;
        let condition = &status["conditions"][0];
        if condition["reason"] == reason && condition["message"].as_str().is_some_and(|message| message.contains(says)) {
            return;
        }
        assert!(Instant::now() < deadline, "{reason}, {says:?}: {status}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_a_restore_is_taken_over_where_it_is_asked_for() {
    let home = Home::new().unwrap();
    let folder = home.path().join("resources");
    fs::create_dir(&folder).unwrap();
    let write = |adopt: &str| fs::write(folder.join("acme.yaml"), tenant("acme", adopt)).unwrap();
    write("");
    fs::write(folder.join("globex.yaml"), tenant("globex", "")).unwrap();
    for name in ["sender", "receiver"] {
        fs::write(folder.join(format!("{name}.yaml")), agent(name)).unwrap();
    }
    let log = home.path().join("dev.log");
    let dev = Standalone::start(&home, &folder, None, &log).await.unwrap();
    let (id, key) = (status(&dev, "acme").await["tenantId"].clone(), dev.tenant("acme").unwrap().api_key("receiver").unwrap());
    let id = id.as_str().unwrap();
    connect(&dev, "sender").await.send(Message::to_agent("receiver").topic("t").text("from before")).await.unwrap();
    dev.stop().await.unwrap();

    // The same names, and new UIDs. Globex is restored as well, and asks for nothing that is another's.
    let globex = home.state().join("uids.json");
    let mut uids: Value = serde_json::from_slice(&fs::read(&globex).unwrap()).unwrap();
    uids.as_object_mut().unwrap().retain(|name, _| name.starts_with("Tenant//globex"));
    fs::write(&globex, uids.to_string()).unwrap();
    write(id);
    let dev = Standalone::start(&home, &folder, None, &log).await.unwrap();
    assert_eq!(status(&dev, "acme").await["tenantId"], id);
    assert_eq!(dev.tenant("acme").unwrap().api_key("receiver").unwrap(), key, "its key is still good");
    let mut session = connect(&dev, "receiver").await.session().open().await.unwrap();
    let received = timeout(LONG, session.next()).await.expect("in time").unwrap();
    assert_eq!(received.message().payload.as_ref(), b"from before");
    received.ack();
    session.close().await;

    // Whoever asks for something else then gets nothing, and all stays as it is.
    let pods: Vec<Option<i32>> = dev.pods("acme").unwrap().values().map(|pod| pod.pid).collect();
    let globex = status(&dev, "globex").await["tenantId"].as_str().unwrap().to_owned();
    write(&globex);
    until(&dev, "AdoptionRefused", "is of tenant globex").await;
    write("everything");
    until(&dev, "AdoptionRefused", "20 hex digits").await;
    write(id);
    until(&dev, "Provisioned", "").await;
    assert_eq!(dev.pods("acme").unwrap().values().map(|pod| pod.pid).collect::<Vec<_>>(), pods, "its hub went on all the time");

    // What was granted holds without the annotation: it is the data that is removed, with its policy, and then its resource.
    let deletes = tenant("acme", "").replace("Starter", "Starter, deletionPolicy: Delete");
    fs::write(folder.join("acme.yaml"), &deletes).unwrap();
    until(&dev, "InvalidSpec", "acb.dev/confirm-delete=acme").await;
    let confirmed = deletes.replace("name: acme", "name: acme, annotations: {acb.dev/confirm-delete: acme}");
    fs::write(folder.join("acme.yaml"), confirmed).unwrap();
    let deadline = Instant::now() + LONG;
    while status(&dev, "acme").await["effective"]["deletionPolicy"] != "Delete" {
        assert!(Instant::now() < deadline, "its policy is not taken up");
        sleep(Duration::from_millis(100)).await;
    }
    fs::remove_file(folder.join("acme.yaml")).unwrap();
    while !status(&dev, "acme").await.is_null() {
        assert!(Instant::now() < deadline, "acme does not go");
        sleep(Duration::from_millis(100)).await;
    }
    write("");
    until(&dev, "Provisioned", "").await;
    assert_ne!(status(&dev, "acme").await["tenantId"], id, "a tenant of its own");
    dev.stop().await.unwrap();
}
