//! A command of the user's that answers a request: its standard input is the payload, its standard output the answer.

use std::{process::Stdio, time::Duration};

use acb_proto::v1;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

/// A message is at most 1 MiB with its envelope, which is far smaller than what is kept for it here.
const MOST: u64 = (1 << 20) - (32 << 10);

/// A program and its arguments, and how long it may take. Never passed through a shell.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) words: Vec<String>,
    pub(super) within: Duration,
}

impl Program {
    /// What it prints; or why there is nothing, in words that the asking agent may read.
    pub(super) async fn answer(&self, request: &v1::Message) -> Result<Vec<u8>, String> {
        let (program, arguments) = self.words.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).envs([
            ("ACB_FROM", request.from.as_str()),
            ("ACB_TOPIC", request.topic.as_str()),
            ("ACB_MESSAGE_ID", request.id.as_str()),
        ]);
        // A group of its own, so that what it starts ends with it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("the command did not start: {error}"))?;
        let mut group = Group::of(&child);
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command need not read all of it.
                let _ = stdin.write_all(&request.payload).await;
            }
            Ok::<_, String>(())
        };
        let read = async {
            let mut printed = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MOST + 1).read_to_end(&mut printed).await.map_err(|error| format!("reading its answer: {error}"))?;
            }
            if printed.len() as u64 > MOST {
                return Err(format!(
                    "the command printed more than {MOST} bytes: share them as a context, and answer with its id"
                ));
            }
            Ok(printed)
        };
        let work = async {
            let ((), printed) = tokio::try_join!(feed, read)?;
            let status = child.wait().await.map_err(|error| format!("the command: {error}"))?;
            if status.success() { Ok(printed) } else { Err(format!("the command failed: {status}")) }
        };
        let seconds = self.within.as_secs_f64();
        let answer =
            timeout(self.within, work).await.unwrap_or_else(|_| Err(format!("the command took longer than {seconds} s")));
        // Reaped, its number may soon be another's.
        if matches!(child.try_wait(), Ok(Some(_))) {
            group.0 = None;
        }
        answer
    }
}

/// A process group that ends with this value.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn answer(script: &str, payload: Vec<u8>, within: Duration) -> Result<Vec<u8>, String> {
        let program = Program { words: vec!["sh".into(), "-c".into(), script.into()], within };
        let request = v1::Message { payload: payload.into(), from: "boss".into(), topic: "count".into(), ..Default::default() };
        program.answer(&request).await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn its_input_is_the_request_and_its_output_the_answer() {
        assert_eq!(answer("cat", b"hello".to_vec(), LONG).await.unwrap(), b"hello");
        assert_eq!(answer("printf '%s/%s' $ACB_FROM $ACB_TOPIC", vec![], LONG).await.unwrap(), b"boss/count");
        // More than a pipe holds, in both directions at once.
        let much = vec![b'x'; 900_000];
        assert_eq!(answer("cat", much.clone(), LONG).await.unwrap(), much);
        assert_eq!(answer("echo unread", much, LONG).await.unwrap(), b"unread\n");
    }

    #[tokio::test]
    async fn what_fails_says_how() {
        assert!(answer("echo half; exit 3", vec![], LONG).await.unwrap_err().contains("exit status: 3"));
        assert!(answer("head -c 2000000 /dev/zero", vec![], LONG).await.unwrap_err().contains("more than"));
        let missing = Program { words: vec!["/nowhere/at-all".into()], within: LONG };
        assert!(missing.answer(&v1::Message::default()).await.unwrap_err().contains("did not start"));
    }

    #[tokio::test]
    async fn what_takes_too_long_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("pid");
        let began = Instant::now();
        let script = format!("sleep 300 & echo $! > {}; wait", note.display());
        let error = answer(&script, vec![], Duration::from_millis(500)).await.unwrap_err();
        assert!(error.contains("longer than 0.5 s") && began.elapsed() < Duration::from_secs(60), "{error}");
        let sleeper: i32 = std::fs::read_to_string(note).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // A zombie, until whoever inherited it looks after it, is gone enough.
        let lives = || {
            std::fs::read_to_string(format!("/proc/{sleeper}/stat"))
                .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')))
        };
        while lives() {
            assert!(Instant::now() < deadline, "the command's own child outlives it");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
