//! The template of `examples/crm` and copies of it: ours, and those that a user would otherwise make.

use crate::rounds::execute;
use harness::{Database, run};
use std::path::Path;

/// The template's schema.
pub const TEMPLATE: &str = "crm_template";

/// Registers the template, and all that belongs to it, with the roles of the tests.
pub fn install(database: &Database) {
    let mut psql = database.tool("psql", "postgres");
    psql.args(["-X", "-q"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/crm"));
    for role in ["owner", "app", "operator", "admin"] {
        psql.args(["-v", &format!("{role}={role}")]);
    }
    run(psql.args(["-f", "install.sql"]));
}

/// The same schema, with its rows, in a database without the extension.
pub fn install_without_extension(from: &Database, to: &Database) {
    execute(&mut to.superuser(), "CREATE ROLE crm_readonly LOGIN; GRANT CREATE ON SCHEMA public TO owner");
    replay(to, &dump(from));
}

/// What a user would load to make such a schema: `pg_dump`'s text, without what only psql understands.
pub fn dump(database: &Database) -> String {
    let dumped = run(database.tool("pg_dump", "postgres").args(["-n", TEMPLATE, "--inserts", "--no-security-labels"]));
    dumped.lines().filter(|line| !line.starts_with('\\')).flat_map(|line| [line, "\n"]).collect()
}

/// The text for a schema of another name.
pub fn renamed(dump: &str, schema: &str) -> String {
    dump.replace(TEMPLATE, schema)
}

/// Loads a text in one transaction.
pub fn replay(database: &Database, dump: &str) {
    execute(&mut database.superuser(), &format!("BEGIN;\n{dump}\nCOMMIT"));
}
