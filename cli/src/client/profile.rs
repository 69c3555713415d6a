//! The kept contexts: hubs, and the keys to them. The file holds secrets and is its owner's alone.

use std::{
    env, fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use acb_crds::names::TenantName;
use acb_operator::tenant::hub::GRPC_PORT;
use acb_sdk::Client;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::{
    cluster::{
        Place,
        forward::{Destination, Forward},
    },
    output::{Exit, Failure},
};

const SOON: Duration = Duration::from_secs(5);

/// One context. Without `Debug`, as it holds a key.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) servers: Vec<String>,
    /// The tenant's CA, as PEM.
    pub(super) ca: String,
    pub(super) api_key: String,
    /// Whom the key spoke for when it was exchanged.
    #[serde(default)]
    pub(super) tenant: String,
    #[serde(default)]
    pub(super) agent: String,
    /// Where the hub is reached by port-forward alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<Place>,
}

impl Profile {
    /// `what` is what a failure is about.
    pub(super) async fn connect(&self, what: &str) -> Result<Client, Failure> {
        self.dial(what, None).await
    }

    /// For who waits for a person's next word: a wrong address should not take long to be told.
    pub(super) async fn connect_soon(&self, what: &str) -> Result<Client, Failure> {
        self.dial(what, Some(SOON)).await
    }

    async fn dial(&self, what: &str, patience: Option<Duration>) -> Result<Client, Failure> {
        let key = self.api_key.parse().map_err(|error| refused(what, &error))?;
        let mut builder = Client::builder().endpoints(&self.servers).ca_pem(self.ca.as_bytes()).api_key(key);
        if let Some(patience) = patience {
            builder = builder.retry_for(patience);
        }
        let Some(place) = &self.cluster else {
            return builder.connect().await.map_err(|error| refused(what, &error));
        };
        let tenant = TenantName::parse(&self.tenant).map_err(|error| Failure::failed(format_args!("{what}: {error}")))?;
        let forward = Forward::open(&place.open().await?.client, Destination::Hub(tenant), GRPC_PORT).await?;
        tokio::select! {
            connected = builder.through(forward.address()).connect() => connected.map_err(|error| match forward.failure() {
                Some(why) if error.is_retryable() => why,
                _ => refused(what, &error),
            }),
            why = forward.denied() => Err(why),
        }
    }
}

/// The whole file.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profiles {
    #[serde(default)]
    pub(super) current: String,
    #[serde(default)]
    pub(super) contexts: Vec<Profile>,
}

impl Profiles {
    pub(super) fn load() -> Result<Self, Failure> {
        Self::load_from(&path()?)
    }

    fn load_from(path: &Path) -> Result<Self, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => serde_saphyr::from_str(&text).map_err(|_| {
                // The parser's own message may quote a key.
                Failure::failed(format_args!(
                    "{} can't be read as contexts: mend it, or remove it and log in again",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::failed(format_args!("{}: {error}", path.display()))),
        }
    }

    pub(super) fn save(&self) -> Result<(), Failure> {
        let path = path()?;
        self.save_to(&path).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))
    }

    fn save_to(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_saphyr::to_string(self).map_err(std::io::Error::other)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // A new file put in place of the old: never half written, never readable by others.
        let fresh = path.with_extension(format!("yaml.{}", uuid::Uuid::new_v4().simple()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&fresh, path));
        if written.is_err() {
            // What can't be removed is of no use to anyone else.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// Adds a context, or replaces the one of its name, and makes it the current one.
    pub(super) fn keep(&mut self, profile: Profile) {
        self.current.clone_from(&profile.name);
        self.contexts.retain(|context| context.name != profile.name);
        self.contexts.push(profile);
        self.contexts.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// The named context, or the current one.
    pub(super) fn choose(&self, name: Option<&str>) -> Result<&Profile, Failure> {
        let name = name.unwrap_or(&self.current);
        if name.is_empty() {
            let hint = "no context is chosen: run `acb login`, or name one with --context";
            return Err(Failure::new(Exit::Usage, hint));
        }
        self.contexts.iter().find(|context| context.name == name).ok_or_else(|| {
            let message =
                format!("context {name:?} does not exist: `acb contexts list` shows those that do, `acb login` makes one");
            Failure::new(Exit::NotFound, message)
        })
    }
}

fn path() -> Result<PathBuf, Failure> {
    let given = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given("ACB_CONFIG")
        .or_else(|| given("XDG_CONFIG_HOME").map(|folder| folder.join("acb/config.yaml")))
        .or_else(|| given("HOME").map(|home| home.join(".config/acb/config.yaml")))
        .ok_or_else(|| Failure::new(Exit::Usage, "neither HOME nor ACB_CONFIG is set: where are the contexts to be kept?"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn profile(name: &str, key: &str) -> Profile {
        Profile {
            name: name.into(),
            servers: vec!["https://127.0.0.1:8443".into()],
            ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            api_key: key.into(),
            tenant: "acme".into(),
            agent: "planner".into(),
            cluster: None,
        }
    }

    #[test]
    fn contexts_are_kept_for_their_owner_alone() {
        let folder = env::temp_dir().join(format!("acb-cli-{}", uuid::Uuid::new_v4()));
        let path = folder.join("deep/config.yaml");
        let mut profiles = Profiles::load_from(&path).unwrap();
        assert!(profiles.choose(None).err().unwrap().to_string().contains("acb login"));
        profiles.keep(profile("b", "acb_1_one"));
        profiles.keep(profile("a", "acb_2_two"));
        profiles.keep(profile("b", "acb_3_three"));
        profiles.save_to(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let read = Profiles::load_from(&path).unwrap();
        let names: Vec<_> = read.contexts.iter().map(|context| context.name.as_str()).collect();
        assert_eq!((names, read.current.as_str()), (vec!["a", "b"], "b"));
        let chosen = read.choose(None).ok().unwrap();
        assert_eq!((chosen.api_key.as_str(), chosen.ca.as_str()), ("acb_3_three", profile("b", "").ca.as_str()));
        assert!(read.choose(Some("c")).err().unwrap().to_string().contains("does not exist"));
        fs::remove_dir_all(folder).unwrap();
    }
}
