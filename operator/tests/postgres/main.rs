//! The wall in PostgreSQL, attacked with a tenant's and with the operator's own credentials, on the installed version and on 17.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acts;
mod denials;
mod disk;
mod effect;
mod excess;
#[path = "../golden/given.rs"]
#[allow(dead_code)]
mod given;
mod inventory;
mod logged;
mod operator;
mod positions;
mod proved;
mod restored;
mod rotation;
mod schema;
mod usage;
mod walls;
mod world;

/// The same tests on both versions.
macro_rules! on_each_version {
    ($($test:ident),* $(,)?) => {
        mod installed { $(#[tokio::test] async fn $test() { super::$test(crate::world::installed().await).await; })* }
        mod v17 { $(#[tokio::test] async fn $test() { super::$test(crate::world::v17().await).await; })* }
    };
}
pub(crate) use on_each_version;
