//! Moves into databases of tenants' own, and out of them.

use super::fixtures::House;
use harness::*;

#[test]
fn a_tenant_is_the_same_in_its_own_database_and_back() {
    let house = House::new("move_database");
    let (tenant, other) = (house.tenant("one", 30), house.tenant("other", 20));
    let (before, others) = (house.content(tenant), house.content(other));
    for to in ["database", "schema", "database", "row"] {
        house.move_to(tenant, to);
        assert!(house.place(tenant).starts_with(&format!("{to} active")), "{}", house.place(tenant));
        assert_eq!(house.content(tenant), before, "{to}");
        assert_eq!(house.content(other), others, "{to}");
        house.assert_settled();
        as_tenant(&mut house.connect_to(tenant, "app"), tenant, |app| {
            let insert = "INSERT INTO accounts (name) VALUES ('new') RETURNING id";
            let (last, new): (i64, i64) = (one(app, "SELECT max(id) FROM accounts", &[]), one(app, insert, &[]));
            assert!(new > last, "{to}: {new} after {last}");
            app.batch_execute("DELETE FROM accounts WHERE name = 'new'; DELETE FROM log WHERE line LIKE '%new'")
                .expect("delete");
            let mut savepoint = app.transaction().expect("savepoint");
            fails(savepoint.execute("INSERT INTO entries (account, amount) VALUES (-1, 5)", &[]), "23503");
        });
    }
    assert_eq!(house.phases(tenant), "done done done done");
}

#[test]
fn what_is_known_of_a_tenant_comes_along() {
    let house = House::new("move_along");
    let tenant = house.tenant("one", 2);
    let (mut operator, mut admin) = (house.connect("operator"), house.connect("admin"));
    simple(&mut operator, "SELECT create_metric('calls', 'sum')");
    let user: Uuid = one(&mut admin, "SELECT create_user('a@example.com', tenant => $1)", &[&tenant]);
    as_tenant(&mut house.connect("app"), tenant, |app| one::<Uuid>(app, "SELECT add_member($1, 'owner')", &[&user]));
    let record = |number: i32| {
        as_tenant(&mut house.connect_to(tenant, "app"), tenant, |app| {
            let record = "SELECT record_usage('calls', 10, idempotency_key => $1)";
            rows(app, record, &[&format!("key {number}")]);
        });
    };
    record(1);
    let mut key = String::new();
    for (number, to) in ["database", "row", "schema", "database", "schema", "row"].into_iter().enumerate() {
        house.move_to(tenant, to);
        record(1);
        record(number as i32 + 2);
        if number == 0 {
            key = as_tenant(&mut house.connect("app"), tenant, |app| {
                one(app, "SELECT api_key FROM create_api_key('k', user_id => $1)", &[&user])
            });
            simple(&mut admin, "CALL sync_tenant_databases()");
        }
        let mut client = house.connect_to(tenant, "client");
        let mut transaction = client.transaction().expect("begin");
        rows(&mut transaction, "SELECT authenticate_api_key($1)", &[&key]);
        assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_tenant()", &[]), tenant, "{to}");
        assert_eq!(count(&mut transaction, "accounts"), 2);
        transaction.commit().expect("commit");
    }
    simple(&mut admin, "SELECT rollup_usage()");
    let used = "SELECT quantity::text FROM tenant_usage($1) WHERE metric = 'calls'";
    assert_eq!(one::<String>(&mut operator, used, &[&tenant]), "70");
    house.assert_settled();
}

#[test]
fn who_is_bound_elsewhere_is_told_where_to_go() {
    let house = House::new("move_elsewhere");
    let tenant = house.tenant("one", 3);
    let mut client = house.connect("app");
    let mut old = client.transaction().expect("begin");
    bind(&mut old, tenant);
    assert_eq!(count(&mut old, "accounts"), 3);
    house
        .connect("admin")
        .batch_execute(&format!("CALL move_tenant('{tenant}', 'database', clean => false)"))
        .expect("move");
    // Who was there reads on; nobody writes, and who comes is sent on.
    assert_eq!(count(&mut old, "accounts"), 3);
    fails(old.transaction().expect("savepoint").execute("INSERT INTO log (line) VALUES ('lost')", &[]), "55000");
    old.commit().expect("commit");
    let mut app = house.connect("app");
    for statement in ["SELECT * FROM accounts", "INSERT INTO log (line) VALUES ('lost')", "SELECT * FROM public.rich"] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        let error = fails(transaction.batch_execute(statement), "55000");
        assert!(error.message().contains("in a database of its own"), "{}", error.message());
    }
    house.connect("admin").batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
    // And the way back: who is in the database reads on, and no one comes any more.
    let mut there = house.connect_to(tenant, "app");
    let mut idle = house.connect_to(tenant, "app");
    let mut old = there.transaction().expect("begin");
    bind(&mut old, tenant);
    assert_eq!(count(&mut old, "accounts"), 3);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| house.try_move(tenant, "row"));
        wait_until("the tenant is back", || house.place(tenant).starts_with("row active"));
        assert_eq!(count(&mut old, "accounts"), 3);
        fails(old.transaction().expect("savepoint").execute("INSERT INTO log (line) VALUES ('lost')", &[]), "55000");
        let mut transaction = idle.transaction().expect("begin");
        let error = fails(transaction.query("SELECT set_tenant($1)", &[&tenant]), "55000");
        assert_eq!(error.message(), format!("tenant \"{tenant}\" was moved out of this database"));
        transaction.rollback().expect("rollback");
        assert_eq!(as_tenant(&mut house.connect("app"), tenant, |app| count(app, "accounts")), 3);
        assert_eq!(count(&mut old, "entries"), 6);
        old.commit().expect("commit");
        call.join().expect("join").expect("move");
    });
    house.assert_settled();
}

#[test]
fn a_move_into_a_database_that_fails_leaves_nothing_of_it() {
    let house = House::new("move_no_database");
    let tenant = house.tenant("one", 3);
    let before = house.content(tenant);
    let mut superuser = house.superuser();
    // What the template needs from outside its schema cannot be in a database of its own.
    superuser
        .batch_execute(
            "CREATE TYPE public.outside AS ENUM ('a'); ALTER TABLE grown_template.log ADD COLUMN o public.outside",
        )
        .expect("outside");
    let error = fails(house.try_move(tenant, "database"), "0A000");
    assert!(format!("{error:?}").contains("outside"), "{error:?}");
    assert_eq!(house.phases(tenant), "");
    superuser.batch_execute("ALTER TABLE grown_template.log DROP COLUMN o; ALTER TABLE grown_template.log ADD CONSTRAINT few CHECK (line <> line)").expect("a check");
    let error = fails(house.try_move(tenant, "database"), "23514");
    assert!(error.message().contains("few"), "{}", error.message());
    assert_eq!((house.phases(tenant), house.place(tenant)), ("failed".to_owned(), "row active".to_owned()));
    assert_eq!(house.content(tenant), before);
    house.assert_settled();
    superuser.batch_execute("ALTER TABLE grown_template.log DROP CONSTRAINT few").expect("no check");
    house.move_to(tenant, "database");
    assert_eq!(house.content(tenant), before);
    house.assert_settled();
}

#[test]
fn what_stands_against_leaving_a_database_is_said_and_the_tenant_stays() {
    let house = House::new("move_stay");
    let tenant = house.tenant("one", 3);
    house.move_to(tenant, "database");
    let mut own = house.connect_to(tenant, "postgres");
    let schema = format!("\"tenant_{tenant}\"");
    for (change, mend, sqlstate, says) in [
        (
            "CREATE TABLE {}.own (x integer); INSERT INTO {}.own VALUES (1)",
            "DROP TABLE {}.own",
            "55000",
            "there is no table \"own\"",
        ),
        (
            "INSERT INTO {}.stages VALUES (9, 'mine')",
            "DELETE FROM {}.stages WHERE id = 9",
            "55000",
            "public.stages lacks",
        ),
        (
            "ALTER TABLE {}.accounts ADD COLUMN nick text; UPDATE {}.accounts SET nick = 'x'",
            "ALTER TABLE {}.accounts DROP COLUMN nick",
            "55000",
            "column nick",
        ),
    ] {
        own.batch_execute(&change.replace("{}", &schema)).expect(change);
        let content = house.content(tenant);
        let error = fails(house.try_move(tenant, "row"), sqlstate);
        assert!(error.message().contains(says), "{}", error.message());
        assert!(house.place(tenant).starts_with("database active"), "{}", house.place(tenant));
        assert_eq!(house.content(tenant), content);
        as_tenant(&mut house.connect_to(tenant, "app"), tenant, |app| {
            app.batch_execute("UPDATE accounts SET balance = balance").expect("write")
        });
        own.batch_execute(&mend.replace("{}", &schema)).expect(mend);
        house.assert_settled();
    }
    house.move_to(tenant, "row");
    house.assert_settled();
}

#[test]
fn a_purge_drops_a_database_that_the_tenant_was_moved_out_of() {
    let house = House::new("move_purge_database");
    let tenant = house.tenant("one", 3);
    house.move_to(tenant, "database");
    house
        .connect("admin")
        .batch_execute(&format!("CALL move_tenant('{tenant}', 'schema', clean => false)"))
        .expect("move");
    rows(&mut house.connect("operator"), "SELECT delete_tenant($1)", &[&tenant]);
    house.connect("admin").batch_execute(&format!("CALL purge_tenant('{tenant}', force => true)")).expect("purge");
    house.assert_settled();
}
