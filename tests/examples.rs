//! The systems in `examples/`, each run whole.

use harness::*;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of an example where the server's user can read it, removed at the end.
struct Example(PathBuf);

impl Example {
    fn copy(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let copy = std::env::temp_dir().join(format!("pg_tenancy_example_{name}_{}", std::process::id()));
        run(Command::new("cp").arg("-r").arg(&source).arg(&copy));
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&copy));
        Example(copy)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn agent_platform_keeps_every_promise_of_its_story() {
    let database = Database::new("agent_platform");
    let example = Example::copy("agent_platform");
    let mut psql = database.tool("psql", "postgres");
    psql.args(["-X", "-q"]).current_dir(&example.0);
    for role in ["owner", "app", "client", "operator", "admin"] {
        psql.args(["-v", &format!("{role}={role}")]);
    }
    // It ends with another status at the first promise that does not hold.
    let told = run(psql.args(["-f", "run.sql"]));
    assert!(told.matches('✓').count() >= 29, "{told}");
    let kept = count(&mut database.superuser(), "agent_platform.workflow_executions");
    assert_eq!(kept, 57_000);
}
