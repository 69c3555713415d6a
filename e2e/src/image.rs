//! The images that `images/build` made, on the node.

use std::fs;

use crate::{
    error::{Error, Result, at},
    node,
    place::Place,
};

/// Loads all of them.
pub(crate) fn load_all(place: &Place) -> Result<()> {
    let folder = place.images();
    let archives = fs::read_dir(&folder).map_err(at(&folder))?.flatten().map(|entry| entry.path());
    let mut archives: Vec<_> = archives.filter(|path| path.extension().is_some_and(|extension| extension == "tar")).collect();
    if archives.is_empty() {
        return Err(Error::Missing(format!("no image in {}: run images/build", folder.display())));
    }
    archives.sort();
    archives.iter().try_for_each(|archive| node::import(archive))
}
