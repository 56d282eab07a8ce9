//! A migration fires what it finds in a tenant's schema, and that may be hostile.

use super::fixtures::Fleet;
use harness::*;

/// Triggers in `s_2`, made by `stranger`, who may: they try each statement and note in the log what succeeds, at once and, deferred, at commit.
fn traps(fleet: &Fleet, statements: &[&str]) {
    let attempts: String = statements
        .iter()
        .map(|statement| {
            format!(
                "BEGIN
                    EXECUTE $s${statement}$s$;
                    INSERT INTO s_2.log VALUES ('gained by ' || tg_name || $s$: {statement}$s$);
                EXCEPTION WHEN OTHERS THEN
                    INSERT INTO s_2.log VALUES (sqlstate || ' ' || sqlerrm || $s$: {statement}$s$);
                END;"
            )
        })
        .collect();
    let mut superuser = fleet.superuser();
    superuser
        .batch_execute("GRANT CREATE, USAGE ON SCHEMA s_2 TO stranger; GRANT TRIGGER ON s_2.contacts TO stranger")
        .expect("grant");
    superuser
        .batch_execute(&format!(
            "SET ROLE stranger;
            CREATE FUNCTION s_2.trap() RETURNS trigger LANGUAGE plpgsql AS $f$
            BEGIN
                INSERT INTO s_2.log VALUES ('fired ' || tg_name || ' as ' || current_user || ' of ' || session_user);
                {attempts}
                RETURN NEW;
            END $f$;
            CREATE TRIGGER at_once BEFORE INSERT ON s_2.contacts FOR EACH ROW EXECUTE FUNCTION s_2.trap();
            CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON s_2.contacts DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION s_2.trap();
            RESET ROLE"
        ))
        .expect("set the traps");
}

/// Springs the traps; what was gained.
#[track_caller]
fn spring(fleet: &Fleet) -> Vec<String> {
    fleet.add("001", "INSERT INTO contacts (name) VALUES ('x')", "");
    fleet.migrate("").expect("migrate");
    assert_eq!(fleet.not("001", "applied"), Vec::<String>::new());
    let entries: Vec<String> =
        rows(&mut fleet.superuser(), "SELECT entry FROM s_2.log", &[]).iter().map(|row| row.get(0)).collect();
    for trigger in ["at_once", "at_commit"] {
        assert!(entries.contains(&format!("fired {trigger} as owner of owner")), "{entries:?}");
    }
    entries.into_iter().filter(|entry| entry.starts_with("gained")).collect()
}

#[test]
fn a_hostile_trigger_gains_no_rights() {
    let fleet = Fleet::new("fleet", 3);
    let mut superuser = fleet.superuser();
    let other: String = one(&mut superuser, "SELECT id::text FROM tenancy.tenants WHERE slug = 't-1'", &[]);
    let bind = format!("SELECT set_tenant('{other}')");
    traps(
        &fleet,
        &[
            "SET ROLE postgres",
            "SET ROLE NONE",
            "RESET ROLE",
            "SET LOCAL ROLE admin",
            "SELECT set_config('role', 'postgres', true)",
            "SET SESSION AUTHORIZATION postgres",
            "SET SESSION AUTHORIZATION DEFAULT",
            "RESET SESSION AUTHORIZATION",
            "SELECT set_config('session_authorization', 'postgres', false)",
            "SET session_replication_role = replica",
            "SET tenancy.allow_bypass = on",
            "SET tenancy.definer_exempt = on",
            "SET tenancy.context = ''",
            &bind,
            "SELECT rebind_tenant(gen_random_uuid())",
            "SELECT clear_tenant()",
            "SELECT grant_access('stranger', 'admin')",
            "SELECT add_migration('crm', 'x', 'SELECT 1')",
            "CALL migrate_tenants('crm')",
            "ALTER ROLE stranger SUPERUSER",
            "GRANT postgres TO stranger",
            "GRANT admin TO stranger",
            "INSERT INTO tenancy.applied_migrations VALUES ('crm', NULL, 'x')",
            "DELETE FROM tenancy.failed_migrations",
            "SELECT FROM tenancy.migrations",
            "UPDATE tenancy.tenants SET schema_name = NULL",
            "DELETE FROM tenancy.migration_runs",
            "SELECT pg_terminate_backend(pg_backend_pid())",
            "SELECT pg_cancel_backend(pg_backend_pid())",
            "SELECT pg_read_file('postgresql.conf')",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
            "COPY (SELECT 1) TO '/tmp/x'",
            "LOAD 'auto_explain'",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION s_2.trap()",
            "CREATE EXTENSION dblink",
            "CREATE FUNCTION s_2.f() RETURNS void LANGUAGE c AS 'pg_tenancy', 'x'",
            "SECURITY LABEL FOR pg_tenancy ON SCHEMA s_2 IS NULL",
            "COMMIT",
            "ROLLBACK",
            "CREATE INDEX CONCURRENTLY i ON s_2.contacts (name)",
        ],
    );
    assert_eq!(spring(&fleet), Vec::<String>::new());
}

/// The owner of the template owns every tenant's schema; while it works on one, the guard keeps it out of the others.
#[test]
fn a_hostile_trigger_reaches_no_other_tenants_schema() {
    let fleet = Fleet::new("fleet", 3);
    fleet
        .superuser()
        .batch_execute("INSERT INTO s_1.contacts (name) VALUES ('secret')")
        .expect("a row of another tenant");
    traps(
        &fleet,
        &[
            "INSERT INTO s_2.log SELECT name FROM s_1.contacts",
            "INSERT INTO s_1.log VALUES ('x')",
            "UPDATE s_1.contacts SET name = 'x'",
            "DELETE FROM s_1.contacts",
            "TRUNCATE s_1.log",
            "LOCK TABLE s_1.log",
            "SELECT nextval('s_1.contacts_id_seq')",
            "COPY s_1.contacts TO STDOUT",
            "SET LOCAL search_path = s_1; SELECT 1; INSERT INTO log VALUES ('x')",
            "CREATE TABLE s_1.t ()",
            "DROP TABLE s_1.log",
            "ALTER TABLE s_1.contacts ADD COLUMN x int",
            "CREATE VIEW s_2.v AS SELECT * FROM s_1.contacts; INSERT INTO s_2.log SELECT name FROM s_2.v",
            "INSERT INTO crm_template.log VALUES ('x')",
            "CREATE TRIGGER t BEFORE INSERT ON s_1.contacts FOR EACH ROW EXECUTE FUNCTION s_2.trap()",
            "ALTER TABLE s_1.contacts SET SCHEMA s_2",
            "ALTER SCHEMA s_1 RENAME TO s_9",
            "DROP SCHEMA s_1 CASCADE",
            "GRANT ALL ON ALL TABLES IN SCHEMA s_1 TO stranger",
        ],
    );
    assert_eq!(spring(&fleet), Vec::<String>::new());
}

#[test]
fn nothing_of_one_tenants_migration_is_left_for_the_next() {
    let fleet = Fleet::new("fleet", 4);
    let grant = format!("GRANT TEMPORARY ON DATABASE {} TO owner", fleet.database.name());
    fleet.superuser().batch_execute(&grant).expect("grant");
    fleet.add(
        "001",
        "INSERT INTO log SELECT format('%s prepared, %s cursors, %s temporary, %s locks, %s work_mem, %s in %s',
            (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
            (SELECT count(*) FROM pg_cursors WHERE name LIKE 'left%'), to_regclass('pg_temp.rest') IS NOT NULL,
            (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
            current_setting('work_mem'),
            coalesce(current_setting('rest.over', true), ''), regexp_replace(current_setting('search_path'), '^[^,]*', 'own'));
        CREATE TEMP TABLE rest AS SELECT 1;
        PREPARE rest AS SELECT 1;
        SET work_mem = '1MB';
        SET rest.over = 'x';
        SET search_path = public;
        SELECT pg_advisory_lock(42)",
        "",
    );
    fleet.add("002", "DO $$ BEGIN PERFORM lastval(); INSERT INTO log VALUES ('left'); EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END $$;
        INSERT INTO contacts (name) VALUES ('x')", "");
    fleet.migrate(", workers => 1").expect("migrate");
    let mut superuser = fleet.superuser();
    for number in 1..=4 {
        let log: String = one(&mut superuser, &format!("SELECT string_agg(entry, '; ') FROM s_{number}.log"), &[]);
        assert_eq!(log, "0 prepared, 0 cursors, f temporary, 0 locks, 4MB work_mem,  in own, public");
    }
}

/// A failure leaves nothing either: an abort does not undo what is of the session.
#[test]
fn nothing_of_a_failed_migration_is_left_for_the_next() {
    let fleet = Fleet::new("fleet", 3);
    fleet.superuser().batch_execute("INSERT INTO s_1.contacts (name) VALUES ('x'), ('x')").expect("bad data");
    fleet.add(
        "001",
        "INSERT INTO log SELECT format('%s prepared, %s locks', (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
            (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 43 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())));
        PREPARE rest AS SELECT 1;
        SELECT pg_advisory_lock(43);
        ALTER TABLE contacts ADD UNIQUE (name)",
        "",
    );
    fleet.migrate(", workers => 1, max_attempts => 1").expect("migrate");
    for number in 2..=3 {
        let log: String = one(&mut fleet.superuser(), &format!("SELECT entry FROM s_{number}.log"), &[]);
        assert_eq!(log, "0 prepared, 0 locks");
    }
}
