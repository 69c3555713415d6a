//! The Kafka that the operator was told to keep the log on. The password's file is read whenever it is needed: one that is mended
//! there heals what failed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tracing::warn;
use zeroize::Zeroizing;

use super::{EffectError, kafka::KafkaEffect, kafka_announce::KafkaAnnouncer, postgres::GenerationAnnouncer};
use crate::platform::PlatformBus;

/// A Kafka for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaOptions {
    /// `host:port`, more than one with commas; for the operator and the hubs.
    pub bootstrap_servers: String,
    /// A user that may make topics, users and ACLs.
    pub username: String,
    /// Holds its password.
    pub password_file: PathBuf,
    /// PEM of the brokers' authorities; `None`: without TLS.
    pub ca_file: Option<PathBuf>,
    /// Of topics; -1: the cluster's default.
    pub replication_factor: i16,
}

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", path.display())]
pub struct KafkaFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, never what is in it.
    pub detail: String,
}

impl KafkaFileError {
    fn new(path: &Path, detail: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), detail: detail.to_string() }
    }
}

impl From<KafkaFileError> for EffectError {
    fn from(error: KafkaFileError) -> Self {
        Self::refused("the operator's own configuration", error)
    }
}

/// How the Kafka is reached, its files read.
#[derive(Clone, Debug)]
pub struct KafkaAccess {
    options: KafkaOptions,
    authorities: Option<String>,
}

impl KafkaAccess {
    /// Reads the files, so that what is wrong with them is said at once. Does not connect.
    ///
    /// # Errors
    /// The file that can't be used.
    pub fn new(mut options: KafkaOptions) -> Result<Self, KafkaFileError> {
        // Others read them from another folder.
        for path in std::iter::once(&mut options.password_file).chain(&mut options.ca_file) {
            *path = std::path::absolute(&*path).map_err(|error| KafkaFileError::new(path, error))?;
        }
        let read = |path: &PathBuf| fs::read_to_string(path).map_err(|error| KafkaFileError::new(path, error));
        let authorities = options.ca_file.as_ref().map(read).transpose()?;
        let access = Self { options, authorities };
        access.effect()?;
        Ok(access)
    }

    /// What it was told.
    #[must_use]
    pub fn options(&self) -> &KafkaOptions {
        &self.options
    }

    /// As hubs are told.
    #[must_use]
    pub fn bus(&self) -> PlatformBus {
        let bootstrap_servers = self.options.bootstrap_servers.clone();
        PlatformBus::Kafka { bootstrap_servers, tls: self.authorities.is_some() }
    }

    /// Certificates (PEM) that the brokers' are signed by.
    #[must_use]
    pub fn authorities(&self) -> Option<&str> {
        self.authorities.as_deref()
    }

    /// The effect, with the password as it is now.
    ///
    /// # Errors
    /// The file that can't be used.
    pub fn effect(&self) -> Result<KafkaEffect, KafkaFileError> {
        let options = &self.options;
        let mut settings = acb_kafka::Settings::new(&options.bootstrap_servers, &options.username, &self.password()?);
        if let (Some(authorities), Some(path)) = (&self.authorities, &options.ca_file) {
            settings = settings.with_tls(authorities.as_bytes()).map_err(|error| KafkaFileError::new(path, error))?;
        }
        Ok(KafkaEffect::new(settings, options.replication_factor))
    }

    fn password(&self) -> Result<Zeroizing<String>, KafkaFileError> {
        let path = &self.options.password_file;
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| KafkaFileError::new(path, error))?);
        // Editors end a file with a newline.
        let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if password.is_empty() {
            return Err(KafkaFileError::new(path, "is empty; it should hold the password"));
        }
        Ok(password)
    }
}

/// Announces with the password as it is now.
pub(crate) struct Announcer {
    access: KafkaAccess,
    current: Mutex<Option<(Zeroizing<String>, KafkaAnnouncer)>>,
}

impl Announcer {
    pub(crate) fn new(access: KafkaAccess) -> Self {
        Self { access, current: Mutex::new(None) }
    }

    fn current(&self) -> Result<KafkaAnnouncer, String> {
        let password = self.access.password().map_err(|error| error.to_string())?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, announcer)) = current.as_ref().filter(|(known, _)| *known == password) {
            return Ok(announcer.clone());
        }
        let KafkaOptions { bootstrap_servers, username, .. } = &self.access.options;
        let announcer = KafkaAnnouncer::new(bootstrap_servers, username, &password, self.access.authorities())
            .map_err(|error| error.to_string())?;
        *current = Some((password, announcer.clone()));
        Ok(announcer)
    }
}

#[async_trait]
impl GenerationAnnouncer for Announcer {
    async fn announce(&self, tenant: &str, generation: u64) {
        match self.current() {
            Ok(announcer) => announcer.announce(tenant, generation).await,
            Err(error) => warn!(tenant, generation, %error, "not announced; hubs poll"),
        }
    }
}
