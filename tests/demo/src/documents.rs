//! The work: a supervisor hands the project's own documents to two workers on different replicas, gathers what they found, and answers.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use acb_sdk::{Client, Message, Scope, Session};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    Failure,
    event::{Event, Recorder},
    stage::Tenant,
    tell,
};

/// For one answer. A hub on a busy machine needs a moment; a lost message never comes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Task {
    name: String,
    context_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    name: String,
    title: String,
    words: u64,
}

/// One agent at work: its client, and the task that records and handles what it gets.
struct Worker {
    handle: JoinHandle<Result<(), Failure>>,
}

struct Document {
    name: String,
    text: String,
}

pub(crate) async fn run(acme: &Tenant, recorder: &Recorder) -> Result<(), Failure> {
    let documents = documents()?;
    tell(format!("the supervisor shares {} documents, and delegates them to two workers", documents.len()));

    let (first, second) = acme.two_endpoints()?;
    let workers = [
        Worker::start("worker-a", acme.client("worker-a", &[first]).await?, recorder).await?,
        Worker::start("worker-b", acme.client("worker-b", &[second]).await?, recorder).await?,
    ];
    let client = acme.client("supervisor", &acme.endpoints).await?;
    let mut session = client.session().open().await?;
    recorder.record(Event::Connected { agent: "supervisor".into(), replica: session.replica() })?;

    let mut open: HashMap<String, u64> = HashMap::new();
    for (index, document) in documents.iter().enumerate() {
        let context = client
            .share("documents", document.text.clone())
            .scope(Scope::Groups(vec!["team".to_owned()]))
            .metadata("name", &document.name)
            .content_type("text/markdown")
            .send()
            .await?;
        let worker = if index % 2 == 0 { "worker-a" } else { "worker-b" };
        let task = Task { name: document.name.clone(), context_id: context.id };
        let message = Message::to_agent(worker).topic("summarize").json(&task).reply_to_agent("supervisor");
        let sent = session.send(message).await?;
        record_sent(recorder, &sent.message_id, "supervisor", &[worker], "summarize")?;
        open.insert(document.name.clone(), document.text.split_whitespace().count() as u64);
    }

    let words_expected: u64 = open.values().sum();
    let mut findings = Vec::new();
    while !open.is_empty() {
        let received = timeout(PATIENCE, session.next())
            .await
            .map_err(|_| Failure(format!("no answer for: {}", open.keys().cloned().collect::<Vec<_>>().join(", "))))??;
        record_delivered(recorder, received.message(), "supervisor", received.redelivered(), None)?;
        let finding: Finding = received.json()?;
        tell(format!("  {:<9} {:<42} {:>6} words", received.message().from, finding.name, finding.words));
        open.remove(&finding.name);
        findings.push(finding);
        received.ack();
    }
    let words: u64 = findings.iter().map(|finding| finding.words).sum();
    recorder.record(Event::Answered { documents: findings.len(), words, words_expected })?;
    tell(format!("the supervisor answers: {} documents, {words} words", findings.len()));

    // To a group and to all: one message each, that every other member gets.
    for (message, topic) in [(Message::to_group("workers"), "thanks"), (Message::to_all(), "finished")] {
        let sent = session.send(message.topic(topic).text("done")).await?;
        record_sent(recorder, &sent.message_id, "supervisor", &["worker-a", "worker-b"], topic)?;
    }
    session.close().await;
    for worker in workers {
        timeout(PATIENCE, worker.handle)
            .await
            .map_err(|_| Failure("a worker did not hear that the work is finished".to_owned()))?
            .map_err(|error| Failure(error.to_string()))??;
    }
    Ok(())
}

impl Worker {
    async fn start(name: &'static str, client: Client, recorder: &Recorder) -> Result<Self, Failure> {
        let session = client.session().open().await?;
        recorder.record(Event::Connected { agent: name.into(), replica: session.replica() })?;
        tell(format!("  {name} is connected to {}", session.replica()));
        let recorder = recorder.clone();
        Ok(Self { handle: tokio::spawn(work(name, client, session, recorder)) })
    }
}

async fn work(name: &'static str, client: Client, mut session: Session, recorder: Recorder) -> Result<(), Failure> {
    loop {
        let received = session.next().await?;
        record_delivered(&recorder, received.message(), name, received.redelivered(), None)?;
        match received.message().topic.as_str() {
            "summarize" => {
                let task: Task = received.json()?;
                let context = client.context(&task.context_id).await?;
                let text = String::from_utf8_lossy(&context.payload).into_owned();
                let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default().to_owned();
                let finding = Finding { name: task.name, title, words: text.split_whitespace().count() as u64 };
                let sent = received.reply(Message::answer().topic("summary").json(&finding)).await?;
                record_sent(&recorder, &sent.message_id, name, &["supervisor"], "summary")?;
            }
            "finished" => {
                received.ack();
                session.close().await;
                return Ok(());
            }
            _ => {}
        }
        received.ack();
    }
}

pub(crate) fn record_sent(recorder: &Recorder, id: &str, from: &str, to: &[&str], topic: &str) -> Result<(), Failure> {
    let recipients = to.iter().map(ToString::to_string).collect();
    recorder.record(Event::Sent { id: id.to_owned(), from: from.to_owned(), recipients, topic: topic.to_owned() })
}

pub(crate) fn record_delivered(
    recorder: &Recorder,
    message: &acb_sdk::v1::Message,
    to: &str,
    redelivered: bool,
    latency_us: Option<u64>,
) -> Result<(), Failure> {
    recorder.record(Event::Delivered {
        id: message.id.clone(),
        to: to.to_owned(),
        topic: message.topic.clone(),
        redelivered,
        latency_us,
    })
}

/// The project's own documents: the Markdown files of the repository's root and of `docs/`.
fn documents() -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for folder in [".", "docs", "docs/adr"] {
        let entries = fs::read_dir(folder).map_err(|error| Failure(format!("{folder}: {error} (run this in the repository)")))?;
        for entry in entries {
            let path = entry.map_err(|error| Failure(format!("{folder}: {error}")))?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(document(&path)?);
            }
        }
    }
    documents.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(documents)
}

fn document(path: &Path) -> Result<Document, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    Ok(Document { name: path.strip_prefix("./").unwrap_or(path).display().to_string(), text })
}
