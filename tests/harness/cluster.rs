//! Throwaway PostgreSQL servers.

use crate::asserts::one;
use crate::database::{Database, Server, create_template};
use crate::fixtures::wait_until;
use crate::stage::{self, run};
use crate::watcher;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// For all clusters; [`Options`] may override each.
///
/// A statement that waits for ever would hang the whole run, so that it is ended after some minutes.
const SETTINGS: [(&str, &str); 15] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "400"),
    ("max_prepared_transactions", "20"),
    ("max_worker_processes", "32"),
    ("max_locks_per_transaction", "256"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    // Compiling takes longer than what tests do; `row` has one that compiles everything.
    ("jit", "off"),
    ("statement_timeout", "300s"),
    ("timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("shared_preload_libraries", "pg_tenancy"),
    // Tests want to see what they do themselves; those of the workers switch them on.
    ("tenancy.workers_enabled", "off"),
];

/// The cluster that most tests share: fast, not durable, the library preloaded.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(Options::new()));
    &CLUSTER
}

/// How a private cluster differs from the shared one.
#[derive(Default)]
pub struct Options {
    settings: Vec<(String, String)>,
}

impl Options {
    pub fn new() -> Options {
        Options::default()
    }

    /// Without `shared_preload_libraries`.
    pub fn without_preload(self) -> Options {
        self.set("shared_preload_libraries", "")
    }

    /// Survives a crash: for tests that kill the server.
    pub fn durable(self) -> Options {
        self.set("fsync", "on").set("full_page_writes", "on")
    }

    /// A setting of postgresql.conf.
    pub fn set(mut self, name: &str, value: &str) -> Options {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A PostgreSQL server with a data directory, a port and a socket of its own; dropping it removes all.
pub struct Cluster {
    directory: PathBuf,
    server: Server,
    postmaster: Option<Child>,
    template: OnceLock<Result<(), String>>,
}

impl Cluster {
    /// Starts a server with the superuser `postgres` and the roles of [`crate::ROLES`].
    pub fn start(options: Options) -> Cluster {
        let directory = watcher::new_directory("cluster");
        copy_initial_data(&directory);
        let server = Server::new(&directory, stage::free_port());
        let mut cluster = Cluster { directory, server, postmaster: None, template: OnceLock::new() };
        for (name, value) in SETTINGS {
            cluster.configure(name, value);
        }
        for (name, value) in &options.settings {
            cluster.configure(name, value);
        }
        cluster.start_again();
        cluster.server.create_roles();
        cluster
    }

    /// A streaming hot standby of this server, which listens on a port of its own; see [`Cluster::catch_up_with`].
    pub fn standby(&self) -> Cluster {
        let directory = watcher::new_directory("standby");
        let mut backup = stage::server_command(stage::program("pg_basebackup"), &directory);
        backup.arg("-h").arg(self.server.socket_directory()).arg("-p").arg(self.server.port().to_string());
        backup.args(["--username=postgres", "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"]);
        run(backup.args(["--no-sync", "--pgdata"]).arg(directory.join("data")));
        let server = Server::new(&directory, stage::free_port());
        let mut standby = Cluster { directory, server, postmaster: None, template: OnceLock::new() };
        // It asks for more than it was given with the backup, and by default waits for seconds before it asks again.
        standby.configure("wal_retrieve_retry_interval", "100ms");
        standby.start_again();
        standby
    }

    /// A fresh database with the extension and the roles' levels, dropped with the value.
    #[track_caller]
    pub fn database(&self, label: &str) -> Database {
        let template = self.template.get_or_init(|| create_template(&self.server));
        if let Err(error) = template {
            panic!("the template database could not be made: {error}");
        }
        Database::with_extension(&self.server, label)
    }

    /// A fresh database without the extension, dropped with the value.
    pub fn empty_database(&self, label: &str) -> Database {
        Database::empty(&self.server, label)
    }

    /// Where the server listens.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Adds a setting to postgresql.conf, for the next start or reload.
    pub fn configure(&self, name: &str, value: &str) {
        let mut file = append_to(&self.data().join("postgresql.conf"));
        writeln!(file, "{name} = '{}'", value.replace('\'', "''")).expect("write postgresql.conf");
    }

    /// Starts a server that was stopped or killed, on the same port.
    pub fn start_again(&mut self) {
        assert!(self.postmaster.is_none(), "the server runs already");
        let log = append_to(self.server.log());
        let mut command = stage::server_command(stage::program("postgres"), &self.directory);
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.directory);
        command.arg("-p").arg(self.server.port().to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share the log")).stderr(log);
        self.postmaster = Some(command.spawn().expect("start postgres"));
        self.wait_until_ready();
    }

    /// Stops the server as `pg_ctl stop -m fast` does: sessions are ended, a checkpoint is written.
    pub fn stop(&mut self) {
        self.end(libc::SIGINT);
    }

    /// Stops the server and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Kills the server and all its backends, as a crash of the machine would; see [`Options::durable`].
    pub fn kill9(&mut self) {
        self.end(libc::SIGKILL);
        let deadline = Instant::now() + PATIENCE;
        while self.kill_backends() {
            assert!(Instant::now() < deadline, "backends survive SIGKILL");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until this standby has replayed all that has been committed on its primary.
    pub fn catch_up_with(&self, primary: &Cluster) {
        let committed: String = one(&mut primary.server.superuser(), "SELECT pg_current_wal_flush_lsn()::text", &[]);
        let mut superuser = self.server.superuser();
        const REPLAYED: &str = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        wait_until("the standby has caught up", || one(&mut superuser, REPLAYED, &[&committed]));
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.server.log()).expect("read the server's log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Whether the server has logged `text`.
    pub fn log_contains(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            let exited = self
                .postmaster
                .as_mut()
                .is_some_and(|postmaster| postmaster.try_wait().expect("ask after the server").is_some());
            if exited {
                self.postmaster = None;
                panic!("the server did not start:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server does not get ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The postmaster writes its process id into the first line of its pid file and its state into the
    /// eighth; after a crash the file of the former postmaster may still be there.
    fn is_ready(&self) -> bool {
        let Ok(file) = fs::read_to_string(self.data().join("postmaster.pid")) else {
            return false;
        };
        let mut lines = file.lines().map(str::trim);
        let pid = self.postmaster.as_ref().map(|postmaster| postmaster.id().to_string());
        pid.as_deref() == lines.next() && lines.nth(6) == Some("ready")
    }

    fn end(&mut self, signal: libc::c_int) {
        let Some(mut postmaster) = self.postmaster.take() else {
            return;
        };
        send_signal(postmaster.id(), signal);
        let deadline = Instant::now() + PATIENCE;
        while postmaster.try_wait().expect("ask after the server").is_none() {
            assert!(Instant::now() < deadline, "the server does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills every process that works in the data directory; false when there was none.
    fn kill_backends(&self) -> bool {
        let data = self.data();
        let processes = fs::read_dir("/proc").expect("read /proc").flatten();
        let backends = processes.filter_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let directory = fs::read_link(process.path().join("cwd")).ok()?;
            (directory == data).then_some(pid)
        });
        backends.inspect(|&pid| send_signal(pid, libc::SIGKILL)).count() > 0
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            send_signal(postmaster.id(), libc::SIGQUIT);
            // The watcher stops a server that cannot be waited for.
            let _ = postmaster.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// `initdb` takes seconds and a copy a moment, so that it runs once.
fn copy_initial_data(directory: &Path) {
    static INITIAL: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = watcher::new_directory("initdb");
        let data = directory.join("data");
        let mut initdb = stage::server_command(stage::program("initdb"), &directory);
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]);
        run(initdb.args(["--no-sync", "--pgdata"]).arg(&data));
        data
    });
    let mut copy = stage::server_command("cp", directory);
    run(copy.arg("-a").arg(&*INITIAL).arg(directory));
}

fn append_to(path: &Path) -> File {
    let file = File::options().append(true).create(true).open(path);
    file.unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

fn send_signal(pid: u32, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    // SAFETY: kill takes two numbers; a process that has gone is an error that needs no answer.
    unsafe { libc::kill(pid, signal) };
}
