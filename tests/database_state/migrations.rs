//! Migrations of a template reach tenants that have databases of their own.

use crate::database_state::fixtures::*;
use harness::*;

#[track_caller]
fn add(control: &Database, version: &str, sql: &str, more: &str) {
    let call = format!("SELECT add_migration('crm', $1, $2{more})");
    assert_eq!(one::<String>(&mut control.connect("admin"), &call, &[&version, &sql]), version);
}

fn migrate(control: &Database) -> Result<(), postgres::Error> {
    control.connect("admin").batch_execute("CALL migrate_tenants('crm')")
}

/// What is recorded in a database of the tenant's migrations.
#[track_caller]
fn applied(database: &Database, tenant: Uuid) -> String {
    let sql = "SELECT coalesce(string_agg(version, ' ' ORDER BY version), '') FROM tenancy.applied_migrations WHERE tenant_id = $1";
    one(&mut database.superuser(), sql, &[&tenant])
}

#[track_caller]
fn log(own: &Own, schema: &str) -> String {
    one(
        &mut own.superuser(),
        &format!("SELECT coalesce(string_agg(entry, ' ' ORDER BY entry), '') FROM {schema}.log"),
        &[],
    )
}

#[test]
fn migrations_reach_databases_of_tenants_and_go_back_there() {
    let control = control(cluster());
    let own = Own::new(cluster(), &control, "acme");
    rows(
        &mut control.connect("operator"),
        "SELECT create_tenant('Here', isolation => 'schema', template => 'crm')",
        &[],
    );
    add(
        &control,
        "001",
        "ALTER TABLE contacts ADD COLUMN phone text; INSERT INTO log VALUES ('001')",
        ", down_sql => 'ALTER TABLE contacts DROP COLUMN phone; DELETE FROM log'",
    );
    add(
        &control,
        "002",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS contacts_phone ON contacts (phone)",
        ", transactional => false, down_sql => 'DROP INDEX CONCURRENTLY IF EXISTS contacts_phone'",
    );
    add(
        &control,
        "003",
        "INSERT INTO log VALUES (current_tenant_or_null()::text || current_user || current_schema())",
        ", down_sql => 'SELECT 1', verify_sql => 'SELECT count(*) <= 2 FROM log'",
    );
    migrate(&control).expect("migrate");
    assert_eq!(applied(&control, own.tenant), "001 002 003");
    assert_eq!(applied(&own.database, own.tenant), "001 002 003");
    assert_eq!(log(&own, "acme_acme"), format!("001 {}owneracme_acme", own.tenant));
    assert_eq!(count(&mut own.superuser(), "pg_indexes WHERE indexname = 'contacts_phone'"), 1);
    assert_eq!(count(&mut control.connect("operator"), "tenancy.migration_status WHERE status <> 'applied'"), 0);
    control.connect("admin").batch_execute("CALL rollback_tenants('crm', NULL)").expect("roll back");
    assert_eq!((applied(&control, own.tenant), applied(&own.database, own.tenant)), (String::new(), String::new()));
    assert_eq!(log(&own, "acme_acme"), "");
    assert_eq!(count(&mut own.superuser(), "pg_indexes WHERE indexname = 'contacts_phone'"), 0);
}

/// As after a crash between the two records: what is done there is not done again.
#[test]
fn what_was_done_there_and_not_recorded_here_is_not_done_twice() {
    let control = control(cluster());
    let own = Own::new(cluster(), &control, "acme");
    add(&control, "001", "INSERT INTO log VALUES ('001')", ", down_sql => 'INSERT INTO log VALUES (''down'')'");
    migrate(&control).expect("migrate");
    let forget = "DELETE FROM tenancy.applied_migrations WHERE tenant_id IS NOT NULL";
    control.superuser().batch_execute(forget).expect("forget here");
    migrate(&control).expect("migrate again");
    assert_eq!(log(&own, "acme_acme"), "001");
    assert_eq!(applied(&control, own.tenant), "001");
    own.superuser().batch_execute(forget).expect("forget there");
    control.connect("admin").batch_execute("CALL rollback_tenants('crm', NULL)").expect("roll back");
    assert_eq!(log(&own, "acme_acme"), "001");
    assert_eq!(applied(&control, own.tenant), "");
    // One that was put back to what it was is not guessed at.
    add(&control, "002", "INSERT INTO log VALUES ('002')", "");
    migrate(&control).expect("migrate both");
    own.superuser().batch_execute(forget).expect("an old backup");
    add(&control, "003", "INSERT INTO log VALUES ('003')", "");
    migrate(&control).expect("migrate, and warn");
    let failed = rows(&mut control.superuser(), "SELECT sqlstate, message FROM tenancy.failed_migrations", &[]);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].get::<_, &str>(0), "55000");
    assert!(failed[0].get::<_, &str>(1).contains("other migrations"), "{}", failed[0].get::<_, &str>(1));
}

/// A failure is that tenant's, with the error as it was raised there; what fires there is nobody's but the owner's.
#[test]
fn a_migration_that_fails_in_a_database_is_recorded_and_others_go_on() {
    let control = control(cluster());
    let first = Own::new(cluster(), &control, "first");
    let second = Own::new(cluster(), &control, "second");
    first.superuser().batch_execute("INSERT INTO acme_first.log VALUES ('twice'), ('twice')").expect("spoil");
    add(&control, "001", "ALTER TABLE log ADD UNIQUE (entry)", "");
    migrate(&control).expect("migrate, and warn");
    let failed = rows(
        &mut control.superuser(),
        "SELECT f.sqlstate, f.message, f.detail, f.attempts, t.slug FROM tenancy.failed_migrations f JOIN tenancy.tenants t ON t.id = f.tenant_id",
        &[],
    );
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (failed[0].get::<_, &str>(0), failed[0].get::<_, i32>(3), failed[0].get::<_, &str>(4)),
        ("23505", 3, "first")
    );
    assert!(failed[0].get::<_, &str>(2).contains("twice"));
    assert_eq!(
        (applied(&control, first.tenant), applied(&first.database, first.tenant)),
        (String::new(), String::new())
    );
    assert_eq!(
        (applied(&control, second.tenant), applied(&second.database, second.tenant)),
        ("001".to_owned(), "001".to_owned())
    );
    first.superuser().batch_execute("DELETE FROM acme_first.log").expect("mend");
    migrate(&control).expect("migrate again");
    assert_eq!(applied(&control, first.tenant), "001");
    assert_eq!(count(&mut control.superuser(), "tenancy.failed_migrations"), 0);
    // A trigger of the owner's does not run as who migrates, nor changes what the database was told.
    second
        .superuser()
        .batch_execute(
            "CREATE FUNCTION acme_second.attack() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO acme_second.contacts (name) VALUES (session_user || ' ' || current_user);
                 BEGIN EXECUTE 'DELETE FROM tenancy.plan_limits'; EXCEPTION WHEN OTHERS THEN
                     INSERT INTO acme_second.contacts (name) VALUES (SQLSTATE); END;
                 RETURN NEW; END $$;
             CREATE TRIGGER attack BEFORE INSERT ON acme_second.log FOR EACH ROW EXECUTE FUNCTION acme_second.attack();
             ALTER FUNCTION acme_second.attack() OWNER TO owner",
        )
        .expect("set a trap");
    add(&control, "002", "INSERT INTO log VALUES ('002')", "");
    migrate(&control).expect("migrate");
    let names: String =
        one(&mut second.superuser(), "SELECT string_agg(name, ', ' ORDER BY id) FROM acme_second.contacts", &[]);
    assert_eq!(names, "owner owner, 42501");
}

#[test]
fn a_database_that_is_being_made_is_left_to_who_makes_it() {
    let control = control(cluster());
    let own = Own::new(cluster(), &control, "acme");
    control
        .superuser()
        .execute("UPDATE tenancy.tenants SET status = 'provisioning' WHERE id = $1", &[&own.tenant])
        .expect("begin");
    add(&control, "001", "INSERT INTO log VALUES ('001')", "");
    migrate(&control).expect("migrate");
    assert_eq!(applied(&control, own.tenant), "");
    control
        .superuser()
        .execute("UPDATE tenancy.tenants SET status = 'active' WHERE id = $1", &[&own.tenant])
        .expect("end");
    migrate(&control).expect("migrate");
    assert_eq!(applied(&own.database, own.tenant), "001");
}
