use std::time::{Duration, Instant};

use acb_oidc::{
    address::Reach,
    discovery,
    https::{DEADLINE, Https, MAX_ANSWER},
};
use acb_testbed::{Response, TestIssuer, public_key};
use rcgen::KeyPair;
use serde_json::json;

fn here() -> Reach {
    Reach::public_or(["127.0.0.0/8", "::1/128"]).unwrap()
}

async fn started() -> TestIssuer {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    TestIssuer::start(&[public_key(&key, "one")]).await
}

async fn ask(issuer: &TestIssuer, reach: Reach) -> Result<serde_json::Value, String> {
    discovery::keys(&Https::new(Some(issuer.ca()), reach).unwrap(), issuer.url()).await
}

async fn refused(issuer: &TestIssuer, why: &str) {
    let error = ask(issuer, here()).await.unwrap_err();
    assert!(error.contains(why), "{error}");
}

#[tokio::test]
async fn an_issuer_says_which_keys_it_has() {
    let issuer = started().await;
    assert_eq!(ask(&issuer, here()).await.unwrap()["keys"][0]["kid"], "one");
    assert_eq!(ask(&issuer, Reach::Anywhere).await.unwrap()["keys"][0]["kid"], "one");
}

/// A name says nothing of where it leads: `localhost` here, and any name of whoever answers for it with an address of the inside.
#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    let issuer = started().await;
    for reach in [Reach::public_or([]).unwrap(), Reach::public_or(["10.0.0.0/8", "::1/128"]).unwrap()] {
        let error = ask(&issuer, reach).await.unwrap_err();
        assert!(error.contains("no public address"), "{error}");
    }
    assert_eq!(issuer.asked(), 0);
    let https = Https::new(Some(issuer.ca()), Reach::public_or([]).unwrap()).unwrap();
    for inside in
        ["https://127.0.0.1:1", "https://[::1]:1", "https://[::ffff:127.0.0.1]:1", "https://169.254.169.254", "https://10.0.0.1"]
    {
        let error = discovery::keys(&https, inside).await.unwrap_err();
        assert!(error.contains("no public address"), "{inside}: {error}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_what_it_says_has_no_keys() {
    let issuer = started().await;
    let (url, port) = (issuer.url().to_owned(), issuer.url().rsplit_once(':').unwrap().1.to_owned());
    for (document, why) in [
        (json!({"issuer": format!("{url}/"), "jwks_uri": format!("{url}/jwks")}), "another issuer's"),
        (json!({"issuer": url.replace("localhost", "LOCALHOST"), "jwks_uri": format!("{url}/jwks")}), "another issuer's"),
        (json!({"issuer": "https://evil.example", "jwks_uri": format!("{url}/jwks")}), "another issuer's"),
        (json!({"issuer": url, "jwks_uri": format!("https://127.0.0.1:{port}/jwks")}), "another host"),
        (json!({"issuer": url, "jwks_uri": "https://169.254.169.254/jwks"}), "another host"),
        (json!({"issuer": url, "jwks_uri": format!("http://localhost:{port}/jwks")}), "https://"),
        (json!({"issuer": url}), "no jwks_uri"),
        (json!([]), "another issuer's"),
    ] {
        issuer.says_of_itself(document);
        refused(&issuer, why).await;
    }
    assert_eq!(issuer.asked(), 0, "nobody asked for its keys");
}

#[tokio::test]
async fn an_answer_has_a_bound_and_a_deadline() {
    let issuer = started().await;
    issuer.responds("/jwks", Response::Json(json!({"keys": ["x".repeat(10 * 1024 * 1024)]})));
    refused(&issuer, &format!("more than {MAX_ANSWER} bytes")).await;
    issuer.responds("/jwks", Response::Endless);
    refused(&issuer, &format!("more than {MAX_ANSWER} bytes")).await;
    let began = Instant::now();
    issuer.responds("/jwks", Response::Never);
    refused(&issuer, "no answer within").await;
    assert!(began.elapsed() < DEADLINE + Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_but_json_is_an_answer() {
    let issuer = started().await;
    let raw = |text: &str| Response::Raw(text.as_bytes().to_vec());
    let elsewhere = started().await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {}/jwks\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    for (response, why) in [
        (raw(&redirect), "a redirect (status 302), which is not followed"),
        (raw("HTTP/1.1 307 Temporary Redirect\r\nlocation: /other\r\ncontent-length: 2\r\n\r\n{}"), "a redirect"),
        (raw("HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}"), "status 500"),
        (raw("HTTP/1.1 204 No Content\r\n\r\n"), "no JSON"),
        (raw("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"), "no JSON"),
        (raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"), "localhost"),
        (raw("garbage\r\n\r\n"), "localhost"),
        (raw(""), "localhost"),
        (Response::Json(json!({"keys": "none"})), "no set of keys"),
        (Response::Json(json!([])), "no set of keys"),
    ] {
        issuer.responds("/jwks", response);
        refused(&issuer, why).await;
    }
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_taken() {
    let (issuer, other) = (started().await, started().await);
    let https = Https::new(Some(other.ca()), here()).unwrap();
    assert!(discovery::keys(&https, issuer.url()).await.unwrap_err().contains("certificate"));
    let https = Https::new(None, here()).unwrap();
    assert!(discovery::keys(&https, issuer.url()).await.unwrap_err().contains("certificate"));
    // For another name than the one that was asked.
    let https = Https::new(Some(issuer.ca()), here()).unwrap();
    let by_address = issuer.url().replace("localhost", "127.0.0.1");
    assert!(discovery::keys(&https, &by_address).await.unwrap_err().contains("certificate"));
}
