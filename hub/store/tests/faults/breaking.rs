//! A store behind a connection that breaks where a test wants it to.

use std::time::Duration;

use acb_hub_core::{fault::Fault, log::bus::Epoch, messages::ports::MailboxStore as _};
use acb_hub_store::PgStore;
use acb_testbed::{Gate, Postgres, TestTenant};
use uuid::Uuid;

/// Bytes between two places at which the connection breaks, and the last place: beyond the traffic of any of these operations.
pub(crate) const STEP: usize = 150;
/// Less than the answer to a commit has.
const FINE: u64 = 10;
pub(crate) const END: u64 = 8_000;
/// How often the places around the commit are gone through, until one lies behind it.
const WALKS: u32 = 20;

pub(crate) struct Breaking {
    pub(crate) tenant: TestTenant,
    /// Behind the connection that breaks.
    pub(crate) store: PgStore,
    /// The same rows, for whoever looks what became of them.
    pub(crate) straight: PgStore,
    pub(crate) gate: Gate,
}

impl Breaking {
    pub(crate) async fn start(epoch: Epoch) -> Self {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let options = tenant.connect_options();
        let straight = PgStore::new(options.clone());
        let gate = Gate::open(&format!("https://127.0.0.1:{}", options.get_port())).await;
        let store = PgStore::new(options.port(gate.port()));
        store.checkpoints(epoch, 1).await.unwrap();
        Self { tenant, store, straight, gate }
    }

    /// Asks, with a connection that breaks after so many bytes. `None`: there was no answer.
    pub(crate) async fn ask<T>(&self, bytes: u64, question: impl Future<Output = Result<T, Fault>>) -> Option<T> {
        self.gate.narrow(bytes);
        let broken = async {
            self.gate.stuck().await;
            self.gate.slam();
        };
        let answer = async {
            let answer = question.await;
            self.gate.narrow(0);
            answer
        };
        let (answer, ()) = tokio::join!(answer, broken);
        self.gate.reopen();
        answer.ok()
    }

    /// Asks until there is an answer, as whoever uses the store does.
    pub(crate) async fn ask_again<T>(question: impl AsyncFn() -> Result<T, Fault>) -> T {
        for _ in 0..500 {
            match question().await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("the store does not come back");
    }

    /// Carries something out once for each place at which the connection can break, and again where there was no answer, as the hub does.
    ///
    /// `prepare` gives what it is carried out on. `times` looks at what it leaves behind, and how often each of these is there: all once, and before
    /// it all of them never. Of the places some must lie before the commit, and some after it.
    pub(crate) async fn at_each_place<T>(
        &self,
        what: &str,
        prepare: impl AsyncFn() -> T,
        carry_out: impl AsyncFn(&T) -> Result<(), Fault>,
        times: impl AsyncFn(&T) -> Vec<i64>,
    ) {
        let (mut undone, mut done, mut walks) = (0, 0, 0);
        // Coarsely up to the first answer; then finely before it, where the commit is.
        let (mut bytes, mut step) = (0, STEP as u64);
        loop {
            let on = prepare().await;
            let heard = self.ask(bytes, carry_out(&on)).await.is_some();
            if !heard {
                let before = Self::settled(what, async || times(&on).await).await;
                (undone, done) = (undone + usize::from(before[0] == 0), done + usize::from(before[0] == 1));
                Self::ask_again(async || carry_out(&on).await).await;
            }
            let after = times(&on).await;
            assert!(
                after.iter().all(|times| *times == 1),
                "{what} was done so often, with a break after {bytes} bytes: {after:?}"
            );
            match (heard, step) {
                (true, FINE) if done > 0 || walks == WALKS => break,
                // On a slow machine a session that waited is asked first whether it lives: the place of the commit was another one then.
                (true, FINE) => (bytes, walks) = (bytes.saturating_sub(STEP as u64), walks + 1),
                (true, _) => (bytes, step) = (bytes.saturating_sub(step), FINE),
                (false, _) => bytes += step,
            }
            assert!(bytes < END, "{what} is never answered");
        }
        assert!(undone > 0 && done > 0, "{what}: without an answer {undone} were not carried out, and {done} were");
    }

    /// What was left behind. The server may carry it out between two looks; by half it is never done.
    async fn settled(what: &str, times: impl AsyncFn() -> Vec<i64>) -> Vec<i64> {
        for _ in 0..100 {
            let found = times().await;
            if found.iter().all(|times| *times == found[0]) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} was done by half: {:?}", times().await);
    }

    /// What a query counts that knows one id.
    pub(crate) async fn count(&self, query: &'static str, id: Uuid) -> i64 {
        sqlx::query_scalar(query).bind(id).fetch_one(self.straight.pool()).await.unwrap()
    }
}
