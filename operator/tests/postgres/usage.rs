//! What agents have used, as the operator reads it.

use std::collections::BTreeMap;

use acb_hub_pool::{Limits, Pool};
use acb_operator::{effect::postgres_usage::usage, observed::ObservedUsage};
use acb_testbed::Postgres;

#[tokio::test]
async fn usage_is_this_month_s_and_what_is_kept_by_whose_account_it_is_on() {
    let postgres = Postgres::shared().await;
    let (acme, other) = (postgres.fresh_tenant("acme").await, postgres.fresh_tenant("other").await);
    let pool = Pool::new(postgres.operator_options(), Limits::default());
    assert_eq!(usage(&pool, acme.id_hex()).await.unwrap(), ObservedUsage::default());
    let alice = acme.agent("alice").await.id;
    let helper = uuid::Uuid::new_v4();
    let id = format!("'\\x{}'", acme.id_hex());
    for statement in [
        format!(
            "INSERT INTO acb.registered_agent (tenant_id, agent_id, name, registered_by) VALUES ({id}, '{helper}', 'helper', '{alice}')"
        ),
        format!(
            "INSERT INTO acb.usage_sum (tenant_id, period, starts_at, agent_id, agent, messages, bytes) VALUES
             ({id}, 'month', date_trunc('month', now(), 'UTC'), '{alice}', 'alice', 7, 1),
             ({id}, 'month', date_trunc('month', now(), 'UTC') - interval '1 month', '{alice}', 'alice', 100, 1),
             ({id}, 'hour', date_trunc('month', now(), 'UTC'), '{alice}', 'alice', 7, 1)"
        ),
        format!(
            "INSERT INTO acb.upload (tenant_id, upload_id, agent_id, request, size, chunk_size)
             VALUES ({id}, gen_random_uuid(), '{helper}', '{{}}', 30, 10)"
        ),
        format!(
            "INSERT INTO acb.context (tenant_id, context_id, type, creator, creator_name, scope, payload, size, sha256)
             VALUES ({id}, gen_random_uuid(), 'notes', '{alice}', 'alice', 'public', '', 12, sha256(''))"
        ),
        // Of one that was registered by the same, and is gone.
        format!(
            "INSERT INTO acb.context (tenant_id, context_id, type, creator, creator_name, scope, payload, size, sha256, account)
             VALUES ({id}, gen_random_uuid(), 'notes', gen_random_uuid(), 'gone', 'public', '', 5, sha256(''), '{alice}')"
        ),
    ] {
        postgres.execute(&statement).await;
    }
    let of_alice = |used| BTreeMap::from([(alice.to_string(), used)]);
    let expected = ObservedUsage { messages: of_alice(7), stored: of_alice(47), contexts: of_alice(3) };
    assert_eq!(usage(&pool, acme.id_hex()).await.unwrap(), expected);
    assert_eq!(usage(&pool, other.id_hex()).await.unwrap(), ObservedUsage::default());
}
