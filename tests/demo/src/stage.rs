//! What the demo plays on: `acb dev` over `config/samples`, as a user would start it, with state of its own.

use std::{path::Path, sync::Arc};

use acb_sdk::Client;
use acb_testbed::{
    kafka::{Kafka, KafkaListener},
    standalone::{Home, Standalone, TenantAccess},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::{
    Failure,
    event::{Event, Recorder},
    tell,
};

const SAMPLES: &str = "config/samples";

/// Everything that runs.
pub(crate) struct Stage {
    standalone: Standalone,
    home: Arc<Home>,
    kafka: Option<Kafka>,
}

/// How a tenant's hub is reached.
pub(crate) struct Tenant {
    pub(crate) endpoints: Vec<String>,
    access: TenantAccess,
}

/// The processes of a tenant's hub.
#[derive(Clone)]
pub(crate) struct Pods {
    tenant: String,
    home: Arc<Home>,
}

/// A replica that is no more.
pub(crate) struct Killed {
    pub(crate) replica: String,
    pub(crate) pid: i32,
}

impl Stage {
    pub(crate) async fn start(kafka: bool, target: &Path, recorder: &Recorder) -> Result<Self, Failure> {
        let home = Arc::new(Home::new()?);
        let kafka = if kafka {
            tell("starting a Kafka broker");
            Some(Kafka::start(KafkaListener::Tls).await)
        } else {
            None
        };
        tell(format!("$ acb dev --file {SAMPLES}{}", if kafka.is_some() { " --kafka-bootstrap-servers …" } else { "" }));
        let standalone = Standalone::start(&home, Path::new(SAMPLES), kafka.as_ref(), &target.join("dev.log")).await?;
        for (tenant, access) in standalone.tenants() {
            let endpoints = access.endpoints.clone();
            tell(format!("  tenant {tenant} is ready: {} hub replicas at {}", endpoints.len(), endpoints.join(" and ")));
            recorder.record(Event::TenantReady { tenant: tenant.clone(), endpoints })?;
        }
        Ok(Self { standalone, home, kafka })
    }

    pub(crate) fn tenant(&self, name: &str) -> Result<Tenant, Failure> {
        let access = self.standalone.tenant(name)?.clone();
        Ok(Tenant { endpoints: access.endpoints.clone(), access })
    }

    /// Runs `acb` on this state, and reads the JSON that it prints.
    pub(crate) async fn acb_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, Failure> {
        tell(format!("$ acb {}", arguments.join(" ")));
        Ok(self.standalone.acb_json(arguments).await?)
    }

    pub(crate) fn pods(&self, tenant: &str) -> Pods {
        Pods { tenant: tenant.to_owned(), home: self.home.clone() }
    }

    /// As Ctrl-C would.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.standalone.stop().await?;
        drop(self.kafka);
        Ok(())
    }
}

impl Tenant {
    /// An agent's client, for these replicas.
    pub(crate) async fn client<S: AsRef<str>>(&self, agent: &str, endpoints: &[S]) -> Result<Client, Failure> {
        let client = Client::builder()
            .endpoints(endpoints.iter().map(AsRef::as_ref))
            .ca_pem(self.access.ca_pem.clone())
            .api_key(self.access.api_key(agent)?.parse()?)
            .connect()
            .await?;
        Ok(client)
    }

    /// One replica, and another.
    pub(crate) fn two_endpoints(&self) -> Result<(&str, &str), Failure> {
        match self.endpoints.as_slice() {
            [first, second, ..] => Ok((first, second)),
            _ => Err(Failure("the tenant has no two replicas".to_owned())),
        }
    }
}

impl Pods {
    /// Ends a replica's process as a crash would.
    pub(crate) fn kill(&self, replica: &str) -> Result<Killed, Failure> {
        let pid = self.home.pod(&self.tenant, replica)?.pid.ok_or_else(|| Failure(format!("{replica} does not run")))?;
        let target = Pid::from_raw(pid).ok_or_else(|| Failure(format!("{replica} has no process")))?;
        kill_process(target, Signal::KILL).map_err(|error| Failure(format!("{replica}: {error}")))?;
        Ok(Killed { replica: replica.to_owned(), pid })
    }

    /// Whether a killed replica runs again, as another process, and takes traffic.
    pub(crate) fn is_back(&self, killed: &Killed) -> bool {
        self.home
            .pod(&self.tenant, &killed.replica)
            .is_ok_and(|status| status.ready && status.pid.is_some_and(|pid| pid != killed.pid))
    }
}
