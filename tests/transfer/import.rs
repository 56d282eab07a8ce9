//! Replacing a tenant's rows, and changing its isolation on the way.

use super::*;
use std::time::Duration;

const SPOIL: &str = "
    SET LOCAL search_path = shop, public;
    DELETE FROM lines WHERE n = 3; DELETE FROM bills; DELETE FROM events WHERE n % 2 = 0;
    UPDATE customers SET name = 'spoilt ' || id WHERE id % 2 = 0;
    INSERT INTO customers (name) VALUES ('came later');
    INSERT INTO \"Odd \"\" Names\" VALUES (DEFAULT, 'later')";

#[test]
fn rows_are_replaced_and_nothing_else() {
    let database = shop(cluster(), "replaced");
    let (acme, globex) = (filled(&database, "acme"), filled(&database, "globex"));
    let (before, others) = (picture(&database, Some(acme)), picture(&database, Some(globex)));
    let mut app = database.connect("app");
    as_tenant(&mut app, acme, |tx| {
        one::<String>(tx, "SELECT api_key FROM create_api_key('old')", &[]);
    });
    let exported = export(&database, acme);
    let key: String = as_tenant(&mut app, acme, |tx| {
        tx.batch_execute(SPOIL).unwrap_or_else(|error| panic!("{error:?}"));
        tx.batch_execute("SELECT revoke_api_key(id) FROM tenancy.api_keys").expect("revoke");
        one(tx, "SELECT api_key FROM create_api_key('new')", &[])
    });
    one::<Uuid>(&mut database.connect("operator"), "SELECT update_tenant($1, name => 'Renamed')", &[&acme]);
    database.superuser().batch_execute(TRIGGER).expect("create the trigger");
    let revoked = "tenancy.stored_api_keys WHERE revoked_at IS NOT NULL";

    import(&database, &exported, "'replace'").unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(picture(&database, Some(acme)), before);
    assert_eq!(picture(&database, Some(globex)), others);
    assert_eq!(count(&mut database.superuser(), revoked), 1, "a key that was revoked stays so");
    assert_eq!(count(&mut database.superuser(), "tenancy.tenants WHERE name = 'Renamed'"), 1);
    let verified = count(&mut database.connect("app"), &format!("verify_api_key('{key}')"));
    assert_eq!(verified, 1);
    // Numbers that others draw from never go back.
    as_tenant(&mut app, globex, |tx| {
        tx.batch_execute("INSERT INTO shop.customers (name) VALUES ('next')").expect("insert")
    });
    let audited = format!("tenancy.audit_log WHERE tenant_id = '{acme}' AND action = 'tenant.import'");
    assert_eq!(count(&mut database.connect("admin"), &audited), 1);
}

#[test]
fn writers_wait_and_readers_do_not() {
    let database = shop(cluster(), "replace_waits");
    let acme = filled(&database, "acme");
    let exported = export(&database, acme);
    store(&database, &exported);
    let (mut writer, mut reader) = (database.connect("app"), database.connect("app"));
    let mut writing = writer.transaction().expect("begin");
    bind(&mut writing, acme);
    writing.execute("INSERT INTO shop.people (id) VALUES (99)", &[]).expect("write");
    let (mut admin, notices) = database.connect_with_notices("admin");
    let import = std::thread::spawn(move || admin.batch_execute("CALL import_tenant('export', 'replace')"));
    wait_until("the import waits", || notices.contains("waiting for transactions"));
    std::thread::sleep(Duration::from_millis(50));
    as_tenant(&mut reader, acme, |tx| assert_eq!(count(tx, "shop.people"), 3));
    writing.commit().expect("commit");
    import.join().expect("join").unwrap_or_else(|error| panic!("{error:?}"));
    as_tenant(&mut reader, acme, |tx| assert_eq!(count(tx, "shop.people"), 3));
}

/// A template whose tables are those of the shop that have no types of their own.
const TEMPLATE: &str = "
    CREATE SCHEMA own AUTHORIZATION owner; GRANT USAGE ON SCHEMA own TO app;
    SET ROLE owner; SET search_path = own, public;
    CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, parent bigint REFERENCES customers, country text);
    CREATE TABLE people (id int PRIMARY KEY, team int, tenant_id uuid DEFAULT current_tenant());
    CREATE TABLE teams (id int PRIMARY KEY, lead int REFERENCES people, tenant_id uuid NOT NULL);
    ALTER TABLE people ADD FOREIGN KEY (team) REFERENCES teams;
    GRANT ALL ON ALL TABLES IN SCHEMA own TO app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA own TO app;
    RESET ROLE; RESET search_path;
    SELECT register_template('own', 'own')";

const FEW: &str = "
    SET LOCAL search_path = shop, public;
    INSERT INTO customers (name, country) VALUES ('one', 'CH'), ('two', NULL);
    UPDATE customers SET parent = (SELECT min(id) FROM customers);
    INSERT INTO teams (id) VALUES (1); INSERT INTO people (id, team) VALUES (1, 1); UPDATE teams SET lead = 1";

#[test]
fn rows_become_a_schema_and_rows_again() {
    let database = shop(cluster(), "isolations");
    database.superuser().batch_execute(TEMPLATE).unwrap_or_else(|error| panic!("{error:?}"));
    filled(&database, "other");
    let acme: Uuid = one(&mut database.connect("operator"), "SELECT create_tenant('Acme')", &[]);
    let mut app = database.connect("app");
    as_tenant(&mut app, acme, |tx| tx.batch_execute(FEW).unwrap_or_else(|error| panic!("{error:?}")));
    let before = picture(&database, Some(acme));
    let exported = export(&database, acme);
    let purge = |tenant: Uuid| {
        one::<bool>(&mut database.connect("operator"), "SELECT delete_tenant($1) IS NOT NULL", &[&tenant]);
        database.connect("admin").batch_execute(&format!("CALL purge_tenant('{tenant}', true)")).expect("purge");
    };
    purge(acme);

    import(&database, &exported, "isolation => 'schema', template => 'own'")
        .unwrap_or_else(|error| panic!("{error:?}"));
    as_tenant(&mut app, acme, |tx| {
        assert_eq!(count(tx, "customers"), 2);
        assert_eq!(count(tx, &format!("teams WHERE tenant_id = '{acme}'")), 1);
        assert_eq!(count(tx, &format!("people WHERE tenant_id = '{acme}'")), 1);
        let next = one::<i64>(tx, "INSERT INTO customers (name) VALUES ('next') RETURNING id", &[]);
        assert!(next > one::<i64>(tx, "SELECT max(id) FROM customers WHERE name <> 'next'", &[]), "numbers go on");
        tx.batch_execute("DELETE FROM customers WHERE name = 'next'").expect("delete");
    });
    let from_schema = export(&database, acme);
    purge(acme);
    import(&database, &from_schema, "isolation => 'row'").unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(picture(&database, Some(acme)), before);
}

#[test]
fn rows_that_a_deferred_key_keeps_apart_are_found_nulls_too() {
    let database = shop(cluster(), "replace_deferred");
    let acme = filled(&database, "acme");
    as_tenant(&mut database.connect("app"), acme, |tx| {
        let two = r#"DELETE FROM shop."Odd "" Names" WHERE "va\lue" = 'one'; INSERT INTO shop."Odd "" Names" VALUES (DEFAULT, NULL)"#;
        tx.batch_execute(two).expect("two nulls");
    });
    let exported = export(&database, acme);
    let keep = r#"DELETE FROM shop."Odd "" Names" a USING shop."Odd "" Names" b WHERE a.ctid < b.ctid;
        ALTER TABLE shop."Odd "" Names" ADD CONSTRAINT once UNIQUE NULLS NOT DISTINCT ("Te'nant", "va\lue") DEFERRABLE INITIALLY DEFERRED"#;
    database.superuser().batch_execute(keep).expect("a key");
    fails(import(&database, &exported, "'replace'"), "23505");
    assert_eq!(count(&mut database.superuser(), r#"shop."Odd "" Names""#), 1);
}
