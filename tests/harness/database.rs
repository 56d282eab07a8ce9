//! Fresh databases, and sessions in them.

use crate::asserts::explain;
use crate::cluster::cluster;
use crate::notices::Notices;
use crate::stage;
use postgres::{Client, Config, NoTls};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The login roles of every cluster, each with the level that it holds in a [`Database`] with the extension.
///
/// `owner` owns users' tables and may create them in schema public; `stranger` holds nothing.
pub const ROLES: [(&str, Option<&str>); 7] = [
    ("app", Some("app")),
    ("client", Some("client")),
    ("operator", Some("operator")),
    ("monitor", Some("monitor")),
    ("admin", Some("admin")),
    ("owner", None),
    ("stranger", None),
];

const TEMPLATE: &str = "tenancy_template";

/// Where a server listens, and how to open sessions on it.
#[derive(Clone)]
pub struct Server {
    socket_directory: PathBuf,
    log: PathBuf,
    port: u16,
}

impl Server {
    pub(crate) fn new(directory: &Path, port: u16) -> Server {
        Server { socket_directory: directory.to_owned(), log: stage::log_file(directory), port }
    }

    /// The port, on 127.0.0.1 and of the socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket: a host name for libpq.
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// The file that the server logs to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A session of the superuser in the database `postgres`.
    #[track_caller]
    pub fn superuser(&self) -> Client {
        open(&self.config("postgres", "postgres"))
    }

    /// How to connect to a database through the socket.
    pub fn config(&self, database: &str, role: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.socket_directory).port(self.port).dbname(database).user(role);
        config.connect_timeout(Duration::from_secs(30));
        config
    }

    pub(crate) fn create_roles(&self) {
        let create = |(role, _): (&str, _)| format!("CREATE ROLE {role} LOGIN;");
        let statements = ROLES.map(create).concat();
        self.superuser().batch_execute(&statements).expect("create the tests' roles");
    }
}

/// A database that is dropped with the value, whoever is still connected to it.
pub struct Database {
    server: Server,
    name: String,
}

impl Database {
    /// A fresh database in the shared cluster, with the extension and the roles' levels.
    #[track_caller]
    pub fn new(label: &str) -> Database {
        cluster().database(label)
    }

    pub(crate) fn with_extension(server: &Server, label: &str) -> Database {
        let database = Database::create(server, label, TEMPLATE);
        let revoke = revoke_temporary(&database.name);
        server.superuser().batch_execute(&revoke).expect("revoke TEMPORARY from PUBLIC");
        database
    }

    pub(crate) fn empty(server: &Server, label: &str) -> Database {
        Database::create(server, label, "template1")
    }

    fn create(server: &Server, label: &str, template: &str) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{label}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        server.superuser().batch_execute(&create).expect("create a database");
        Database { server: server.clone(), name }
    }

    /// The name, to be used without quotes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the server listens.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// A session of a role.
    #[track_caller]
    pub fn connect(&self, role: &str) -> Client {
        open(&self.config(role))
    }

    /// A session of the superuser `postgres`.
    #[track_caller]
    pub fn superuser(&self) -> Client {
        self.connect("postgres")
    }

    /// A session of a role with more connection parameters: `|config| { config.options("-c x=y"); }`.
    pub fn connect_with(&self, role: &str, adjust: impl FnOnce(&mut Config)) -> Result<Client, postgres::Error> {
        let mut config = self.config(role);
        adjust(&mut config);
        config.connect(NoTls)
    }

    /// A session of a role, and what it is told besides results.
    #[track_caller]
    pub fn connect_with_notices(&self, role: &str) -> (Client, Notices) {
        let mut config = self.config(role);
        let notices = Notices::collect(&mut config);
        (open(&config), notices)
    }

    /// How to connect as a role through the socket.
    pub fn config(&self, role: &str) -> Config {
        self.server.config(&self.name, role)
    }

    /// A connection string for other clients, over TCP.
    pub fn url(&self, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{}", self.server.port, self.name)
    }

    /// A program of PostgreSQL (psql, pgbench, pg_dump ...) whose environment names this database and role.
    pub fn tool(&self, program: &str, role: &str) -> Command {
        let mut command = stage::command(stage::program(program));
        command.env("PGHOST", &self.server.socket_directory);
        command.env("PGPORT", self.server.port.to_string());
        command.env("PGDATABASE", &self.name).env("PGUSER", role);
        command
    }

    /// Runs a script by psql, which stops at the first error (status 3); prints rows only, unaligned.
    pub fn psql(&self, role: &str, script: &str) -> Output {
        let mut command = self.tool("psql", role);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = command.spawn().expect("start psql");
        let mut input = psql.stdin.take().expect("psql's input is a pipe");
        let script = script.to_owned();
        // Beside reading its output, or a long script and a long output would wait for each other; psql
        // that stops at an error reads no more, so that writing may fail.
        let writer = std::thread::spawn(move || input.write_all(script.as_bytes()).is_ok());
        let output = psql.wait_with_output().expect("wait for psql");
        writer.join().expect("write to psql");
        output
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A cluster that was stopped or killed takes its databases with it.
        let Ok(mut superuser) = self.server.config("postgres", "postgres").connect(NoTls) else {
            return;
        };
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = superuser.batch_execute(&drop) {
            eprintln!("{drop}: {error}");
        }
    }
}

/// Makes the database that [`Database::new`] copies. No session may stay in it, or copying fails: hence it
/// allows none in the end, which keeps autovacuum out.
pub(crate) fn create_template(server: &Server) -> Result<(), String> {
    let mut superuser = server.superuser();
    attempt(&mut superuser, &format!("CREATE DATABASE {TEMPLATE}"))?;
    attempt(&mut superuser, &revoke_temporary(TEMPLATE))?;
    fill_template(&mut open(&server.config(TEMPLATE, "postgres")))?;
    let close = format!("ALTER DATABASE {TEMPLATE} WITH ALLOW_CONNECTIONS false");
    attempt(&mut superuser, &close)
}

fn fill_template(session: &mut Client) -> Result<(), String> {
    attempt(session, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")?;
    attempt(session, "GRANT CREATE ON SCHEMA public TO owner")?;
    attempt(session, "CREATE EXTENSION pg_tenancy")?;
    for (role, level) in ROLES {
        if let Some(level) = level {
            attempt(session, &format!("SELECT grant_access('{role}', '{level}')"))?;
        }
    }
    Ok(())
}

fn attempt(session: &mut Client, statement: &str) -> Result<(), String> {
    session.batch_execute(statement).map_err(|error| format!("{statement}: {}", explain(&error)))
}

/// Privileges on a database are not copied from its template.
fn revoke_temporary(database: &str) -> String {
    format!("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
}

#[track_caller]
fn open(config: &Config) -> Client {
    match config.connect(NoTls) {
        Ok(client) => client,
        Err(error) => panic!("cannot connect as {:?}: {error:?}", config.get_user()),
    }
}
