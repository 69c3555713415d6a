//! The state folder: who holds it, and how files in it are written so that a crash leaves the old or the new, never half.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

/// Why the state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{} is in use by process {holder}: stop that `acb dev`, or give another folder with --state", path.display())]
    Held {
        /// The folder.
        path: PathBuf,
        /// What the lock file says, usually a process id.
        holder: String,
    },
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// A file is not what was written there.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl StateError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}

/// How often, and how long, somebody who only looks is waited for.
const HOLDER_LOOKS: u32 = 10;
const HOLDER_LOOK: Duration = Duration::from_millis(20);
/// Of a file that is being written.
const ASIDE_EXTENSION: &str = "tmp";

/// A state folder. [`StateDir::lock`] gives the right to write in it.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

/// Held as long as this lives; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// `$XDG_STATE_HOME/acb`, `~/.local/state/acb`; for root `/var/lib/acb/dev`, since PostgreSQL's user can't enter `/root`.
    #[must_use]
    pub fn default_path() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/acb/dev");
        }
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .unwrap_or_else(std::env::temp_dir)
            .join("acb")
    }

    /// A folder that should be there already; nothing is made.
    pub fn existing(root: &Path) -> Result<Self, StateError> {
        let root = std::path::absolute(root).map_err(StateError::io(root))?;
        fs::metadata(&root).map_err(StateError::io(&root))?;
        Ok(Self { root })
    }

    /// Opens or makes the folder.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let root = std::path::absolute(root).map_err(StateError::io(root))?;
        if !root.is_dir() {
            fs::create_dir_all(&root).map_err(StateError::io(&root))?;
            // Others may pass through to what is theirs (as root: PostgreSQL's user), and list nothing.
            let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
            fs::set_permissions(&root, Permissions::from_mode(mode)).map_err(StateError::io(&root))?;
        }
        Ok(Self { root })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the folder for this process, or says who has it. What a run that was killed left half written is removed: without the
    /// lock it might be another's that is still at it.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(StateError::io(&path))?;
        let mut tried = file.try_lock();
        // Whoever only looks who has it has it for a moment.
        for _ in 0..HOLDER_LOOKS {
            if !matches!(tried, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(HOLDER_LOOK);
            tried = file.try_lock();
        }
        match tried {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(StateError::io(&path))?;
                return Err(StateError::Held { path: self.root.clone(), holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(StateError::Io { path, source }),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(StateError::io(&path))?;
        let trees = ["objects", "access"].map(|folder| self.root.join(folder));
        remove_aside(&self.root, &|folder| trees.iter().any(|tree| folder.starts_with(tree)))?;
        Ok(StateLock { _file: file })
    }

    /// The process that holds the folder, if one does.
    #[must_use]
    pub fn holder(&self) -> Option<String> {
        let mut file = File::open(self.root.join("lock")).ok()?;
        // What the file says outlives the process, whose id another may have by now: the lock is what counts.
        let Err(TryLockError::WouldBlock) = file.try_lock_shared() else { return None };
        let mut holder = String::new();
        file.read_to_string(&mut holder).ok()?;
        Some(holder.trim().to_owned())
    }

    /// A private folder in it, made where it is missing.
    pub fn folder(&self, relative: impl AsRef<Path>) -> Result<PathBuf, StateError> {
        let path = self.root.join(relative);
        make_private(&path)?;
        Ok(path)
    }
}

/// Makes a private folder, and what is missing above it.
pub fn make_private(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StateError::io(path))
}

/// Removes what [`write`] left aside in a folder, and in those folders below it that are `entered`.
fn remove_aside(folder: &Path, entered: &impl Fn(&Path) -> bool) -> Result<(), StateError> {
    for entry in fs::read_dir(folder).map_err(StateError::io(folder))? {
        let entry = entry.map_err(StateError::io(folder))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(StateError::io(folder))?);
        if kind.is_dir() && entered(&path) {
            remove_aside(&path, entered)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == ASIDE_EXTENSION) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Writes a private file: aside, then renamed into place.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    static ASIDE: AtomicU64 = AtomicU64::new(0);
    if let Some(parent) = path.parent() {
        make_private(parent)?;
    }
    let aside =
        path.with_extension(format!("{}.{}.{ASIDE_EXTENSION}", std::process::id(), ASIDE.fetch_add(1, Ordering::Relaxed)));
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
        .and_then(|()| fs::rename(&aside, path));
    result.map_err(|source| {
        // The rename did not happen: what is left aside has no reader.
        let _ = fs::remove_file(&aside);
        StateError::Io { path: path.to_owned(), source }
    })
}

/// Writes a private JSON file, as [`write`] does.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| StateError::Damaged { path: path.to_owned(), detail: error.to_string() })?;
    write(path, &bytes)
}

/// Reads a JSON file; `None` where there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StateError::Damaged { path: path.to_owned(), detail: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { path: path.to_owned(), source }),
    }
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StateError::Io { path: path.to_owned(), source: error }),
        _ => Ok(()),
    }
}

/// A name as a file's: whatever could mean something to the file system is written as hex. Distinct names stay distinct.
#[must_use]
pub fn file_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (byte == b'.' && index > 0);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    // A file system takes 255 bytes; longer names keep a readable head and are told apart by their digest.
    if out.len() > 200 {
        use sha2::Digest;
        out.truncate(120);
        out.push_str("%~");
        out.push_str(&hex::encode(&sha2::Sha256::digest(name)[..16]));
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_second_holder_learns_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let first = state.lock().unwrap();
        match state.lock() {
            Err(StateError::Held { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        assert_eq!(state.holder(), Some(std::process::id().to_string()));
        drop(first);
        // This process lives, and wrote its id there; but it does not hold the folder any more.
        assert_eq!(state.holder(), None);
        let looking = File::open(state.root().join("lock")).unwrap();
        looking.lock_shared().unwrap();
        let looked = std::thread::spawn(move || {
            std::thread::sleep(HOLDER_LOOK);
            drop(looking);
        });
        let _second = state.lock().expect("who only looks is waited for");
        looked.join().unwrap();
    }

    #[test]
    fn files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        write_json(&path, &1).unwrap();
        write_json(&path, &2).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(read_json::<u8>(&path).unwrap(), Some(2));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn names_can_not_climb() {
        assert_eq!(file_name("hub-tls-1"), "hub-tls-1");
        assert_eq!(file_name("../x"), "%2e.%2fx");
        assert_eq!(file_name(".."), "%2e.");
        assert_ne!(file_name(&"x".repeat(300)), file_name(&"x".repeat(301)));
    }
}
