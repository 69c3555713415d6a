//! The attacks against real servers: each is refused while its wall stands, and succeeds once its wall is down. So it is the wall, and
//! nothing else, that refused it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod doorless;
mod hub;
mod hub_walls;
mod kafka_walls;
mod names;
mod postgres_walls;
mod world;
