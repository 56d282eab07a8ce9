//! PgBouncer in transaction mode, as applications have it before the database.

use crate::database::{Database, ROLES};
use crate::notices::Notices;
use crate::{stage, watcher};
use postgres::{Client, Config, NoTls};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How the pooler is configured.
pub struct PoolOptions {
    pool_size: u32,
    settings: Vec<(String, String)>,
    users: Vec<String>,
    databases: Vec<String>,
}

impl PoolOptions {
    /// At most this many server sessions for each role.
    pub fn new(pool_size: u32) -> PoolOptions {
        PoolOptions { pool_size, settings: Vec::new(), users: Vec::new(), databases: Vec::new() }
    }

    /// A setting of the section `[pgbouncer]`.
    pub fn set(mut self, name: &str, value: &str) -> PoolOptions {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of the section `[databases]`.
    pub fn database(mut self, line: &str) -> PoolOptions {
        self.databases.push(line.to_owned());
        self
    }

    /// Lets in a role besides those of [`ROLES`] and the superuser.
    pub fn user(mut self, role: &str) -> PoolOptions {
        self.users.push(role.to_owned());
        self
    }
}

/// A PgBouncer before one database, on a port of 127.0.0.1; dropping it stops it.
///
/// Sessions through it can use the simple protocol (`batch_execute`, `simple_query`, [`crate::simple`],
/// [`crate::text`]) and `query_typed`; the other queries of the `postgres` crate prepare a named statement
/// in one server session and may look for it in another.
pub struct PgBouncer {
    process: Child,
    directory: PathBuf,
    database: String,
    port: u16,
}

impl PgBouncer {
    pub fn start(database: &Database, options: PoolOptions) -> PgBouncer {
        let directory = watcher::new_directory("pgbouncer");
        let port = stage::free_port();
        fs::write(directory.join("users.txt"), users(&options)).expect("write users.txt");
        fs::write(directory.join("pgbouncer.ini"), configuration(database, port, &options))
            .expect("write pgbouncer.ini");
        let log = File::create(directory.join("log")).expect("create the log of PgBouncer");
        let mut command = stage::server_command(binary(), &directory);
        command.arg("pgbouncer.ini").stdin(Stdio::null());
        command.stdout(log.try_clone().expect("share the log")).stderr(log);
        let process = command.spawn().expect("start PgBouncer");
        let name = database.name().to_owned();
        let mut bouncer = PgBouncer { process, directory, database: name, port };
        bouncer.wait_until_ready();
        bouncer
    }

    /// A session of a role through the pooler.
    #[track_caller]
    pub fn connect(&self, role: &str) -> Client {
        match self.config(role).connect(NoTls) {
            Ok(client) => client,
            Err(error) => panic!("cannot connect through PgBouncer as {role}: {error:?}"),
        }
    }

    /// A session of a role through the pooler, with more connection parameters.
    pub fn connect_with(&self, role: &str, adjust: impl FnOnce(&mut Config)) -> Result<Client, postgres::Error> {
        let mut config = self.config(role);
        adjust(&mut config);
        config.connect(NoTls)
    }

    /// A session of a role through the pooler, and what it is told besides results.
    #[track_caller]
    pub fn connect_with_notices(&self, role: &str) -> (Client, Notices) {
        let mut config = self.config(role);
        let notices = Notices::collect(&mut config);
        (config.connect(NoTls).expect("connect through PgBouncer"), notices)
    }

    /// A session in PgBouncer's own console (`SHOW POOLS`), by the simple protocol only.
    pub fn console(&self) -> Client {
        let mut config = self.config("postgres");
        config.dbname("pgbouncer").connect(NoTls).expect("connect to the console of PgBouncer")
    }

    /// How to connect as a role through the pooler.
    pub fn config(&self, role: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).dbname(&self.database).user(role);
        config.connect_timeout(Duration::from_secs(30));
        config
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection string for other clients.
    pub fn url(&self, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{}", self.port, self.database)
    }

    /// A program of PostgreSQL (psql, pgbench ...) whose environment names the pooler and this role.
    pub fn tool(&self, program: &str, role: &str) -> Command {
        let mut command = stage::command(stage::program(program));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        command.env("PGDATABASE", &self.database).env("PGUSER", role);
        command
    }

    /// What PgBouncer has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).expect("read the log of PgBouncer")
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let exited = self.process.try_wait().expect("ask after PgBouncer").is_some();
            assert!(!exited, "PgBouncer did not start:\n{}", self.log());
            assert!(Instant::now() < deadline, "PgBouncer does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It keeps nothing that an orderly end would save.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Debian puts the program where an ordinary user's PATH does not lead.
fn binary() -> &'static Path {
    let debian = Path::new("/usr/sbin/pgbouncer");
    if debian.exists() { debian } else { Path::new("pgbouncer") }
}

fn configuration(database: &Database, port: u16, options: &PoolOptions) -> String {
    let mut settings = vec![
        ("listen_addr", "127.0.0.1".to_owned()),
        ("listen_port", port.to_string()),
        ("unix_socket_dir", String::new()),
        ("auth_type", "trust".to_owned()),
        ("auth_file", "users.txt".to_owned()),
        ("admin_users", "postgres".to_owned()),
        ("pool_mode", "transaction".to_owned()),
        ("default_pool_size", options.pool_size.to_string()),
        ("max_client_conn", "500".to_owned()),
        // What JDBC sends at every connection.
        ("ignore_startup_parameters", "extra_float_digits".to_owned()),
    ];
    for (name, value) in &options.settings {
        settings.retain(|(other, _)| other != name);
        settings.push((name, value.clone()));
    }
    let lines: Vec<String> = settings.into_iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    let server = database.server().port();
    let databases: String = options.databases.iter().map(|line| format!("{line}\n")).collect();
    format!("[databases]\n{databases}* = host=127.0.0.1 port={server}\n\n[pgbouncer]\n{}", lines.concat())
}

/// The roles that PgBouncer lets in; trust asks for no password, but for the name in this list.
fn users(options: &PoolOptions) -> String {
    let known = ROLES.iter().map(|&(role, _)| role).chain(["postgres"]);
    let all = known.chain(options.users.iter().map(String::as_str));
    all.map(|role| format!("\"{role}\" \"\"\n")).collect()
}
