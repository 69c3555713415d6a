//! A disk that is full, and then is not.

use std::{path::Path, process::Command};

use acb_operator::plan::{PostgresStep, TopicSpec};
use acb_testbed::{Postgres, Version};

/// A small file system that is taken away with this value.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=32m,mode=0777", "none", text(folder.path())]);
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &["--lazy", text(self.0.path())]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// The rows of the log are on a disk of their own, so that only they run out of it.
#[tokio::test]
#[ignore = "mounts a file system, as root: cargo test -p acb-operator --test postgres -- --ignored disk"]
async fn a_full_disk_is_named_tried_again_and_healed_of_itself() {
    let disk = Small::mount();
    let folder = disk.0.path().join("tablespace");
    std::fs::create_dir(&folder).unwrap();
    run("chown", &["postgres", text(&folder)]);
    std::fs::set_permissions(disk.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let pg = Postgres::start(Version::Installed).await;
    let tenant = pg.tenant("acme").await;
    let mut superuser = pg.superuser().await;
    let place = format!("CREATE TABLESPACE small LOCATION '{}'", folder.display());
    sqlx::raw_sql(sqlx::AssertSqlSafe(place)).execute(&mut superuser).await.unwrap();
    sqlx::raw_sql("ALTER TABLE acb.bus_topic SET TABLESPACE small").execute(&mut superuser).await.unwrap();

    let ballast = disk.0.path().join("ballast");
    let filled = std::fs::write(&ballast, vec![7; 64 << 20]).unwrap_err();
    assert_eq!(filled.raw_os_error(), Some(28), "{filled}");
    let step = |number: u32| PostgresStep::EnsureTopic {
        tenant_id: tenant.id_hex().to_owned(),
        topic: TopicSpec {
            name: format!("acb.acme.{number}-{}", "x".repeat(180)),
            partitions: 1,
            retention_seconds: 60,
            cleanup: "delete".into(),
            max_message_bytes: 1024,
        },
    };
    // What is left of the last page is used first.
    let mut number = 0;
    let error = loop {
        match pg.effect().apply(&step(number)).await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 1000, "the disk is not full");
    };
    assert!(error.is_transient(), "{error}");
    let said = error.to_string();
    assert!(said.starts_with("PostgreSQL is unavailable: topic acb.acme.") && said.contains("No space left on device"), "{said}");

    std::fs::remove_file(&ballast).unwrap();
    pg.effect().apply(&step(number)).await.unwrap();
    drop(superuser);
    drop(pg);
}
