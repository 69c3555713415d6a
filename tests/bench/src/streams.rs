//! 64 MiB in and out: chunks in PostgreSQL, durable, verified by both ends.

use std::{io::Cursor, time::Instant};

use acb_sdk::Client;
use acb_testbed::standalone::{Standalone, TenantAccess};

use crate::{Effort, Failure, RECEIVER, SENDER, TENANT, report::Report, samples::median, tell};

const SIZE: usize = 64 << 20;
const AT_ONCE: usize = 8;

pub(crate) async fn run(standalone: &Standalone, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let access = standalone.tenant(TENANT)?;
    let (writer, reader) = (client(access, SENDER).await?, client(access, RECEIVER).await?);
    let payload = payload();
    let (mut ins, mut outs, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..effort.runs {
        let start = Instant::now();
        let uploaded = writer.upload("documents", Cursor::new(payload.clone()), SIZE as u64).send().await?;
        let seconds_in = start.elapsed().as_secs_f64();
        let mut sink = Cursor::new(Vec::with_capacity(SIZE));
        let start = Instant::now();
        reader.download(&uploaded.context.id).receive(&mut sink).await?;
        let seconds_out = start.elapsed().as_secs_f64();
        if sink.into_inner() != payload {
            return Err(Failure("what came out is not what went in".to_owned()));
        }
        let rate = |seconds: f64| SIZE as f64 / 1e6 / seconds;
        tell(format!("  run {} in {:.1}, out {:.1} MB/s", run + 1, rate(seconds_in), rate(seconds_out)));
        ins.push(rate(seconds_in));
        outs.push(rate(seconds_out));
        both.push(rate(seconds_in + seconds_out));
    }
    let mut together = Vec::new();
    for run in 0..effort.runs {
        let start = Instant::now();
        futures::future::try_join_all((0..AT_ONCE).map(|_| in_and_out(&writer, &reader, &payload))).await?;
        let rate = (AT_ONCE * SIZE) as f64 / 1e6 / start.elapsed().as_secs_f64();
        tell(format!("  run {} {AT_ONCE} streams at once: {rate:.1} MB/s in all", run + 1));
        together.push(rate);
    }
    report.at_least("64 MiB in and out, each byte counted once", median(both), "MB/s", 100.0);
    report.beside("64 MiB in", None, median(ins), "MB/s");
    report.beside("64 MiB out", None, median(outs), "MB/s");
    report.at_least("eight streams of 64 MiB in and out at once, in all", median(together), "MB/s", 100.0);
    Ok(())
}

async fn in_and_out(writer: &Client, reader: &Client, payload: &[u8]) -> Result<(), Failure> {
    let uploaded = writer.upload("documents", Cursor::new(payload.to_vec()), SIZE as u64).send().await?;
    let mut sink = Cursor::new(Vec::with_capacity(SIZE));
    reader.download(&uploaded.context.id).receive(&mut sink).await?;
    if sink.into_inner() != payload {
        return Err(Failure("what came out is not what went in".to_owned()));
    }
    Ok(())
}

async fn client(access: &TenantAccess, agent: &str) -> Result<Client, Failure> {
    let builder = Client::builder().endpoints(access.endpoints.clone()).ca_pem(access.ca_pem.clone());
    Ok(builder.api_key(access.api_key(agent)?.parse()?).connect().await?)
}

/// Bytes that do not compress and do not repeat: xorshift64*, seeded.
fn payload() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut payload = Vec::with_capacity(SIZE);
    while payload.len() < SIZE {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        payload.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    payload
}
