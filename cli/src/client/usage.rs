//! What an agent may use, and what agents have used.

use std::time::SystemTime;

use acb_sdk::{Client, UsageGap, UsageQuery, UsageSum, system_time};
use futures::TryStreamExt as _;
use serde_json::json;
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::{Target, payload, refused};
use crate::output::{self, Failure, Output};

/// Shows the limits of the agent and of its tenant, what was used of them, and when that begins anew; with `--by`, what agents have sent.
#[derive(Debug, clap::Args)]
pub(crate) struct Usage {
    #[command(flatten)]
    target: Target,
    /// Of this agent; takes the role admin or auditor [default: oneself; with `--by` everybody, where the role allows that].
    agent: Option<String>,
    /// Shows what was sent, summed by this period (UTC). The sums are some seconds behind.
    #[arg(long, value_name = "PERIOD")]
    by: Option<Period>,
    /// From the period on that this time is in: a date such as 2026-11-01, a month such as 2026-11, or a time such as 2026-11-01T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "by")]
    from: Option<OffsetDateTime>,
    /// Periods that begin before this time.
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "by")]
    to: Option<OffsetDateTime>,
    /// As comma-separated values with a header, for bills.
    #[arg(long, requires = "by")]
    csv: bool,
}

/// By which the sums are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Period {
    Hour,
    Day,
    Month,
}

impl Usage {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let agent = self.agent.unwrap_or_default();
        let Some(by) = self.by else { return limits(&client, &agent, output).await };
        let mut query = match by {
            Period::Hour => UsageQuery::by_hour(),
            Period::Day => UsageQuery::by_day(),
            Period::Month => UsageQuery::by_month(),
        }
        .agent(agent);
        if let Some(from) = self.from {
            query = query.since(from.into());
        }
        if let Some(to) = self.to {
            query = query.until(to.into());
        }
        let failed = |error| refused("usage", &error);
        let sums: Vec<UsageSum> = client.usage_sums(query.clone()).try_collect().await.map_err(failed)?;
        let gaps = client.usage_gaps(query).await.map_err(failed)?;
        if self.csv {
            note(&gaps, output);
            return csv(&sums);
        }
        match output {
            Output::Document(syntax) => syntax.document(&json!({
                "sums": sums.iter().map(document).collect::<Vec<_>>(),
                "gaps": gaps.iter().map(|gap| json!({
                    "foundAt": time(system_time(gap.found_at)), "what": gap.what, "records": gap.records,
                })).collect::<Vec<_>>(),
            })),
            Output::Table { .. } => {
                note(&gaps, output);
                let row = |sum: &UsageSum| {
                    vec![time(system_time(sum.starts_at)), name(sum).to_owned(), sum.messages.to_string(), sum.bytes.to_string()]
                };
                output::table(&["FROM", "AGENT", "MESSAGES", "BYTES"], sums.iter().map(row).collect())
            }
        }
    }
}

async fn limits(client: &Client, agent: &str, output: Output) -> Result<(), Failure> {
    let used = client.usage(agent).await.map_err(|error| refused("usage", &error))?;
    match output {
        Output::Document(syntax) => {
            let usage = used.iter().map(|usage| {
                json!({
                    "subject": usage.subject, "limit": usage.limit, "most": usage.most, "used": usage.used,
                    "resetsAt": time(system_time(usage.resets_at)),
                })
            });
            syntax.document(&usage.collect::<Vec<_>>())
        }
        Output::Table { .. } => output::table(
            &["OF", "LIMIT", "USED", "MOST", "RESETS AT"],
            used.iter()
                .map(|usage| {
                    let most = usage.most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
                    vec![
                        usage.subject.clone(),
                        usage.limit.clone(),
                        usage.used.to_string(),
                        most,
                        time(system_time(usage.resets_at)),
                    ]
                })
                .collect(),
        ),
    }
}

fn document(sum: &UsageSum) -> serde_json::Value {
    json!({
        "from": time(system_time(sum.starts_at)), "agent": sum.agent, "agentId": sum.agent_id, "messages": sum.messages, "bytes": sum.bytes,
    })
}

/// Whoever pays by the sums must know that they lack something.
fn note(gaps: &[UsageGap], output: Output) {
    for gap in gaps {
        let records = gap.records.map(|records| format!(" ({records} records)")).unwrap_or_default();
        output::note(
            output,
            &format!("the sums lack something: {}{records}, found at {}", gap.what, time(system_time(gap.found_at))),
        );
    }
}

fn csv(sums: &[UsageSum]) -> Result<(), Failure> {
    output::line("from,agent,agent_id,messages,bytes")?;
    for sum in sums {
        let UsageSum { starts_at, agent_id, agent, messages, bytes } = sum;
        output::line(format_args!(
            "{},{},{},{messages},{bytes}",
            time(system_time(*starts_at)),
            quoted(agent),
            quoted(agent_id)
        ))?;
    }
    Ok(())
}

/// A field of RFC 4180.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// One that was gone before it was summed has no name.
fn name(sum: &UsageSum) -> &str {
    if sum.agent.is_empty() { &sum.agent_id } else { &sum.agent }
}

fn time(at: Option<SystemTime>) -> String {
    at.map(payload::time_in_seconds).unwrap_or_default()
}

/// A month, a date, or a time.
fn moment(text: &str) -> Result<OffsetDateTime, String> {
    let date =
        |text: &str| Date::parse(text, format_description!("[year]-[month]-[day]")).map(|date| date.midnight().assume_utc());
    let found = date(text).or_else(|_| date(&format!("{text}-01"))).or_else(|_| OffsetDateTime::parse(text, &Rfc3339));
    let known = |at: &OffsetDateTime| SystemTime::from(*at) >= SystemTime::UNIX_EPOCH;
    found
        .ok()
        .filter(known)
        .ok_or_else(|| "write a month, a date or a time in UTC, such as 2026-11, 2026-11-01 or 2026-11-01T08:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("2026-11"), Ok(datetime!(2026-11-01 0:00 UTC)));
        assert_eq!(moment("2026-11-17"), Ok(datetime!(2026-11-17 0:00 UTC)));
        assert_eq!(moment("2026-11-17T08:00:00+01:00"), Ok(datetime!(2026-11-17 7:00 UTC)));
        for text in ["", "2026", "2026-13", "2026-11-31", "1969-12-31", "yesterday"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_with_a_comma_is_one_field() {
        assert_eq!(quoted("planner"), "planner");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
