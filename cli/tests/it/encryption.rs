//! What agents seal for each other, the hub and the log can't read.

use std::time::Duration;

use acb_sdk::{Client, Encryption, EncryptionKey, Error, Message, SEALED, v1};
use sqlx::{Connection as _, PgConnection};

use crate::world::World;

async fn client(world: &World, agent: &str) -> Client {
    let acme = world.dev.tenant("acme").unwrap();
    let key = acme.api_key(agent).unwrap().parse().unwrap();
    Client::builder().endpoints(acme.endpoints.clone()).ca_pem(acme.ca_pem.clone()).api_key(key).connect().await.unwrap()
}

/// The next message of the agent, which it takes.
async fn received(client: &Client) -> v1::Message {
    let mut puller = client.puller();
    let pulled = puller.pull(1, Duration::from_secs(20)).await.unwrap();
    puller.acknowledge(&pulled).await.unwrap();
    pulled.into_iter().next().unwrap().message
}

fn reason(refused: Result<impl std::fmt::Debug, Error>) -> String {
    match refused.unwrap_err() {
        Error::Refused { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_sealed_is_read_by_its_recipients_alone() {
    let world = World::of(&["root"]).await;
    let (alice, bob, carol) = (client(&world, "seals").await, client(&world, "opens").await, client(&world, "opens-too").await);
    let keys: [EncryptionKey; 3] = std::array::from_fn(|_| EncryptionKey::generate());
    let sealing = alice.encryption(keys[0].clone());
    let for_bob = || Message::to_agent("opens").topic("plans").text("for your eyes only");
    assert_eq!(reason(sealing.seal(for_bob()).await), "ENCRYPTION_KEY_MISSING");

    let opening = bob.encryption(keys[1].clone());
    let opening_too = carol.encryption(keys[2].clone());
    for encryption in [&sealing, &opening, &opening_too] {
        encryption.publish().await.unwrap();
    }
    let sent = alice.send(sealing.seal(for_bob()).await.unwrap()).await.unwrap();
    let message = received(&bob).await;
    assert_eq!((message.content_type.as_str(), message.topic.as_str()), (SEALED, "plans"));
    let opened = opening.open(&message).await.unwrap();
    assert_eq!((&opened.payload[..], opened.content_type.as_str()), (&b"for your eyes only"[..], "text/plain; charset=utf-8"));
    assert_eq!(opened.sender_key, keys[0].public().id());
    assert_eq!(reason(opening_too.open(&message).await), "NOT_SEALED_FOR_ME");

    // Neither the log nor an administrator has it in clear.
    let mut superuser = PgConnection::connect_with(&world.dev.superuser().unwrap()).await.unwrap();
    let clear: i64 = sqlx::query_scalar("SELECT count(*) FROM acb.bus_record WHERE position('eyes only'::bytea IN value) > 0")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    let logged: i64 = sqlx::query_scalar("SELECT count(*) FROM acb.bus_record WHERE position($1::bytea IN value) > 0")
        .bind(SEALED.as_bytes())
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(clear, 0);
    assert!(logged > 0, "{sent:?} is in the log");

    // Whom the hub says to be another, or what it moves elsewhere, is noticed.
    let moved = v1::Message { topic: "other".to_owned(), ..message.clone() };
    assert!(matches!(opening.open(&moved).await, Err(Error::Damaged(_))));
    let anothers = v1::Message { from: "opens-too".to_owned(), ..message.clone() };
    assert_eq!(reason(opening.open(&anothers).await), "SENDER_KEY_UNKNOWN");

    // A group, as it is now.
    let for_group = Message::to_group("sealed-readers").json(&serde_json::json!({"plan": 9}));
    alice.send(sealing.seal(for_group).await.unwrap()).await.unwrap();
    for (client, encryption) in [(&bob, &opening), (&carol, &opening_too)] {
        let opened = encryption.open(&received(client).await).await.unwrap();
        assert_eq!(&opened.payload[..], br#"{"plan":9}"#);
    }
    assert!(matches!(sealing.seal(Message::to_all().text("no")).await, Err(Error::Usage(_))));

    // A rotation: what is on its way is opened by the key of before.
    let before = sealing.seal(for_bob()).await.unwrap();
    let after = EncryptionKey::generate();
    let rotated = bob.encryption(after.clone()).and_before(keys[1].clone());
    rotated.publish().await.unwrap();
    alice.send(before).await.unwrap();
    alice.send(sealing.seal(for_bob()).await.unwrap()).await.unwrap();
    for _ in 0..2 {
        rotated.open(&received(&bob).await).await.unwrap();
    }
    alice.send(sealing.seal(for_bob()).await.unwrap()).await.unwrap();
    assert_eq!(reason(opening.open(&received(&bob).await).await), "NOT_SEALED_FOR_ME", "by the key of before alone");
    for _ in 0..2 {
        rotated.withdraw(keys[1].public().id()).await.unwrap();
    }

    // Who pins a key believes no other, whatever the hub says.
    let pinned = alice.encryption(keys[0].clone()).pin("opens", keys[2].public().clone());
    alice.send(pinned.seal(for_bob()).await.unwrap()).await.unwrap();
    assert_eq!(reason(rotated.open(&received(&bob).await).await), "NOT_SEALED_FOR_ME");
    let pinned = alice.encryption(keys[0].clone()).pin("opens", after.public().clone());
    alice.send(pinned.seal(for_bob()).await.unwrap()).await.unwrap();
    let message = received(&bob).await;
    rotated.open(&message).await.unwrap();
    let doubting = bob.encryption(after.clone()).pin("seals", keys[2].public().clone());
    assert_eq!(reason(doubting.open(&message).await), "SENDER_KEY_UNKNOWN");
    let for_group = || Message::to_group("sealed-readers").text("no");
    assert_eq!(reason(pinned.seal(for_group()).await), "ENCRYPTION_KEY_MISSING", "one member is not pinned");
    pinned.pin("opens-too", keys[2].public().clone()).seal(for_group()).await.map(drop).unwrap();

    // To oneself, too.
    alice.send(sealing.seal(Message::to_agent("seals").text("a note")).await.unwrap()).await.unwrap();
    assert_eq!(&sealing.open(&received(&alice).await).await.unwrap().payload[..], b"a note");

    // Beside messages: any payload.
    let payload = sealing.seal_for(["opens", "opens-too"], "plan 9", "text/plain", "a context").await.unwrap();
    assert_eq!(&rotated.open_payload("seals", "plan 9", &payload).await.unwrap().payload[..], b"a context");
    assert!(matches!(rotated.open_payload("seals", "plan 10", &payload).await, Err(Error::Damaged(_))));
    let passed_off = v1::Message { payload, topic: String::new(), ..message };
    assert!(matches!(rotated.open(&passed_off).await, Err(Error::Damaged(_))), "it is no message");
}

#[tokio::test]
async fn an_agent_has_so_many_keys() {
    let world = World::of(&["root"]).await;
    let client = client(&world, "many-keys").await;
    let publish = async |key: EncryptionKey| -> Result<(), Error> {
        let encryption: Encryption = client.encryption(key);
        encryption.publish().await
    };
    let first = EncryptionKey::generate();
    publish(first.clone()).await.unwrap();
    publish(first.clone()).await.unwrap();
    for _ in 1..8 {
        publish(EncryptionKey::generate()).await.unwrap();
    }
    assert_eq!(reason(publish(EncryptionKey::generate()).await), "TOO_MANY_ENCRYPTION_KEYS");
    client.encryption(first.clone()).withdraw(first.public().id()).await.unwrap();
    publish(EncryptionKey::generate()).await.unwrap();
}
