//! Ends tenants' sessions with PostgreSQL that hold a transaction open for too long, or a table locked. A tenant may lift its own time limits; as
//! long as one transaction is open, the shared database forgets nothing that was deleted since, of any tenant. And whoever may change rows of a
//! table may lock all of it: the hubs of all tenants wait for that.

use std::{sync::Arc, time::Duration};

use acb_crds::schema::{Kind, ObjectRef};
use tokio::time::sleep;
use tracing::warn;

use super::{cluster::Cluster, metrics::Metrics};
use crate::reconcile::{news, runtime::Runtime as _};

/// A table that is locked stops every hub.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Hubs' statements end after 30 s, and their transactions have few.
const LONGEST_SECONDS: u32 = 120;

/// For as long as this process leads.
pub(super) async fn end_overlong(cluster: Arc<Cluster>, metrics: Metrics) {
    while cluster.closing.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        let ended = match cluster.database_in_use().await {
            Ok(None) => continue,
            Ok(Some(database)) => database.effect.end_overlong(LONGEST_SECONDS).await,
            Err(error) => Err(error),
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                warn!(%error, "over-long sessions were not looked for");
                continue;
            }
        };
        for sessions in ended {
            metrics.ended_sessions(sessions.count);
            warn!(tenant = sessions.tenant, id = sessions.tenant_id, count = sessions.count, "ended over-long sessions");
            let Some(tenant) = sessions.tenant else { continue };
            let object = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: tenant };
            cluster.tell(&object, news::of_overlong(sessions.count, LONGEST_SECONDS)).await;
        }
    }
}
