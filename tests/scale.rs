//! A server that is too small for a template says which setting is.

use harness::*;

/// A server with room for this many locks for each of a few sessions.
fn small_server(locks: &str) -> Cluster {
    Cluster::start(
        Options::new()
            .set("max_connections", "10")
            .set("max_prepared_transactions", "0")
            .set("max_worker_processes", "4")
            .set("max_wal_senders", "0")
            .set("autovacuum", "off")
            .set("max_locks_per_transaction", locks),
    )
}

/// The template `t` with so many tables, each of which has a sequence and an index.
fn template(database: &Database, tables: usize) {
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE SCHEMA wide AUTHORIZATION owner").expect("create a schema");
    let mut owner = database.connect("owner");
    for number in 1..=tables {
        let create = format!("CREATE TABLE wide.t_{number} (id serial PRIMARY KEY)");
        owner.batch_execute(&create).expect("create a table");
    }
    one::<String>(&mut database.connect("admin"), "SELECT register_template('t', 'wide')", &[]);
}

const CREATE: &str = "SELECT create_tenant('Wide', slug => 'wide', isolation => 'schema', template => 't')";

/// Everything that a tenant's schema leaves behind.
fn what_there_is(database: &Database) -> Vec<Vec<Option<String>>> {
    const EVERYTHING: &str = "SELECT nspname FROM pg_namespace ORDER BY 1; SELECT count(*) FROM pg_class; SELECT count(*) FROM pg_type;
        SELECT count(*) FROM pg_depend; SELECT count(*) FROM pg_seclabel; SELECT to_jsonb(t) FROM tenancy.tenants AS t ORDER BY 1;
        SELECT count(*) FROM tenancy.audit_log; SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid()";
    simple(&mut database.superuser(), EVERYTHING)
}

#[track_caller]
fn is_refused(database: &Database, role: &str, statement: &str) {
    let before = what_there_is(database);
    let error = fails(database.connect(role).batch_execute(statement), "53200");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("max_locks_per_transaction"), "{error:?}");
    assert_eq!(what_there_is(database), before, "{statement}");
}

#[test]
fn a_template_that_needs_more_locks_than_there_are_names_the_setting_and_leaves_nothing() {
    let mut cluster = small_server("64");
    let database = cluster.database("small");
    template(&database, 100);
    cluster.configure("max_locks_per_transaction", "10");
    cluster.restart();
    let waiting: Uuid = one(&mut database.connect("operator"), "SELECT create_tenant('Waiting')", &[]);
    let create_schema = format!("SELECT create_tenant_schema('{waiting}', 't')");
    is_refused(&database, "operator", CREATE);
    is_refused(&database, "operator", &create_schema);
    // What the hint says is what helps.
    cluster.configure("max_locks_per_transaction", "256");
    cluster.restart();
    database.connect("operator").batch_execute(CREATE).expect("create a tenant");
    database.connect("operator").batch_execute(&create_schema).expect("create a schema");
}

#[test]
fn a_copy_that_runs_out_of_locks_half_way_names_the_setting_and_leaves_nothing() {
    let cluster = small_server("32");
    let database = cluster.database("small");
    template(&database, 30);
    // Another session takes all locks that there are, and gives back enough to begin with.
    let mut greedy = database.superuser();
    let taken = (1_i64..).find(|number| greedy.execute("SELECT pg_advisory_lock($1)", &[number]).is_err());
    for number in (1..taken.expect("there is an end")).take(60) {
        assert!(one::<bool>(&mut greedy, "SELECT pg_advisory_unlock($1)", &[&number]));
    }
    is_refused(&database, "operator", CREATE);
    drop(greedy);
    wait_until("the locks are free", || database.connect("operator").batch_execute(CREATE).is_ok());
}
