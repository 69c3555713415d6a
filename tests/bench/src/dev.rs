//! `acb dev` as a person waits for it: started over `config/samples`, and with a tenant added while it runs.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use acb_operator::runtime::standalone::{objects::ObjectStore, state::StateDir};
use acb_sdk::Client;
use acb_testbed::standalone::{Home, Standalone};
use tokio::time::sleep;

use crate::{Effort, Failure, report::Report, samples::median, tell};

const SAMPLES: &str = "config/samples";
const READY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);

pub(crate) async fn run(effort: Effort, log: &Path, report: &mut Report) -> Result<(), Failure> {
    tell("starting acb dev over config/samples, again and again");
    let home = Home::new()?;
    let resources = home.path().join("resources");
    fs::create_dir(&resources)?;
    let samples = fs::read_dir(SAMPLES).map_err(|error| Failure(format!("{SAMPLES}: {error} (run this in the repository)")))?;
    for sample in samples {
        let sample = sample?;
        fs::copy(sample.path(), resources.join(sample.file_name()))?;
    }
    let (first, mut standalone) = start(&home, &resources, log).await?;
    tell(format!("  first start {first:.2} s"));
    let mut starts = Vec::new();
    for run in 0..effort.runs {
        standalone.stop().await?;
        let (seconds, next) = start(&home, &resources, log).await?;
        tell(format!("  run {} warm start {seconds:.2} s", run + 1));
        starts.push(seconds);
        standalone = next;
    }
    let mut additions = Vec::new();
    for run in 0..effort.runs {
        let seconds = add(&home, &resources, &format!("added-{run}")).await?;
        tell(format!("  run {} a tenant added: {seconds:.2} s", run + 1));
        additions.push(seconds);
    }
    standalone.stop().await?;
    report.value("acb dev, two tenants of two replicas, warm: ready", median(starts), "s", 10.0);
    report.beside("the same, first start: nothing provisioned", None, first, "s");
    report.value("a tenant added to the folder: Ready", median(additions), "s", 5.0);
    Ok(())
}

/// Ready is when an agent of each tenant has a session.
async fn start(home: &Home, resources: &Path, log: &Path) -> Result<(f64, Standalone), Failure> {
    let begun = Instant::now();
    let standalone = Standalone::start(home, resources, None, log).await?;
    let mut sessions = Vec::new();
    for (tenant, agent) in [("acme", "supervisor"), ("globex", "analyst")] {
        let access = standalone.tenant(tenant)?;
        let builder = Client::builder().endpoints(access.endpoints.clone()).ca_pem(access.ca_pem.clone());
        let client = builder.api_key(access.api_key(agent)?.parse()?).connect().await?;
        sessions.push(client.session().open().await?);
    }
    Ok((begun.elapsed().as_secs_f64(), standalone))
}

/// Saves a Tenant as an editor would: whole, at once.
async fn add(home: &Home, resources: &Path, name: &str) -> Result<f64, Failure> {
    let text = format!(
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: {name}\nspec:\n  tier: Starter\n  hub:\n    replicas: 1\n  \
         contextTypes:\n    - name: documents\n"
    );
    let draft = home.path().join(name);
    fs::write(&draft, text)?;
    let store = ObjectStore::open(&StateDir::existing(&home.state())?)?;
    let begun = Instant::now();
    fs::rename(&draft, resources.join(format!("{name}.yaml")))?;
    while !is_ready(&store, name)? {
        if begun.elapsed() > READY {
            return Err(Failure(format!("tenant {name} did not get ready")));
        }
        sleep(LOOK).await;
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn is_ready(store: &ObjectStore, name: &str) -> Result<bool, Failure> {
    let tenants = store.of_kind("Tenant")?;
    let tenant = tenants.iter().find(|tenant| tenant.pointer("/metadata/name").is_some_and(|found| found == name));
    let conditions = tenant.and_then(|tenant| tenant.pointer("/status/conditions")?.as_array());
    Ok(conditions.is_some_and(|all| all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")))
}
