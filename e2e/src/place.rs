//! Where everything is. Only what a node needs at a short path, or outside of a folder that people delete, is not in `target/e2e`.

use std::{
    fs,
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
};

use crate::error::{Result, at};

/// Data of containerd and the kubelet, with their mounts.
pub(crate) const NODE: &str = "/var/lib/acb-e2e";
/// Their sockets: the path of one has at most 107 bytes.
pub(crate) const SOCKETS: &str = "/run/acb-e2e";

/// The folders of a checkout.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The checkout.
    pub(crate) root: PathBuf,
}

impl Place {
    pub(crate) fn here() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let place = Self { root: root.canonicalize().map_err(at(&root))? };
        for folder in [place.logs(), place.run()] {
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        Ok(place)
    }

    fn e2e(&self) -> PathBuf {
        self.root.join("target/e2e")
    }

    /// A program that `e2e/build` made.
    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.e2e().join("bin").join(name)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.e2e().join("logs")
    }

    /// Certificates, kubeconfigs, and what the control plane keeps.
    pub(crate) fn run(&self) -> PathBuf {
        self.e2e().join("run")
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.e2e().join("report.json")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.e2e().join("state.json")
    }

    /// Images, as `images/build` leaves them.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("target/images")
    }

    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.run().join(format!("{user}.kubeconfig"))
    }
}

/// Ports that were free when they were looked for, all different.
pub(crate) fn free_ports<const N: usize>(address: IpAddr) -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((address, 0)).map_err(at("a free port"))?;
        *port = listener.local_addr().map_err(at("a free port"))?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Writes a file that its owner alone may read, in a folder that is made where it is missing.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    file.write_all(text.as_bytes()).map_err(at(path))
}
