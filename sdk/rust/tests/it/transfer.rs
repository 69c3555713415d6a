//! Uploads and downloads over broken connections.

use std::{
    io::Cursor,
    sync::{Arc, Mutex},
    time::Duration,
};

use acb_sdk::{Client, Code, Uploaded};

use crate::hub::{Break, CHUNK, Hub};

/// Twenty and a half chunks, no two alike.
fn payload() -> Vec<u8> {
    (0..CHUNK * 41 / 2).map(|index| (index ^ (index >> 9)) as u8).collect()
}

async fn upload(client: &Client) -> Uploaded {
    let bytes = payload();
    let size = bytes.len() as u64;
    client.upload("documents", Cursor::new(bytes), size).send().await.unwrap()
}

#[tokio::test]
async fn an_upload_goes_on_at_the_first_missing_chunk_on_another_replica() {
    let hub = Hub::start(2).await;
    hub.break_at(Break::Stored(11));
    let client = hub.client().connect().await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = told.clone();
    let bytes = payload();
    let size = bytes.len() as u64;
    let uploaded = client
        .upload("documents", Cursor::new(bytes.clone()), size)
        .progress(move |progress| noted.lock().unwrap().push(progress.bytes))
        .send()
        .await
        .unwrap();
    assert_eq!(hub.state().upload.values().flatten().copied().collect::<Vec<u8>>(), bytes);
    assert_eq!((uploaded.resumed_from_chunk(), uploaded.replicas.len()), (Some(12), 2));
    assert_eq!(uploaded.context.checksum.as_ref(), uploaded.sha256);
    let told = told.lock().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&size), "{told:?}");
}

#[tokio::test]
async fn an_upload_whose_last_answer_was_lost_is_not_made_again() {
    let hub = Hub::start(2).await;
    hub.break_at(Break::Finished);
    let uploaded = upload(&hub.client().connect().await.unwrap()).await;
    assert_eq!((uploaded.context.id.as_str(), uploaded.bytes), ("c", payload().len() as u64));
    assert_eq!(uploaded.context.checksum.as_ref(), uploaded.sha256);
}

#[tokio::test]
async fn a_finished_upload_is_not_taken_for_that_of_another_file() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    let context = upload(&client).await.context;
    let again = client.upload("documents", Cursor::new(payload()), payload().len() as u64).upload_id("u").send().await.unwrap();
    assert_eq!(again.context, context);
    let other = vec![7; payload().len()];
    let size = other.len() as u64;
    let error = client.upload("documents", Cursor::new(other), size).upload_id("u").send().await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss, "{error}");
    assert_eq!(hub.state().context.as_ref(), Some(&context));
}

#[tokio::test]
async fn an_upload_goes_on_in_another_process_under_its_id() {
    let hub = Hub::start(2).await;
    hub.break_at(Break::Stored(5));
    let alone = hub.client().endpoints([format!("https://{}", hub.gates[0].address)]);
    let client = alone.retry_for(Duration::from_millis(300)).connect().await.unwrap();
    let bytes = payload();
    let size = bytes.len() as u64;
    let upload = client.upload("documents", Cursor::new(bytes.clone()), size);
    let id = upload.id().to_owned();
    let error = upload.send().await.unwrap_err();
    assert!(error.code() == Code::Unavailable && error.message().contains(&id), "{error}");

    let client = hub.client().connect().await.unwrap();
    let uploaded = client.upload("documents", Cursor::new(bytes.clone()), size).upload_id(id).send().await.unwrap();
    assert_eq!(uploaded.resumed_from_chunk(), Some(6));
    assert_eq!(hub.state().upload.values().flatten().copied().collect::<Vec<u8>>(), bytes);
    assert_eq!(uploaded.context.checksum.as_ref(), uploaded.sha256);
}

#[tokio::test]
async fn a_download_goes_on_with_the_next_chunk_on_another_replica() {
    let hub = Hub::start(2).await;
    let client = hub.client().connect().await.unwrap();
    upload(&client).await;
    let endpoint = client.endpoint().await.unwrap();
    let gate = hub.gates.iter().find(|gate| endpoint.ends_with(&gate.address.to_string())).unwrap().clone();
    hub.break_at(Break::Stuck(9));
    let mut received = Vec::new();
    let slam = move |progress: acb_sdk::Progress| {
        if progress.bytes == u64::from(CHUNK) * 10 {
            gate.slam();
        }
    };
    let downloaded = client.download("c").progress(slam).receive(&mut received).await.unwrap();
    assert_eq!(received, payload());
    let from: Vec<u32> = downloaded.resumptions.iter().map(|resumption| resumption.from_chunk).collect();
    assert_eq!(from, [10]);
    assert_ne!(client.endpoint().await.unwrap(), endpoint);
}

#[tokio::test]
async fn a_chunk_that_was_damaged_on_its_way_is_fetched_again() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    upload(&client).await;
    hub.break_at(Break::Damaged(3));
    let mut received = Vec::new();
    let downloaded = client.download("c").receive(&mut received).await.unwrap();
    assert_eq!(received, payload());
    assert_eq!(downloaded.resumptions[0].from_chunk, 3);
}

#[tokio::test]
async fn a_context_that_is_not_there_is_not_found_at_once() {
    let hub = Hub::start(1).await;
    let error = hub.client().connect().await.unwrap().download("nope").receive(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("nope"), "{error}");
}
