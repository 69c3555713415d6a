//! A private PostgreSQL server in a folder: for `acb dev` and for tests. It listens on loopback only, belongs to the process that
//! started it, and ends with it, however that process ends. It must never touch a cluster of the system.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::TcpListener,
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::local_postgres_binaries::{Binaries, Unprivileged};

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// Between two looks at whether it still runs.
const WATCH: Duration = Duration::from_millis(500);
/// A socket's path must fit `sockaddr_un`.
const SOCKET_PATH_LIMIT: usize = 90;

// Becomes the server, and leaves a watchdog behind (a grandchild, so that the server has no child it does not know): when the pipe
// on descriptor 3 closes, because this process stopped it or was killed, the server gets a fast shutdown.
const SUPERVISOR: &str = r#"
remove=$1; shift
exec 3<&0
( (
    cat <&3 >/dev/null
    kill -INT $$ 2>/dev/null
    if [ -n "$remove" ]; then
        i=0
        while [ $i -lt 100 ] && kill -0 $$ 2>/dev/null; do sleep 0.1; i=$((i + 1)); done
        cd / && rm -rf -- "$remove"
    fi
) & )
exec 3<&-
exec "$@" </dev/null
"#;

/// Why the private server does not run.
#[derive(Debug, thiserror::Error)]
pub enum LocalPostgresError {
    /// There are no server binaries.
    #[error(
        "no PostgreSQL server (15 or later) found in {looked_in}. Install one without starting a system cluster: \
         `mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >> /etc/postgresql-common/createcluster.conf \
         && apt-get install postgresql`"
    )]
    NoServer {
        /// Where it was looked for.
        looked_in: String,
    },
    /// As root, the server runs as user `postgres`.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user `postgres`: `adduser --system --group postgres`, or start as an ordinary user"
    )]
    NoUser,
    /// The user `postgres` can't enter the folder.
    #[error(
        "user `postgres` can't enter {0}, and PostgreSQL refuses to run as root: choose a folder that every user can enter, such as one below /var/lib"
    )]
    Unreachable(PathBuf),
    /// Another process has it.
    #[error("{0} is in use by another process: stop it, or choose another folder")]
    InUse(PathBuf),
    /// The data was made by another major version.
    #[error(
        "the data in {folder} is of PostgreSQL {data}, and the server found is {server}: install postgresql-{data}, or choose another folder"
    )]
    Version {
        /// Where.
        folder: PathBuf,
        /// Major version of the data.
        data: String,
        /// Major version of the server.
        server: u32,
    },
    /// It did not start, or not in time.
    #[error("PostgreSQL {what}; its last words in {log}:\n{tail}")]
    Start {
        /// What went wrong.
        what: String,
        /// Where its log is.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file or program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LocalPostgresError + '_ {
    move |source| LocalPostgresError::Io { path: path.to_path_buf(), source }
}

/// What kind of server to run.
#[derive(Clone, Debug)]
pub struct LocalPostgresOptions {
    /// Holds everything: data, socket, log, port, superuser's password. As root it must be outside of /root.
    pub state_dir: PathBuf,
    /// Where `initdb` and `postgres` are; `None`: the newest that is installed.
    pub bin_dir: Option<PathBuf>,
    /// Whether a commit survives a power cut. Only tests go without.
    pub fsync: bool,
    /// Removes the state folder at the end, even where this process is killed.
    pub ephemeral: bool,
    /// Further settings, as name and value.
    pub settings: Vec<(String, String)>,
}

impl LocalPostgresOptions {
    /// A durable server in this folder.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: state_dir.into(), bin_dir: None, fsync: true, ephemeral: false, settings: Vec::new() }
    }
}

/// A running private server. Stopped by [`stop`](Self::stop), at the latest when dropped.
pub struct LocalPostgres {
    state_dir: PathBuf,
    port: u16,
    major: u32,
    superuser: PgConnectOptions,
    child: Option<(Child, ChildStdin)>,
    // Held as long as the server may run.
    _lock: File,
}

impl std::fmt::Debug for LocalPostgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPostgres").field("state_dir", &self.state_dir).field("port", &self.port).finish_non_exhaustive()
    }
}

impl LocalPostgres {
    /// Makes the cluster where there is none, starts the server, and waits until it takes connections.
    ///
    /// # Errors
    /// What is missing or wrong, and what to do about it.
    pub async fn start(options: LocalPostgresOptions) -> Result<Self, LocalPostgresError> {
        let state = options.state_dir.clone();
        let unprivileged = Unprivileged::find().map_err(|()| LocalPostgresError::NoUser)?;
        fs::create_dir_all(&state).map_err(at(&state))?;
        let state = state.canonicalize().map_err(at(&state))?;
        if let Some(user) = &unprivileged {
            if let Some(closed) = user.first_closed(&state) {
                return Err(LocalPostgresError::Unreachable(closed));
            }
            // The server's user may enter its own folders in here, and see no other file.
            fs::set_permissions(&state, fs::Permissions::from_mode(0o711)).map_err(at(&state))?;
            if options.ephemeral {
                chown(&state, Some(user.uid), Some(user.gid)).map_err(at(&state))?;
            }
        }
        let lock = lock(&state)?;

        let data = state.join("data");
        let data_version = fs::read_to_string(data.join("PG_VERSION")).ok().map(|text| text.trim().to_owned());
        let binaries = Binaries::find(options.bin_dir.as_deref(), data_version.as_deref())
            .map_err(|looked_in| LocalPostgresError::NoServer { looked_in })?;
        let major = binaries.major;
        if let Some(data_version) = data_version.filter(|version| *version != major.to_string()) {
            return Err(LocalPostgresError::Version { folder: data, data: data_version, server: major });
        }
        let folders = Folders { state: &state, unprivileged: unprivileged.as_ref() };
        end_leftover(&data).await;
        let password = superuser_password(&state)?;
        if !data.join("PG_VERSION").exists() {
            folders.initialise(&binaries, &password, options.fsync).await?;
        }

        for attempt in 0.. {
            let port = free_port(&state, attempt > 0)?;
            let child = folders.spawn(&binaries, &options, port)?;
            let superuser = PgConnectOptions::new_without_pgpass()
                .host("127.0.0.1")
                .port(port)
                .username("postgres")
                .password(&password)
                .database("postgres")
                .ssl_mode(PgSslMode::Disable);
            let mut server = Self {
                state_dir: state.clone(),
                port,
                major,
                superuser,
                child: Some(child),
                _lock: lock.try_clone().map_err(at(&state))?,
            };
            match server.wait_ready().await {
                Ok(()) => return Ok(server),
                // Somebody took the port between our look and the server's.
                Err(LocalPostgresError::Start { tail, .. }) if tail.contains("Address already in use") && attempt < 5 => {}
                Err(error) => return Err(error),
            }
        }
        Err(LocalPostgresError::InUse(state))
    }

    /// Always loopback.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Kept over restarts, unless somebody else took it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Major version of the server.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The process id of the server, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|(child, _)| child.id())
    }

    /// How the superuser connects, to the database `postgres`.
    #[must_use]
    pub fn superuser(&self) -> &PgConnectOptions {
        &self.superuser
    }

    /// Resolves once the server ended although nobody stopped it, with its last words.
    pub async fn ended(&mut self) -> LocalPostgresError {
        loop {
            if let Some(status) = self.exit_status() {
                return self.failed(format!("ended with {status}"));
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|(child, _)| child.try_wait().ok().flatten())
    }

    /// Ends every session and the server, and waits for it.
    pub async fn stop(mut self) {
        if let Some(child) = self.child.take() {
            let _ = tokio::task::spawn_blocking(move || shut_down(child)).await;
        }
    }

    async fn wait_ready(&mut self) -> Result<(), LocalPostgresError> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.exit_status() {
                return Err(self.failed(format!("ended with {status}")));
            }
            let attempt = tokio::time::timeout(Duration::from_secs(5), PgConnection::connect_with(&self.superuser)).await;
            match attempt {
                Ok(Ok(connection)) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                _ if Instant::now() > deadline => {
                    return Err(self.failed(format!("was not ready after {} s", START_DEADLINE.as_secs())));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn failed(&self, what: String) -> LocalPostgresError {
        let log = self.state_dir.join("postgres.log");
        let text = fs::read(&log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned();
        LocalPostgresError::Start { what, log, tail }
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            shut_down(child);
        }
    }
}

fn shut_down((mut child, watchdog): (Child, ChildStdin)) {
    drop(watchdog);
    let deadline = Instant::now() + STOP_DEADLINE;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            // Immediate shutdown: the log is replayed at the next start.
            signal(child.id(), Signal::QUIT);
            let _ = child.wait();
            return;
        }
        std::thread::sleep(POLL);
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn lock(state: &Path) -> Result<File, LocalPostgresError> {
    let path = state.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(at(&path))?;
    file.try_lock().map_err(|_| LocalPostgresError::InUse(state.to_path_buf()))?;
    Ok(file)
}

/// A server that outlived its supervisor. We hold the folder's lock, so nobody wants it.
async fn end_leftover(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else { return };
    let runs_here = || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    let deadline = Instant::now() + STOP_DEADLINE;
    if runs_here() {
        tracing::warn!(pid, "ending a PostgreSQL server that an earlier run left behind");
        signal(pid, Signal::INT);
    }
    while runs_here() && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

fn superuser_password(state: &Path) -> Result<String, LocalPostgresError> {
    let path = state.join("superuser-password");
    if let Ok(text) = fs::read_to_string(&path) {
        return Ok(text.trim().to_owned());
    }
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| LocalPostgresError::Io { path: path.clone(), source: io::Error::other(error.to_string()) })?;
    let password = hex::encode(bytes);
    let draft = state.join("superuser-password.new");
    let _ = fs::remove_file(&draft);
    private_file(&draft, &password).map_err(at(&draft))?;
    fs::rename(&draft, &path).map_err(at(&path))?;
    Ok(password)
}

fn private_file(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn free_port(state: &Path, another: bool) -> Result<u16, LocalPostgresError> {
    let path = state.join("port");
    let kept = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u16>().ok()).filter(|_| !another);
    if let Some(port) = kept.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
        return Ok(port);
    }
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).map_err(at(&path))?.port();
    fs::write(&path, port.to_string()).map_err(at(&path))?;
    Ok(port)
}

struct Folders<'a> {
    state: &'a Path,
    unprivileged: Option<&'a Unprivileged>,
}

impl Folders<'_> {
    fn own(&self, path: &Path) -> Result<(), LocalPostgresError> {
        self.unprivileged.map_or(Ok(()), |user| chown(path, Some(user.uid), Some(user.gid))).map_err(at(path))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // PG* variables of the caller must not reach the server.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC").current_dir("/").process_group(0);
        if let Some(user) = self.unprivileged {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Beside the final place, and renamed at the end: a killed `initdb` leaves nothing that looks like a cluster.
    async fn initialise(&self, binaries: &Binaries, password: &str, fsync: bool) -> Result<(), LocalPostgresError> {
        let draft = self.state.join("data.new");
        let secret = draft.with_extension("password");
        let _ = fs::remove_dir_all(&draft);
        let _ = fs::remove_file(&secret);
        fs::create_dir(&draft).map_err(at(&draft))?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o700)).map_err(at(&draft))?;
        self.own(&draft)?;
        private_file(&secret, password).map_err(at(&secret))?;
        self.own(&secret)?;
        let mut command = self.command(&binaries.initdb());
        command.args(["--auth=scram-sha-256", "--data-checksums", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        command.arg(format!("--pwfile={}", secret.display())).arg("-D").arg(&draft).stdin(Stdio::null());
        if !fsync {
            command.arg("--no-sync");
        }
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let _ = fs::remove_file(&secret);
        let output = output.map_err(at(&binaries.initdb()))?;
        if !output.status.success() {
            let tail = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(LocalPostgresError::Start { what: "initdb failed".to_owned(), log: draft, tail });
        }
        let data = self.state.join("data");
        let _ = fs::remove_dir_all(&data);
        fs::rename(&draft, &data).map_err(at(&data))
    }

    fn spawn(
        &self,
        binaries: &Binaries,
        options: &LocalPostgresOptions,
        port: u16,
    ) -> Result<(Child, ChildStdin), LocalPostgresError> {
        let socket = self.state.join("socket");
        if !socket.exists() {
            fs::create_dir(&socket).map_err(at(&socket))?;
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o700)).map_err(at(&socket))?;
            self.own(&socket)?;
        }
        let log = self.state.join("postgres.log");
        let out = File::create(&log).map_err(at(&log))?;
        let err = out.try_clone().map_err(at(&log))?;
        let socket = if socket.as_os_str().len() <= SOCKET_PATH_LIMIT { socket.display().to_string() } else { String::new() };
        let mut settings = vec![
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("port".to_owned(), port.to_string()),
            ("unix_socket_directories".to_owned(), socket),
        ];
        if !options.fsync {
            settings.extend(["fsync", "full_page_writes"].map(|name| (name.to_owned(), "off".to_owned())));
        }
        settings.extend(options.settings.iter().cloned());

        let mut command = self.command(Path::new("/bin/sh"));
        command.args(["-c", SUPERVISOR, "acb-postgres"]);
        if options.ephemeral {
            command.arg(self.state)
        } else {
            command.arg("")
        };
        command.arg(binaries.postgres()).arg("-D").arg(self.state.join("data"));
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(out).stderr(err).spawn().map_err(at(&binaries.postgres()))?;
        let watchdog = child.stdin.take().ok_or_else(|| at(&log)(io::Error::other("no pipe to the server's watchdog")))?;
        Ok((child, watchdog))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(state: &Path) -> LocalPostgresOptions {
        LocalPostgresOptions { fsync: false, ..LocalPostgresOptions::new(state) }
    }

    async fn one(options: &PgConnectOptions, sql: &'static str) -> Result<String, sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await
    }

    #[tokio::test]
    async fn keeps_its_data_port_and_password_over_restarts_and_takes_no_other_password() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let state = dir.path().join("pg");
        let server = LocalPostgres::start(options(&state)).await.unwrap();
        let port = server.port();
        assert!(matches!(LocalPostgres::start(options(&state)).await, Err(LocalPostgresError::InUse(_))));
        assert!(one(&server.superuser().clone().password("wrong"), "SELECT 'x'").await.is_err());
        one(server.superuser(), "CREATE TABLE kept AS SELECT 1 AS one; SELECT 'x'").await.ok();
        let mut connection = PgConnection::connect_with(server.superuser()).await.unwrap();
        sqlx::raw_sql("CREATE TABLE IF NOT EXISTS kept AS SELECT 1").execute(&mut connection).await.unwrap();
        server.stop().await;

        let server = LocalPostgres::start(options(&state)).await.unwrap();
        assert_eq!(server.port(), port);
        assert_eq!(one(server.superuser(), "SELECT count(*)::text FROM kept").await.unwrap(), "1");
        assert_eq!(one(server.superuser(), "SHOW data_checksums").await.unwrap(), "on");
        assert_eq!(one(server.superuser(), "SHOW listen_addresses").await.unwrap(), "127.0.0.1");
        let mode = fs::metadata(state.join("superuser-password")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn ends_with_its_owner_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let state = dir.path().join("pg");
        let mut server = LocalPostgres::start(LocalPostgresOptions { ephemeral: true, ..options(&state) }).await.unwrap();
        // What the kernel does to the pipe of a killed process.
        let (mut child, watchdog) = server.child.take().unwrap();
        drop(watchdog);
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while state.exists() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        assert!(!state.exists());
    }

    #[tokio::test]
    async fn says_when_it_ended_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut server = LocalPostgres::start(options(&dir.path().join("pg"))).await.unwrap();
        let early = tokio::time::timeout(2 * WATCH, server.ended()).await;
        assert!(early.is_err(), "{early:?}");
        signal(server.pid().unwrap(), Signal::INT);
        let error = tokio::time::timeout(Duration::from_secs(30), server.ended()).await.unwrap().to_string();
        assert!(error.contains("ended with") && error.contains("database system is shut down"), "{error}");
        server.stop().await;
    }

    #[tokio::test]
    async fn says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let missing = LocalPostgresOptions { bin_dir: Some(dir.path().join("nothing")), ..options(&dir.path().join("pg")) };
        let text = LocalPostgres::start(missing).await.unwrap_err().to_string();
        assert!(text.contains("create_main_cluster = false"), "{text}");
    }
}
