//! Brokers of which one is away, or takes connections and says nothing.

use std::time::Duration;

use acb_kafka::{Connection, Error, Settings, kafka_protocol::messages::MetadataRequest};
use acb_testbed::{Kafka, KafkaListener};
use tokio::{net::TcpListener, time::Instant};

use crate::BROKERS;

#[tokio::test]
async fn a_broker_that_takes_connections_and_says_nothing_is_passed_over_once() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Plain).await;
    // Connections wait in its backlog for as long as there is the listener.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let servers = format!("{},{}", silent.local_addr().unwrap(), kafka.bootstrap_servers());
    let settings = Settings::new(&servers, Kafka::ADMIN, kafka.admin_password());
    let mut connection = Connection::open(&settings).await.unwrap();
    connection.send(&MetadataRequest::default().with_topics(None), 12).await.unwrap();
    // The next one begins with the broker that answered, also as another user.
    let began = Instant::now();
    Connection::open(&settings).await.unwrap();
    let other = settings.clone().with_login("nobody", "wrong");
    assert!(matches!(Connection::open(&other).await, Err(Error::Login(..))));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn where_all_are_silent_that_ends_too() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let settings = Settings::new(&format!("{address},{address}"), "admin", "x");
    let began = Instant::now();
    assert!(matches!(Connection::open(&settings).await, Err(Error::Unreachable(..))));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
