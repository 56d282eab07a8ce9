//! Writers and readers that were bound before a move.

use super::fixtures::House;
use harness::*;

/// Ways to write, by the names that rows and schema tenants use.
const WRITES: [&str; 8] = [
    "INSERT INTO accounts (name) VALUES ('lost')",
    "UPDATE accounts SET name = name || ' lost'",
    "DELETE FROM entries",
    "SELECT * FROM accounts FOR UPDATE",
    "INSERT INTO log (line) VALUES ('lost')",
    "INSERT INTO events (at) VALUES ('2025-05-05')",
    "WITH lost AS (DELETE FROM entries RETURNING 1) SELECT count(*) FROM lost",
    "MERGE INTO accounts a USING (SELECT 1) s ON true WHEN MATCHED THEN UPDATE SET balance = 0",
];

/// Leaves a transaction bound to where the tenant was, having read there, and moves it.
fn moved_under<'a>(house: &House, client: &'a mut Client, tenant: Uuid, to: &str) -> postgres::Transaction<'a> {
    let mut transaction = client.transaction().expect("begin");
    bind(&mut transaction, tenant);
    count(&mut transaction, "accounts");
    let call = format!("CALL move_tenant('{tenant}', '{to}', clean => false)");
    house.connect("admin").batch_execute(&call).expect("move");
    transaction
}

#[test]
fn who_was_bound_before_a_move_reads_on_and_writes_nothing() {
    let house = House::new("move_bound");
    let tenant = house.tenant("one", 5);
    let before = house.content(tenant);
    for to in ["schema", "row"] {
        let mut client = house.connect("app");
        let mut old = moved_under(&house, &mut client, tenant, to);
        for write in WRITES {
            let mut savepoint = old.transaction().expect("savepoint");
            let error = fails(savepoint.simple_query(write), "55000");
            assert!(error.message().contains("was moved while"), "{write}: {}", error.message());
        }
        assert_eq!(count(&mut old, "accounts"), 5, "{to}");
        assert_eq!(count(&mut old, "entries"), 10, "{to}");
        old.commit().expect("commit");
        house.connect("admin").batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
        assert_eq!(house.content(tenant), before);
    }
    house.assert_settled();
}

#[test]
fn the_lock_of_something_else_admits_no_writer_to_the_old_place() {
    let house = House::without_template(Database::new("move_other_lock"));
    house.connect("owner").batch_execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO admin").expect("grant");
    house.derive();
    let tenant = house.tenant("one", 3);
    for to in ["schema", "row"] {
        let mut client = house.connect("admin");
        let mut old = moved_under(&house, &mut client, tenant, to);
        // Takes the tenant's lock, and is admitted: where the tables are does not matter to it.
        let create = "SELECT create_user($1 || '@example.com', tenant => $2)";
        one::<Uuid>(&mut old, create, &[&to, &tenant]);
        let mut savepoint = old.transaction().expect("savepoint");
        fails(savepoint.execute("INSERT INTO accounts (name) VALUES ('lost')", &[]), "55000");
        savepoint.rollback().expect("rollback");
        fails(old.query("SELECT record_usage('calls', 1)", &[]), "55000");
        old.rollback().expect("rollback");
        house.connect("admin").batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
    }
}

#[test]
fn what_is_left_in_shared_tables_cannot_be_reached() {
    let house = House::new("move_left_rows");
    let (tenant, other) = (house.tenant("one", 3), house.tenant("other", 2));
    let mut admin = house.connect("admin");
    admin.batch_execute(&format!("CALL move_tenant('{tenant}', 'schema', clean => false)")).expect("move");
    let mut app = house.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    for statement in [
        "SELECT * FROM public.accounts",
        "INSERT INTO public.accounts (name) VALUES ('lost')",
        "UPDATE public.accounts SET name = 'lost'",
        "DELETE FROM public.entries",
        "SELECT * FROM public.events_2025",
        "SELECT * FROM public.rich",
        "SELECT EXISTS (SELECT FROM public.log)",
    ] {
        let mut savepoint = transaction.transaction().expect("savepoint");
        let error = fails(savepoint.batch_execute(statement), "55000");
        assert!(error.message().contains("still holds rows"), "{statement}: {}", error.message());
    }
    assert_eq!(count(&mut transaction, "accounts"), 3);
    transaction.commit().expect("commit");
    for copy in ["TO STDOUT", "FROM STDIN"] {
        let script = format!("BEGIN; SELECT set_tenant('{tenant}'); COPY public.log {copy};\n\\.\n");
        let output = house.database.psql("app", &script);
        assert_eq!(output.status.code(), Some(3), "{copy}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("still holds rows"), "{copy}: {output:?}");
    }
    // Nobody else is concerned.
    assert_eq!(as_tenant(&mut app, other, |app| count(app, "public.accounts")), 2);
    assert_eq!(house.shared_rows(tenant), 15);
    admin.batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
    as_tenant(&mut app, tenant, |app| {
        assert_eq!(count(app, "public.accounts"), 0);
        assert_eq!(count(app, "accounts"), 3);
    });
}

#[test]
fn a_schema_that_was_left_is_closed_to_everyone_who_comes() {
    let house = House::new("move_left_schema");
    let (tenant, other) = (house.tenant("one", 3), house.tenant("other", 2));
    house.move_to(tenant, "schema");
    house
        .connect("admin")
        .batch_execute(&format!("CALL move_tenant('{tenant}', 'row', clean => false)"))
        .expect("move");
    let schema = format!("\"tenant_{tenant}\"");
    for bound in [Some(tenant), Some(other), None] {
        let mut app = house.connect("app");
        let mut transaction = app.transaction().expect("begin");
        if let Some(bound) = bound {
            bind(&mut transaction, bound);
        }
        for statement in
            ["SELECT * FROM {}.accounts", "INSERT INTO {}.log (line) VALUES ('lost')", "TRUNCATE {}.entries"]
        {
            let mut savepoint = transaction.transaction().expect("savepoint");
            fails(savepoint.batch_execute(&statement.replace("{}", &schema)), "42501");
        }
    }
    house.connect("admin").batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
    house.assert_settled();
}

#[test]
fn numbers_are_not_drawn_from_a_sequence_that_was_left() {
    let house = House::new("move_left_sequence");
    let tenant = house.tenant("one", 3);
    house.move_to(tenant, "schema");
    let mut client = house.connect("app");
    let mut old = moved_under(&house, &mut client, tenant, "row");
    fails(old.query("SELECT nextval('entries_id_seq')", &[]), "55000");
    old.rollback().expect("rollback");
}

#[test]
fn readers_go_on_while_a_tenant_is_moved_and_writers_are_told_to_try_again() {
    let house = House::new("move_readers");
    let tenant = house.tenant("one", 3);
    // A transaction of another role holds the move up: the new schema's name is taken until it ends.
    let mut superuser = house.superuser();
    let mut holder = superuser.transaction().expect("begin");
    holder.batch_execute("LOCK TABLE public.accounts IN ACCESS EXCLUSIVE MODE").expect("lock");
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| house.try_move(tenant, "schema"));
        let mut observer = house.connect("operator");
        wait_until("the move waits", || {
            count(&mut observer, "pg_locks WHERE NOT granted AND relation = 'public.accounts'::regclass") > 0
        });
        drop(holder);
        mover.join().expect("join").expect("move");
    });
    assert_eq!(house.place(tenant), format!("schema active tenant_{tenant}"));
}

#[test]
fn a_moving_tenant_serves_readers_and_refuses_writers() {
    let house = House::new("move_moving");
    let tenant = house.tenant("one", 3);
    house
        .superuser()
        .execute("UPDATE tenancy.tenants SET status = 'moving' WHERE id = $1", &[&tenant])
        .expect("moving");
    let mut app = house.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    assert_eq!(count(&mut transaction, "accounts"), 3);
    let error = fails(transaction.execute("INSERT INTO accounts (name) VALUES ('x')", &[]), "55000");
    assert_eq!(
        (error.message(), error.hint()),
        (format!("tenant \"{tenant}\" is moving").as_str(), Some("Try again in a moment."))
    );
}

#[test]
fn a_clean_waits_for_who_reads_the_old_place_and_says_so() {
    let house = House::new("move_wait");
    let tenant = house.tenant("one", 3);
    for to in ["schema", "row"] {
        let mut client = house.connect("app");
        let mut old = moved_under(&house, &mut client, tenant, to);
        let pid = backend_pid(&mut old);
        std::thread::scope(|scope| {
            let (mut admin, notices) = house.database.connect_with_notices("admin");
            let cleaner = scope.spawn(move || admin.batch_execute(&format!("CALL clean_move('{tenant}')")));
            wait_until("the clean says for whom it waits", || notices.contains(&format!("processes {pid}")));
            assert_eq!(count(&mut old, "accounts"), 3);
            assert_eq!(house.phases(tenant).split(' ').next_back(), Some("clean"));
            // Who comes now is not waited for.
            assert_eq!(as_tenant(&mut house.connect("app"), tenant, |app| count(app, "accounts")), 3);
            old.commit().expect("commit");
            cleaner.join().expect("join").expect("clean");
        });
        house.assert_settled();
    }
}

#[test]
fn a_clean_removes_no_row_that_was_not_moved() {
    let house = House::new("move_not_moved");
    let tenant = house.tenant("one", 3);
    let mut admin = house.connect("admin");
    admin.batch_execute(&format!("CALL move_tenant('{tenant}', 'schema', clean => false)")).expect("move");
    // A table that is no tenant's yet is written by the tenant, then protected.
    let make = "CREATE TABLE bills (tenant_id uuid NOT NULL, cents integer); GRANT SELECT, INSERT ON bills TO app";
    house.connect("owner").batch_execute(make).expect("make a table");
    let insert = format!("INSERT INTO public.bills VALUES ('{tenant}', 100)");
    as_tenant(&mut house.connect("app"), tenant, |app| app.batch_execute(&insert).expect("insert"));
    one::<bool>(&mut admin, "SELECT protect_table('bills')", &[]);
    // And a role that bypasses row security writes where the tenant was.
    let mut superuser = house.superuser();
    let clean = format!("CALL clean_move('{tenant}')");
    for (table, insert, remove) in [
        ("public.bills has 1 rows", "SELECT", format!("DELETE FROM bills WHERE tenant_id = '{tenant}'")),
        (
            "public.log has 4 rows",
            "INSERT INTO log VALUES ('{tenant}', 'late')",
            "DELETE FROM log WHERE line = 'late'".to_owned(),
        ),
    ] {
        superuser.batch_execute(&insert.replace("{tenant}", &tenant.to_string())).expect("insert");
        let error = fails(admin.batch_execute(&clean), "55000");
        assert!(error.message().contains(table), "{}", error.message());
        assert!(house.shared_rows(tenant) >= 15, "{table}");
        superuser.batch_execute(&remove).expect("remove");
    }
    admin.batch_execute(&clean).expect("clean");
    house.assert_settled();
}

#[test]
fn nothing_is_made_in_a_schema_that_the_tenant_leaves() {
    let house = House::new("move_make");
    let tenant = house.tenant("one", 3);
    house.move_to(tenant, "schema");
    let mut superuser = house.superuser();
    superuser.batch_execute(&format!("GRANT CREATE ON SCHEMA \"tenant_{tenant}\" TO app")).expect("grant");
    let changes =
        ["CREATE TABLE lost AS SELECT name FROM accounts", "CREATE TABLE lost (a integer)", "DROP TABLE mine"];
    as_tenant(&mut house.connect("app"), tenant, |app| {
        app.batch_execute("CREATE TABLE mine (a integer); CREATE TABLE lost AS SELECT 1; DROP TABLE lost")
            .expect("make");
    });
    let state = |state: &str| format!("UPDATE tenancy.tenants SET status = '{state}' WHERE id = '{tenant}'");
    superuser.batch_execute(&state("moving")).expect("moving");
    as_tenant(&mut house.connect("app"), tenant, |app| {
        for change in changes {
            app.batch_execute("SAVEPOINT s").expect("savepoint");
            let error = fails(app.batch_execute(change), "55000");
            assert!(error.message().contains("is moving"), "{change}: {}", error.message());
            app.batch_execute("ROLLBACK TO s").expect("rollback");
        }
    });
    superuser.batch_execute(&state("active")).expect("active");
    as_tenant(&mut house.connect("app"), tenant, |app| app.batch_execute("DROP TABLE mine").expect("drop"));
    let mut client = house.connect("app");
    let mut old = moved_under(&house, &mut client, tenant, "row");
    for change in &changes[..2] {
        let error = fails(old.transaction().expect("savepoint").batch_execute(change), "55000");
        assert!(error.message().contains("was moved while"), "{change}: {}", error.message());
    }
}

#[test]
fn rows_of_a_table_elsewhere_are_not_dropped_with_the_schema_that_they_are_in() {
    let house = House::new("move_partition");
    let tenant = house.tenant("one", 3);
    house.move_to(tenant, "schema");
    let make = format!(
        "CREATE TABLE parts (a integer) PARTITION BY LIST (a);
         CREATE TABLE \"tenant_{tenant}\".part PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts VALUES (1)"
    );
    let mut superuser = house.superuser();
    superuser.batch_execute(&make).expect("make a partition");
    let error = fails(house.connect("admin").batch_execute(&format!("CALL move_tenant('{tenant}', 'row')")), "55000");
    assert!(error.message().contains("part has rows of the tenant"), "{}", error.message());
    assert_eq!(count(&mut superuser, "parts"), 1);
    assert_eq!(house.place(tenant), format!("schema active tenant_{tenant}"));
}

#[test]
fn a_transaction_has_its_tenant_in_one_place() {
    let house = House::new("move_one_place");
    let tenant = house.tenant("one", 3);
    let mut app = house.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    assert_eq!(count(&mut transaction, "accounts"), 3);
    let keep = format!("CALL move_tenant('{tenant}', 'schema', clean => false)");
    house.connect("admin").batch_execute(&keep).expect("move");
    let mut savepoint = transaction.transaction().expect("savepoint");
    let moved = fails(savepoint.query("SELECT set_tenant($1)", &[&tenant]), "55000");
    assert!(moved.message().contains("was moved"), "{moved:?}");
    savepoint.rollback().expect("roll back");
    assert_eq!(count(&mut transaction, "accounts"), 3, "what it was bound to is there to its end");
    drop(transaction);
    house.connect("admin").batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
    as_tenant(&mut app, tenant, |app| assert_eq!(count(app, "accounts"), 3));
}

#[test]
fn a_table_stays_protected_while_a_tenant_moves_out_of_it() {
    let house = House::new("move_unprotect");
    let tenant = house.tenant("one", 3);
    let mut admin = house.connect("admin");
    let keep = format!("CALL move_tenant('{tenant}', 'schema', clean => false)");
    admin.batch_execute(&keep).expect("move");
    let unprotect = "SELECT unprotect_table('log')";
    let refused = fails(admin.query(unprotect, &[]), "55000");
    assert!(refused.message().contains("\"one\" is being moved"), "{refused:?}");
    admin.batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
    assert_eq!(house.shared_rows(tenant), 0);
    assert!(one::<bool>(&mut admin, unprotect, &[]));
}
