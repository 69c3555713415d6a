//! Free loopback ports for processes, remembered: a replica comes back where clients knew it, after a crash or a restart.

use std::{
    collections::{BTreeMap, HashSet},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::state::{self, StateDir, StateError};

/// Who has which port.
#[derive(Debug)]
pub struct PortBook {
    file: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    remembered: BTreeMap<String, u16>,
    held: HashSet<u16>,
}

impl PortBook {
    /// The book of a state folder.
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        let file = state.root().join("ports.json");
        let remembered = state::read_json(&file)?.unwrap_or_default();
        Ok(Self { file, inner: Mutex::new(Inner { remembered, held: HashSet::new() }) })
    }

    /// A free port for `key`: the one it had before, where that is free.
    pub fn take(&self, key: &str) -> Result<u16, StateError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let before = inner.remembered.get(key).copied();
        if let Some(port) = before.filter(|port| !inner.held.contains(port) && bindable(*port).is_ok()) {
            inner.held.insert(port);
            return Ok(port);
        }
        let taken: HashSet<u16> = inner.held.iter().chain(inner.remembered.values()).copied().collect();
        let mut refused = Vec::new();
        let port = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(StateError::io(&self.file))?;
            let port = listener.local_addr().map_err(StateError::io(&self.file))?.port();
            if !taken.contains(&port) {
                break port;
            }
            // Kept open, so that the system does not offer it again.
            refused.push(listener);
        };
        inner.held.insert(port);
        inner.remembered.insert(key.to_owned(), port);
        state::write_json(&self.file, &inner.remembered)?;
        Ok(port)
    }

    /// The process that had it is gone.
    pub fn give_back(&self, port: u16) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).held.remove(&port);
    }
}

fn bindable(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_port_is_kept_for_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let book = PortBook::open(&state).unwrap();
        let first = book.take("acme/hub/0/grpc").unwrap();
        let rolling = book.take("acme/hub/0/grpc").unwrap();
        assert_ne!(first, rolling, "the old pod still has the first");
        book.give_back(first);
        book.give_back(rolling);
        assert_eq!(PortBook::open(&state).unwrap().take("acme/hub/0/grpc").unwrap(), rolling);
    }
}
