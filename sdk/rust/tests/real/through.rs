//! A hub that is reached at another address than its name's, as by a port-forward.

use std::net::SocketAddr;

use acb_sdk::{Client, Error};

use crate::world::dev;

async fn asker(name: &str) -> Result<Client, Error> {
    let access = dev().await.tenant("acme").unwrap();
    let address: SocketAddr = access.endpoints[0].trim_start_matches("https://").parse().unwrap();
    let key = access.api_key("asker").unwrap().parse().unwrap();
    Client::builder().endpoints([name]).through(address).ca_pem(access.ca_pem.clone()).api_key(key).connect().await
}

#[tokio::test]
async fn a_forwarded_hub_is_known_by_its_name() {
    let client = asker("https://hub.acbhub-acme.svc:8443").await.unwrap();
    assert_eq!(client.identity().await.unwrap().agent, "asker");
    let other = asker("https://hub.acbhub-fragile.svc:8443").await.unwrap_err();
    assert!(matches!(other, Error::Untrusted(_)), "{other}");
}
