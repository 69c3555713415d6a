//! A server that tells how it carried out what it was asked.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use acb_hub_core::fault::Fault;
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, TestTenant, Version};
use serde_json::Value;

/// Longer than a server takes to write its log.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Explained {
    postgres: Postgres,
    pub(crate) tenant: TestTenant,
    pub(crate) store: PgStore,
    log: PathBuf,
}

/// A statement, and how it was carried out.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) text: String,
    plan: Value,
}

impl Explained {
    /// More often than a session waits before it makes a plan that knows no values.
    pub(crate) const TIMES: usize = 7;

    pub(crate) async fn start() -> Self {
        let settings = [
            ("session_preload_libraries", "auto_explain"),
            ("auto_explain.log_min_duration", "0"),
            ("auto_explain.log_analyze", "on"),
            ("auto_explain.log_timing", "off"),
            ("auto_explain.log_nested_statements", "on"),
            ("auto_explain.log_format", "json"),
            // Each plan is told apart by the login and the session that it was made for.
            ("log_line_prefix", "%u "),
        ];
        let postgres = Postgres::start_with(Version::Installed, false, &settings).await;
        let tenant = postgres.fresh_tenant("acme").await;
        let mut superuser = postgres.superuser().await;
        let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut superuser).await.unwrap();
        let log = PathBuf::from(data).with_file_name("postgres.log");
        let store = PgStore::new(tenant.connect_options());
        Self { postgres, tenant, store, log }
    }

    pub(crate) async fn execute(&self, statement: &str) {
        self.postgres.execute(statement).await;
    }

    /// What the tenant's login asked for meanwhile, and how it was carried out.
    pub(crate) async fn explained<T>(&self, asked: impl Future<Output = T>) -> (T, Vec<Plan>) {
        let begin = self.log.metadata().unwrap().len();
        let answer = asked.await;
        let marker = format!("SELECT '{}'", uuid::Uuid::new_v4());
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            // Asked by the same session, or by one that began later: what came before is in the log by then.
            sqlx::query(sqlx::AssertSqlSafe(marker.clone())).execute(self.store.pool()).await.unwrap();
            let mut file = std::fs::File::open(&self.log).unwrap();
            file.seek(SeekFrom::Start(begin)).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            let plans = plans(&String::from_utf8_lossy(&bytes), self.tenant.username());
            if let Some(end) = plans.iter().position(|plan| plan.text == marker) {
                return (answer, plans.into_iter().take(end).collect());
            }
            assert!(tokio::time::Instant::now() < deadline, "the server's log has no plans: {}", self.log.display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks often enough that the last plans know no values, and holds each time that no more rows of these tables are gone through.
    pub(crate) async fn reads(&self, what: &str, most: &[(&str, u32)], ask: impl AsyncFn() -> Result<(), Fault>) {
        for _ in 0..Self::TIMES {
            let (answer, plans) = self.explained(ask()).await;
            answer.unwrap_or_else(|fault| panic!("{what}: {fault}"));
            for (table, most) in most {
                let read = rows_read(&plans, table);
                assert!(read <= f64::from(*most), "{what}: {read} rows of {table} are read, and not {most} at most: {plans:#?}");
                assert!(
                    plans.iter().any(|plan| reads_of(&plan.plan, table).is_some()),
                    "{what} does not ask {table}: {plans:#?}"
                );
            }
        }
    }
}

/// The plans of this login in the server's log.
fn plans(log: &str, login: &str) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        let mut json = String::new();
        // An entry goes on in lines that begin with a tab.
        while let Some(more) = lines.next_if(|line| line.starts_with('\t')) {
            json.push_str(more);
        }
        if line.strip_prefix(login).is_some_and(|line| line.starts_with(' ') && line.ends_with("plan:"))
            && let Ok(plan) = serde_json::from_str::<Value>(&json)
        {
            let text = plan["Query Text"].as_str().unwrap_or_default().to_owned();
            plans.push(Plan { text, plan: plan["Plan"].clone() });
        }
    }
    plans
}

/// Rows of a table that were gone through for these.
pub(crate) fn rows_read(plans: &[Plan], table: &str) -> f64 {
    plans.iter().filter_map(|plan| reads_of(&plan.plan, table)).sum()
}

/// `None` where the plan does not have the table.
fn reads_of(node: &Value, table: &str) -> Option<f64> {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let is_scan = node["Relation Name"] == table && node["Node Type"].as_str().is_some_and(|kind| kind.contains("Scan"));
    let rows = number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let own = is_scan.then(|| rows * number("Actual Loops"));
    let below = node["Plans"].as_array().into_iter().flatten().filter_map(|node| reads_of(node, table));
    below.chain(own).fold(None, |sum, read| Some(sum.unwrap_or(0.0) + read))
}
