//! The systems in `examples/`, each run whole.

mod capital_planning;
mod crm;
mod hybrid;
mod workspaces;

use harness::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// A copy of the examples where the server's user can read it, removed at the end.
pub struct Examples(PathBuf);

impl Examples {
    pub fn copy() -> Self {
        create_roles();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let copy = std::env::temp_dir().join(format!("pg_tenancy_examples_{}_{number}", std::process::id()));
        std::fs::create_dir(&copy).expect("create a directory for the copy");
        // The clients are told in `clients/`, and have whole installations beside them.
        let entries =
            std::fs::read_dir(&source).expect("read examples/").map(|entry| entry.expect("an example").path());
        run(Command::new("cp").arg("-r").args(entries.filter(|path| !path.ends_with("clients"))).arg(&copy));
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&copy));
        Examples(copy)
    }

    /// Runs a script of an example, with the roles of the tests; what it printed. It ends with another status at the first
    /// promise that does not hold.
    pub fn run(&self, name: &str, script: &str, database: &Database) -> String {
        let mut psql = database.tool("psql", "postgres");
        psql.args(["-X", "-q"]).current_dir(self.0.join(name));
        for role in ["owner", "app", "client", "operator", "admin"] {
            psql.args(["-v", &format!("{role}={role}")]);
        }
        run(psql.args(["-f", script]))
    }
}

/// Login roles that only examples have. They belong to the cluster, where tests run side by side: made once, each
/// example finds them.
fn create_roles() {
    const CREATE: &str =
        "CREATE ROLE crm_readonly LOGIN; CREATE ROLE crm_backup LOGIN BYPASSRLS IN ROLE pg_read_all_data";
    static ONCE: Once = Once::new();
    ONCE.call_once(|| cluster().server().superuser().batch_execute(CREATE).expect("create the examples' roles"));
}

impl Drop for Examples {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn agent_platform_keeps_every_promise_of_its_story() {
    let database = Database::new("agent_platform");
    let told = Examples::copy().run("agent_platform", "run.sql", &database);
    assert!(told.matches('✓').count() >= 54, "{told}");
    let kept = count(&mut database.superuser(), "agent_platform.workflow_executions");
    assert_eq!(kept, 57_002);
}
