//! Statements for one tenant after another.

use harness::*;

fn house(label: &str) -> (Database, Vec<Uuid>) {
    let database = Database::new(label);
    protected_table(&database);
    database.superuser().batch_execute("GRANT ALL ON notes TO admin").expect("grant");
    let all = tenants(&mut database.connect("operator"), 5);
    (database, all)
}

#[test]
fn each_tenant_is_served_bound_and_by_itself() {
    let (database, all) = house("each");
    let mut operator = database.connect("operator");
    operator.batch_execute(&format!("SELECT suspend_tenant('{}')", all[4])).expect("suspend");
    let (mut admin, notices) = database.connect_with_notices("admin");
    admin.batch_execute("CALL for_each_tenant($$INSERT INTO notes (body) VALUES (current_user); INSERT INTO notes (body) VALUES ('second')$$)").expect("each");
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "notes WHERE body = 'admin'"), 4);
    let spread: i64 = one(&mut superuser, "SELECT count(DISTINCT (tenant_id, xmin::text)) FROM notes", &[]);
    assert_eq!(spread, 4, "a transaction each");
    assert!(notices.contains("4 of 4 tenants done, 0 failed"), "{:?}", notices.messages());
    assert!(notices.contains("1 tenants are not active here"), "{:?}", notices.messages());
    assert_eq!(text(&mut admin, "SELECT current_tenant_or_null() IS NULL"), "t");
    // One that fails is undone whole; the rest goes on.
    let failing = format!(
        "CALL for_each_tenant($$UPDATE notes SET body = 'touched'; SELECT 1 / (CASE current_tenant() WHEN '{}' THEN 0 ELSE 1 END)$$)",
        all[1]
    );
    notices.take();
    admin.batch_execute(&failing).expect("each");
    assert_eq!(count(&mut superuser, "notes WHERE body = 'touched'"), 6);
    assert!(notices.contains("division by zero"), "{:?}", notices.messages());
    assert!(notices.contains("4 of 4 tenants done, 1 failed"), "{:?}", notices.messages());
    let some = format!("CALL for_each_tenant('DELETE FROM notes', '{{{}}}')", all[1]);
    admin.batch_execute(&some).expect("some");
    assert_eq!(count(&mut superuser, "notes"), 6);
}

#[test]
fn a_deferred_failure_stays_its_tenants_own() {
    let (database, all) = house("each_deferred");
    database
        .connect("owner")
        .batch_execute("CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.body = 'bad' THEN RAISE 'late'; END IF; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()")
        .expect("trigger");
    let (mut admin, notices) = database.connect_with_notices("admin");
    let call = format!(
        "CALL for_each_tenant($$INSERT INTO notes (body) SELECT CASE current_tenant() WHEN '{}' THEN 'bad' ELSE 'good' END$$)",
        all[0]
    );
    admin.batch_execute(&call).expect("each");
    assert_eq!(count(&mut database.superuser(), "notes WHERE body = 'good'"), 4);
    assert!(notices.contains("5 of 5 tenants done, 1 failed"), "{:?}", notices.messages());
}

#[test]
fn statements_cannot_leave_their_tenant() {
    let (database, _) = house("each_escape");
    let (mut admin, notices) = database.connect_with_notices("admin");
    for escape in [
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "SAVEPOINT s",
        "SELECT rebind_tenant(NULL)",
        "CALL purge_expired_tenants()",
        "nonsense",
    ] {
        notices.take();
        admin.batch_execute(&format!("CALL for_each_tenant($${escape}$$)")).expect(escape);
        assert!(notices.contains("5 of 5 tenants done, 5 failed"), "{escape}: {:?}", notices.messages());
    }
    assert_eq!(text(&mut admin, "SELECT current_tenant_or_null() IS NULL"), "t");
    for (call, sqlstate) in [
        ("CALL for_each_tenant(NULL)".to_owned(), "22023"),
        ("CALL for_each_tenant(' ')".to_owned(), "22023"),
        ("CALL for_each_tenant('SELECT 1', '{NULL}')".to_owned(), "22023"),
        (format!("CALL for_each_tenant('SELECT 1', '{{{}}}')", Uuid::from_u128(1)), "P0002"),
        ("BEGIN; CALL for_each_tenant('SELECT 1')".to_owned(), "25001"),
    ] {
        fails(admin.batch_execute(&call), sqlstate);
        let _ = admin.batch_execute("ROLLBACK");
    }
    // A cancelled call ends as a whole, and the session is as before.
    admin.batch_execute("SET statement_timeout = '300ms'").expect("set");
    fails(admin.batch_execute("CALL for_each_tenant('SELECT pg_sleep(0.2)')"), "57014");
    admin.batch_execute("SET statement_timeout = 0").expect("a session that is in no transaction");
    assert_eq!(text(&mut admin, "SELECT current_tenant_or_null() IS NULL"), "t");
    // One who bypasses row security is bound nowhere.
    let (mut superuser, notices) = database.connect_with_notices("postgres");
    superuser.batch_execute("CALL for_each_tenant('DELETE FROM notes')").expect("a warning for each");
    assert!(notices.contains("5 of 5 tenants done, 5 failed"), "{:?}", notices.messages());
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        fails(database.connect(role).batch_execute("CALL for_each_tenant('SELECT 1')"), "42501");
    }
}
