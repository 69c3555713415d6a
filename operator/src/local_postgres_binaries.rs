//! Where the binaries of a PostgreSQL server are, and who may run them.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

const OLDEST: u32 = 15;

/// The folder that holds `initdb` and `postgres`, of one version.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
    pub(crate) major: u32,
}

impl Binaries {
    /// From this folder alone, where one is given; else the preferred or the newest of those that are installed.
    ///
    /// # Errors
    /// Where it was looked for in vain.
    pub(crate) fn find(given: Option<&Path>, preferred: Option<&str>) -> Result<Self, String> {
        let folders = match given {
            Some(folder) => vec![folder.to_path_buf()],
            None => installed(),
        };
        let mut found: Vec<_> =
            folders.iter().filter_map(|folder| Self::of(folder)).filter(|found| found.major >= OLDEST).collect();
        found.sort_by_key(|found| (preferred == Some(found.major.to_string().as_str()), found.major));
        found.pop().ok_or_else(|| match given {
            Some(folder) => folder.display().to_string(),
            None => "/usr/lib/postgresql/*/bin and PATH".to_owned(),
        })
    }

    fn of(folder: &Path) -> Option<Self> {
        if !folder.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // "postgres (PostgreSQL) 15.14 (Debian …)"
        let major = text.split_whitespace().nth(2)?.split('.').next()?.parse().ok()?;
        Some(Self { folder: folder.to_path_buf(), major })
    }

    pub(crate) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

fn installed() -> Vec<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    debian.chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())).collect()
}

/// The user that the server runs as, where we are root.
#[derive(Clone, Debug)]
pub(crate) struct Unprivileged {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Unprivileged {
    /// `None` where we are not root. `Err` where there is no user `postgres`.
    pub(crate) fn find() -> Result<Option<Self>, ()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(|_| ())?;
        let fields: Vec<_> =
            passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == "postgres").ok_or(())?;
        let number = |index: usize| fields.get(index).and_then(|text| text.parse().ok()).ok_or(());
        Ok(Some(Self { uid: number(2)?, gid: number(3)? }))
    }

    /// The first folder on the way to `path` that the user can't enter.
    pub(crate) fn first_closed(&self, path: &Path) -> Option<PathBuf> {
        let mut parents: Vec<_> = path.ancestors().skip(1).collect();
        parents.reverse();
        parents.into_iter().find(|folder| fs::metadata(folder).is_ok_and(|meta| !self.enters(&meta))).map(Path::to_path_buf)
    }

    fn enters(&self, meta: &fs::Metadata) -> bool {
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    }
}
