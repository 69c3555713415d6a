//! Asks the operator what it would do. This command line has no credential for Kafka or PostgreSQL, and needs none.

use std::{net::SocketAddr, path::PathBuf};

use acb_operator::{
    orphans::OrphanReport,
    preview::{
        Report,
        question::{AUDIENCE, MAX_BYTES, MAX_OBJECTS, ORPHANS_PATH, PATH, PORT, Question},
    },
};
use clap::Args;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    coordination::v1::Lease,
    core::v1::ServiceAccount,
};
use kube_client::{Api, Client, Config, Error, api::PostParams, config::AuthInfo};
use serde::de::DeserializeOwned;

use super::{
    Cluster,
    forward::{Destination, Forward},
    refused,
};
use crate::output::{Exit, Failure};

/// The Lease that names the leader.
const LEASE: &str = "acb-operator";
/// More than the operator takes for a plan.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(150);
/// Of a token that is used at once; the least that is given out.
const TOKEN_SECONDS: i64 = 600;

/// Which operator, and who asks it.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlannerArgs {
    /// With --cluster: the namespace of the operator.
    #[arg(long, value_name = "NAME", default_value = "acb-system")]
    operator_namespace: String,
    /// With --cluster: ask with the token in this file, best one with the audience acb.dev/plan [default: that of the kubeconfig].
    #[arg(long, value_name = "FILE", conflicts_with = "service_account")]
    token_file: Option<PathBuf>,
    /// With --cluster: ask as this ServiceAccount, with a token that is requested for this alone.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service_account: Option<String>,
}

/// Asks the leader of the operator.
pub(crate) async fn ask(cluster: &Cluster, args: &PlannerArgs, question: &Question) -> Result<Report, Failure> {
    if question.objects.len() > MAX_OBJECTS {
        let message =
            format!("{} objects, and a plan is made for at most {MAX_OBJECTS}: plan fewer at a time", question.objects.len());
        return Err(Failure::failed(message));
    }
    let body = serde_json::to_vec(question).map_err(Failure::failed)?;
    if body.len() > MAX_BYTES {
        return Err(Failure::failed(format_args!(
            "{} bytes, and a plan is made for at most {MAX_BYTES}: plan fewer at a time",
            body.len()
        )));
    }
    let request = http::Request::post(PATH).header(CONTENT_TYPE, "application/json").body(body).map_err(Failure::failed)?;
    put(cluster, args, request).await
}

/// Asks what belongs to no Tenant.
pub(crate) async fn orphans(cluster: &Cluster, args: &PlannerArgs) -> Result<OrphanReport, Failure> {
    put(cluster, args, http::Request::get(ORPHANS_PATH).body(Vec::new()).map_err(Failure::failed)?).await
}

async fn put<T: DeserializeOwned>(cluster: &Cluster, args: &PlannerArgs, request: http::Request<Vec<u8>>) -> Result<T, Failure> {
    let auth = caller(cluster, args).await?;
    let to =
        Destination::Pod { namespace: args.operator_namespace.clone(), name: leader(cluster, &args.operator_namespace).await? };
    let forward = Forward::open(&cluster.client, to, PORT).await?;
    match through(forward.address(), auth)?.request::<T>(request).await {
        Ok(report) => Ok(report),
        Err(error) => Err(match (&error, forward.failure()) {
            (Error::Api(_), _) | (_, None) => refused("the operator", &error),
            (_, Some(why)) => why,
        }),
    }
}

/// A client like the cluster's, which puts its token on every request.
fn through(address: SocketAddr, auth: AuthInfo) -> Result<Client, Failure> {
    let address = format!("http://{address}").parse().map_err(Failure::failed)?;
    let mut config = Config::new(address);
    config.auth_info = auth;
    config.read_timeout = Some(ANSWER_WITHIN);
    config.default_retry = false;
    Client::try_from(config).map_err(|error| Failure::new(Exit::Denied, format_args!("kubeconfig: {error}")))
}

/// The pod of the leader.
async fn leader(cluster: &Cluster, namespace: &str) -> Result<String, Failure> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let lease = leases.get(LEASE).await.map_err(|error| refused(&format!("Lease {namespace}/{LEASE}"), &error))?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    match holder.split('_').next() {
        Some(pod) if !pod.is_empty() => Ok(pod.to_owned()),
        _ => Err(Failure::new(Exit::Unavailable, format_args!("no operator leads in namespace {namespace}: is one running?"))),
    }
}

/// Who asks.
async fn caller(cluster: &Cluster, args: &PlannerArgs) -> Result<AuthInfo, Failure> {
    if let Some(file) = &args.token_file {
        let token =
            std::fs::read_to_string(file).map_err(|error| Failure::failed(format_args!("{}: {error}", file.display())))?;
        return Ok(AuthInfo { token: Some(token.trim().to_owned().into()), ..AuthInfo::default() });
    }
    let Some(account) = &args.service_account else {
        let known = &cluster.config.auth_info;
        if known.impersonate.is_some() {
            let advice = "the operator is not told whom a kubeconfig impersonates: use --token-file or --service-account";
            return Err(Failure::new(Exit::Usage, advice));
        }
        let has_token =
            known.token.is_some() || known.token_file.is_some() || known.exec.is_some() || known.auth_provider.is_some();
        if !has_token {
            let advice =
                "the kubeconfig has no token, and a client certificate can't be passed on: use --service-account or --token-file";
            return Err(Failure::new(Exit::Usage, advice));
        }
        return Ok(known.clone());
    };
    let Some((namespace, name)) = account.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
    else {
        return Err(Failure::new(Exit::Usage, format_args!("--service-account {account}: write NAMESPACE/NAME")));
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: vec![AUDIENCE.to_owned()],
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = accounts.create_token_request(name, &PostParams::default(), &request).await;
    let made = made.map_err(|error| refused(&format!("a token of ServiceAccount {account}"), &error))?;
    let token = made.status.map(|status| status.token).unwrap_or_default();
    Ok(AuthInfo { token: Some(token.into()), ..AuthInfo::default() })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// One answer to whatever is asked, and what was asked.
    async fn answered(status: &str, body: &str) -> (Result<Report, Failure>, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"}") {
                assert_ne!(socket.read_buf(&mut asked).await.unwrap(), 0);
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let auth = AuthInfo { token: Some("t0ken".to_owned().into()), ..AuthInfo::default() };
        let request = http::Request::post(PATH).body(serde_json::to_vec(&Question::default()).unwrap()).unwrap();
        let report = through(address, auth).unwrap().request::<Report>(request).await;
        (report.map_err(|error| refused("the operator", &error)), asked.await.unwrap())
    }

    #[tokio::test]
    async fn the_callers_token_goes_with_the_question() {
        let (report, asked) = answered("200 OK", r#"{"against": "cluster", "objects": []}"#).await;
        assert!(!report.unwrap().has_changes());
        assert!(asked.starts_with("POST /plan HTTP/1.1") && asked.contains("authorization: Bearer t0ken"), "{asked}");
        assert!(asked.ends_with(r#"{"objects":[]}"#), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_is_the_operators_own() {
        let body = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": "ed may neither plan nor apply Tenant acme", "metadata": {}}"#;
        let (report, _) = answered("403 Forbidden", body).await;
        let failure = report.unwrap_err();
        assert!(failure.is_denial() && failure.to_string().contains("Tenant acme"), "{failure}");
    }
}
