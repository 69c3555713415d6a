//! Follows docs/backup-and-restore.md: the commands of a section, as they stand there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::World;
use crate::{
    backends::Backends,
    error::{Result, at, wrong},
    place::write_private,
    process::run,
};

const PAGE: &str = "docs/backup-and-restore.md";

/// A folder with what the page expects, in which its commands are run.
pub(super) struct Runbook {
    folder: PathBuf,
    page: String,
}

impl Runbook {
    pub(super) fn open(world: &World) -> Result<Self> {
        let path = world.place.root.join(PAGE);
        let page = fs::read_to_string(&path).map_err(at(&path))?;
        let folder = world.place.run().join("runbook");
        let backends = Backends::read(&world.place)?;
        write_private(&folder.join("superuser-password"), &backends.postgres_superuser_password)?;
        write_private(&folder.join("operator-password"), &backends.postgres_password)?;
        write_private(&folder.join("pgpass"), &format!("127.0.0.1:*:*:postgres:{}\n", backends.postgres_superuser_password))?;
        Ok(Self { folder, page })
    }

    /// Runs one block of commands of a section.
    pub(super) fn follow(&self, world: &World, section: &str, block: usize) -> Result<()> {
        let blocks = blocks(&self.page, section);
        let Some(commands) = blocks.get(block) else {
            return wrong(format!("{PAGE} has no block {block} under {section:?}"));
        };
        let backends = Backends::read(&world.place)?;
        let programs = [world.place.bin(""), world.place.root.join("target/debug")];
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(programs.into_iter().chain(env::split_paths(&path)));
        let path = path.or_else(|error| wrong(format!("PATH: {error}")))?;
        run(Command::new("bash")
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("KUBECONFIG", world.place.kubeconfig("admin"))
            .env("HOME", world.place.run().join("home"))
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", backends.postgres_port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSFILE", self.folder.join("pgpass")))
        .map(drop)
    }

    /// A file that the page's commands made.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }
}

/// The blocks of commands below a heading, up to the next.
fn blocks(page: &str, section: &str) -> Vec<String> {
    let mut lines = page.lines().skip_while(|line| line.strip_prefix("## ") != Some(section)).skip(1);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next().filter(|line| !line.starts_with("## ")) {
        if line == "```sh" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_a_section_are_its_own() {
        let page = "# A\n```sh\nno\n```\n## B\ntext\n```sh\none \\\n  two\n```\n```json\n{}\n```\n```sh\nthree\n```\n## C\n```sh\nfour\n```\n";
        assert_eq!(blocks(page, "B"), ["one \\\n  two", "three"]);
        assert_eq!(blocks(page, "C"), ["four"]);
        assert!(blocks(page, "D").is_empty());
    }
}
