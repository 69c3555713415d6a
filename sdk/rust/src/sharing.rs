//! How a payload is shared, said once for those that are inline and those that are streamed.

use std::{collections::HashMap, time::Duration};

use acb_proto::v1::{Access, Scope as WireScope};

use crate::Client;

/// Who may read a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All agents of the tenant.
    #[default]
    Public,
    /// Its creator.
    Private,
    /// The members of these groups.
    Groups(Vec<String>),
    /// These agents, by name.
    Agents(Vec<String>),
}

impl From<Scope> for Access {
    fn from(scope: Scope) -> Self {
        let (scope, groups, agents) = match scope {
            Scope::Public => (WireScope::Public, vec![], vec![]),
            Scope::Private => (WireScope::Private, vec![], vec![]),
            Scope::Groups(groups) => (WireScope::Group, groups, vec![]),
            Scope::Agents(agents) => (WireScope::Shared, vec![], agents),
        };
        Self { scope: scope.into(), groups, agents }
    }
}

/// What is said about a payload when it is shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    pub(crate) context_type: String,
    pub(crate) content_type: String,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) scope: Scope,
}

/// Gathers how a payload becomes a context: [`Share`](crate::Share) an inline one, [`Upload`](crate::Upload) a streamed one.
#[derive(Debug)]
#[must_use = "nothing is shared until it is sent"]
pub struct Sharing<S> {
    pub(crate) client: Client,
    pub(crate) description: Description,
    pub(crate) source: S,
}

impl<S> Sharing<S> {
    pub(crate) fn new(client: &Client, context_type: impl Into<String>, source: S) -> Self {
        let description = Description { context_type: context_type.into(), ..Description::default() };
        Self { client: client.clone(), description, source }
    }

    /// Who may read it; everyone in the tenant unless said otherwise.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.description.scope = scope;
        self
    }

    /// Deleted after this time; kept until deleted unless said otherwise.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.description.ttl = Some(ttl);
        self
    }

    /// A further fact.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.description.metadata.insert(key.into(), value.into());
        self
    }

    /// What the payload is.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.description.content_type = content_type.into();
        self
    }
}
