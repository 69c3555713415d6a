//! Reads keys and certificates again when their files change. Mounted Secrets are replaced by renaming, which file events tell of
//! unreliably, so this looks every few seconds.

use std::{path::PathBuf, sync::Arc, time::Duration, time::SystemTime};

use acb_hub_api::tls::Certificate;
use acb_hub_core::door::access_token::Tokens;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

const EVERY: Duration = Duration::from_secs(5);

/// Looks until stopped. What can't be read leaves the old in place: half-written files are read again later.
pub(crate) async fn watch(config: Arc<Config>, certificate: Certificate, tokens: Tokens, stop: CancellationToken) {
    // The time of a key before ends without a change of a file.
    let look = || (config.reloaded().map(state), config.previous_keys().ok());
    let mut seen = look();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = look();
        if now == seen {
            continue;
        }
        match reload(&config, &certificate, &tokens) {
            Ok(()) => {
                tracing::info!("keys and certificate read again");
                seen = now;
            }
            Err(problem) => tracing::warn!(problem, "keys or certificate changed, and can't be read: the old ones stay"),
        }
    }
}

fn reload(config: &Config, certificate: &Certificate, tokens: &Tokens) -> Result<(), String> {
    let (chain, key) = config.tls().map_err(|error| error.to_string())?;
    let keyring = config.keyring().map_err(|error| error.to_string())?;
    certificate.replace(&chain, &key).map_err(|error| error.to_string())?;
    tokens.replace(keyring);
    Ok(())
}

/// Names and times of the files in a folder.
fn state(folder: PathBuf) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = std::fs::metadata(entry.path()).ok()?;
            Some((entry.path(), metadata.modified().ok(), metadata.len()))
        })
        .collect();
    files.sort();
    files
}
