//! The life of a tenant's schema, from a template to a purge.

use super::fixtures::*;
use harness::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The names of tenants' schemas.
fn schemas(superuser: &mut Client) -> Vec<String> {
    const SCHEMAS: &str = "SELECT nspname::text FROM pg_namespace n JOIN pg_seclabel s ON s.objoid = n.oid WHERE s.label LIKE 'tenant: %' ORDER BY 1";
    rows(superuser, SCHEMAS, &[]).iter().map(|row| row.get(0)).collect()
}

#[track_caller]
fn schema_of(superuser: &mut Client, tenant: Uuid) -> Option<String> {
    one(superuser, "SELECT schema_name::text FROM tenancy.tenants WHERE id = $1", &[&tenant])
}

/// The schema is the tenant's in every way: names without a schema find it, its triggers, functions and sequences work.
#[track_caller]
fn works(house: &House, tenant: Uuid, accounts: i64) {
    as_tenant(&mut house.connect("app"), tenant, |tx| {
        assert_eq!(count(tx, "accounts"), accounts);
        let account: i64 = one(tx, "INSERT INTO accounts (name, country) VALUES ('new', 'CH') RETURNING id", &[]);
        rows(tx, "INSERT INTO entries (account, amount) VALUES ($1, 5), ($1, 6)", &[&account]);
        assert_eq!(one::<i64>(tx, "SELECT balance FROM accounts WHERE id = $1", &[&account]), 11);
        assert_eq!(one::<i64>(tx, "SELECT how_many()", &[]), accounts + 1);
        assert_eq!(one::<i64>(tx, "SELECT accounts FROM totals", &[]), accounts + 1);
        tx.batch_execute("DELETE FROM accounts WHERE name = 'new'").expect("clean up");
    });
}

#[test]
fn a_tenant_is_created_with_its_schema_or_not_at_all() {
    let house = House::new("all_or_nothing");
    run_script(
        &house.database,
        "postgres",
        "CREATE SCHEMA failing AUTHORIZATION owner; CREATE SCHEMA taken; SET ROLE owner;
         CREATE FUNCTION failing.check_it(value integer) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             IF current_setting('failing.armed', true) = 'on' THEN RAISE EXCEPTION 'not today' USING ERRCODE = '22012'; END IF;
             RETURN true;
         END $$;
         CREATE TABLE failing.last (id integer CHECK (failing.check_it(id))); INSERT INTO failing.last VALUES (1)",
    );
    one::<String>(
        &mut house.connect("admin"),
        "SELECT register_template('failing', 'failing', data_tables => '{last}')",
        &[],
    );
    let mut operator = house.connect("operator");
    operator.batch_execute("SET failing.armed = on").expect("set");
    let before = house.everything();
    for (arguments, sqlstate) in [
        ("slug => 'x', template => 'none'", "P0002"),
        ("slug => 'x', template => ''", "P0002"),
        ("slug => 'x'", "22023"),
        ("slug => 'x', template => 't', schema_name => 'taken'", "23505"),
        ("slug => 'x', template => 't', schema_name => 'tpl'", "23505"),
        ("slug => 'Not a slug', template => 't'", "22023"),
        ("slug => 'x', template => 'failing'", "22012"),
        ("slug => 'x', template => 't', owner => gen_random_uuid()", "P0002"),
        ("slug => 'x', template => 't', plan => 'none'", "P0002"),
        ("slug => 'x', template => 't', schema_name => 'pg_x'", "22023"),
        ("slug => 'x', template => 't', schema_name => 'public'", "22023"),
        ("slug => 'x', template => 't', schema_name => 'tenancy'", "22023"),
        ("slug => 'x', template => 't', schema_name => 'information_schema'", "22023"),
        ("slug => 'x', template => 't', schema_name => ''", "22023"),
        ("slug => 'x', template => 't', schema_name => '  '", "22023"),
    ] {
        let create = format!("SELECT create_tenant('x', isolation => 'schema', {arguments})");
        fails(operator.batch_execute(&create), sqlstate);
        assert_eq!(house.everything(), before, "{create}");
    }
    fails(operator.batch_execute("SELECT create_tenant('x', template => 't')"), "22023");
    fails(operator.batch_execute("SELECT create_tenant('x', schema_name => 'x')"), "22023");
    // What is undone is undone.
    let mut transaction = operator.transaction().expect("begin");
    let mut savepoint = transaction.transaction().expect("savepoint");
    one::<Uuid>(&mut savepoint, "SELECT create_tenant('x', slug => 'x', isolation => 'schema', template => 't')", &[]);
    savepoint.rollback().expect("roll back");
    one::<Uuid>(
        &mut transaction,
        "SELECT create_tenant('x', slug => 'x', isolation => 'schema', template => 't')",
        &[],
    );
    transaction.rollback().expect("roll back");
    assert_eq!(house.everything(), before);
    let tenant: Uuid =
        one(&mut operator, "SELECT create_tenant('x', slug => 'x', isolation => 'schema', template => 't')", &[]);
    works(&house, tenant, 0);
    house.assert_legal();
}

#[test]
fn a_schema_is_named_as_the_template_says_or_as_the_caller_does() {
    let house = House::new("named");
    let (mut admin, mut operator, mut superuser) =
        (house.connect("admin"), house.connect("operator"), house.superuser());
    let create = |operator: &mut Client, arguments: &str| -> Uuid {
        one(operator, &format!("SELECT create_tenant('x', isolation => 'schema'{arguments})"), &[])
    };
    let tenant = create(&mut operator, ", slug => 'first'");
    assert_eq!(schema_of(&mut superuser, tenant).as_deref(), Some("of_first"));
    one::<String>(&mut admin, "SELECT register_template('t', 'tpl', data_tables => '{stages}')", &[]);
    let tenant = create(&mut operator, ", slug => 'second'");
    assert_eq!(schema_of(&mut superuser, tenant), Some(format!("tenant_{tenant}")));
    let given = r#"Quo"te's; DROP -- {slug} $$"#;
    let tenant: Uuid = one(
        &mut operator,
        "SELECT create_tenant('x', slug => 'third', isolation => 'schema', schema_name => $1::text::name)",
        &[&given],
    );
    assert_eq!(schema_of(&mut superuser, tenant).as_deref(), Some(r#"Quo"te's; DROP -- third $$"#));
    works(&house, tenant, 0);
    let longest = "ä".repeat(31) + "x";
    let tenant: Uuid = one(
        &mut operator,
        "SELECT create_tenant('x', slug => 'fourth', isolation => 'schema', schema_name => $1::text::name)",
        &[&longest],
    );
    assert_eq!(schema_of(&mut superuser, tenant), Some(longest));
    works(&house, tenant, 0);
    // A slug may be as long as a schema's name; with a prefix it is too long, and not cut to what another's may be.
    one::<String>(&mut admin, "SELECT register_template('t', 'tpl', tenant_schema => 'of_{slug}')", &[]);
    let slug = "s".repeat(63);
    let fault =
        fails(operator.query("SELECT create_tenant('x', slug => $1, isolation => 'schema')", &[&slug]), "22023");
    assert!(fault.message().contains("63"), "{fault}");
    // Renaming a tenant renames no schema, and its former name is another's.
    let first: Uuid = one(&mut operator, "SELECT find_tenant('first')", &[]);
    one::<Uuid>(&mut operator, "SELECT update_tenant($1, slug => 'renamed')", &[&first]);
    assert_eq!(schema_of(&mut superuser, first).as_deref(), Some("of_first"));
    fails(operator.batch_execute("SELECT create_tenant('x', slug => 'first', isolation => 'schema')"), "23505");
    assert_eq!(count(&mut superuser, "tenancy.tenants WHERE slug = 'first'"), 0);
}

#[test]
fn a_plan_gives_its_tenants_a_schema() {
    let house = House::new("planned");
    let mut operator = house.connect("operator");
    operator.batch_execute("SELECT create_plan('crm', isolation => 'schema')").expect("plan");
    let tenant: Uuid = one(&mut operator, "SELECT create_tenant('x', slug => 'x', plan => 'crm')", &[]);
    assert_eq!(schema_of(&mut house.superuser(), tenant).as_deref(), Some("of_x"));
    works(&house, tenant, 0);
    let row: Uuid =
        one(&mut operator, "SELECT create_tenant('y', slug => 'y', plan => 'crm', isolation => 'row')", &[]);
    assert_eq!(schema_of(&mut house.superuser(), row), None);
    as_tenant(&mut house.connect("app"), row, |_| {});
    house.assert_legal();
}

#[test]
fn the_template_that_is_not_named_is_the_only_one_or_the_default() {
    let house = House::new("unnamed");
    let (mut admin, mut operator) = (house.connect("admin"), house.connect("operator"));
    let template = "SELECT template::text FROM tenancy.tenants WHERE slug = $1";
    house.tenant("only");
    house
        .superuser()
        .batch_execute("CREATE SCHEMA b AUTHORIZATION owner; CREATE SCHEMA c AUTHORIZATION owner")
        .expect("schemas");
    one::<String>(&mut admin, "SELECT register_template('b', 'b')", &[]);
    fails(operator.query(CREATE, &[&"neither"]), "22023");
    one::<String>(&mut admin, "SELECT register_template('default', 'c')", &[]);
    house.tenant("default");
    assert_eq!(one::<String>(&mut house.superuser(), template, &[&"only"]), "t");
    assert_eq!(one::<String>(&mut house.superuser(), template, &[&"default"]), "default");
    let row = house.without_schema("row");
    one::<String>(&mut operator, "SELECT create_tenant_schema($1)", &[&row]);
    assert_eq!(one::<String>(&mut house.superuser(), template, &[&"row"]), "default");
}

#[test]
fn a_tenant_gets_a_schema_once_and_not_while_it_has_rows_elsewhere() {
    let house = House::new("given_later");
    protected_table(&house.database);
    let mut operator = house.connect("operator");
    let (with_rows, without) = (house.without_schema("with-rows"), house.without_schema("without"));
    as_tenant(&mut house.connect("app"), with_rows, |tx| {
        tx.batch_execute("INSERT INTO notes (body) VALUES ('x')").expect("insert")
    });
    let make = "SELECT create_tenant_schema($1, 't')";
    let before = house.everything();
    let fault = fails(operator.query(make, &[&with_rows]), "55000");
    assert!(fault.message().contains("notes") && fault.hint().is_some(), "{fault}");
    let source = house.tenant("source");
    let mut admin = house.connect("admin");
    let after_source = house.everything();
    fails(admin.query("SELECT clone_tenant_schema($1, $2)", &[&source, &with_rows]), "55000");
    assert_eq!(house.everything(), after_source);
    assert_ne!(before, after_source);
    fails(operator.query(make, &[&Uuid::from_u128(7)]), "P0002");
    // A row that is not committed yet counts: its writer is waited for.
    let mut app = house.connect("app");
    let mut writer = app.transaction().expect("begin");
    bind(&mut writer, without);
    writer.batch_execute("INSERT INTO notes (body) VALUES ('late')").expect("insert");
    let pid = backend_pid(&mut operator);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| operator.query(make, &[&without]));
        wait_for_lock(&mut house.superuser(), pid);
        writer.commit().expect("commit");
        fails(call.join().expect("join"), "55000");
    });
    house.superuser().batch_execute("DELETE FROM notes").expect("delete");
    let mut operator = house.connect("operator");
    assert_eq!(one::<String>(&mut operator, make, &[&without]), "of_without");
    works(&house, without, 0);
    let after = house.everything();
    fails(operator.query(make, &[&without]), "23505");
    fails(operator.query("SELECT create_tenant_schema($1, 't', 'another')", &[&without]), "23505");
    assert_eq!(house.everything(), after);
    // In every state but deleted.
    for (slug, change, can) in [
        ("suspended", "suspend_tenant($1)", true),
        ("readable", "suspend_tenant($1, mode => 'read_only')", true),
        ("cancelled", "cancel_tenant($1)", true),
        ("deleted", "delete_tenant($1)", false),
    ] {
        let tenant = house.without_schema(slug);
        operator.query(&format!("SELECT {change}"), &[&tenant]).expect(change);
        let status = "SELECT status FROM tenancy.tenants WHERE id = $1";
        let before: String = one(&mut house.superuser(), status, &[&tenant]);
        let made = operator.query(make, &[&tenant]);
        if can {
            made.expect(change);
            assert_eq!(one::<String>(&mut house.superuser(), status, &[&tenant]), before);
        } else {
            fails(made, "55000");
        }
    }
    house.assert_legal();
}

/// Every entry is in its account's balance at every moment; a copy of two moments would show it.
#[test]
fn a_clone_is_of_one_moment_while_others_write() {
    let house = House::new("one_moment");
    let source = house.tenant("source");
    as_tenant(&mut house.connect("app"), source, |tx| {
        tx.batch_execute("INSERT INTO accounts (name) SELECT 'a' || i FROM generate_series(1, 20) i")
            .expect("accounts");
    });
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let destinations: Vec<Uuid> = (0..8).map(|number| house.without_schema(&format!("copy-{number}"))).collect();
    std::thread::scope(|scope| {
        for writer in 0..3_i64 {
            let (stop, written, mut app) = (&stop, &written, house.connect("app"));
            scope.spawn(move || {
                let mut turn = writer;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    as_tenant(&mut app, source, |tx| {
                        rows(tx, "INSERT INTO entries (account, amount) VALUES ($1, $2)", &[&(turn % 20 + 1), &turn]);
                        rows(tx, "INSERT INTO accounts (name) VALUES ('more')", &[]);
                        rows(
                            tx,
                            "INSERT INTO entries (account, amount) SELECT max(id), 1 FROM accounts WHERE id > 20",
                            &[],
                        );
                        if turn % 5 == 0 {
                            rows(
                                tx,
                                "DELETE FROM accounts WHERE id = (SELECT min(id) FROM accounts WHERE id > 20)",
                                &[],
                            );
                        }
                    });
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut admin = house.connect("admin");
        for destination in &destinations {
            let before = written.load(Ordering::Relaxed);
            wait_until("the writers go on", || written.load(Ordering::Relaxed) > before);
            let clone = admin.query("SELECT clone_tenant_schema($1, $2)", &[&source, destination]);
            if clone.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            clone.expect("clone");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut last = 0;
    for destination in destinations {
        as_tenant(&mut house.connect("app"), destination, |tx| {
            let off =
                "accounts a WHERE balance <> (SELECT coalesce(sum(amount), 0) FROM entries e WHERE e.account = a.id)";
            assert_eq!(count(tx, off), 0, "balances that are not the sum of their entries");
            assert_eq!(count(tx, "entries e WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.id = e.account)"), 0);
            let entries = count(tx, "entries");
            assert!(entries > last, "the writers went on between two clones");
            last = entries;
            // And its numbers go on behind those that it has.
            let most: i64 = one(tx, "SELECT max(id) FROM accounts", &[]);
            let new: i64 = one(tx, "INSERT INTO accounts (name) VALUES ('x') RETURNING id", &[]);
            assert!(new > most);
            let most: i64 = one(tx, "SELECT max(id) FROM entries", &[]);
            assert!(one::<i64>(tx, "INSERT INTO entries (account, amount) VALUES (1, 1) RETURNING id", &[]) > most);
            assert_eq!(one::<i32>(tx, "INSERT INTO stages (name) VALUES ('x') RETURNING id", &[]), 4);
        });
    }
    house.assert_legal();
}

/// What depends on a tenant's schema from outside, with what the error has to name, and what removes it.
const OUTSIDE: [(&str, &str, &str); 10] = [
    ("CREATE VIEW public.seen AS SELECT name FROM of_x.accounts", "seen", "DROP VIEW public.seen"),
    (
        "CREATE MATERIALIZED VIEW public.kept AS SELECT name FROM of_x.accounts",
        "kept",
        "DROP MATERIALIZED VIEW public.kept",
    ),
    (
        "CREATE TABLE public.refers (id bigint CONSTRAINT refers_x REFERENCES of_x.accounts)",
        "refers",
        "DROP TABLE public.refers",
    ),
    ("CREATE TABLE public.typed (m of_x.mood)", "typed", "DROP TABLE public.typed"),
    (
        "CREATE TABLE public.numbered (id bigint DEFAULT nextval('of_x.entries_id_seq'))",
        "numbered",
        "DROP TABLE public.numbered",
    ),
    ("CREATE TABLE public.heir () INHERITS (of_x.stages)", "heir", "DROP TABLE public.heir"),
    (
        "CREATE FUNCTION public.takes(of_x.mood) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "takes",
        "DROP FUNCTION public.takes",
    ),
    (
        "CREATE FUNCTION public.parsed() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM of_x.accounts; END",
        "parsed",
        "DROP FUNCTION public.parsed",
    ),
    ("CREATE DOMAIN public.narrow AS of_x.mood CHECK (VALUE = 'glad')", "narrow", "DROP DOMAIN public.narrow"),
    (
        "CREATE TABLE public.watched (id int); CREATE TRIGGER watch AFTER INSERT ON public.watched FOR EACH ROW EXECUTE FUNCTION of_x.add_up()",
        "watch",
        "DROP TABLE public.watched",
    ),
];

#[test]
fn what_depends_on_a_schema_from_outside_stops_its_end_by_name() {
    let house = House::new("depended");
    let tenant = house.tenant("x");
    let (mut superuser, mut admin, mut operator) =
        (house.superuser(), house.connect("admin"), house.connect("operator"));
    let delete = "SELECT delete_tenant_schema($1)";
    for (make, name, remove) in OUTSIDE {
        superuser.batch_execute(make).expect(make);
        let before = house.everything();
        let fault = fails(admin.query(delete, &[&tenant]), "2BP01");
        let told = format!("{fault} {:?}", fault.detail());
        assert!(told.contains(name) && told.contains("of_x"), "{make}: {told}");
        assert_eq!(house.everything(), before, "{make}");
        superuser.batch_execute(remove).expect(remove);
    }
    // A purge stops likewise, and goes on when it is called again.
    superuser.batch_execute(OUTSIDE[0].0).expect("a view");
    as_tenant(&mut house.connect("app"), tenant, |tx| {
        tx.batch_execute("INSERT INTO accounts (name) VALUES ('x')").expect("insert")
    });
    operator.query("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete");
    let purge = format!("CALL purge_tenant('{tenant}')");
    fails(admin.batch_execute(&purge), "2BP01");
    assert_eq!(count(&mut superuser, "of_x.accounts"), 1, "nothing is dropped");
    assert_eq!(count(&mut superuser, "public.seen"), 1);
    fails(operator.query("SELECT restore_tenant($1)", &[&tenant]), "55000");
    // Until then migrations leave it as it is, and nobody is told that it lags behind.
    house.tenant("y");
    let add = "SELECT add_migration('t', '001', 'ALTER TABLE accounts ADD COLUMN more text')";
    admin.batch_execute(add).expect("add a migration");
    admin.batch_execute("CALL migrate_tenants('t')").expect("migrate");
    assert_eq!(count(&mut superuser, "tenancy.migration_status WHERE slug = 'y' AND status = 'applied'"), 1);
    assert_eq!(
        count(&mut superuser, "pg_attribute WHERE attrelid = 'of_x.accounts'::regclass AND attname = 'more'"),
        0
    );
    house.assert_legal();
    let ended = "SELECT delete_tenant(find_tenant('y'), '0')";
    operator.batch_execute(ended).expect("delete");
    admin.batch_execute("DO $$ BEGIN CALL purge_tenant(find_tenant('y')); END $$").expect("purge");
    superuser.batch_execute("DROP VIEW public.seen").expect("drop the view");
    admin.batch_execute(&purge).expect("purge");
    assert_eq!(count(&mut superuser, "tenancy.tenants"), 0);
    assert_eq!(schemas(&mut superuser), Vec::<String>::new());
    house.assert_legal();
}

/// A view that was made but not committed when the call came is not dropped in silence.
#[test]
fn what_comes_to_depend_on_a_schema_meanwhile_is_not_dropped_with_it() {
    let house = House::new("depended_late");
    let tenant = house.tenant("x");
    let (mut maker, mut admin) = (house.superuser(), house.connect("admin"));
    maker.batch_execute("BEGIN; CREATE VIEW public.seen AS SELECT * FROM of_x.accounts").expect("a view");
    let pid = backend_pid(&mut admin);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| admin.query("SELECT delete_tenant_schema($1)", &[&tenant]));
        wait_for_lock(&mut house.superuser(), pid);
        maker.batch_execute("COMMIT").expect("commit");
        fails(call.join().expect("join"), "2BP01");
    });
    assert_eq!(count(&mut house.superuser(), "public.seen"), 0);
    house.assert_legal();
}

#[test]
fn a_deleted_schema_leaves_nothing_and_can_be_made_anew() {
    let house = House::new("deleted_schema");
    let tenant = house.tenant("x");
    let (mut admin, mut operator, mut app) = (house.connect("admin"), house.connect("operator"), house.connect("app"));
    as_tenant(&mut app, tenant, |tx| tx.batch_execute("INSERT INTO accounts (name) VALUES ('x')").expect("insert"));
    rows(&mut admin, "SELECT allow_schema_drift($1, 'x', 'a test')", &[&tenant]);
    // Its writers are waited for.
    let mut writer = app.transaction().expect("begin");
    bind(&mut writer, tenant);
    writer.batch_execute("INSERT INTO accounts (name) VALUES ('y')").expect("insert");
    let pid = backend_pid(&mut admin);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| one::<bool>(&mut admin, "SELECT delete_tenant_schema($1)", &[&tenant]));
        wait_for_lock(&mut house.superuser(), pid);
        writer.commit().expect("commit");
        assert!(call.join().expect("join"));
    });
    assert!(!one::<bool>(&mut house.connect("admin"), "SELECT delete_tenant_schema($1)", &[&tenant]));
    assert_eq!(count(&mut house.superuser(), "tenancy.allowed_drift"), 0);
    house.assert_legal();
    let mut transaction = app.transaction().expect("begin");
    fails(transaction.query("SELECT set_tenant($1)", &[&tenant]), "55000");
    transaction.rollback().expect("roll back");
    one::<String>(&mut operator, "SELECT create_tenant_schema($1, 't')", &[&tenant]);
    works(&house, tenant, 0);
    house.assert_legal();
}

#[test]
fn a_deleted_tenant_keeps_its_schema_until_it_is_purged() {
    let house = House::new("kept_schema");
    protected_table(&house.database);
    let (tenant, other) = (house.tenant("x"), house.tenant("other"));
    let (mut admin, mut operator, mut app) = (house.connect("admin"), house.connect("operator"), house.connect("app"));
    for tenant in [tenant, other] {
        // One that has a schema may have rows in protected tables, too.
        as_tenant(&mut app, tenant, |tx| {
            tx.batch_execute(
                "INSERT INTO accounts (name) VALUES ('kept'); INSERT INTO public.notes (body) VALUES ('x')",
            )
            .expect("insert")
        });
    }
    operator.query("SELECT delete_tenant($1)", &[&tenant]).expect("delete");
    assert_eq!(schema_of(&mut house.superuser(), tenant).as_deref(), Some("of_x"));
    fails(app.query("SELECT set_tenant($1)", &[&tenant]), "42501");
    for sql in ["SELECT * FROM of_x.accounts", "SELECT of_x.how_many()"] {
        fails(app.batch_execute(sql), "42501");
    }
    operator.query("SELECT restore_tenant($1)", &[&tenant]).expect("restore");
    works(&house, tenant, 1);
    operator.query("SELECT delete_tenant($1)", &[&tenant]).expect("delete");
    fails(admin.batch_execute(&format!("CALL purge_tenant('{tenant}')")), "55000");
    assert_eq!(schemas(&mut house.superuser()), ["of_other", "of_x"]);
    admin.batch_execute(&format!("CALL purge_tenant('{tenant}', force => true)")).expect("purge");
    assert_eq!(schemas(&mut house.superuser()), ["of_other"]);
    assert_eq!(count(&mut house.superuser(), "notes"), 1);
    works(&house, other, 1);
    // The name is free again.
    house.tenant("x");
    house.assert_legal();
}

#[test]
fn the_registry_follows_a_schema_that_is_renamed_dropped_or_restored_by_hand() {
    let house = House::new("by_hand");
    let (tenant, other) = (house.tenant("x"), house.tenant("other"));
    let (mut superuser, mut app) = (house.superuser(), house.connect("app"));
    as_tenant(&mut app, tenant, |tx| tx.batch_execute("INSERT INTO accounts (name) VALUES ('kept')").expect("insert"));
    // A session that knows the tenant by its former schema hears of it.
    superuser.batch_execute("ALTER SCHEMA of_x RENAME TO \"Of X\"").expect("rename");
    assert_eq!(schema_of(&mut superuser, tenant).as_deref(), Some("Of X"));
    as_tenant(&mut app, tenant, |tx| {
        assert_eq!(count(tx, "accounts"), 1);
        assert_eq!(text(tx, "SELECT current_schema"), "Of X");
    });
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, other);
    fails(transaction.batch_execute("SELECT * FROM \"Of X\".accounts"), "42501");
    transaction.rollback().expect("roll back");
    superuser.batch_execute("ALTER SCHEMA \"Of X\" RENAME TO of_x").expect("rename back");
    superuser.batch_execute("ALTER SCHEMA tpl RENAME TO \"T p l\"").expect("rename the template");
    assert_eq!(text(&mut superuser, "SELECT schema_name FROM tenancy.templates"), "T p l");
    superuser.batch_execute("ALTER SCHEMA \"T p l\" RENAME TO tpl").expect("rename back");
    house.tenant("after-rename");
    // A rename that is undone was none.
    superuser.batch_execute("BEGIN; ALTER SCHEMA of_x RENAME TO y; ROLLBACK").expect("rename and roll back");
    house.assert_legal();
    works(&house, tenant, 1);

    let backup = run(house.database.tool("pg_dump", "postgres").args(["-n", "of_x"]));
    superuser.batch_execute("DROP SCHEMA of_x CASCADE").expect("drop");
    assert_eq!(schema_of(&mut superuser, tenant), None);
    fails(app.query("SELECT set_tenant($1)", &[&tenant]), "55000");
    run_script(&house.database, "postgres", &backup);
    assert_eq!(schema_of(&mut superuser, tenant).as_deref(), Some("of_x"));
    works(&house, tenant, 1);
    house.assert_legal();
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, other);
    fails(transaction.batch_execute("SELECT * FROM of_x.accounts"), "42501");
    transaction.rollback().expect("roll back");
    // DROP OWNED takes the schemas of all, and the registry says so.
    superuser.batch_execute("DROP OWNED BY owner CASCADE").expect("drop owned");
    assert_eq!(schemas(&mut superuser), Vec::<String>::new());
    assert_eq!(count(&mut superuser, "tenancy.tenants WHERE schema_name IS NOT NULL"), 0);
    fails(app.query("SELECT set_tenant($1)", &[&tenant]), "55000");
}

#[test]
fn a_template_is_registered_anew_moved_and_forgotten_only_where_nobody_depends_on_it() {
    let house = House::new("registered");
    let (mut admin, mut operator, mut superuser) =
        (house.connect("admin"), house.connect("operator"), house.superuser());
    superuser.batch_execute("CREATE SCHEMA next AUTHORIZATION owner; CREATE TABLE next.t (id integer); ALTER TABLE next.t OWNER TO owner;
        GRANT USAGE ON SCHEMA next TO app; GRANT SELECT ON next.t TO app").expect("another schema");
    let first = house.tenant("first");
    // Its reference rows are for those who come.
    one::<String>(
        &mut admin,
        "SELECT register_template('t', 'tpl', data_tables => '{}', tenant_schema => 'of_{slug}')",
        &[],
    );
    let second = house.tenant("second");
    assert_eq!([count(&mut superuser, "of_first.stages"), count(&mut superuser, "of_second.stages")], [3, 0]);
    one::<String>(
        &mut admin,
        "SELECT register_template('t', 'tpl', data_tables => '{tpl.stages}', tenant_schema => 'of_{slug}')",
        &[],
    );
    assert_eq!(text(&mut superuser, "SELECT data_tables FROM tenancy.templates"), "{stages}");
    let before = house.everything();
    for (call, sqlstate) in [
        ("register_template('t', 'next')", "55000"),
        ("register_template('other', 'tpl')", "23505"),
        ("register_template('other', 'of_first')", "22023"),
        ("register_template('other', 'nowhere')", "P0002"),
        ("register_template('other', 'tenancy')", "22023"),
        ("register_template('other', 'pg_catalog')", "22023"),
        ("register_template('other', 'information_schema')", "22023"),
        ("register_template('t', 'tpl', data_tables => '{nothing}')", "P0002"),
        ("register_template('t', 'tpl', data_tables => '{totals}')", "P0002"),
        ("register_template('t', 'tpl', data_tables => '{countries}')", "P0002"),
        ("register_template('t', 'tpl', data_tables => '{NULL}')", "22023"),
        ("register_template('t', 'tpl', tenant_schema => 'one_for_all')", "22023"),
        ("register_template('t', 'tpl', tenant_schema => 'pg_{id}')", "22023"),
        ("register_template('t', 'tpl', tenant_schema => '')", "22023"),
        ("unregister_template('t')", "55000"),
    ] {
        fails(admin.batch_execute(&format!("SELECT {call}")), sqlstate);
        assert_eq!(house.everything(), before, "{call}");
    }
    for tenant in [first, second] {
        one::<bool>(&mut admin, "SELECT delete_tenant_schema($1)", &[&tenant]);
    }
    let mut app = house.connect("app");
    fails(app.batch_execute("SELECT * FROM tpl.stages"), "42501");
    app.batch_execute("SELECT * FROM next.t").expect("an ordinary schema");
    one::<String>(&mut admin, "SELECT register_template('t', 'next')", &[]);
    app.batch_execute("SELECT * FROM tpl.stages").expect("an ordinary schema again");
    fails(app.batch_execute("SELECT * FROM next.t"), "42501");
    one::<String>(&mut operator, "SELECT create_tenant_schema($1, 't')", &[&first]);
    house.assert_legal();
    one::<bool>(&mut admin, "SELECT delete_tenant_schema($1)", &[&first]);
    assert!(one::<bool>(&mut admin, "SELECT unregister_template('t')", &[]));
    assert!(!one::<bool>(&mut admin, "SELECT unregister_template('t')", &[]));
    app.batch_execute("SELECT * FROM next.t").expect("an ordinary schema again");
    fails(operator.query(CREATE, &[&"x"]), "55000");
    fails(operator.query("SELECT create_tenant_schema($1, 't')", &[&first]), "P0002");
    house.assert_legal();
}

#[test]
fn a_template_that_changes_changes_what_comes_and_shows_in_what_is_there() {
    // A cluster of its own: what roles are members of holds for all of one.
    let cluster = Cluster::start(Options::new());
    let house = House::in_database(cluster.database("changed"));
    let old = house.tenant("old");
    let mut superuser = house.superuser();
    // The owner, with nothing bound, works on the template as on any schema.
    run_script(
        &house.database,
        "owner",
        "ALTER TABLE tpl.accounts ADD COLUMN phone text; INSERT INTO tpl.stages (name) VALUES ('more')",
    );
    let new = house.tenant("new");
    let drift = "SELECT slug || ' ' || kind || ' ' || object || ' ' || difference FROM tenancy.schema_drift";
    assert_eq!(simple(&mut superuser, drift), [[Some("old column accounts.phone missing".to_owned())]]);
    for (tenant, stages) in [(old, 3), (new, 4)] {
        as_tenant(&mut house.connect("app"), tenant, |tx| assert_eq!(count(tx, "stages"), stages));
    }
    // Another owner, who is no stranger to those of the objects.
    superuser
        .batch_execute(
            "ALTER TABLE of_old.accounts ADD COLUMN phone text; GRANT USAGE, CREATE ON SCHEMA tpl, public TO stranger;
             ALTER SCHEMA tpl OWNER TO stranger; GRANT USAGE ON SCHEMA tpl TO owner, app; SET ROLE stranger;
             CREATE FUNCTION tpl.of_stranger() RETURNS integer LANGUAGE sql AS 'SELECT 1'; RESET ROLE",
        )
        .expect("another owner");
    let before = house.everything();
    let fault = fails(house.connect("operator").query(CREATE, &[&"third"]), "0A000");
    assert!(fault.message().contains("add_up"), "{fault}");
    assert_eq!(house.everything(), before);
    superuser.batch_execute("GRANT owner TO stranger").expect("grant");
    let third = house.tenant("third");
    assert_eq!(
        text(&mut superuser, "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'of_third'"),
        "stranger"
    );
    works(&house, third, 0);
    works(&house, old, 0);
}
