//! A machine whose clock is off, for a PostgreSQL: by libfaketime, which stands between the server and the system's clock. It can be set while the
//! server runs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

/// A second, and what a process may take that is looking already.
pub const SEEN_WITHIN: Duration = Duration::from_millis(2500);

/// The clock, and the programs of a server that has it.
#[derive(Debug)]
pub struct ServerClock {
    folder: TempDir,
}

impl ServerClock {
    /// So many seconds ahead of the time, or behind it.
    #[must_use]
    pub fn off_by(seconds: i64) -> Self {
        let library =
            installed("/usr/lib", "faketime/libfaketime.so.1").expect("libfaketime is missing: apt-get install libfaketime");
        let postgres = installed("/usr/lib/postgresql", "bin/postgres").expect("postgres is missing: apt-get install postgresql");
        let folder = tempfile::Builder::new().prefix("acb-clock-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let clock = Self { folder };
        clock.set(seconds);
        // Each process looks at it once a second; what only measures how long something takes goes on as it does.
        let script = format!(
            "#!/bin/sh\nexport LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1\nexec {} \"$@\"\n",
            library.display(),
            clock.file().display(),
            postgres.display(),
        );
        let program = clock.programs().join("postgres");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(postgres.with_file_name("initdb"), clock.programs().join("initdb")).unwrap();
        clock
    }

    /// Sets it. Every process of the server has seen it [`SEEN_WITHIN`] later.
    pub fn set(&self, seconds: i64) {
        // Whole, or not at all: a server that reads half of it has another time.
        let draft = self.folder.path().join("draft");
        fs::write(&draft, format!("{seconds:+}\n")).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(draft, self.file()).unwrap();
    }

    pub(crate) fn programs(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("time")
    }
}

/// The newest of the folders that hold this file.
fn installed(root: &str, file: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root).ok()?.flatten().map(|entry| entry.path().join(file)).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.pop()
}
