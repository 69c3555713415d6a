//! The kept profiles: hubs, and the keys to them. The file holds secrets and is its owner's alone.

use std::{
    env, fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use acb_crds::names::TenantName;
use acb_operator::tenant::hub::GRPC_PORT;
use acb_sdk::{BoxError, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{login::OidcLogin, refused};
use crate::{
    cluster::{
        Place,
        forward::{Destination, Forward},
    },
    output::{Exit, Failure},
};

const SOON: Duration = Duration::from_secs(5);

/// One profile. Without `Debug`, as it holds a key.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) servers: Vec<String>,
    /// The tenant's CA, as PEM.
    pub(super) ca: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) api_key: String,
    /// The token of a ServiceAccount, which is in the place of a key: read each time, since the kubelet replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// A login by an OpenID Connect issuer, which is in the place of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) oidc: Option<OidcLogin>,
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
    /// One for these replicas, without a name and without a key.
    pub(super) fn at(servers: Vec<String>, ca: String) -> Self {
        let (name, api_key, tenant, agent) = Default::default();
        Self { name, servers, ca, api_key, token_file: None, oidc: None, tenant, agent, cluster: None }
    }

    /// Whether its hub is not one of `acb dev` on this machine.
    pub(super) fn is_remote(&self) -> bool {
        let is_here = |server: &String| server.starts_with("https://127.0.0.1:") || server.starts_with("https://[::1]:");
        self.cluster.is_some() || !self.servers.iter().all(is_here)
    }

    /// `what` is what a failure is about.
    pub(super) async fn connect(&self, what: &str) -> Result<Client, Failure> {
        self.dial(what, None).await
    }

    /// For who waits for a person's next word: a wrong address should not take long to be told.
    pub(super) async fn connect_soon(&self, what: &str) -> Result<Client, Failure> {
        self.dial(what, Some(SOON)).await
    }

    async fn dial(&self, what: &str, patience: Option<Duration>) -> Result<Client, Failure> {
        let builder = Client::builder().endpoints(&self.servers).ca_pem(self.ca.as_bytes());
        let mut builder = match (&self.token_file, &self.oidc) {
            (Some(file), _) => builder.service_account_token(file),
            (None, Some(login)) => {
                let (login, name) = (Arc::new(Mutex::new(login.clone())), self.name.clone());
                builder.oidc_token(move || token(login.clone(), name.clone()))
            }
            (None, None) => builder.api_key(self.api_key.parse().map_err(|error| refused(what, &error))?),
        };
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

/// The token of a login by an issuer.
async fn token(login: Arc<Mutex<OidcLogin>>, profile: String) -> Result<String, BoxError> {
    let mut login = login.lock().await;
    if login.is_to_be_renewed() {
        let path = path().map_err(|failure| failure.to_string())?;
        Ok(renewed(&mut login, &profile, path).await?)
    } else {
        Ok(login.token().await?.0)
    }
}

/// The token of a login that is to be renewed. Of several commands one asks the issuer: what renews a login may be used up by that, and many issuers end a
/// login whose token for that is shown twice. The others take what that one kept.
async fn renewed(login: &mut OidcLogin, profile: &str, path: PathBuf) -> Result<String, String> {
    let renewing = path.with_extension("yaml.renewal.lock");
    // Not the lock of changes: those do not wait for an issuer.
    let waited = tokio::task::spawn_blocking(move || lock(&renewing)).await.map_err(|error| error.to_string())?;
    let renewing = waited.map_err(|error| format!("{}: {error}", path.display()))?;
    let profiles = Profiles::load_from(&path).map_err(|failure| failure.to_string())?;
    let kept = profiles.profiles.into_iter().find(|kept| kept.name == profile).and_then(|kept| kept.oidc);
    if let Some(kept) = kept.filter(|kept| kept.is_renewal_of(login)) {
        *login = kept;
    }
    let (token, is_new) = login.token().await?;
    if is_new {
        let renewed = login.clone();
        let kept = Profiles::change_at(&path, |profiles| {
            if let Some(kept) = profiles.profiles.iter_mut().find(|kept| kept.name == profile) {
                kept.oidc = Some(renewed);
            }
            Ok(())
        });
        kept.map_err(|failure| failure.to_string())?;
    }
    drop(renewing);
    Ok(token)
}

/// The whole file.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profiles {
    #[serde(default)]
    pub(super) current: String,
    /// An older version wrote them as contexts.
    #[serde(default, alias = "contexts")]
    pub(super) profiles: Vec<Profile>,
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
                    "{} can't be read as profiles: mend it, or remove it and log in again",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::failed(format_args!("{}: {error}", path.display()))),
        }
    }

    /// Changes the file. Of several commands that do so at once one waits for the other: none writes over what another just kept.
    pub(super) fn change(change: impl FnOnce(&mut Self) -> Result<(), Failure>) -> Result<(), Failure> {
        Self::change_at(&path()?, change)
    }

    fn change_at(path: &Path, change: impl FnOnce(&mut Self) -> Result<(), Failure>) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::failed(format_args!("{}: {error}", path.display()));
        // Of a file of its own: the other one is replaced as a whole, and a lock of it would go with it.
        let lock = lock(&path.with_extension("yaml.lock")).map_err(failed)?;
        let mut profiles = Self::load_from(path)?;
        change(&mut profiles)?;
        profiles.save_to(path).map_err(failed)?;
        drop(lock);
        Ok(())
    }

    fn save_to(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_saphyr::to_string(self).map_err(std::io::Error::other)?;
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

    /// Adds a profile, or replaces the one of its name, which it gives, and makes it the current one.
    pub(super) fn keep(&mut self, profile: Profile) -> Option<Profile> {
        self.current.clone_from(&profile.name);
        let replaced = self.profiles.iter().position(|kept| kept.name == profile.name).map(|at| self.profiles.remove(at));
        self.profiles.push(profile);
        self.profiles.sort_by(|a, b| a.name.cmp(&b.name));
        replaced
    }

    /// Removes the named profile, or the current one. Gives its name.
    pub(super) fn remove(&mut self, name: Option<&str>) -> Result<String, Failure> {
        let name = self.choose(name)?.name.clone();
        self.profiles.retain(|profile| profile.name != name);
        if self.current == name {
            self.current.clear();
        }
        Ok(name)
    }

    /// Removes all. Gives their names.
    pub(super) fn clear(&mut self) -> Vec<String> {
        self.current.clear();
        self.profiles.drain(..).map(|profile| profile.name).collect()
    }

    /// The named profile, or the current one.
    pub(super) fn choose(&self, name: Option<&str>) -> Result<&Profile, Failure> {
        let name = name.unwrap_or(&self.current);
        if name.is_empty() {
            let hint = "no profile is chosen: run `acb login`, or name one with --profile";
            return Err(Failure::new(Exit::Usage, hint));
        }
        self.profiles.iter().find(|profile| profile.name == name).ok_or_else(|| {
            let message =
                format!("profile {name:?} does not exist: `acb profile list` shows those that do, `acb login` makes one");
            Failure::new(Exit::NotFound, message)
        })
    }
}

/// Waits until nobody else changes the file. Let go of with the value, or with the process.
fn lock(path: &Path) -> std::io::Result<fs::File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

fn path() -> Result<PathBuf, Failure> {
    let given = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given("ACB_CONFIG")
        .or_else(|| given("XDG_CONFIG_HOME").map(|folder| folder.join("acb/config.yaml")))
        .or_else(|| given("HOME").map(|home| home.join(".config/acb/config.yaml")))
        .ok_or_else(|| Failure::new(Exit::Usage, "neither HOME nor ACB_CONFIG is set: where are profiles to be kept?"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::client::login::oidc_tests::login;

    fn profile(name: &str, key: &str) -> Profile {
        Profile {
            name: name.into(),
            servers: vec!["https://127.0.0.1:8443".into()],
            ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            api_key: key.into(),
            token_file: None,
            oidc: None,
            tenant: "acme".into(),
            agent: "planner".into(),
            cluster: None,
        }
    }

    fn names(profiles: &Profiles) -> Vec<&str> {
        profiles.profiles.iter().map(|profile| profile.name.as_str()).collect()
    }

    #[test]
    fn profiles_are_kept_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/config.yaml");
        let keep = |name: &str, key: &str| {
            let profile = profile(name, key);
            Profiles::change_at(&path, |profiles| {
                profiles.keep(profile);
                Ok(())
            })
            .unwrap();
        };
        assert!(Profiles::load_from(&path).unwrap().choose(None).err().unwrap().to_string().contains("acb login"));
        keep("b", "acb_1_one");
        keep("a", "acb_2_two");
        keep("b", "acb_3_three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let mut read = Profiles::load_from(&path).unwrap();
        assert_eq!((names(&read), read.current.as_str()), (vec!["a", "b"], "b"));
        let chosen = read.choose(None).ok().unwrap();
        assert_eq!((chosen.api_key.as_str(), chosen.ca.as_str()), ("acb_3_three", profile("b", "").ca.as_str()));
        assert!(read.choose(Some("c")).err().unwrap().to_string().contains("does not exist"));

        assert_eq!(read.remove(None).unwrap(), "b");
        assert_eq!((names(&read), read.current.as_str()), (vec!["a"], ""));
        assert!(read.remove(Some("b")).is_err());
        assert_eq!(read.clear(), ["a"]);
    }

    #[test]
    fn what_several_keep_at_once_is_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    Profiles::change_at(path, |profiles| {
                        profiles.keep(profile(&format!("p{number}"), "acb_1_one"));
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(Profiles::load_from(&path).unwrap().profiles.len(), 16);
    }

    #[tokio::test]
    async fn a_login_that_another_command_renewed_is_taken_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let keep = |oidc: OidcLogin| {
            let kept = Profile { oidc: Some(oidc), ..profile("x", "") };
            Profiles::change_at(&path, |profiles| {
                profiles.keep(kept);
                Ok(())
            })
            .unwrap();
        };
        let mut ended = login("ada", -60);
        keep(login("bob", 600));
        renewed(&mut ended, "x", path.clone()).await.unwrap_err();
        let mut fresh = login("ada", 600);
        keep(fresh.clone());
        // The issuer is away, so that this is what was kept.
        assert_eq!(renewed(&mut ended, "x", path).await.unwrap(), fresh.token().await.unwrap().0);
    }

    #[test]
    fn the_file_of_an_older_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let profiles = Profiles { current: "x".into(), profiles: vec![profile("x", "acb_1_one")] };
        let old = serde_saphyr::to_string(&profiles).unwrap().replace("profiles:", "contexts:");
        fs::write(&path, old).unwrap();
        assert_eq!(names(&Profiles::load_from(&path).unwrap()), ["x"]);
    }
}
