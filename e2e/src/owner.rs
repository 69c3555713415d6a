//! Which checkout's cluster has the machine's one network and node.

use std::{fs, path::PathBuf};

use crate::{
    error::{Result, at},
    place::{Place, SOCKETS},
    state::State,
};

fn path() -> PathBuf {
    PathBuf::from(SOCKETS).join("owner")
}

/// This one's.
pub(crate) fn write(place: &Place) -> Result<()> {
    let path = path();
    fs::create_dir_all(SOCKETS).map_err(at(SOCKETS))?;
    fs::write(&path, place.root.as_os_str().as_encoded_bytes()).map_err(at(&path))
}

/// Whether anything of its cluster runs. A checkout that is gone runs nothing that could be found.
pub(crate) fn runs() -> bool {
    let root = fs::read_to_string(path()).map(PathBuf::from);
    root.is_ok_and(|root| State::load(&Place { root }).is_ok_and(|state| state.runs()))
}
