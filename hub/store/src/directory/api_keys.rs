//! The API keys of a tenant's agents, as one table for queries.

/// `key (prefix, agent_id, hmac, expires_at)`: the keys that the operator projects, and those of agents that others registered, each of which ends
/// with the key that its registrar showed.
macro_rules! keys {
    () => {
        "(SELECT prefix, agent_id, hmac, expires_at FROM acb.api_key
          UNION ALL
          SELECT k.prefix, k.agent_id, k.hmac, own.expires_at
          FROM acb.registered_key AS k
          JOIN acb.registered_agent AS r ON r.tenant_id = k.tenant_id AND r.agent_id = k.agent_id
          JOIN acb.api_key AS own ON own.tenant_id = k.tenant_id AND own.prefix = k.by_key AND own.agent_id = r.registered_by) AS key"
    };
}

pub(crate) use keys;
