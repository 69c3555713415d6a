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
        source::Source,
    },
    fault::{Code, Fault},
    kit::labels,
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
            return Err(declared());
        }
        if snapshot.registered_by(caller.agent.id).is_some() {
            return Err(Fault::new(
                Code::PermissionDenied,
                "REGISTRAR_IS_REGISTERED",
                "an agent that another one registered registers no further ones: ask an agent with an Agent resource",
            ));
        }
        let Some(Source::ApiKey(by_key)) = &caller.source else {
            let why = "what is registered ends with the API key of who registered it, and the access token came from none: exchange an API key";
            return Err(Fault::new(Code::FailedPrecondition, "REGISTRAR_KEY_UNKNOWN", why));
        };
        check_name(&registration.name)?;
        check_description(&registration)?;
        // In a namespace of its registrar's: nobody takes a name that others have granted something to.
        let registration = Registration { name: format!("{}.{}", caller.agent.name, registration.name), ..registration };
        let key = new_api_key(self.tokens.keyring().pepper(), by_key)?;
        let most = snapshot.limits.max_agents;
        self.store.register(caller.agent.id, &registration, &key.stored, most).await?;
        self.hint().await;
        // What was written has made the directory newer.
        let snapshot = self.directory.current().await?;
        let agent = snapshot.agent_named(&registration.name).ok_or_else(|| no_such_agent(&registration.name))?;
        let listed = Listed { agent: agent.clone(), presence: None, registered_by: Some(caller.agent.name.clone()) };
        Ok(Registered { listed, api_key: key.text })
    }

    /// Removes an agent that the caller registered, or an administrator any that was registered: its key ends, and with it all that it has open.
    pub async fn unregister(&self, caller: &Caller, name: &str) -> Result<(), Fault> {
        caller.require(Permission::RegisterOthers)?;
        let full = if name.contains('.') { name.to_owned() } else { format!("{}.{name}", caller.agent.name) };
        let is_name = full.split('.').all(|part| check_name(part).is_ok());
        let by = (!caller.agent.role.allows(Permission::AllRegistrations)).then_some(caller.agent.id);
        if !is_name || !self.store.unregister(by, &full).await? {
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

/// What a caller hears where no agent may register others.
#[must_use]
pub fn declared() -> Fault {
    Fault::new(
        Code::FailedPrecondition,
        "REGISTRATION_DECLARED",
        "this tenant only has agents with an Agent resource: apply one, or set the Tenant's spec.registration to Open",
    )
}

/// As many as an Agent resource may have, and no larger: every replica holds them, and every list of agents has them.
const MAX_CAPABILITIES: usize = 50;
const MAX_TEXT_BYTES: usize = 253;

fn check_description(registration: &Registration) -> Result<(), Fault> {
    let Registration { name: _, kind, capabilities, metadata, location } = registration;
    let fits = |text: &String| text.len() <= MAX_TEXT_BYTES && !text.contains('\0');
    let named = capabilities.iter().all(|capability| !capability.is_empty() && fits(capability));
    if capabilities.len() > MAX_CAPABILITIES || !named || !fits(kind) || !fits(location) {
        let rule = format!(
            "an agent has at most {MAX_CAPABILITIES} named capabilities; each of them, type and location take at most {MAX_TEXT_BYTES} bytes without NUL"
        );
        return Err(Fault::invalid("REGISTRATION_INVALID", rule));
    }
    labels::check_metadata(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_no_larger_than_that_of_an_agent_resource() {
        let kind = |kind: &str| Registration { kind: kind.to_owned(), ..Registration::default() };
        let capabilities = |capability: &str, count| Registration {
            capabilities: vec![capability.to_owned(); count],
            ..Registration::default()
        };
        let metadata = Registration { metadata: [("a".to_owned(), "b\0".to_owned())].into(), ..Registration::default() };
        assert_eq!(check_description(&kind("worker")), Ok(()));
        assert_eq!(check_description(&capabilities("fly", MAX_CAPABILITIES)), Ok(()));
        for bad in [kind("a\0b"), kind(&"x".repeat(254)), capabilities("", 1), capabilities("fly", MAX_CAPABILITIES + 1)] {
            assert_eq!(check_description(&bad).map_err(|fault| fault.reason), Err("REGISTRATION_INVALID"));
        }
        assert_eq!(check_description(&metadata).map_err(|fault| fault.reason), Err("METADATA_INVALID"));
    }
}
