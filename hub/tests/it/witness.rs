//! The checkpoints of the audit trail go to a witness outside of the platform.

use acb_testbed::{Response, TestIssuer};
use serde_json::json;

use crate::hub::Hub;

const SIGNED: &str = "\u{2014} witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/\n";

fn answers(status: &str, body: &str) -> Response {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    Response::Raw([head.as_bytes(), body.as_bytes()].concat())
}

/// What one sample of the metrics is now.
fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_signed_is_shown_to_the_witness() {
    // It serves whatever path it is told to.
    let witness = TestIssuer::start(&[]).await;
    witness.responds("/acb/add-checkpoint", answers("200 OK", SIGNED));
    let config = json!({"url": format!("{}/acb", witness.url()), "cidrs": ["127.0.0.0/8", "::1/128"], "certificateAuthority": witness.ca()});
    let hub = Hub::start_with(json!({"witness": config})).await;
    hub.agent("alice", "agent-full").await;
    hub.until("/metrics", |_, metrics| sample(metrics, "acb_audit_witnessed_size") > 0).await;
}

#[tokio::test]
async fn a_witness_that_takes_nothing_is_told_of_and_keeps_nobody_out() {
    let witness = TestIssuer::start(&[]).await;
    witness.responds("/add-checkpoint", answers("403 Forbidden", ""));
    let config = json!({"url": witness.url(), "cidrs": ["127.0.0.0/8", "::1/128"], "certificateAuthority": witness.ca()});
    let hub = Hub::start_with(json!({"witness": config})).await;
    hub.agent("alice", "agent-full").await;
    let metrics = hub.until("/metrics", |_, metrics| sample(metrics, "acb_audit_witness_failures_total") > 0).await;
    assert_eq!(sample(&metrics, "acb_audit_witnessed_size"), 0);
    assert!(hub.log().contains("it does not know the key that signs this trail"), "{}", hub.log());
    hub.agent("bob", "agent-full").await;
}

#[tokio::test]
async fn a_witness_inside_is_asked_where_the_platform_lists_its_network_only() {
    let witness = TestIssuer::start(&[]).await;
    witness.responds("/add-checkpoint", answers("200 OK", SIGNED));
    let hub = Hub::start_with(json!({"witness": {"url": witness.url(), "certificateAuthority": witness.ca()}})).await;
    hub.agent("alice", "agent-full").await;
    hub.until("/metrics", |_, metrics| sample(metrics, "acb_audit_witness_failures_total") > 0).await;
    assert!(hub.log().contains("no public address"), "{}", hub.log());
}
