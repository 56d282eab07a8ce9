//! What stands against a database, and what becomes of it then.

use super::fixtures::*;
use harness::{
    Client, Cluster, Options, Uuid, as_tenant, cluster, count, fails, one, optional, rows, simple, tenant, text,
    wait_until,
};

const FAILURE: &str =
    "SELECT attempts, last_sqlstate, last_error, phase FROM tenancy.provisioning WHERE tenant_id = $1";

#[test]
fn a_failure_is_shown_cleaned_up_and_tried_again() {
    let cluster = Cluster::start(eager().set("tenancy.template_database", "nowhere"));
    let control = shop(&cluster, "failing");
    let (mut operator, mut superuser) = (control.connect("operator"), control.superuser());
    let acme = register(&mut operator, "Acme");
    wait_until("it has been tried again", || {
        one::<i32>(&mut superuser, "SELECT attempts FROM tenancy.provisioning", &[]) >= 3
    });
    let failure = rows(&mut operator, FAILURE, &[&acme]);
    assert_eq!(failure[0].get::<_, String>(1), "3D000");
    assert!(failure[0].get::<_, String>(2).contains("nowhere"), "{failure:?}");
    assert_eq!(one::<String>(&mut operator, "SELECT wait_for_tenant($1, 0)", &[&acme]), "provisioning");
    fails(try_bind(&mut control.connect("app"), acme), "55000");
    let shown = "SELECT last_error FROM tenancy.worker_status WHERE task = 'tenant databases'";
    assert!(one::<String>(&mut control.connect("monitor"), shown, &[]).contains("nowhere"));
    // The workers go on trying: between two attempts nothing is there.
    let is_clean = |superuser: &mut Client| homes(superuser).is_empty() && strays(superuser).is_empty();
    wait_until("nothing is left of an attempt", || is_clean(&mut superuser));
    cluster.configure("tenancy.template_database", "template0");
    const DUE: &str = "UPDATE tenancy.tenant_databases SET next_attempt_at = now()";
    superuser.batch_execute(DUE).expect("make due");
    superuser.batch_execute("SELECT pg_reload_conf()").expect("reload");
    wait_for_state(&control, acme, "active");
    as_tenant(&mut connect(&control, acme, "app"), acme, |app| assert_eq!(count(app, "stages"), 2));
}

/// What fails inside the new database takes that with it.
#[test]
fn a_failure_inside_the_database_leaves_none() {
    let control = shop(cluster(), "inside");
    let acme = register(&mut control.connect("operator"), "Acme");
    // A default that cannot be read where only the template's own rows are.
    let mut owner = control.connect("owner");
    owner.batch_execute(
        "CREATE FUNCTION shop.fails() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$BEGIN IF current_database() LIKE 'tenant%' THEN RAISE 'not here' USING ERRCODE = '22000'; END IF; RETURN 1; END$$;
         CREATE INDEX stages_fails ON shop.stages ((shop.fails() + id))").expect("an index that fails");
    provision(&control);
    let mut superuser = control.superuser();
    let failure = rows(&mut superuser, FAILURE, &[&acme]);
    assert_eq!(failure[0].get::<_, String>(1), "22000", "{failure:?}");
    assert_eq!(failure[0].get::<_, String>(2), "not here");
    assert_eq!(failure[0].get::<_, String>(3), "requested");
    assert!(!homes(&mut superuser).contains(&home(acme)));
    owner.batch_execute("DROP INDEX shop.stages_fails").expect("mend it");
    superuser.batch_execute("UPDATE tenancy.tenant_databases SET next_attempt_at = now()").expect("make due");
    provision(&control);
    assert_eq!(state(&control, acme), "active", "{}", problem(&control, acme));
}

#[test]
fn a_template_that_needs_what_only_the_control_database_has_is_refused_by_name() {
    let control = shop(cluster(), "needs");
    let mut owner = control.connect("owner");
    let mut operator = control.connect("operator");
    for (make, drop, named) in [
        (
            "CREATE TABLE public.countries (id integer PRIMARY KEY); ALTER TABLE shop.orders ADD country integer REFERENCES public.countries",
            "ALTER TABLE shop.orders DROP country; DROP TABLE public.countries",
            "countries",
        ),
        (
            "CREATE TYPE public.shade AS ENUM ('x'); ALTER TABLE shop.orders ADD shade public.shade",
            "ALTER TABLE shop.orders DROP shade; DROP TYPE public.shade",
            "shade",
        ),
        (
            "CREATE FUNCTION public.one() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE VIEW shop.ones AS SELECT public.one()",
            "DROP VIEW shop.ones; DROP FUNCTION public.one()",
            "one()",
        ),
    ] {
        owner.batch_execute(make).expect(make);
        let fault = fails(operator.query("SELECT create_tenant('Acme', isolation => 'database')", &[]), "0A000");
        assert!(fault.message().contains(named), "{fault:?}");
        owner.batch_execute(drop).expect(drop);
    }
    // One that comes to need it later is not made, and says so.
    let acme = register(&mut operator, "Acme");
    owner
        .batch_execute("CREATE TYPE public.shade AS ENUM ('x'); ALTER TABLE shop.orders ADD shade public.shade")
        .expect("alter");
    provision(&control);
    let failure = rows(&mut operator, FAILURE, &[&acme]);
    assert_eq!(failure[0].get::<_, String>(1), "0A000", "{failure:?}");
}

#[test]
fn extensions_of_the_template_and_hostile_names_come_along() {
    let control = cluster().database("names");
    let mut superuser = control.superuser();
    superuser
        .batch_execute(&format!(
            "GRANT CREATE ON DATABASE {0} TO owner; CREATE SCHEMA \"ex't\"\"s\"; GRANT USAGE ON SCHEMA \"ex't\"\"s\" TO PUBLIC;
             CREATE EXTENSION hstore SCHEMA \"ex't\"\"s\";
             ALTER DATABASE {0} SET search_path TO '', 'a\"b', public; ALTER DATABASE {0} SET work_mem TO '5MB';
             ALTER ROLE app IN DATABASE {0} SET application_name TO 'it''s'; REVOKE CONNECT ON DATABASE {0} FROM PUBLIC;
             GRANT CONNECT ON DATABASE {0} TO app WITH GRANT OPTION; GRANT CONNECT ON DATABASE {0} TO operator, admin, owner",
            control.name()
        ))
        .expect("prepare");
    control
        .connect("owner")
        .batch_execute(
            "CREATE SCHEMA \"te'm\"\"pl;ate\";
             CREATE TABLE \"te'm\"\"pl;ate\".\"ta'b\"\"le\" (\"co'l\"\"umn\" \"ex't\"\"s\".hstore, id serial PRIMARY KEY);
             INSERT INTO \"te'm\"\"pl;ate\".\"ta'b\"\"le\" VALUES ('a=>b');
             GRANT SELECT ON \"te'm\"\"pl;ate\".\"ta'b\"\"le\" TO app; GRANT USAGE ON SCHEMA \"te'm\"\"pl;ate\" TO app",
        )
        .expect("make a template");
    let register = "SELECT register_template('te''m\"', 'te''m\"pl;ate', ARRAY['ta''b\"le'], 'te''n\"{slug}')";
    control.connect("admin").batch_execute(register).expect("register");
    let acme: Uuid = one(
        &mut control.connect("operator"),
        "SELECT create_tenant('Acme', isolation => 'database', template => 'te''m\"')",
        &[],
    );
    provision(&control);
    assert_eq!(state(&control, acme), "active", "{}", problem(&control, acme));
    let mut app = connect(&control, acme, "app");
    assert_eq!(text(&mut app, "SHOW work_mem"), "5MB");
    assert_eq!(text(&mut app, "SHOW search_path"), "\"\", \"a\"\"b\", public");
    assert_eq!(text(&mut app, "SHOW application_name"), "it's");
    as_tenant(&mut app, acme, |app| {
        assert_eq!(one::<String>(app, "SELECT \"co'l\"\"umn\"::text FROM \"ta'b\"\"le\"", &[]), "\"a\"=>\"b\"")
    });
    let mut postgres = connect(&control, acme, "postgres");
    assert_eq!(
        text(&mut postgres, "SELECT nextval(pg_get_serial_sequence('\"te''n\"\"acme\".\"ta''b\"\"le\"', 'id'))"),
        "2"
    );
    let privileges =
        "SELECT array(SELECT a::text FROM unnest(datacl) a ORDER BY 1) FROM pg_database WHERE datname = $1";
    let own: Vec<String> = one(&mut superuser, privileges, &[&control.name()]);
    assert_eq!(one::<Vec<String>>(&mut superuser, privileges, &[&home(acme)]), own);
    assert!(try_connect(&control, acme, "stranger").is_err(), "who may not connect there may not here");
}

#[test]
fn another_template_database_is_taken_as_it_is_unless_it_has_tenants() {
    let cluster = Cluster::start(Options::new().set("tenancy.template_database", "house"));
    let control = shop(&cluster, "custom");
    let mut superuser = control.superuser();
    superuser.batch_execute("CREATE DATABASE house TEMPLATE template0").expect("create");
    let config = |database: &str| control.config("postgres").dbname(database).connect(harness::postgres::NoTls);
    let mut house = config("house").expect("connect");
    house
        .batch_execute(
            "CREATE EXTENSION hstore; CREATE TABLE public.extra (id integer); INSERT INTO extra VALUES (1);
             REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE EXTENSION pg_tenancy; SELECT create_plan('free')",
        )
        .expect("fill the template database");
    drop(house);
    let acme = register(&mut control.connect("operator"), "Acme");
    wait_until("nobody is in it", || count(&mut superuser, "pg_stat_activity WHERE datname = 'house'") == 0);
    provision(&control);
    assert_eq!(state(&control, acme), "active", "{}", problem(&control, acme));
    assert_eq!(count(&mut connect(&control, acme, "postgres"), "public.extra"), 1);
    as_tenant(&mut connect(&control, acme, "app"), acme, |app| assert_eq!(count(app, "stages"), 2));

    let mut house = config("house").expect("connect");
    tenant(&mut house);
    drop(house);
    let other = register(&mut control.connect("operator"), "Other");
    wait_until("nobody is in it", || count(&mut superuser, "pg_stat_activity WHERE datname = 'house'") == 0);
    provision(&control);
    let failure = rows(&mut superuser, FAILURE, &[&other]);
    assert_eq!(failure[0].get::<_, String>(1), "55000", "{failure:?}");
    assert!(failure[0].get::<_, String>(2).contains("has tenants"), "{failure:?}");
    assert_eq!(homes(&mut superuser), [home(acme)]);
    wait_until("no file is left", || strays(&mut superuser).is_empty());
}

#[test]
fn a_server_without_room_for_a_worker_says_so() {
    let cluster = Cluster::start(Options::new().set("max_worker_processes", "1"));
    let control = shop(&cluster, "no_room");
    let acme = register(&mut control.connect("operator"), "Acme");
    provision(&control);
    let failure = rows(&mut control.connect("operator"), FAILURE, &[&acme]);
    assert_eq!(failure[0].get::<_, String>(1), "53400", "{failure:?}");
    assert_eq!(state(&control, acme), "provisioning");
}

#[test]
fn many_sessions_make_each_database_once() {
    const TENANTS: usize = 5;
    let control = shop(cluster(), "many");
    let tenants: Vec<Uuid> = std::thread::scope(|scope| {
        let register = |n: usize| {
            let control = &control;
            scope.spawn(move || register(&mut control.connect("operator"), &format!("Tenant {n}")))
        };
        let registering: Vec<_> = (0..TENANTS).map(register).collect();
        registering.into_iter().map(|thread| thread.join().expect("register")).collect()
    });
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| provision(&control));
        }
    });
    let mut operator = control.connect("operator");
    for tenant in &tenants {
        assert_eq!(one::<String>(&mut operator, "SELECT wait_for_tenant($1, 30)", &[tenant]), "active");
        as_tenant(&mut connect(&control, *tenant, "app"), *tenant, |app| assert_eq!(count(app, "stages"), 2));
    }
    let made = "tenancy.audit_log WHERE action = 'tenant.provision'";
    assert_eq!(count(&mut operator, made), TENANTS as i64);
    assert_eq!(count(&mut operator, "tenancy.provisioning WHERE attempts = 0 AND phase = 'ready'"), TENANTS as i64);
}

#[test]
fn wait_for_tenant_waits_as_long_as_it_is_told() {
    let control = shop(cluster(), "wait");
    let mut operator = control.connect("operator");
    let acme = register(&mut operator, "Acme");
    let begun = std::time::Instant::now();
    assert_eq!(one::<String>(&mut operator, "SELECT wait_for_tenant($1, 0.2)", &[&acme]), "provisioning");
    assert!(begun.elapsed().as_millis() >= 200);
    // Whatever the transaction saw before, and while it waits.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut operator = control.connect("operator");
            let mut old = operator
                .build_transaction()
                .isolation_level(harness::postgres::IsolationLevel::RepeatableRead)
                .start()
                .expect("begin");
            assert_eq!(
                one::<String>(&mut old, "SELECT status FROM tenancy.tenants WHERE id = $1", &[&acme]),
                "provisioning"
            );
            one::<String>(&mut old, "SELECT wait_for_tenant($1, 60)", &[&acme])
        });
        provision(&control);
        assert_eq!(waiting.join().expect("waited"), "active");
    });
    for (arguments, sqlstate) in [
        ("NULL", "22023"),
        ("gen_random_uuid()", "P0002"),
        ("gen_random_uuid(), NULL", "22023"),
        ("gen_random_uuid(), -1", "22023"),
        ("gen_random_uuid(), 86401", "22023"),
        ("gen_random_uuid(), 'NaN'", "22023"),
        ("gen_random_uuid(), 'Infinity'", "22023"),
        ("gen_random_uuid(), 1e300", "22023"),
    ] {
        fails(operator.batch_execute(&format!("SELECT wait_for_tenant({arguments})")), sqlstate);
    }
    operator.batch_execute("BEGIN").expect("begin");
    let other = register(&mut operator, "Other");
    fails(operator.query("SELECT wait_for_tenant($1)", &[&other]), "55000");
    operator.batch_execute("ROLLBACK").expect("roll back");
    assert_eq!(
        optional::<String>(&mut operator, "SELECT slug FROM tenancy.provisioning WHERE tenant_id = $1", &[&other]),
        None
    );
    let third = register(&mut operator, "Third");
    operator.batch_execute("SET statement_timeout = '200ms'").expect("set");
    fails(operator.query("SELECT wait_for_tenant($1)", &[&third]), "57014");
}

#[test]
fn databases_that_were_renamed_or_dropped_by_hand_are_told_of() {
    let control = shop(cluster(), "by_hand");
    let (acme, gone) = (provisioned(&control, "Acme"), provisioned(&control, "Gone"));
    let mut superuser = cluster().server().superuser();
    superuser
        .batch_execute(&format!("ALTER DATABASE \"{}\" RENAME TO \"ac\"\"me {acme}\"", home(acme)))
        .expect("rename");
    superuser.batch_execute(&format!("DROP DATABASE \"{}\" WITH (FORCE)", home(gone))).expect("drop");
    let mut operator = control.connect("operator");
    let problems = simple(&mut operator, "SELECT slug, problem FROM tenancy.provisioning ORDER BY slug");
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(problems, [[some("acme"), some("renamed")], [some("gone"), some("missing")]]);
    // It is still the tenant's.
    operator.execute("SELECT suspend_tenant($1)", &[&acme]).expect("suspend");
    provision(&control);
    let found: String = one(&mut operator, "SELECT database_name FROM tenancy.tenants WHERE id = $1", &[&acme]);
    assert_eq!(found, format!("ac\"me {acme}"));
    let mut app = control.config("app").dbname(&found).connect(harness::postgres::NoTls).expect("connect");
    fails(try_bind(&mut app, acme), "42501");
    drop(app);
    for tenant in [acme, gone] {
        operator.execute("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete");
        control.connect("admin").execute("CALL purge_tenant($1)", &[&tenant]).expect("purge");
    }
    assert_eq!(count(&mut superuser, &format!("pg_database WHERE datname LIKE '%{acme}'")), 0);
}

/// A restore gives databases other oids: the label says whose each is.
#[test]
fn databases_that_have_other_oids_are_found_by_their_labels() {
    let control = shop(cluster(), "oids");
    let (acme, other) = (provisioned(&control, "Acme"), provisioned(&control, "Other"));
    let mut superuser = control.superuser();
    let oids = "SELECT string_agg(database_oid::text, ' ' ORDER BY tenant_id) FROM tenancy.tenant_databases";
    let before: String = one(&mut superuser, oids, &[]);
    superuser.batch_execute("UPDATE tenancy.tenant_databases SET database_oid = 1").expect("forget where they are");
    provision(&control);
    assert_eq!(one::<String>(&mut superuser, oids, &[]), before);
    control.connect("operator").execute("SELECT suspend_tenant($1)", &[&acme]).expect("suspend");
    fails(try_bind(&mut connect(&control, acme, "app"), acme), "42501");
    as_tenant(&mut connect(&control, other, "app"), other, |app| assert_eq!(count(app, "stages"), 2));
}

/// The control database may be renamed, too: its tenants stay its own.
#[test]
fn a_control_database_that_is_renamed_keeps_its_tenants() {
    let control = shop(cluster(), "renamed");
    let acme = provisioned(&control, "Acme");
    let mut superuser = cluster().server().superuser();
    let (name, other) = (control.name(), format!("{}_other", control.name()));
    superuser.batch_execute(&format!("ALTER DATABASE {name} RENAME TO {other}")).expect("rename");
    let connect_other =
        |role: &str| control.config(role).dbname(&other).connect(harness::postgres::NoTls).expect("connect");
    connect_other("admin").batch_execute("CALL provision_tenants()").expect("follow");
    connect_other("operator").execute("SELECT suspend_tenant($1)", &[&acme]).expect("suspend");
    fails(try_bind(&mut connect(&control, acme, "app"), acme), "42501");
    superuser.batch_execute(&format!("ALTER DATABASE {other} RENAME TO {name}")).expect("rename back");
}

/// Text that is not a database of ours, and calls in a transaction.
#[test]
fn provisioning_is_for_administrators_and_by_itself() {
    let control = shop(cluster(), "provision_alone");
    fails(control.connect("admin").batch_execute("BEGIN; CALL provision_tenants()"), "25001");
    for role in ["app", "client", "operator", "monitor"] {
        fails(control.connect(role).batch_execute("CALL provision_tenants()"), "42501");
    }
    let mut operator = control.connect("operator");
    fails(operator.query("SELECT create_tenant('X', isolation => 'database', template => 'nope')", &[]), "P0002");
    fails(operator.query("SELECT create_tenant('X', isolation => 'database', schema_name => 'tenancy')", &[]), "22023");
    fails(
        operator
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT create_tenant('X', isolation => 'database')"),
        "55000",
    );
    operator.batch_execute("ROLLBACK").expect("roll back");
    assert_eq!(count(&mut control.superuser(), "tenancy.tenant_databases"), 0);
}

/// Who may create functions in the template database must not have them run with the product's rights.
#[test]
fn a_template_databases_functions_do_not_run_while_tenants_databases_are_made() {
    let cluster = Cluster::start(Options::new().set("tenancy.template_database", "hostile"));
    let control = shop(&cluster, "trusting");
    let mut server = cluster.server().superuser();
    server.batch_execute("CREATE DATABASE hostile TEMPLATE template0").expect("a template database");
    let mut hostile = control.config("postgres").dbname("hostile").connect(harness::postgres::NoTls).expect("connect");
    hostile
        .batch_execute(
            "GRANT CREATE ON SCHEMA public TO stranger; SET ROLE stranger;
             CREATE FUNCTION public.grant_access(role text, level text) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN RAISE 'run as %', current_user; END$$;
             CREATE FUNCTION public.grant_access(role text, level name) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN RAISE 'run as %', current_user; END$$",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    drop(hostile);
    let acme = provisioned(&control, "Acme");
    as_tenant(&mut connect(&control, acme, "app"), acme, |app| assert_eq!(count(app, "stages"), 2));
}
