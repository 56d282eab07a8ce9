//! Migrations of a template reach every tenant: safely, in parallel, once.

#[path = "fleet/fixtures.rs"]
pub mod fixtures;
#[path = "fleet/hostile.rs"]
mod hostile;
#[path = "fleet/storm.rs"]
pub mod storm;

use fixtures::Fleet;
use harness::*;

impl Fleet {
    /// The status of one tenant.
    #[track_caller]
    fn status(&self, slug: &str, version: &str) -> (String, i32, Option<String>, Option<String>) {
        const QUERY: &str = "SELECT status, attempts, sqlstate, message FROM tenancy.migration_status
            WHERE slug IS NOT DISTINCT FROM nullif($1, '') AND version = $2";
        let found = rows(&mut self.database.connect("operator"), QUERY, &[&slug, &version]);
        assert_eq!(found.len(), 1, "{slug} {version}");
        (found[0].get(0), found[0].get(1), found[0].get(2), found[0].get(3))
    }

    /// How many workers run in this database.
    #[track_caller]
    fn workers(&self) -> i64 {
        count(
            &mut self.superuser(),
            "pg_stat_activity WHERE backend_type = 'pg_tenancy worker' AND datname = current_database()",
        )
    }
}

#[test]
fn a_migration_reaches_the_template_and_every_tenant_once() {
    let fleet = Fleet::new("fleet", 12);
    fleet.add("001", "ALTER TABLE contacts ADD COLUMN phone text; INSERT INTO log VALUES ('001')", "");
    fleet.add(
        "002",
        "INSERT INTO log SELECT '002' FROM (SELECT phone FROM contacts LIMIT 1) c RIGHT JOIN (SELECT) d ON true",
        "",
    );
    assert_eq!(fleet.not("001", "pending"), Vec::<String>::new());
    fleet.migrate(", workers => 3").expect("migrate");
    assert_eq!(fleet.not("001", "applied"), Vec::<String>::new());
    assert_eq!(fleet.not("002", "applied"), Vec::<String>::new());
    assert_eq!((fleet.entries("001"), fleet.entries("002")), ((1, 1), (1, 1)));
    assert_eq!(fleet.workers(), 0);
    let actions = "SELECT string_agg(action, ' ' ORDER BY id) FROM tenancy.audit_log WHERE action LIKE 'migration.%'";
    let actions: String = one(&mut fleet.superuser(), actions, &[]);
    assert_eq!(actions, "migration.add migration.add migration.run migration.finish");
    fleet.migrate("").expect("migrate again");
    assert_eq!((fleet.entries("001"), fleet.entries("002")), ((1, 1), (1, 1)));
}

/// What migrating applies, two calls at once apply once: the second waits, and finds nothing.
#[test]
fn two_runs_at_once_apply_nothing_twice() {
    let fleet = Fleet::new("fleet", 30);
    fleet.add("001", "INSERT INTO log VALUES ('001'); SELECT pg_sleep(0.02)", "");
    let sessions = [fleet.database.connect_with_notices("admin"), fleet.database.connect_with_notices("admin")];
    let notices: Vec<String> = std::thread::scope(|scope| {
        let calls = sessions.map(|(mut session, notices)| {
            scope.spawn(move || {
                session.batch_execute("CALL migrate_tenants('crm')").expect("migrate");
                notices.messages()
            })
        });
        calls.into_iter().flat_map(|call| call.join().expect("join")).collect()
    });
    assert_eq!(fleet.entries("001"), (1, 1));
    assert!(notices.iter().any(|notice| notice.contains("waiting for another run")), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("nothing is left to do")), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("30 of 30 tenants done, 0 failed")), "{notices:?}");
}

#[test]
fn a_failure_stays_its_own_and_is_mended_and_resumed() {
    let fleet = Fleet::new("fleet", 10);
    let mut superuser = fleet.superuser();
    for bad in [3, 7] {
        superuser.batch_execute(&format!("INSERT INTO s_{bad}.contacts (name) VALUES ('x'), ('x')")).expect("bad data");
    }
    fleet.add("001", "INSERT INTO log VALUES ('001'); ALTER TABLE contacts ADD UNIQUE (name)", "");
    fleet.add("002", "INSERT INTO log VALUES ('002')", "");
    let (mut admin, notices) = fleet.database.connect_with_notices("admin");
    admin.batch_execute("CALL migrate_tenants('crm', max_attempts => 2)").expect("migrate");
    let warning = notices.take().into_iter().find(|notice| notice.severity() == "WARNING").expect("a warning");
    assert_eq!(warning.message(), "2 tenants of template \"crm\" failed");
    assert!(warning.hint().expect("a hint").contains("tenancy.migration_status"));
    let not_applied = fleet.not("001", "applied");
    assert_eq!(not_applied.len(), 2, "{not_applied:?}");
    for slug in ["t-3", "t-7"] {
        let (status, attempts, sqlstate, message) = fleet.status(slug, "001");
        assert_eq!((status.as_str(), attempts, sqlstate.as_deref()), ("failed", 2, Some("23505")));
        assert!(message.expect("a message").contains("could not create unique index"));
        assert_eq!(fleet.status(slug, "002").0, "pending");
    }
    superuser.batch_execute("DELETE FROM s_3.contacts").expect("mend one");
    fleet.migrate(", max_attempts => 1").expect("migrate again");
    assert_eq!(fleet.status("t-3", "002").0, "applied");
    assert_eq!(fleet.status("t-7", "001").1, 1, "a new call counts anew");
    superuser.batch_execute("DELETE FROM s_7.contacts").expect("mend the other");
    fleet.migrate("").expect("migrate again");
    assert_eq!((fleet.entries("001"), fleet.entries("002")), ((1, 1), (1, 1)));
    assert_eq!(count(&mut superuser, "tenancy.failed_migrations"), 0);
}

#[test]
fn a_failed_template_stops_the_run() {
    let fleet = Fleet::new("fleet", 2);
    fleet.superuser().batch_execute("INSERT INTO crm_template.contacts (name) VALUES ('x'), ('x')").expect("bad data");
    fleet.add("001", "ALTER TABLE contacts ADD UNIQUE (name)", "");
    let error = fails(fleet.migrate(""), "55000");
    assert!(error.message().contains("migration \"001\" failed for template \"crm\""), "{error:?}");
    assert!(error.detail().expect("a detail").starts_with("23505: could not create unique index"), "{error:?}");
    assert!(error.hint().expect("a hint").contains("tenancy.migration_status"), "{error:?}");
    assert_eq!(fleet.status("", "001").0, "failed");
    assert_eq!(fleet.not("001", "pending").len(), 1);
    assert_eq!(one::<String>(&mut fleet.superuser(), "SELECT outcome FROM tenancy.migration_runs", &[]), "stopped");
}

#[test]
fn a_failed_canary_stops_the_run_before_the_rest() {
    let fleet = Fleet::new("fleet", 6);
    let mut superuser = fleet.superuser();
    superuser
        .batch_execute(
            "UPDATE tenancy.tenants SET metadata = '{\"ring\": 0}' WHERE slug IN ('t-2', 't-5');
            INSERT INTO s_5.contacts (name) VALUES ('x'), ('x')",
        )
        .expect("canaries");
    fleet.add("001", "INSERT INTO log VALUES ('001'); ALTER TABLE contacts ADD UNIQUE (name)", "");
    let error = fails(fleet.migrate(", canary => '{\"ring\": 0}'"), "55000");
    assert!(error.message().contains("canary tenant t-5"), "{error:?}");
    assert_eq!(fleet.status("t-5", "001").1, 3);
    let pending = fleet.not("001", "applied");
    assert_eq!(pending.iter().filter(|status| status.contains("pending")).count(), 4, "{pending:?}");
    superuser.batch_execute("DELETE FROM s_5.contacts").expect("mend");
    fleet.migrate(", canary => '{\"ring\": 0}'").expect("migrate again");
    assert_eq!(fleet.entries("001"), (1, 1));
    fleet.add("002", "SELECT 1", "");
    let (mut admin, notices) = fleet.database.connect_with_notices("admin");
    admin.batch_execute("CALL migrate_tenants('crm', canary => '{\"rnig\": 0}')").expect("migrate");
    assert!(notices.contains("no tenant of template \"crm\" is a canary"), "{:?}", notices.messages());
}

#[test]
fn a_tenant_that_does_not_verify_is_rolled_back() {
    let fleet = Fleet::new("fleet", 4);
    fleet.superuser().batch_execute("INSERT INTO s_2.contacts (name) VALUES (NULL)").expect("bad data");
    fleet.add(
        "001",
        "INSERT INTO log VALUES ('001')",
        ", verify_sql => 'SELECT NOT EXISTS (SELECT FROM contacts WHERE name IS NULL)'",
    );
    fleet.migrate("").expect("migrate");
    assert_eq!(
        fleet.status("t-2", "001"),
        ("failed".into(), 3, Some("P0004".into()), Some("verify_sql returned false".into()))
    );
    assert_eq!(fleet.entries("001"), (0, 1));
    assert_eq!(fleet.not("001", "applied").len(), 1);
    for (verify, message) in [
        ("SELECT NULL::boolean", "null"),
        ("SELECT true WHERE false", "no row"),
        ("SELECT 1", "something that is not boolean"),
    ] {
        fleet.add("002", "SELECT 1", &format!(", verify_sql => '{verify}'"));
        fails(fleet.migrate(", max_attempts => 1"), "55000");
        let (_, _, sqlstate, found) = fleet.status("", "002");
        assert_eq!(
            (sqlstate.as_deref(), found.as_deref()),
            (Some("P0004"), Some(format!("verify_sql returned {message}").as_str()))
        );
    }
}

#[test]
fn a_busy_tenant_is_tried_again_and_the_others_do_not_wait() {
    let fleet = Fleet::new("fleet", 4);
    fleet.add("001", "ALTER TABLE contacts ADD COLUMN phone text; INSERT INTO log VALUES ('001')", "");
    let mut blocker = fleet.superuser();
    let mut transaction = blocker.transaction().expect("begin");
    transaction.batch_execute("LOCK TABLE s_1.contacts").expect("lock");
    fleet.migrate(", lock_timeout_s => 0.1").expect("migrate");
    let (status, attempts, sqlstate, message) = fleet.status("t-1", "001");
    assert_eq!((status.as_str(), attempts, sqlstate.as_deref()), ("failed", 3, Some("55P03")), "{message:?}");
    assert_eq!(fleet.not("001", "applied").len(), 1);
    let mut superuser = fleet.superuser();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| fleet.migrate(", lock_timeout_s => 0.3, max_attempts => 100"));
        const TRIED: &str = "SELECT attempts FROM tenancy.failed_migrations";
        wait_until("it failed again", || one::<i32>(&mut superuser, TRIED, &[]) == 2);
        transaction.rollback().expect("rollback");
        call.join().expect("join").expect("migrate");
    });
    assert_eq!(fleet.entries("001"), (1, 1));
    assert_eq!(fleet.not("001", "applied"), Vec::<String>::new());
}

#[test]
fn an_index_is_built_concurrently_and_what_a_failed_attempt_left_is_removed() {
    let fleet = Fleet::new("fleet", 4);
    let mut superuser = fleet.superuser();
    superuser.batch_execute("INSERT INTO s_2.contacts (name) VALUES ('x'), ('x')").expect("bad data");
    const SQL: &str = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS contacts_name_key ON contacts (name)";
    fleet.add(
        "001",
        SQL,
        ", down_sql => 'DROP INDEX CONCURRENTLY IF EXISTS contacts_name_key', transactional => false",
    );
    fleet.migrate("").expect("migrate");
    const VALID: &str =
        "pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname = 'contacts_name_key' AND indisvalid";
    let (status, attempts, sqlstate, _) = fleet.status("t-2", "001");
    assert_eq!((status.as_str(), attempts, sqlstate.as_deref()), ("failed", 3, Some("23505")));
    assert_eq!(count(&mut superuser, VALID), 4);
    superuser.batch_execute("DELETE FROM s_2.contacts").expect("mend");
    fleet.migrate("").expect("migrate again");
    assert_eq!(count(&mut superuser, VALID), 5);
    assert_eq!(count(&mut superuser, "pg_index WHERE NOT indisvalid"), 0);
    const OWNER: &str = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname = 'contacts_name_key'";
    assert_eq!(one::<String>(&mut superuser, OWNER, &[]), "owner");
    fleet.admin().batch_execute("CALL rollback_tenants('crm', NULL)").expect("roll back");
    assert_eq!(count(&mut superuser, "pg_class WHERE relname = 'contacts_name_key'"), 0);
    assert_eq!(fleet.not("001", "pending"), Vec::<String>::new());
}

#[test]
fn a_rollback_undoes_the_latest_first_and_the_template_last() {
    let fleet = Fleet::new("fleet", 5);
    fleet.add("a", "CREATE TABLE deals (id int)", ", down_sql => 'DROP TABLE deals'");
    fleet.add("b", "ALTER TABLE deals ADD COLUMN title text", ", down_sql => 'ALTER TABLE deals DROP COLUMN title'");
    fleet.add("0", "INSERT INTO log VALUES ('0')", ", down_sql => 'DELETE FROM log WHERE entry = ''0'''");
    fleet.migrate("").expect("migrate");
    let mut admin = fleet.admin();
    admin.batch_execute("CALL rollback_tenants('crm', 'a')").expect("roll back");
    assert_eq!(fleet.not("a", "applied"), Vec::<String>::new());
    assert_eq!(fleet.not("b", "pending"), Vec::<String>::new());
    assert_eq!(fleet.not("0", "pending"), Vec::<String>::new());
    assert_eq!(fleet.entries("0"), (0, 0));
    let titles = "pg_attribute WHERE attname = 'title' AND NOT attisdropped";
    assert_eq!(count(&mut fleet.superuser(), titles), 0);
    fleet.superuser().batch_execute("CREATE VIEW s_3.v AS SELECT * FROM s_3.deals").expect("an obstacle");
    let (mut session, notices) = fleet.database.connect_with_notices("admin");
    session
        .batch_execute("CALL rollback_tenants('crm', NULL, max_attempts => 1)")
        .expect("roll back as far as it goes");
    assert!(notices.contains("and the template was left as it was"), "{:?}", notices.messages());
    assert_eq!(fleet.status("t-3", "a").2.as_deref(), Some("2BP01"));
    assert_eq!(fleet.status("", "a").0, "applied");
    assert_eq!(fleet.status("t-1", "a").0, "pending");
    fleet.superuser().batch_execute("DROP VIEW s_3.v").expect("remove the obstacle");
    admin.batch_execute("CALL rollback_tenants('crm', NULL)").expect("roll back");
    assert_eq!(fleet.not("a", "pending"), Vec::<String>::new());
    fleet.migrate("").expect("migrate");
    assert_eq!(fleet.not("0", "applied"), Vec::<String>::new());
}

#[test]
fn a_rollback_over_a_migration_that_cannot_be_undone_touches_nothing() {
    let fleet = Fleet::new("fleet", 1);
    fleet.add("1", "SELECT 1", "");
    fleet.add("2", "SELECT 1", ", down_sql => 'SELECT 1'");
    fleet.migrate("").expect("migrate");
    let mut admin = fleet.admin();
    let error = fails(admin.batch_execute("CALL rollback_tenants('crm', NULL)"), "55000");
    assert!(error.message().contains("migration \"1\" of template \"crm\" has no down_sql"), "{error:?}");
    assert_eq!(fleet.not("2", "applied"), Vec::<String>::new());
    fails(admin.batch_execute("CALL rollback_tenants('crm', 'none')"), "P0002");
}

#[test]
fn an_applied_migration_cannot_be_edited_and_another_can() {
    let fleet = Fleet::new("fleet", 1);
    let mut admin = fleet.admin();
    fleet.add("1", "INSERT INTO log VALUES ('old')", "");
    fleet.add("1", "INSERT INTO log VALUES ('new')", ", description => 'better'");
    fleet.add("2", "SELECT 2", "");
    let position = "SELECT position FROM tenancy.migrations WHERE version = '1'";
    assert_eq!(one::<i64>(&mut fleet.superuser(), position, &[]), 1, "replaced in its place");
    fleet.migrate("").expect("migrate");
    assert_eq!((fleet.entries("old"), fleet.entries("new")), ((0, 0), (1, 1)));
    fleet.add("1", "INSERT INTO log VALUES ('new')", ", description => 'better'");
    for more in ["", ", description => 'worse'", ", description => 'better', down_sql => 'SELECT 1'"] {
        let call = format!("SELECT add_migration('crm', '1', 'INSERT INTO log VALUES (''new'')'{more})");
        let error = fails(admin.batch_execute(&call), "55000");
        assert_eq!(error.message(), "migration \"1\" of template \"crm\" has been applied and cannot be edited");
    }
    fails(admin.batch_execute("SELECT remove_migration('crm', '1')"), "55000");
    fleet.add("3", "SELECT 3", "");
    assert!(one::<bool>(&mut admin, "SELECT remove_migration('crm', '3')", &[]));
    assert!(!one::<bool>(&mut admin, "SELECT remove_migration('crm', '3')", &[]));
    let checksum: String = one(&mut admin, "SELECT checksum FROM tenancy.migrations WHERE version = '2'", &[]);
    assert_eq!(checksum.len(), 64);
}

#[test]
fn what_cannot_be_a_migration_is_refused() {
    let fleet = Fleet::new("fleet", 0);
    let mut admin = fleet.admin();
    let long = "x".repeat(300);
    for (arguments, sqlstate) in [
        ("NULL, '1', 'SELECT 1'", "22023"),
        ("'crm', NULL, 'SELECT 1'", "22023"),
        ("'crm', '1', NULL", "22023"),
        ("'crm', '1', 'SELECT 1', transactional => NULL", "22023"),
        ("'none', '1', 'SELECT 1'", "P0002"),
        ("'''; DROP TABLE x; --', '1', 'SELECT 1'", "P0002"),
        ("'crm', '', 'SELECT 1'", "22023"),
        ("'crm', E'a\\nb', 'SELECT 1'", "22023"),
        (&format!("'crm', '{long}', 'SELECT 1'"), "22023"),
        ("'crm', '1', ''", "22023"),
        ("'crm', '1', ' -- nothing'", "22023"),
        ("'crm', '1', 'SELEC 1'", "42601"),
        ("'crm', '1', 'SELECT 1', down_sql => 'DROP'", "42601"),
        ("'crm', '1', 'SELECT 1', down_sql => ''", "22023"),
        ("'crm', '1', 'SELECT 1', verify_sql => 'SELECT ('", "42601"),
        ("'crm', '1', 'SELECT 1; COMMIT; SELECT 2'", "22023"),
        ("'crm', '1', 'SAVEPOINT a'", "22023"),
        ("'crm', '1', 'PREPARE TRANSACTION ''a'''", "22023"),
        ("'crm', '1', 'COPY contacts FROM STDIN'", "22023"),
        ("'crm', '1', 'CREATE INDEX CONCURRENTLY i ON contacts (name)'", "22023"),
        ("'crm', '1', 'VACUUM contacts'", "22023"),
        ("'crm', '1', 'SELECT 1; SELECT 2', transactional => false", "22023"),
        ("'crm', '1', 'SELECT 1', transactional => false", "22023"),
        ("'crm', '1', 'DO ''BEGIN COMMIT; END''', transactional => false", "22023"),
        ("'crm', '1', 'CREATE INDEX CONCURRENTLY ON contacts (name)', transactional => false", "22023"),
        ("'crm', '1', 'VACUUM', transactional => false", "22023"),
        ("'crm', '1', 'VACUUM contacts', down_sql => 'SELECT 1', transactional => false", "22023"),
    ] {
        fails(admin.batch_execute(&format!("SELECT add_migration({arguments})")), sqlstate);
    }
    for (arguments, sqlstate) in [("NULL, '1'", "22023"), ("'crm', NULL", "22023"), ("'none', '1'", "P0002")] {
        fails(admin.batch_execute(&format!("SELECT remove_migration({arguments})")), sqlstate);
    }
    assert_eq!(count(&mut admin, "tenancy.migrations"), 0);
    for (arguments, sqlstate) in [
        ("NULL", "22023"),
        ("'none'", "P0002"),
        ("'crm', NULL", "22023"),
        ("'crm', 0", "22023"),
        ("'crm', 65", "22023"),
        ("'crm', -2147483648", "22023"),
        ("'crm', canary => '[]'", "22023"),
        ("'crm', max_attempts => NULL", "22023"),
        ("'crm', max_attempts => 0", "22023"),
        ("'crm', max_attempts => 2147483647", "22023"),
        ("'crm', lock_timeout_s => NULL", "22023"),
        ("'crm', lock_timeout_s => 0", "22023"),
        ("'crm', lock_timeout_s => -1", "22023"),
        ("'crm', lock_timeout_s => 'NaN'", "22023"),
        ("'crm', lock_timeout_s => 'Infinity'", "22023"),
        ("'crm', lock_timeout_s => 1e30", "22023"),
    ] {
        fails(admin.batch_execute(&format!("CALL migrate_tenants({arguments})")), sqlstate);
    }
    for (arguments, sqlstate) in [
        ("NULL, NULL", "22023"),
        ("'none', NULL", "P0002"),
        ("'crm', 'none'", "P0002"),
        ("'crm', NULL, NULL", "22023"),
        ("'crm', NULL, 0", "22023"),
        ("'crm', NULL, max_attempts => 0", "22023"),
        ("'crm', NULL, lock_timeout_s => 'NaN'", "22023"),
    ] {
        fails(admin.batch_execute(&format!("CALL rollback_tenants({arguments})")), sqlstate);
    }
    for call in ["CALL migrate_tenants('crm')", "CALL rollback_tenants('crm', NULL)"] {
        fails(admin.batch_execute(&format!("BEGIN; {call}")), "25001");
        admin.batch_execute("ROLLBACK").expect("rollback");
    }
}

#[test]
fn only_admins_migrate_and_operators_look() {
    let fleet = Fleet::new("fleet", 1);
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        let mut session = fleet.database.connect(role);
        for statement in [
            "SELECT add_migration('crm', '1', 'SELECT 1')",
            "SELECT remove_migration('crm', '1')",
            "CALL migrate_tenants('crm')",
            "CALL rollback_tenants('crm', NULL)",
            "INSERT INTO tenancy.migrations VALUES ('crm', '1', 1, 'SELECT 1', NULL, NULL, NULL, true, '')",
            "DELETE FROM tenancy.migration_runs",
        ] {
            fails(session.batch_execute(statement), "42501");
        }
        for relation in ["migrations", "migration_runs", "failed_migrations", "migration_status"] {
            let result = session.query(&format!("SELECT FROM tenancy.{relation}"), &[]);
            assert_eq!(result.is_ok(), role == "operator", "{role} {relation}");
        }
    }
}

#[test]
fn a_cancelled_call_ends_its_workers_and_is_resumed() {
    let fleet = Fleet::new("fleet", 20);
    fleet.add("001", "INSERT INTO log VALUES ('001'); SELECT pg_sleep(0.1)", "");
    for signal in ["pg_cancel_backend", "pg_terminate_backend"] {
        let mut admin = fleet.admin();
        let pid = backend_pid(&mut admin);
        let mut superuser = fleet.superuser();
        let before = count(&mut superuser, "tenancy.applied_migrations");
        std::thread::scope(|scope| {
            let call = scope.spawn(move || admin.batch_execute("CALL migrate_tenants('crm')"));
            wait_until("some are done", || count(&mut superuser, "tenancy.applied_migrations") > before + 3);
            superuser.execute(&format!("SELECT {signal}($1)"), &[&pid]).expect("interrupt");
            assert!(call.join().expect("join").is_err());
        });
        wait_until("the workers have ended", || fleet.workers() == 0);
        let done = count(&mut superuser, "tenancy.applied_migrations");
        assert!((before + 3..21).contains(&done), "{done}");
    }
    fleet.migrate("").expect("migrate again");
    assert_eq!(fleet.entries("001"), (1, 1));
    let outcomes: String = one(
        &mut fleet.superuser(),
        "SELECT string_agg(outcome, ' ' ORDER BY started_at) FROM tenancy.migration_runs",
        &[],
    );
    assert_eq!(outcomes, "interrupted interrupted done");
}

/// A worker that is ended in the middle of a tenant is replaced.
#[test]
fn a_worker_that_is_ended_is_replaced() {
    let fleet = Fleet::new("fleet", 10);
    fleet.add("001", "INSERT INTO log VALUES ('001'); SELECT pg_sleep(0.1)", "");
    let mut superuser = fleet.superuser();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| fleet.migrate(""));
        wait_until("some are done", || count(&mut superuser, "tenancy.applied_migrations") > 3);
        const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_tenancy worker' AND datname = current_database()";
        superuser.batch_execute(END).expect("end the workers");
        call.join().expect("join").expect("migrate");
    });
    assert_eq!(fleet.entries("001"), (1, 1));
}

#[test]
fn a_server_without_room_for_workers_says_so() {
    let cluster = Cluster::start(Options::new().set("max_worker_processes", "1"));
    let fleet = Fleet::on(cluster.database("fleet"), 3);
    fleet.add("001", "INSERT INTO log VALUES ('001'); SELECT pg_sleep(0.2)", "");
    // The logical replication launcher has the only place.
    let error = fails(fleet.migrate(""), "53400");
    assert!(error.hint().expect("a hint").contains("max_worker_processes"), "{error:?}");
    let mut cluster = cluster;
    // And now our own launcher the second.
    cluster.configure("max_worker_processes", "3");
    cluster.restart();
    let (mut admin, notices) = fleet.database.connect_with_notices("admin");
    admin.batch_execute("CALL migrate_tenants('crm', workers => 3)").expect("migrate");
    assert!(notices.contains("there is room for 1 of 3 workers only"), "{:?}", notices.messages());
    assert_eq!(fleet.entries("001"), (1, 1));
}

#[test]
fn errors_keep_their_sqlstate() {
    let fleet = Fleet::new("fleet", 0);
    for (sql, sqlstate) in [
        ("DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''AB123'', MESSAGE = ''mine''; END'", "AB123"),
        (
            "DO 'BEGIN BEGIN RAISE EXCEPTION USING ERRCODE = ''AB123''; EXCEPTION WHEN OTHERS THEN NULL; END; PERFORM 1/0; END'",
            "22012",
        ),
        ("SELECT 1/0", "22012"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT current_tenant()", "42501"),
        ("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(60)", "57014"),
        ("DO 'BEGIN COMMIT; END'", "2D000"),
        ("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN ROLLBACK; END'; CALL p()", "2D000"),
        ("DO 'BEGIN EXECUTE ''COMMIT''; END'", "0A000"),
        ("SET session_replication_role = replica", "42501"),
        ("LOAD 'auto_explain'", "42501"),
        ("SET ROLE postgres", "42501"),
        ("SET SESSION AUTHORIZATION postgres", "42501"),
        ("RESET SESSION AUTHORIZATION", "42501"),
        ("RESET ROLE", "42501"),
        ("SET tenancy.context = 'x'", "42501"),
        ("CALL migrate_tenants('crm')", "42501"),
        ("DELETE FROM tenancy.applied_migrations", "42501"),
        ("CREATE EXTENSION dblink", "42501"),
        ("COPY contacts FROM PROGRAM 'id'", "42501"),
        ("CREATE TABLE pg_catalog.x ()", "42501"),
        ("DISCARD ALL", "25001"),
    ] {
        fleet.add("001", sql, "");
        let error = fails(fleet.migrate(", max_attempts => 1"), "55000");
        let found = fleet.status("", "001").2;
        assert_eq!(found.as_deref(), Some(sqlstate), "{sql}: {error:?}");
    }
}

/// Whatever lets two work at the same schema at once, its key lets one of them record it.
#[test]
fn what_another_applies_meanwhile_is_not_applied_again() {
    let fleet = Fleet::new("fleet", 3);
    fleet.add("001", "INSERT INTO log VALUES ('001')", "");
    let mut other = fleet.superuser();
    let mut transaction = other.transaction().expect("begin");
    transaction
        .batch_execute(
            "INSERT INTO s_2.log VALUES ('001');
            INSERT INTO tenancy.applied_migrations SELECT 'crm', id, '001' FROM tenancy.tenants WHERE slug = 't-2'",
        )
        .expect("apply by hand");
    let mut superuser = fleet.superuser();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| fleet.migrate(", lock_timeout_s => 0.1, max_attempts => 100"));
        wait_until("it failed", || count(&mut superuser, "tenancy.failed_migrations") == 1);
        transaction.commit().expect("commit");
        call.join().expect("join").expect("migrate");
    });
    assert_eq!(fleet.entries("001"), (1, 1));
}

#[test]
fn a_tenant_whose_schema_is_not_its_own_is_not_touched() {
    let fleet = Fleet::new("fleet", 3);
    let mut superuser = fleet.superuser();
    superuser
        .batch_execute(
            "UPDATE tenancy.tenants SET schema_name = 'other' WHERE slug = 't-1';
            UPDATE tenancy.tenants SET schema_name = 's_1' WHERE slug = 't-2';
            SECURITY LABEL FOR pg_tenancy ON SCHEMA s_3 IS NULL",
        )
        .expect("mistakes in the registry");
    fleet.add("001", "INSERT INTO log VALUES ('001')", "");
    fleet.migrate(", max_attempts => 1").expect("migrate");
    assert_eq!(fleet.status("t-1", "001").2.as_deref(), Some("P0002"));
    assert_eq!(fleet.status("t-2", "001").2.as_deref(), Some("55000"));
    assert_eq!(fleet.status("t-3", "001").2.as_deref(), Some("55000"));
    for schema in ["s_1", "s_2", "s_3"] {
        assert_eq!(count(&mut superuser, &format!("{schema}.log")), 0);
    }
}

/// Whatever state a tenant is in, its schema keeps up; one whose purge has begun, or that has no schema, is left alone.
#[test]
fn tenants_in_every_state_are_migrated_until_their_purge_begins() {
    let fleet = Fleet::new("fleet", 6);
    fleet
        .database
        .connect("operator")
        .batch_execute(
            "SELECT suspend_tenant(find_tenant('t-1'));
            SELECT suspend_tenant(find_tenant('t-2'), mode => 'read_only');
            SELECT cancel_tenant(find_tenant('t-3'));
            SELECT delete_tenant(find_tenant('t-4'));
            SELECT delete_tenant(find_tenant('t-5'))",
        )
        .expect("change states");
    let mut superuser = fleet.superuser();
    superuser
        .batch_execute(
            "UPDATE tenancy.tenants SET purge_started_at = now() WHERE slug = 't-5';
            UPDATE tenancy.tenants SET schema_name = NULL WHERE slug = 't-6'",
        )
        .expect("change the registry");
    fleet.add("001", "INSERT INTO log VALUES ('001'); UPDATE log SET entry = current_tenant() WHERE current_tenant_or_null() IS NOT NULL", "");
    fleet.migrate("").expect("migrate");
    for slug in 1..=4 {
        let id: String = one(&mut superuser, &format!("SELECT entry FROM s_{slug}.log"), &[]);
        assert_eq!(
            id,
            one::<String>(
                &mut superuser,
                &format!("SELECT id::text FROM tenancy.tenants WHERE slug = 't-{slug}'"),
                &[]
            )
        );
    }
    assert_eq!(count(&mut superuser, "s_5.log"), 0);
    assert_eq!(count(&mut superuser, "s_6.log"), 0);
    assert_eq!(count(&mut superuser, "tenancy.migration_status WHERE slug IN ('t-5', 't-6')"), 0);
}

/// CREATE INDEX CONCURRENTLY waits for every older snapshot: neither the session that leads nor one that waits for its turn has any.
#[test]
fn nobody_who_waits_for_a_run_holds_it_up() {
    let fleet = Fleet::new("fleet", 3);
    fleet.add("001", "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON contacts (name)", ", transactional => false");
    fleet.add("002", "SELECT pg_sleep(0.2)", "");
    fleet.add("003", "CREATE INDEX CONCURRENTLY IF NOT EXISTS j ON contacts (name)", ", transactional => false");
    let mut superuser = fleet.superuser();
    std::thread::scope(|scope| {
        let calls = [scope.spawn(|| fleet.migrate("")), scope.spawn(|| fleet.migrate(""))];
        const LEADERS: &str = "pg_stat_activity WHERE query LIKE 'CALL migrate_tenants%' AND state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()";
        wait_until("both wait", || count(&mut superuser, LEADERS) == 2);
        let mut seen = 0;
        wait_until("they are seen without a snapshot", || {
            seen += i64::from(
                count(&mut superuser, &format!("{LEADERS} AND backend_xmin IS NULL AND backend_xid IS NULL")) == 2,
            );
            seen > 10
        });
        calls.into_iter().for_each(|call| call.join().expect("join").expect("migrate"));
    });
    assert_eq!(
        count(
            &mut superuser,
            "pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname IN ('i', 'j') AND indisvalid"
        ),
        8
    );
}

#[test]
fn the_progress_is_seen_while_it_runs() {
    let fleet = Fleet::new("fleet", 6);
    fleet.add("001", "SELECT pg_sleep(0.1)", "");
    let mut operator = fleet.database.connect("operator");
    let mut superuser = fleet.superuser();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| fleet.migrate(", workers => 1"));
        const DONE: &str = "tenancy.migration_status WHERE status = 'applied'";
        wait_until("some but not all is done", || (2..6).contains(&count(&mut operator, DONE)));
        const SAYS: &str = "SELECT query FROM pg_stat_activity WHERE backend_type = 'pg_tenancy worker' AND datname = current_database()";
        let says: String = one(&mut superuser, SAYS, &[]);
        assert!(says.starts_with("pg_tenancy: migrating tenant t-") && says.ends_with(" to 001"), "{says}");
        call.join().expect("join").expect("migrate");
    });
}

#[test]
fn what_fails_for_some_of_many_tenants_is_mended_and_resumed() {
    storm::mend(60, 7);
}

#[test]
fn after_a_crash_in_the_middle_each_tenant_is_migrated_once() {
    storm::survive(60, 1);
}
