//! The guard around schemas that were made from a template: what the copy brought along opens nothing of another tenant.

use super::fixtures::*;
use crate::row::refused_as;
use harness::*;

/// Two tenants with an account each.
fn furnished(house: House) -> (House, [Uuid; 2]) {
    let tenants = [house.tenant("a"), house.tenant("b")];
    for tenant in tenants {
        let fill = "INSERT INTO accounts (name, country) VALUES ('first', 'CH'), ('second', NULL);
            INSERT INTO entries (account, amount) VALUES (1, 5), (1, 6)";
        as_tenant(&mut house.connect("app"), tenant, |tx| tx.batch_execute(fill).expect("fill"));
    }
    (house, tenants)
}

/// What a tenant does in its own schema, named; each works for it and for nobody else.
const USES: &[&str] = &[
    "SELECT * FROM of_a.accounts",
    "SELECT * FROM of_a.totals",
    "SELECT of_a.how_many()",
    "SELECT of_a.by_name('first')",
    "SELECT of_a.how_many() + 1 FROM generate_series(1, 3)",
    "INSERT INTO of_a.entries (account, amount) VALUES (1, 1)",
    "INSERT INTO of_a.accounts (name, country) VALUES ('x', 'SE')",
    "INSERT INTO of_a.stages (name) VALUES ('x')",
    "UPDATE of_a.accounts SET country = 'SE'",
    "DELETE FROM of_a.accounts",
    "TRUNCATE of_a.entries",
    "BEGIN; LOCK TABLE of_a.accounts",
    "COPY of_a.accounts TO STDOUT",
    "EXPLAIN SELECT * FROM of_a.accounts WHERE name < 'm'",
    "SELECT nextval('of_a.entries_id_seq')",
    "SELECT setval('of_a.entries_id_seq', 1000)",
    "SELECT nextval('of_a.accounts_id_seq')",
    "SELECT last_value FROM of_a.stages_id_seq",
    "SELECT 'glad'::of_a.mood",
    "SELECT 'of_a.accounts'::regclass",
    "PREPARE p AS SELECT * FROM of_a.accounts; EXECUTE p; DEALLOCATE p",
    "DO $$ BEGIN PERFORM * FROM of_a.accounts; END $$",
    "BEGIN; DECLARE c CURSOR FOR SELECT * FROM of_a.accounts; FETCH ALL c",
];

#[test]
fn a_copy_is_its_tenants_alone() {
    let (house, [a, b]) = furnished(House::new("clones"));
    let mut app = house.connect("app");
    let everything = |superuser: &mut Client| {
        simple(
            superuser,
            "SELECT t::text FROM of_a.accounts t UNION ALL SELECT t::text FROM of_a.entries t UNION ALL SELECT t::text FROM of_a.stages t
            UNION ALL SELECT last_value::text FROM of_a.entries_id_seq UNION ALL SELECT last_value::text FROM of_a.accounts_id_seq",
        )
    };
    let mut superuser = house.superuser();
    for statement in USES {
        let before = everything(&mut superuser);
        let fault = refused_as(&mut app, b, statement, "42501");
        assert!(fault.message().contains("schema \"of_a\""), "{statement}: {fault}");
        for role in ["app", "client", "owner"] {
            let fault = fails(house.connect(role).batch_execute(statement), "42501");
            assert!(fault.message().contains("schema \"of_a\""), "{role}: {statement}: {fault}");
        }
        assert_eq!(everything(&mut superuser), before, "{statement}");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, a);
        if statement.starts_with("COPY") {
            assert!(
                std::io::Read::read_to_end(&mut transaction.copy_out(*statement).expect("copy"), &mut Vec::new())
                    .expect("read")
                    > 0
            );
        } else {
            transaction.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        transaction.rollback().expect("roll back");
    }
}

#[test]
fn a_template_is_its_owners_while_nothing_is_bound() {
    // A cluster of its own: what roles are members of holds for all of one.
    let cluster = Cluster::start(Options::new());
    let (house, [a, _]) = furnished(House::in_database(cluster.database("template_closed")));
    house
        .superuser()
        .batch_execute("GRANT USAGE ON SCHEMA tpl TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA tpl TO PUBLIC")
        .expect("open");
    for statement in USES.iter().map(|statement| statement.replace("of_a.", "tpl.")) {
        for role in ["app", "client", "operator", "admin", "monitor", "stranger"] {
            let fault = fails(house.connect(role).batch_execute(&statement), "42501");
            assert!(fault.message().contains("tpl"), "{role}: {statement}: {fault}");
        }
        refused_as(&mut house.connect("app"), a, &statement, "42501");
        if !statement.starts_with("COPY") {
            let account = "INSERT INTO tpl.accounts (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'x'); SELECT setval('tpl.accounts_id_seq', 9)";
            let undone = format!("BEGIN; {account}; {}; ROLLBACK", statement.trim_start_matches("BEGIN; "));
            house.connect("owner").batch_execute(&undone).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }
    // A role that is the owner's member is its owner; a tenant that it binds closes the template.
    house.superuser().batch_execute("GRANT owner TO stranger").expect("grant");
    let mut stranger = house.connect("stranger");
    stranger.batch_execute("SELECT * FROM tpl.accounts").expect("a member of the owner");
    house.superuser().batch_execute("REVOKE owner FROM stranger").expect("revoke");
    fails(stranger.batch_execute("SELECT * FROM tpl.accounts"), "42501");
}

/// The product works on schemas for callers whom the guard keeps out of them; it leaves no door open behind it, whether it succeeds or fails.
#[test]
fn the_products_work_opens_nothing_to_its_caller() {
    let (house, [a, b]) = furnished(House::new("work_opens_nothing"));
    let mut superuser = house.superuser();
    superuser
        .batch_execute(
            "GRANT USAGE ON SCHEMA of_a, of_b, tpl TO admin, operator; GRANT ALL ON ALL TABLES IN SCHEMA of_a, of_b, tpl TO admin, operator;
             CREATE SCHEMA failing AUTHORIZATION owner; SET ROLE owner;
             CREATE FUNCTION failing.check_it(value integer) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF current_setting('failing.armed', true) = 'on' THEN RAISE division_by_zero; END IF;
                 RETURN true;
             END $$;
             CREATE TABLE failing.last (id integer CHECK (failing.check_it(id))); INSERT INTO failing.last VALUES (1); RESET ROLE;
             CREATE TABLE public.parts (tenant_id uuid NOT NULL, id integer) PARTITION BY RANGE (id); ALTER TABLE public.parts OWNER TO owner",
        )
        .expect("prepare");
    let mut admin = house.connect("admin");
    admin
        .batch_execute(
            "SELECT register_template('failing', 'failing', data_tables => '{last}'), protect_table('public.parts')",
        )
        .expect("register");
    let waiting = house.without_schema("waiting");
    let calls = [
        "SELECT count(*) FROM tenancy.differences()".to_owned(),
        "SELECT count(*) FROM tenant_statistics(true)".to_owned(),
        format!("SELECT clone_tenant_schema('{a}', '{waiting}')"),
        format!("SELECT delete_tenant_schema('{waiting}')"),
        format!("SELECT create_tenant_schema('{waiting}', 't')"),
        "SELECT create_tenant('x', slug => 'x', isolation => 'schema', template => 't')".to_owned(),
        // These fail in the middle.
        "SET failing.armed = on; SELECT create_tenant('y', slug => 'y', isolation => 'schema', template => 'failing')"
            .to_owned(),
        format!(
            "SELECT delete_tenant_schema('{waiting}'); SET failing.armed = on; SELECT create_tenant_schema('{waiting}', 'failing')"
        ),
        "SELECT register_template('t', 'failing')".to_owned(),
    ];
    for call in calls {
        let mut transaction = admin.transaction().expect("begin");
        transaction.batch_execute("SAVEPOINT s").expect("savepoint");
        let worked = transaction.batch_execute(&call).is_ok();
        if !worked {
            transaction.batch_execute("ROLLBACK TO s").expect("roll back");
        }
        for sql in [
            "SELECT * FROM of_a.accounts",
            "SELECT * FROM tpl.accounts",
            "INSERT INTO of_b.stages (name) VALUES ('x')",
            "DROP TABLE of_a.entries",
        ] {
            let mut savepoint = transaction.transaction().expect("savepoint");
            fails(savepoint.batch_execute(sql), "42501");
            savepoint.rollback().expect("roll back");
        }
        bind(&mut transaction, b);
        let mut savepoint = transaction.transaction().expect("savepoint");
        fails(savepoint.batch_execute("SELECT * FROM of_a.accounts"), "42501");
        savepoint.rollback().expect("roll back");
        assert_eq!(count(&mut transaction, "accounts"), 2, "after {call}");
        transaction.rollback().expect("roll back");
    }
    // And the event triggers look again at what is defined by hand, in the session in which a copy has failed.
    superuser.batch_execute("SET failing.armed = on").expect("set");
    fails(
        superuser.batch_execute("SELECT create_tenant('z', slug => 'z', isolation => 'schema', template => 'failing')"),
        "22012",
    );
    superuser.batch_execute("ALTER SCHEMA of_a RENAME TO of_a_2; CREATE TABLE public.part_1 PARTITION OF public.parts FOR VALUES FROM (1) TO (2)").expect("by hand");
    assert_eq!(text(&mut superuser, "SELECT schema_name FROM tenancy.tenants WHERE slug = 'a'"), "of_a_2");
    assert_eq!(count(&mut superuser, "tenancy.protected_tables WHERE table_name = 'public.part_1'::regclass"), 1);
}

/// Code that the product's work runs as its owner reaches no other tenant and none of the product's own tables.
#[test]
fn code_in_a_tenants_schema_reaches_no_other_while_the_product_works() {
    const ATTEMPTS: [&str; 24] = [
        "INSERT INTO public.gained SELECT name FROM of_a.accounts",
        "UPDATE of_a.accounts SET name = 'x'",
        "DELETE FROM of_a.entries",
        "TRUNCATE of_a.entries",
        "SELECT nextval('of_a.entries_id_seq')",
        "SELECT setval('of_a.entries_id_seq', 99)",
        "SELECT of_a.how_many()",
        "LOCK TABLE of_a.accounts",
        "DROP TABLE of_a.entries",
        "ALTER TABLE of_a.accounts ADD COLUMN x integer",
        "CREATE TABLE of_a.x ()",
        "CREATE VIEW trapped.v AS SELECT * FROM of_a.accounts",
        "GRANT ALL ON ALL TABLES IN SCHEMA of_a TO PUBLIC",
        "ALTER SCHEMA of_a RENAME TO mine",
        "DROP SCHEMA of_a CASCADE",
        "UPDATE tpl.stages SET name = name",
        "SELECT set_tenant_by_slug('a')",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "UPDATE tenancy.tenants SET schema_name = NULL",
        "DELETE FROM tenancy.templates",
        "INSERT INTO tenancy.applied_migrations VALUES ('t', NULL, '1')",
        "SELECT create_tenant('stolen')",
        "CREATE TEMPORARY TABLE left_behind ()",
    ];
    let (house, [a, _]) = furnished(House::new("hostile_code"));
    let attempts: String = ATTEMPTS
        .iter()
        .map(|attempt| {
            format!(
                "BEGIN
                    EXECUTE $s${attempt}$s$;
                    INSERT INTO public.gained VALUES ($s${attempt}$s$);
                EXCEPTION WHEN OTHERS THEN
                    NULL;
                END;"
            )
        })
        .collect();
    run_script(
        &house.database,
        "postgres",
        &format!(
            "CREATE TABLE public.gained (what text); GRANT ALL ON public.gained TO PUBLIC; GRANT CREATE ON DATABASE {} TO owner;
             CREATE TABLE public.sprung (place text); GRANT ALL ON public.sprung TO PUBLIC;
             CREATE SCHEMA trapped AUTHORIZATION owner",
            house.database.name()
        ),
    );
    // As themselves: what they try while they set it up, they are refused.
    run_script(
        &house.database,
        "owner",
        &format!(
            "SET client_min_messages = error;
             CREATE FUNCTION trapped.try_all(place text) RETURNS boolean LANGUAGE plpgsql AS $f$
             BEGIN
                 INSERT INTO public.sprung VALUES (place);
                 {attempts}
                 RETURN true;
             END $f$;
             CREATE FUNCTION trapped.hidden(value anyelement, place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                 $f$ BEGIN PERFORM trapped.try_all(place); RETURN true; END $f$;
             CREATE DOMAIN trapped.dom AS integer CHECK (trapped.try_all('domain'));
             CREATE TABLE trapped.rows (id integer CHECK (trapped.try_all('check')), d trapped.dom,
                 g boolean GENERATED ALWAYS AS (trapped.hidden(id, 'generated')) STORED);
             INSERT INTO trapped.rows VALUES (1, 1);
             CREATE INDEX ON trapped.rows (trapped.hidden(id, 'index'));
             CREATE MATERIALIZED VIEW trapped.m AS SELECT trapped.try_all('matview') AS t;
             TRUNCATE public.gained, public.sprung"
        ),
    );
    let before = simple(
        &mut house.superuser(),
        "SELECT t::text FROM of_a.accounts t UNION ALL SELECT t::text FROM of_a.entries t",
    );
    let mut admin = house.connect("admin");
    admin
        .batch_execute(
            "SELECT register_template('trapped', 'trapped', data_tables => '{rows}');
             SELECT create_tenant('x', slug => 'x', isolation => 'schema', template => 'trapped');
             SELECT create_tenant('y', slug => 'y', isolation => 'row'); SELECT clone_tenant_schema(find_tenant('x'), find_tenant('y'));
             SELECT count(*) FROM tenancy.differences(); SELECT count(*) FROM tenant_statistics(true)",
        )
        .expect("work");
    let mut superuser = house.superuser();
    let places = simple(&mut superuser, "SELECT string_agg(DISTINCT place, ' ' ORDER BY place) FROM public.sprung");
    assert_eq!(places, [[Some("check domain generated index matview".to_owned())]]);
    assert_eq!(simple(&mut superuser, "SELECT DISTINCT what FROM public.gained"), Vec::<Vec<Option<String>>>::new());
    assert_eq!(
        simple(&mut superuser, "SELECT t::text FROM of_a.accounts t UNION ALL SELECT t::text FROM of_a.entries t"),
        before
    );
    let tenant: Uuid =
        one(&mut superuser, "SELECT id FROM tenancy.tenants WHERE slug = 'a' AND schema_name = 'of_a'", &[]);
    assert_eq!(tenant, a);
    house.assert_legal();
}
