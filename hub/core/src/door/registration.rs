//! Agents that other agents register, where the Tenant's `registration` is `Open`: they log in with a key of their own, may do what who
//! registered them may, and end with it.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{access_token::Tokens, api_key::new_api_key, ports::RegistrationStore};
use crate::{
    directory::{
        agent::Permission,
        caller::Caller,
        presence::{Listed, Registration, check_name, no_such_agent},
        refresher::Refresher,
    },
    fault::{Code, Fault},
    log::bus::{Bus, Record, TopicName},
};

/// A tenant holds this many agents that others registered, whatever its limit.
pub const MAX_REGISTERED: u32 = 1000;

/// How long a registration waits for the log to take the hint to other replicas. They look by themselves, too.
const HINT_WITHIN: Duration = Duration::from_secs(1);

/// An agent that was registered, and the only look at its key.
pub struct Registered {
    /// As others see it.
    pub listed: Listed,
    /// Its API key.
    pub api_key: String,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("agent", &self.listed.agent.name).finish_non_exhaustive()
    }
}

/// Registers agents for others.
#[derive(Clone)]
pub struct Registrar {
    tokens: Tokens,
    directory: Arc<Refresher>,
    store: Arc<dyn RegistrationStore>,
    bus: Arc<dyn Bus>,
    /// What other replicas follow to hear of a newer directory.
    control: TopicName,
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").finish_non_exhaustive()
    }
}

impl Registrar {
    /// Of one tenant, whose replicas follow this topic to hear of a newer directory.
    pub fn new(
        tokens: Tokens,
        directory: Arc<Refresher>,
        store: Arc<dyn RegistrationStore>,
        bus: Arc<dyn Bus>,
        control: TopicName,
    ) -> Self {
        Self { tokens, directory, store, bus, control }
    }

    /// Registers an agent of the caller's role, or describes one anew that the caller registered before: then its key is another one, too, and the
    /// one before ends.
    pub async fn register(&self, caller: &Caller, registration: Registration) -> Result<Registered, Fault> {
        caller.require(Permission::RegisterOthers)?;
        let snapshot = self.directory.directory().snapshot();
        if !snapshot.open_registration {
            return Err(Fault::new(
                Code::FailedPrecondition,
                "REGISTRATION_DECLARED",
                "this tenant only has agents with an Agent resource: apply one, or set the Tenant's spec.registration to Open",
            ));
        }
        if snapshot.registered_by(caller.agent.id).is_some() {
            return Err(Fault::new(
                Code::PermissionDenied,
                "REGISTRAR_IS_REGISTERED",
                "an agent that another one registered registers no further ones: ask an agent with an Agent resource",
            ));
        }
        check_name(&registration.name)?;
        check_size(&registration)?;
        let key = new_api_key(self.tokens.keyring().pepper())?;
        let most = snapshot.limits.max_agents;
        self.store.register(caller.agent.id, &registration, &key.stored, most).await?;
        self.hint().await;
        // What was written has made the directory newer.
        let snapshot = self.directory.current().await?;
        let agent = snapshot.agent_named(&registration.name).ok_or_else(|| no_such_agent(&registration.name))?;
        let listed = Listed { agent: agent.clone(), presence: None, registered_by: Some(caller.agent.name.clone()) };
        Ok(Registered { listed, api_key: key.text })
    }

    /// Removes an agent that the caller registered: its key ends, and with it all that it has open.
    pub async fn unregister(&self, caller: &Caller, name: &str) -> Result<(), Fault> {
        caller.require(Permission::RegisterOthers)?;
        if check_name(name).is_err() || !self.store.unregister(caller.agent.id, name).await? {
            return Err(no_such_agent(name));
        }
        self.hint().await;
        self.directory.current().await.map(drop)
    }

    /// Tells the other replicas to look. Where the log does not take it, they find out seconds later.
    async fn hint(&self) {
        let appended = async {
            let logged = self.bus.append(&self.control, 0, Record::default()).await.map_err(|error| error.to_string())?;
            logged.await.map_err(|error| error.to_string())
        };
        match timeout(HINT_WITHIN, appended).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error, topic = %self.control, "other replicas hear of a registration late"),
            Err(_) => tracing::warn!(topic = %self.control, "other replicas hear of a registration late: the log is slow"),
        }
    }
}

fn check_size(registration: &Registration) -> Result<(), Fault> {
    let texts = registration.capabilities.iter().chain(registration.metadata.keys()).chain(registration.metadata.values());
    let texts: Vec<&String> = texts.chain([&registration.kind, &registration.location]).collect();
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(Fault::invalid("REGISTRATION_INVALID", "type, capabilities, metadata and location take no NUL"));
    }
    if texts.iter().map(|text| text.len()).sum::<usize>() > 16 * 1024 {
        return Err(Fault::invalid(
            "REGISTRATION_TOO_LARGE",
            "type, capabilities, metadata and location take at most 16 KiB together",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_must_fit_the_store() {
        let check = |kind: &str| check_size(&Registration { kind: kind.to_owned(), ..Registration::default() });
        assert_eq!(check("worker"), Ok(()));
        assert_eq!(check("a\0b").map_err(|fault| fault.reason), Err("REGISTRATION_INVALID"));
        assert_eq!(check(&"x".repeat(17_000)).map_err(|fault| fault.reason), Err("REGISTRATION_TOO_LARGE"));
    }
}
