//! What a move refuses, and that it then has changed nothing.

use super::fixtures::House;
use harness::*;

/// Calls move_tenant(), which fails so; the tenant is what it was.
#[track_caller]
fn refused(house: &House, tenant: Uuid, to: &str, sqlstate: &str, says: &str) {
    let (place, content) = (house.place(tenant), house.content(tenant));
    let error = fails(house.try_move(tenant, to), sqlstate);
    let said =
        format!("{} {} {}", error.message(), error.detail().unwrap_or_default(), error.hint().unwrap_or_default());
    assert!(said.contains(says), "{said}");
    assert_eq!(house.place(tenant), place);
    assert_eq!(house.content(tenant), content);
    house.assert_settled();
}

#[test]
fn arguments_are_checked() {
    let house = House::new("move_arguments");
    let tenant = house.tenant("one", 1);
    let mut admin = house.connect("admin");
    let nobody = Uuid::from_u128(7);
    let huge = "x".repeat(100_000);
    for (call, sqlstate) in [
        ("move_tenant(NULL, 'schema')".to_owned(), "22023"),
        (format!("move_tenant('{tenant}', NULL)"), "22023"),
        (format!("move_tenant('{tenant}', 'schema', clean => NULL)"), "22023"),
        (format!("move_tenant('{tenant}', '')"), "22023"),
        (format!("move_tenant('{tenant}', 'ROW')"), "22023"),
        (format!("move_tenant('{tenant}', 'schema; DROP TABLE accounts')"), "22023"),
        (format!("move_tenant('{tenant}', '{huge}')"), "22023"),
        (format!("move_tenant('{nobody}', 'schema')"), "P0002"),
        (format!("move_tenant('{tenant}', 'row')"), "55000"),
        (format!("move_tenant('{tenant}', 'schema', 'unknown')"), "P0002"),
        (format!("move_tenant('{tenant}', 'schema', '')"), "P0002"),
        ("clean_move(NULL)".to_owned(), "22023"),
        (format!("clean_move('{tenant}')"), "55000"),
        (format!("clean_move('{nobody}')"), "55000"),
    ] {
        fails(admin.batch_execute(&format!("CALL {call}")), sqlstate);
    }
    for call in
        [format!("move_tenant('{tenant}', 'schema')"), format!("clean_move('{tenant}')"), "resume_moves()".to_owned()]
    {
        let mut transaction = admin.transaction().expect("begin");
        fails(transaction.batch_execute(&format!("CALL {call}")), "25001");
    }
    admin.batch_execute("CALL resume_moves()").expect("nothing to do");
    assert_eq!(count(&mut admin, "tenancy.moves"), 0);
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        let mut client = house.connect(role);
        fails(client.batch_execute(&format!("CALL move_tenant('{tenant}', 'schema')")), "42501");
    }
}

#[test]
fn a_tenant_that_is_not_active_is_not_moved() {
    let house = House::new("move_states");
    let mut operator = house.connect("operator");
    for (slug, change) in [
        ("suspended", "suspend_tenant($1)"),
        ("cancelled", "cancel_tenant($1)"),
        ("deleted", "delete_tenant($1)::text"),
    ] {
        let tenant = house.tenant(slug, 1);
        rows(&mut operator, &format!("SELECT {change}"), &[&tenant]);
        let error = fails(house.try_move(tenant, "schema"), "55000");
        assert_eq!(error.message(), format!("a tenant that is {slug} cannot be moved"));
    }
}

#[test]
fn rows_without_a_place_are_not_left_behind() {
    let house = House::new("move_homeless");
    let tenant = house.tenant("one", 2);
    let (mut owner, mut superuser) = (house.connect("owner"), house.superuser());
    owner.batch_execute("CREATE TABLE extra (tenant_id uuid, x integer); GRANT ALL ON extra TO app").expect("extra");
    one::<bool>(&mut house.connect("admin"), "SELECT protect_table('extra')", &[]);
    as_tenant(&mut house.connect("app"), tenant, |app| {
        app.batch_execute("INSERT INTO extra (x) VALUES (1)").expect("extra")
    });
    refused(&house, tenant, "schema", "55000", "public.extra has rows of the tenant, and there is no table \"extra\"");
    as_tenant(&mut house.connect("app"), tenant, |app| app.batch_execute("DELETE FROM extra").expect("extra"));
    // A column that the template lacks counts only where it says something.
    owner
        .batch_execute("ALTER TABLE accounts ADD COLUMN vip boolean DEFAULT false, ADD COLUMN nick text")
        .expect("columns");
    as_tenant(&mut house.connect("app"), tenant, |app| {
        app.batch_execute("UPDATE accounts SET nick = 'x' WHERE id = 1").expect("nick")
    });
    refused(&house, tenant, "schema", "55000", "column nick of public.accounts has values of the tenant");
    as_tenant(&mut house.connect("app"), tenant, |app| {
        app.batch_execute("UPDATE accounts SET nick = NULL").expect("nick")
    });
    house.move_to(tenant, "schema");
    // And the way back.
    let schema = format!("\"tenant_{tenant}\"");
    superuser
        .batch_execute(&format!("CREATE TABLE {schema}.own (x integer); INSERT INTO {schema}.own VALUES (1)"))
        .expect("own");
    refused(&house, tenant, "row", "55000", ".own has rows of the tenant, and there is no table \"own\"");
    superuser
        .batch_execute(&format!("DELETE FROM {schema}.own; INSERT INTO {schema}.stages VALUES (9, 'mine')"))
        .expect("own");
    refused(&house, tenant, "row", "55000", "stages has rows that public.stages lacks");
    superuser.batch_execute("INSERT INTO stages VALUES (9, 'mine')").expect("a stage for all");
    superuser.batch_execute(&format!("UPDATE {schema}.log SET tenant = 'someone else'")).expect("strangers");
    refused(&house, tenant, "row", "55000", "log has rows in which column tenant is not the tenant");
    superuser.batch_execute(&format!("UPDATE {schema}.log SET tenant = '{tenant}'")).expect("mend");
    house.move_to(tenant, "row");
}

#[test]
fn of_rows_without_a_key_none_is_lost_that_is_there_twice() {
    let house = House::without_template(Database::new("move_twice"));
    let mut owner = house.connect("owner");
    owner.batch_execute("CREATE TABLE hints (hint text); INSERT INTO hints VALUES ('a'), (NULL)").expect("hints");
    house.derive();
    let tenant = house.tenant("one", 2);
    house.move_to(tenant, "schema");
    let twice = format!("INSERT INTO \"tenant_{tenant}\".hints VALUES ('a')");
    house.superuser().batch_execute(&twice).expect("a hint of its own");
    refused(&house, tenant, "row", "55000", "hints has rows that public.hints lacks");
    owner.batch_execute("INSERT INTO hints VALUES ('a')").expect("a hint for all");
    house.move_to(tenant, "row");
}

#[test]
fn rows_that_violate_a_constraint_of_the_shared_tables_are_named() {
    let house = House::new("move_violations");
    let (tenant, other) = (house.tenant("one", 2), house.tenant("other", 2));
    house.move_to(tenant, "schema");
    let schema = format!("\"tenant_{tenant}\"");
    let mut superuser = house.superuser();
    superuser.batch_execute("CREATE UNIQUE INDEX accounts_share ON accounts (share)").expect("index");
    let before = house.content(other);
    refused(&house, tenant, "row", "23505", "Table public.accounts: Key (share)=(1) already exists");
    superuser.batch_execute("DROP INDEX accounts_share").expect("index");
    // What a trigger would check, at once or at the end.
    superuser.batch_execute(&format!("ALTER TABLE {schema}.entries DROP CONSTRAINT entries_tenant_id_account_fkey; UPDATE {schema}.entries SET account = 77 WHERE id = 1")).expect("dangling");
    refused(&house, tenant, "row", "23503", "violates foreign key constraint \"entries_tenant_id_account_fkey\"");
    superuser
        .batch_execute(&format!(
            "UPDATE {schema}.entries SET account = (SELECT min(id) FROM {schema}.accounts) WHERE id = 1"
        ))
        .expect("mend");
    superuser.batch_execute(&format!("UPDATE {schema}.accounts SET stage = 2; ALTER TABLE public.log ADD CONSTRAINT once UNIQUE (tenant, line) DEFERRABLE INITIALLY DEFERRED; INSERT INTO {schema}.log SELECT * FROM {schema}.log")).expect("twice");
    refused(&house, tenant, "row", "23505", "\"once\"");
    superuser
        .batch_execute(
            "ALTER TABLE log DROP CONSTRAINT once; ALTER TABLE accounts ADD CONSTRAINT few CHECK (stage < 2) NOT VALID",
        )
        .expect("check");
    refused(&house, tenant, "row", "23514", "few");
    superuser.batch_execute("ALTER TABLE accounts DROP CONSTRAINT few").expect("check");
    house.move_to(tenant, "row");
    assert_eq!(house.content(other), before);
}

#[test]
fn triggers_that_cannot_be_kept_quiet_stand_against_a_move() {
    let house = House::new("move_triggers");
    let tenant = house.tenant("one", 2);
    let mut owner = house.connect("owner");
    owner.batch_execute("ALTER TABLE accounts ENABLE ALWAYS TRIGGER write_down").expect("always");
    refused(&house, tenant, "schema", "55000", "trigger write_down of public.accounts would fire");
    owner.batch_execute("ALTER TABLE accounts ENABLE TRIGGER write_down").expect("origin");
    house.move_to(tenant, "schema");
    owner.batch_execute("ALTER TABLE accounts ENABLE REPLICA TRIGGER write_down").expect("replica");
    refused(&house, tenant, "row", "55000", "trigger write_down of public.accounts would fire");
}

#[test]
fn rows_of_others_that_refer_to_the_tenants_stand_against_a_move() {
    let house = House::new("move_crossed");
    let (tenant, other) = (house.tenant("one", 2), house.tenant("other", 2));
    let mut superuser = house.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE UNIQUE INDEX accounts_id ON accounts (id);
             CREATE TABLE notes (tenant_id uuid NOT NULL, account bigint REFERENCES accounts (id));
             ALTER TABLE notes OWNER TO owner; INSERT INTO notes SELECT '{other}', min(id) FROM accounts WHERE tenant_id = '{tenant}'"
        ))
        .expect("notes");
    one::<bool>(&mut house.connect("admin"), "SELECT protect_table('notes')", &[]);
    refused(
        &house,
        tenant,
        "schema",
        "55000",
        "rows of public.notes that are not the tenant's refer to its rows in public.accounts",
    );
    superuser.batch_execute("DELETE FROM notes").expect("mend");
    house.move_to(tenant, "schema");
}

#[test]
fn a_template_must_correspond_to_shared_tables() {
    let house = House::without_template(Database::new("move_template"));
    let tenant = house.tenant("one", 1);
    fails(house.try_move(tenant, "schema"), "55000");
    house.superuser().batch_execute("CREATE SCHEMA tpl AUTHORIZATION owner; CREATE TABLE tpl.accounts (x integer); ALTER TABLE tpl.accounts OWNER TO owner").expect("tpl");
    one::<String>(&mut house.connect("admin"), "SELECT register_template('t', 'tpl')", &[]);
    let error =
        fails(house.connect("admin").batch_execute(&format!("CALL move_tenant('{tenant}', 'schema', 't')")), "55000");
    assert_eq!(error.message(), "template \"t\" corresponds to no shared tables");
    one::<String>(&mut house.connect("admin"), "SELECT register_template('t', 'tpl', shared_schema => 'public')", &[]);
    let error = fails(house.try_move(tenant, "schema"), "55000");
    assert!(error.message().contains("accounts has values of the tenant"), "{}", error.message());
}

#[test]
fn objects_outside_that_use_the_schema_stand_against_leaving_it() {
    let house = House::new("move_outside");
    let tenant = house.tenant("one", 1);
    house.move_to(tenant, "schema");
    house
        .superuser()
        .batch_execute(&format!("CREATE VIEW public.peek AS SELECT * FROM \"tenant_{tenant}\".log"))
        .expect("a view");
    refused(&house, tenant, "row", "2BP01", "view public.peek");
}

#[test]
fn a_sequence_that_is_used_up_does_not_take_those_of_all_along() {
    let house = House::new("move_sequence");
    let (tenant, other) = (house.tenant("one", 1), house.tenant("other", 1));
    house.move_to(tenant, "schema");
    house
        .superuser()
        .batch_execute(&format!("SELECT setval('\"tenant_{tenant}\".entries_id_seq', 9223372036854775000)"))
        .expect("setval");
    let (mut admin, notices) = house.database.connect_with_notices("admin");
    admin.batch_execute(&format!("CALL move_tenant('{tenant}', 'row')")).expect("move");
    assert!(notices.contains("sequence public.entries_id_seq stays at"), "{:?}", notices.messages());
    as_tenant(&mut house.connect("app"), other, |app| {
        app.batch_execute("INSERT INTO entries (account, amount) SELECT max(id), 1 FROM accounts").expect("write");
        assert!(one::<i64>(app, "SELECT max(id) FROM entries", &[]) < 100);
    });
}
