//! What agents prove themselves with, for those who keep an eye on it: which credentials there are, since when, until when, and when each was used
//! last. No secret is in it.

use std::{fmt, sync::Arc};

use super::{
    credential::{Credential, CredentialOwner},
    ports::CredentialStore,
};
use crate::{
    directory::{agent::Permission, caller::Caller, presence::no_such_agent, snapshot::Directory},
    fault::Fault,
    kit::page,
};

/// A page of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialPage {
    /// By their agents' names, and their own.
    pub credentials: Vec<Credential>,
    /// Of the next page; empty where this is the last.
    pub next_page_token: String,
}

/// Lists the credentials of one tenant.
#[derive(Clone)]
pub struct Credentials {
    directory: Directory,
    store: Arc<dyn CredentialStore>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Of the tenant with this directory.
    pub fn new(directory: Directory, store: Arc<dyn CredentialStore>) -> Self {
        Self { directory, store }
    }

    /// Those of the agent of this name. Without a name: of every agent for whom may see them all, and the caller's own for others.
    pub async fn list(&self, caller: &Caller, agent: &str, page_size: u32, page_token: &str) -> Result<CredentialPage, Fault> {
        let sees_all = caller.agent.role.allows(Permission::AllCredentials);
        let of = match agent {
            "" if sees_all => CredentialOwner::Anyone,
            "" => CredentialOwner::Agent(caller.agent.id),
            own if own == caller.agent.name => CredentialOwner::Agent(caller.agent.id),
            other => {
                caller.require(Permission::AllCredentials)?;
                // PostgreSQL takes no text with a NUL.
                if other.contains('\0') {
                    return Err(no_such_agent(other));
                }
                CredentialOwner::Named(other)
            }
        };
        let after = match page_token {
            "" => None,
            token => {
                let invalid = || {
                    Fault::invalid("PAGE_TOKEN_INVALID", "the page token is not one of this list: take next_page_token as it is")
                };
                Some(
                    token
                        .split_once(' ')
                        .filter(|(agent, name)| !agent.contains('\0') && !name.contains('\0'))
                        .ok_or_else(invalid)?,
                )
            }
        };
        let size = page::size(page_size);
        let limit = u32::try_from(size + 1).unwrap_or(u32::MAX);
        let mut credentials = self.store.credentials(of, after, limit).await?;
        if let CredentialOwner::Named(name) = of
            && credentials.is_empty()
            && self.directory.snapshot().agent_named(name).is_none()
        {
            return Err(no_such_agent(name));
        }
        let more = page::cut(&mut credentials, size, |credential| page::bytes([&credential.agent, &credential.name]));
        let last = credentials.last().filter(|_| more);
        let next_page_token = last.map(|last| format!("{} {}", last.agent, last.name)).unwrap_or_default();
        Ok(CredentialPage { credentials, next_page_token })
    }
}
