//! A move takes everything along, and nothing else.

use super::fixtures::House;
use harness::*;

#[test]
fn a_tenant_is_the_same_in_every_place() {
    let house = House::new("move_same");
    let (one_tenant, other) = (house.tenant("one", 40), house.tenant("other", 30));
    let (before, others) = (house.content(one_tenant), house.content(other));
    assert!(before.len() > 200, "{}", before.len());
    for _ in 0..2 {
        house.move_to(one_tenant, "schema");
        assert_eq!(house.place(one_tenant), format!("schema active tenant_{one_tenant}"));
        assert_eq!(house.content(one_tenant), before);
        assert_eq!(house.shared_rows(one_tenant), 0);
        assert_eq!(house.content(other), others);
        house.assert_settled();
        house.move_to(one_tenant, "row");
        assert_eq!(house.place(one_tenant), "row active");
        assert_eq!(house.content(one_tenant), before);
        assert_eq!(house.content(other), others);
        house.assert_settled();
    }
    assert_eq!(house.phases(one_tenant), "done done done done");
}

#[test]
fn after_a_move_the_same_statements_work_and_numbers_go_on() {
    let house = House::new("move_goes_on");
    let (tenant, other) = (house.tenant("one", 5), house.tenant("other", 5));
    for isolation in ["schema", "row", "schema", "row"] {
        let before: (i64, i64) = as_tenant(&mut house.connect("app"), tenant, |app| {
            (one(app, "SELECT max(id) FROM accounts", &[]), one(app, "SELECT max(id) FROM entries", &[]))
        });
        house.move_to(tenant, isolation);
        as_tenant(&mut house.connect("app"), tenant, |app| {
            let account: i64 = one(
                app,
                &format!("INSERT INTO accounts (name) VALUES ('new {isolation} ' || random()) RETURNING id"),
                &[],
            );
            assert!(account > before.0, "{account} after {before:?}");
            let entry: i64 = one(app, "INSERT INTO entries (account, amount) VALUES ($1, 5) RETURNING id", &[&account]);
            assert!(entry > before.1, "{entry} after {before:?}");
            // The trigger works, and foreign keys hold.
            assert_eq!(one::<String>(app, "SELECT balance::text FROM accounts WHERE id = $1", &[&account]), "5");
            let mut savepoint = app.transaction().expect("savepoint");
            let error = fails(savepoint.execute("INSERT INTO entries (account, amount) VALUES (-1, 5)", &[]), "23503");
            assert_eq!(error.constraint(), Some("entries_tenant_id_account_fkey"));
        });
        // And those of the others.
        as_tenant(&mut house.connect("app"), other, |app| {
            let add = format!(
                "INSERT INTO accounts (name) VALUES ('other {isolation} ' || random()); INSERT INTO entries (account, amount) SELECT max(id), 1 FROM accounts"
            );
            app.batch_execute(&add).expect("write for the other tenant");
        });
    }
    house.assert_settled();
}

#[test]
fn no_trigger_of_users_fires_for_rows_that_are_moved() {
    let house = House::new("move_quiet");
    let tenant = house.tenant("one", 7);
    let lines = || -> i64 { as_tenant(&mut house.connect("app"), tenant, |app| count(app, "log")) };
    assert_eq!(lines(), 7);
    for isolation in ["schema", "row"] {
        house.move_to(tenant, isolation);
        assert_eq!(lines(), 7, "{isolation}");
    }
}

#[test]
fn what_a_move_did_is_written_down() {
    let house = House::new("move_record");
    let tenant = house.tenant("one", 3);
    let (mut admin, notices) = house.database.connect_with_notices("admin");
    admin.batch_execute(&format!("CALL move_tenant('{tenant}', 'schema', clean => false)")).expect("move");
    assert!(notices.contains("moved 3 rows of accounts"), "{:?}", notices.messages());
    let mut operator = house.connect("operator");
    let counts: String = one(&mut operator, "SELECT row_counts::text FROM tenancy.moves", &[]);
    assert_eq!(counts, r#"{"log": 3, "events": 3, "entries": 6, "accounts": 3}"#);
    assert_eq!(house.phases(tenant), "clean");
    assert_eq!(house.place(tenant), format!("schema active tenant_{tenant} left row"));
    assert_eq!(house.shared_rows(tenant), 15);
    admin.batch_execute(&format!("CALL clean_move('{tenant}')")).expect("clean");
    assert_eq!((house.phases(tenant), house.shared_rows(tenant)), ("done".to_owned(), 0));
    let order = "SELECT started_at <= copied_at AND copied_at <= verified_at AND verified_at <= switched_at AND switched_at <= finished_at FROM tenancy.moves";
    assert!(one::<bool>(&mut operator, order, &[]));
    let audit = "SELECT before->>'isolation' || ' ' || (after->>'isolation') || ' ' || (after->>'rows') FROM tenancy.audit_log WHERE action = 'tenant.move'";
    assert_eq!(one::<String>(&mut operator, audit, &[]), "row schema 15");
    house.assert_settled();
}

#[test]
fn a_read_only_tenant_is_read_only_afterwards() {
    let house = House::new("move_read_only");
    let tenant = house.tenant("one", 3);
    one::<Uuid>(&mut house.connect("operator"), "SELECT suspend_tenant($1, mode => 'read_only')", &[&tenant]);
    house.move_to(tenant, "schema");
    assert_eq!(house.place(tenant), format!("schema read_only tenant_{tenant}"));
    house.move_to(tenant, "row");
    assert_eq!(house.place(tenant), "row read_only");
}

#[test]
fn limits_count_the_same_rows_in_every_place() {
    let house = House::without_template(Database::new("move_limits"));
    let (mut admin, mut operator) = (house.connect("admin"), house.connect("operator"));
    let tenant = house.tenant("one", 3);
    let plan: String = one(&mut operator, "SELECT plan FROM tenancy.tenants WHERE id = $1", &[&tenant]);
    one::<bool>(&mut admin, "SELECT limit_table('accounts', 'accounts')", &[]);
    house.derive();
    simple(&mut operator, &format!("SELECT set_plan_limit('{plan}', 'accounts', 4)"));
    for (turn, isolation) in ["schema", "row", "schema"].into_iter().enumerate() {
        let clean = if turn == 2 { "false" } else { "true" };
        admin.batch_execute(&format!("CALL move_tenant('{tenant}', '{isolation}', clean => {clean})")).expect("move");
        let mut app = house.connect("app");
        as_tenant(&mut app, tenant, |app| {
            app.batch_execute("INSERT INTO accounts (name) VALUES ('fourth')").expect("a fourth")
        });
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        fails(transaction.execute("INSERT INTO accounts (name) VALUES ('fifth')", &[]), "54000");
        transaction.rollback().expect("rollback");
        as_tenant(&mut app, tenant, |app| {
            app.batch_execute("DELETE FROM accounts WHERE name = 'fourth'").expect("delete")
        });
    }
}

#[test]
fn a_purge_leaves_nothing_of_a_tenant_that_was_moved_and_not_cleaned() {
    let house = House::new("move_purge");
    for (slug, moves) in [("one", ["schema"].as_slice()), ("two", ["schema", "row"].as_slice())] {
        let tenant = house.tenant(slug, 3);
        for isolation in moves {
            house
                .connect("admin")
                .batch_execute(&format!("CALL move_tenant('{tenant}', '{isolation}', clean => false)"))
                .expect("move");
        }
        one::<Option<std::time::SystemTime>>(&mut house.connect("operator"), "SELECT delete_tenant($1)", &[&tenant]);
        house.connect("admin").batch_execute(&format!("CALL purge_tenant('{tenant}', force => true)")).expect("purge");
        assert_eq!(house.shared_rows(tenant), 0);
        assert_eq!(count(&mut house.superuser(), &format!("tenancy.moves WHERE tenant_id = '{tenant}'")), 0);
    }
    house.assert_settled();
}
