//! One telling of a client's story: a fresh database with what it begins with, perhaps a pooler before it, and its `run.sh`.

use harness::*;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Roles that `database.sql` makes besides those of [`ROLES`]: who runs migrations, and who runs test suites.
const MIGRATOR: &str = "migrator";
const TESTER: &str = "tester";

/// As small as it gets: sessions of the server pass from tenant to tenant all the time.
const POOL_SIZE: u32 = 2;

/// How the application's sessions reach the server. Migrations and what operators and admins do go directly, always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Route {
    Direct,
    Pooled,
}

pub struct Round {
    pub database: Database,
    pub pooler: Option<PgBouncer>,
    template: Database,
}

impl Round {
    /// The database of `examples/clients/database.sql`, twice: the second one is a template for the databases of test suites.
    pub fn prepare(cluster: &Cluster, route: Route) -> Round {
        let [database, template] = ["platform", "platform_template"].map(|label| {
            let database = cluster.database(label);
            let mut psql = database.tool("psql", "postgres");
            psql.args(["-X", "-q"]).current_dir(examples());
            for role in ["owner", "app", "client", "operator", "admin", MIGRATOR, TESTER] {
                psql.args(["-v", &format!("{role}={role}")]);
            }
            run(psql.args(["-f", "database.sql"]));
            database
        });
        let is_template = format!("ALTER DATABASE {} IS_TEMPLATE true", template.name());
        template.superuser().batch_execute(&is_template).expect("make it a template");
        let pooler = (route == Route::Pooled).then(|| {
            let options = PoolOptions::new(POOL_SIZE).user(MIGRATOR);
            PgBouncer::start(&database, options)
        });
        Round { database, pooler, template }
    }

    /// Runs the client's `run.sh`; what it printed.
    #[track_caller]
    pub fn tell(&self, client: &str) -> String {
        let Output { status, stdout, stderr } = self.command(client).output().expect("run the shell");
        let printed = String::from_utf8_lossy(&stdout).into_owned();
        let complaint = String::from_utf8_lossy(&stderr);
        if !status.success() && !printed.contains('✓') {
            panic!(
                "{client} did not come to its first promise ({status}). It installs what it needs from its registry (npm, PyPI, \
                 crates.io): if that cannot be reached from here, this is why.\n{printed}{complaint}"
            );
        }
        assert!(status.success(), "{client} does not keep its story ({status}):\n{printed}{complaint}");
        printed
    }

    fn command(&self, client: &str) -> Command {
        let url = |role| self.pooler.as_ref().map_or_else(|| self.database.url(role), |pooler| pooler.url(role));
        // A client that waits for a session of its own pool would wait for ever.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", "600", "bash", "run.sh"]).current_dir(examples().join(client));
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PG") || name.starts_with("CARGO_") && name != "CARGO_HOME" || name == "DATABASE_URL" {
                command.env_remove(&*name);
            }
        }
        command.env("PATH", path()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("APP_URL", url("app")).env("CLIENT_URL", url("client"));
        command.env("MIGRATOR_URL", self.database.url(MIGRATOR)).env("ADMIN_URL", self.database.url("admin"));
        command.env("OPERATOR_URL", self.database.url("operator"));
        command.env("TEST_URL", self.database.url(TESTER)).env("TEST_TEMPLATE", self.template.name());
        command.env("POOLED", if self.pooler.is_some() { "1" } else { "0" });
        if self.pooler.is_some() {
            // The direct round came first.
            command.env("SKIP_INSTALL", "1");
        }
        command
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        // A template cannot be dropped.
        let ordinary = format!("ALTER DATABASE {} IS_TEMPLATE false", self.template.name());
        let _ = self.database.server().superuser().batch_execute(&ordinary);
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/clients")
}

/// The programs of PostgreSQL are those of the stage, and Node.js is the one that `tools/prerequisites.sh` has installed, if it had to.
fn path() -> std::ffi::OsString {
    let stage = env::var_os("PG_TENANCY_STAGE").map(|stage| Path::new(&stage).join("bin"));
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node/node_modules/node/bin");
    let others = env::var_os("PATH").unwrap_or_default();
    env::join_paths(stage.into_iter().chain([node]).chain(env::split_paths(&others))).expect("a PATH")
}
