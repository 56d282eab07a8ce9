//! Whoever owns a template, or may create something in a tenant's schema, gains nothing by what the product does there: their code
//! runs as themselves, and what the product does with its own rights is not turned to other objects.

use super::fixtures::run_script;
use harness::*;

/// A schema whose owner notes who their code runs as.
const GROUND: &str = "
CREATE TABLE public.witnesses (place text, who text, is_superuser boolean);
GRANT SELECT, INSERT ON public.witnesses TO PUBLIC;
CREATE SCHEMA hr;
CREATE TABLE hr.salaries (body text);
CREATE SCHEMA trapped AUTHORIZATION owner;
SET ROLE owner;
CREATE FUNCTION public.witness(place text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.witnesses SELECT place, current_user, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user;
    RETURN 1;
END $$;
GRANT EXECUTE ON FUNCTION public.witness(text) TO PUBLIC;
CREATE FUNCTION public.trap(value anyelement, place text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM public.witness(place);
    RETURN true;
END $$;
RESET ROLE;
";

/// Whose privileges on what, outside the copy.
const PRIVILEGES: &str = "
    SELECT oid::regclass::text, relowner::regrole, relacl FROM pg_class WHERE relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname = 'copied') AND relkind <> 'c' ORDER BY oid;
    SELECT oid::regprocedure::text, proowner::regrole, proacl FROM pg_proc WHERE pronamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname = 'copied') ORDER BY oid;
    SELECT rolname, rolsuper, rolcreaterole, rolbypassrls FROM pg_roles ORDER BY 1; SELECT roleid::regrole, member::regrole FROM pg_auth_members ORDER BY 1, 2";

struct Trapped {
    database: Database,
}

impl Trapped {
    /// The ground, and more by the superuser, then by the owner in a session of their own.
    fn new(label: &str, by_superuser: &str, by_owner: &str) -> Trapped {
        let database = Database::new(label);
        run_script(&database, "postgres", &[GROUND, by_superuser].concat());
        run_script(&database, "owner", by_owner);
        let trapped = Trapped { database };
        trapped.forget();
        trapped
    }

    fn forget(&self) {
        self.database.superuser().batch_execute("TRUNCATE public.witnesses").expect("forget");
    }

    /// Who ran which code.
    fn witnesses(&self) -> Vec<(String, String, bool)> {
        const SEEN: &str = "SELECT DISTINCT place, who, is_superuser FROM public.witnesses ORDER BY 1, 2";
        rows(&mut self.database.superuser(), SEEN, &[]).iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    #[track_caller]
    fn assert_ran_as_the_owner_alone(&self) {
        let seen = self.witnesses();
        assert!(seen.iter().all(|(_, who, is_superuser)| who == "owner" && !is_superuser), "{seen:?}");
    }

    /// Does everything that the product does with templates and copies. What is refused, is refused by name.
    #[track_caller]
    fn work(&self, data_tables: &str) {
        let (mut admin, mut operator) = (self.database.connect("admin"), self.database.connect("operator"));
        let privileges = simple(&mut self.database.superuser(), PRIVILEGES);
        let register = format!("SELECT register_template('t', 'trapped', data_tables => '{data_tables}')");
        let create = |slug: &str, schema: &str| {
            format!(
                "SELECT create_tenant('x', slug => '{slug}', isolation => 'schema', template => 't', schema_name => {schema})"
            )
        };
        let calls = [
            register,
            create("first", "'copied'"),
            "SELECT create_tenant('x', slug => 'second', isolation => 'row')".to_owned(),
            "SELECT clone_tenant_schema(find_tenant('first'), find_tenant('second')) WHERE find_tenant('first') IS NOT NULL".to_owned(),
            "SELECT count(*) FROM tenancy.differences()".to_owned(),
            "SELECT count(*) FROM tenant_statistics(exact => true)".to_owned(),
        ];
        for call in calls {
            let session = if call.contains("create_tenant(") { &mut operator } else { &mut admin };
            if let Err(error) = session.batch_execute(&call) {
                let fault = error.as_db_error().unwrap_or_else(|| panic!("{call}: {error:?}"));
                const REFUSALS: [&str; 5] = ["0A000", "55000", "42501", "P0002", "42P01"];
                assert!(REFUSALS.contains(&fault.code().code()), "{call}: {fault:?}");
            }
        }
        // A superuser who does it is no more at risk.
        let _ = self.database.superuser().batch_execute(&create("third", "NULL"));
        let with_copies = simple(&mut self.database.superuser(), PRIVILEGES);
        let lost: Vec<_> = privileges.iter().filter(|privilege| !with_copies.contains(privilege)).collect();
        // Swapped by its owner, a thing is another one: only what is not the template's counts.
        let lost: Vec<_> = lost.iter().filter(|row| !format!("{row:?}").contains("trapped.")).collect();
        assert!(lost.is_empty(), "privileges that are no longer what they were: {lost:?}");
        for session in [&mut admin, &mut operator] {
            const REST: &str = "SELECT current_setting('search_path'), current_setting('work_mem'), current_user, session_user,
                (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), (SELECT count(*) FROM pg_cursors WHERE name LIKE 'left%'),
                pg_my_temp_schema()::bigint, coalesce(current_setting('left.over', true), '')";
            let rest = simple(session, REST).remove(0);
            let user = rest[2].clone();
            let expected = ["\"$user\", public", "4MB"].map(|text| Some(text.to_owned()));
            assert_eq!(rest[..2], expected, "settings of {user:?}");
            assert_eq!(rest[2], rest[3]);
            assert_eq!(rest[4..], ["0", "0", "0", ""].map(|text| Some(text.to_owned())), "left to {user:?}");
        }
    }
}

/// Definitions with a literal of a type whose domain's check is the owner's code; reading the literal runs it.
const LITERALS: [&str; 8] = [
    "CREATE FUNCTION trapped.f(x trapped.dom[] DEFAULT '{5}') RETURNS integer LANGUAGE sql SET work_mem = '4MB' AS 'SELECT 1'",
    "CREATE FUNCTION trapped.f(x trapped.comp DEFAULT '(5,)') RETURNS integer LANGUAGE plpgsql SET work_mem = '4MB' AS 'BEGIN RETURN 1; END'",
    "CREATE FUNCTION trapped.f() RETURNS integer LANGUAGE sql SET work_mem = '4MB' BEGIN ATOMIC SELECT array_length('{5}'::trapped.dom[], 1); END",
    "CREATE PROCEDURE trapped.f(x trapped.dom[] DEFAULT '{5}') LANGUAGE sql SET work_mem = '4MB' AS 'SELECT 1'",
    "CREATE FUNCTION trapped.f(z text DEFAULT ' LEAKPROOF', x trapped.dom[] DEFAULT '{5}') RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION trapped.f(z text DEFAULT E'x\\n SET work_mem TO ''4MB''', x trapped.dom[] DEFAULT '{5}') RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION trapped.sf(trapped.comp, integer) RETURNS trapped.comp LANGUAGE sql AS 'SELECT $1';
     CREATE AGGREGATE trapped.agg(integer) (SFUNC = trapped.sf, STYPE = trapped.comp, INITCOND = '(5,STYPE = internal)')",
    "CREATE VIEW trapped.v AS SELECT '{5}'::trapped.dom[] AS x; CREATE TABLE trapped.d (x trapped.dom[] DEFAULT '{5}', y trapped.comp DEFAULT '(5,)');
     CREATE FUNCTION trapped.plain(x trapped.dom[] DEFAULT '{5}') RETURNS integer LANGUAGE sql AS 'SELECT 1'",
];

#[test]
fn a_literal_in_a_definition_is_read_as_the_owner() {
    for definition in LITERALS {
        let types = "CREATE DOMAIN trapped.dom AS integer CHECK (public.trap(VALUE, 'domain'));
            CREATE TYPE trapped.comp AS (d trapped.dom, note text);";
        let trapped = Trapped::new("literal", "", &format!("{types} {definition}"));
        // It is a trap.
        run_script(&trapped.database, "owner", "SELECT '{5}'::trapped.dom[]");
        assert_eq!(trapped.witnesses(), [("domain".to_owned(), "owner".to_owned(), false)]);
        trapped.work("{}");
        trapped.assert_ran_as_the_owner_alone();
    }
}

/// What a superuser, or anyone else, put into the owner's schema, trusting nothing but its looks.
#[test]
fn what_another_owns_in_a_template_lends_the_owner_no_rights() {
    const OF_OTHERS: &str = "
        SET ROLE owner;
        CREATE FUNCTION trapped.harmless(value integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
        CREATE DOMAIN trapped.dom AS integer CHECK (trapped.harmless(VALUE));
        RESET ROLE;
        CREATE VIEW trapped.v AS SELECT '{5}'::trapped.dom[] AS x;
        CREATE TABLE trapped.t (id integer, x trapped.dom[] DEFAULT '{5}');
        CREATE FUNCTION trapped.f(x trapped.dom[] DEFAULT '{5}') RETURNS integer LANGUAGE sql AS 'SELECT 1';";
    let trapped = Trapped::new(
        "of_others",
        OF_OTHERS,
        "CREATE OR REPLACE FUNCTION trapped.harmless(value integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN public.witness('turned') = 1; END $$",
    );
    trapped.work("{}");
    trapped.assert_ran_as_the_owner_alone();
}

/// The template's objects are called as the server's own, and are gone when the product comes to give privileges on them.
#[test]
fn privileges_are_given_on_the_copys_own_objects() {
    let trapped = Trapped::new(
        "fallen_through",
        "",
        "CREATE TABLE trapped.pg_authid (id integer); GRANT SELECT ON trapped.pg_authid TO stranger; COMMENT ON TABLE trapped.pg_authid IS 'ours';
         CREATE SEQUENCE trapped.salaries; GRANT USAGE ON SEQUENCE trapped.salaries TO stranger;
         CREATE FUNCTION trapped.pg_read_file(text) RETURNS text LANGUAGE sql SET work_mem = '4MB' AS 'SELECT ''x''::text';
         REVOKE ALL ON FUNCTION trapped.pg_read_file(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION trapped.pg_read_file(text) TO stranger;
         CREATE TABLE trapped.rows (id integer);
         INSERT INTO trapped.rows VALUES (1);
         CREATE FUNCTION trapped.drop_them() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             EXECUTE 'DROP TABLE IF EXISTS copied.pg_authid; DROP FUNCTION IF EXISTS copied.pg_read_file(text)';
         END $$;
         CREATE FUNCTION trapped.hidden(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM trapped.drop_them(); RETURN true; END $$;
         SET client_min_messages = error;
         CREATE INDEX late ON trapped.rows (trapped.hidden(id))",
    );
    trapped.work("{rows}");
    let mut stranger = trapped.database.connect("stranger");
    fails(stranger.batch_execute("SELECT rolpassword FROM pg_catalog.pg_authid"), "42501");
    fails(stranger.batch_execute("SELECT pg_catalog.pg_read_file('PG_VERSION')"), "42501");
}

#[test]
fn settings_of_a_rows_code_turn_the_product_to_no_other_schema() {
    let trapped = Trapped::new(
        "turned_path",
        "",
        "CREATE FUNCTION trapped.turn(value integer) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM set_config('search_path', 'hr', false), set_config('work_mem', '1MB', false), set_config('left.over', 'x', false);
             RETURN true;
         END $$;
         CREATE TABLE trapped.salaries (id integer); GRANT ALL ON trapped.salaries TO stranger;
         CREATE FUNCTION trapped.pg_read_file(text) RETURNS text LANGUAGE sql AS 'SELECT ''x''::text';
         REVOKE ALL ON FUNCTION trapped.pg_read_file(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION trapped.pg_read_file(text) TO stranger;
         CREATE TABLE trapped.rows (id integer CHECK (trapped.turn(id)));
         INSERT INTO trapped.rows VALUES (1)",
    );
    trapped.work("{rows}");
    let copied = "SELECT relacl::text LIKE '%stranger=arwdDxt%' FROM pg_class WHERE oid = 'copied.salaries'::regclass";
    assert_eq!(text(&mut trapped.database.superuser(), copied), "t", "the copy has its privileges");
}

/// Code of the rows that are copied first puts a view where the product expects a sequence, and where it expects another's table.
#[test]
fn what_is_swapped_while_rows_are_copied_runs_as_nobody_else() {
    let trapped = Trapped::new(
        "swapped",
        "CREATE TABLE trapped.strangers (id integer); INSERT INTO trapped.strangers VALUES (1); ALTER TABLE trapped.strangers OWNER TO stranger;
         GRANT USAGE ON SCHEMA trapped TO stranger",
        "CREATE TABLE trapped.a_first (id integer);
         CREATE TABLE trapped.numbered (id serial);
         CREATE SEQUENCE trapped.alone;
         CREATE FUNCTION trapped.swap(value integer) RETURNS boolean LANGUAGE plpgsql AS $$
         DECLARE
             source text := 'trap' || 'ped';
         BEGIN
             IF current_setting('trap.off', true) = 'on' THEN
                 RETURN true;
             END IF;
             EXECUTE format('ALTER TABLE %1$s.numbered ALTER id DROP DEFAULT; DROP SEQUENCE %1$s.numbered_id_seq, %1$s.alone;
                 CREATE VIEW %1$s.numbered_id_seq AS SELECT public.witness(''swapped sequence'') AS last_value, true AS is_called;
                 CREATE VIEW %1$s.alone AS TABLE %1$s.numbered_id_seq; DROP TABLE %1$s.strangers;
                 CREATE VIEW %1$s.strangers AS SELECT public.witness(''swapped table'')::integer AS id;
                 GRANT ALL ON %1$s.numbered_id_seq, %1$s.alone, %1$s.strangers TO PUBLIC', source);
             RETURN true;
         EXCEPTION WHEN undefined_object OR undefined_table OR wrong_object_type THEN
             RETURN true;
         END $$;
         SET trap.off = on;
         INSERT INTO trapped.a_first VALUES (1);
         ALTER TABLE trapped.a_first ADD CHECK (trapped.swap(id))",
    );
    trapped.work("{a_first,numbered,strangers}");
    trapped.assert_ran_as_the_owner_alone();
}

/// PostgreSQL finds operators by search_path: those of the schema that is read stand in for none of the catalogs'.
#[test]
fn operators_in_a_schema_are_not_used_to_read_it() {
    let trapped = Trapped::new(
        "operators",
        "GRANT USAGE, CREATE ON SCHEMA trapped TO stranger",
        "CREATE TABLE trapped.t (id integer)",
    );
    let mut superuser = trapped.database.superuser();
    one::<String>(&mut trapped.database.connect("admin"), "SELECT register_template('t', 'trapped')", &[]);
    let create = "SELECT create_tenant('x', slug => 'x', isolation => 'schema', schema_name => 'copied')";
    one::<Uuid>(&mut trapped.database.connect("operator"), create, &[]);
    for (types, function) in
        [("oid, oid", "oideq"), ("name, name", "nameeq"), ("text, text", "texteq"), ("\"char\", \"char\"", "chareq")]
    {
        let (left, right) = types.split_once(", ").expect("two types");
        superuser
            .batch_execute(&format!(
                "CREATE FUNCTION copied.{function}({types}) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO public.witnesses SELECT 'operator', current_user, rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user;
                     RETURN pg_catalog.{function}($1, $2);
                 END $$;
                 ALTER FUNCTION copied.{function}({types}) OWNER TO stranger;
                 CREATE OPERATOR copied.= (FUNCTION = copied.{function}, LEFTARG = {left}, RIGHTARG = {right})"
            ))
            .expect("an operator");
    }
    superuser.batch_execute("SELECT '1'::oid OPERATOR(copied.=) '2'::oid").expect("it is a trap");
    assert_eq!(trapped.witnesses().len(), 1);
    trapped.forget();
    let found = simple(
        &mut trapped.database.connect("operator"),
        "SELECT object FROM tenancy.differences() WHERE difference = 'extra' OR found LIKE '%operator%'",
    );
    assert!(!found.is_empty(), "operators are a difference");
    let second: Uuid = one(
        &mut trapped.database.connect("operator"),
        "SELECT create_tenant('y', slug => 'y', isolation => 'row')",
        &[],
    );
    let clone = "SELECT clone_tenant_schema(find_tenant('x'), $1)";
    fails(trapped.database.connect("admin").query(clone, &[&second]), "0A000");
    assert_eq!(trapped.witnesses(), []);
}

#[test]
fn a_bound_tenants_rows_are_not_open_to_the_code_of_a_template() {
    let database = Database::new("bound_copy");
    protected_table(&database);
    run_script(&database, "postgres", GROUND);
    run_script(
        &database,
        "owner",
        "CREATE FUNCTION trapped.peek(value integer) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO public.witnesses SELECT string_agg(body, ','), current_user FROM public.notes;
             RETURN true;
         EXCEPTION WHEN insufficient_privilege THEN
             RETURN true;
         END $$;
         CREATE TABLE trapped.rows (id integer CHECK (trapped.peek(id)));
         INSERT INTO trapped.rows VALUES (1)",
    );
    let mut admin = database.connect("admin");
    let bound = tenant(&mut database.connect("operator"));
    as_tenant(&mut database.connect("app"), bound, |tx| {
        tx.batch_execute("INSERT INTO notes (body) VALUES ('secret')").expect("insert")
    });
    one::<String>(&mut admin, "SELECT register_template('t', 'trapped', data_tables => '{rows}')", &[]);
    let first: Uuid =
        one(&mut database.connect("operator"), "SELECT create_tenant('x', slug => 'x', isolation => 'schema')", &[]);
    let second = tenant(&mut database.connect("operator"));
    for call in [
        "SELECT create_tenant('y', slug => 'y', isolation => 'schema')".to_owned(),
        format!("SELECT clone_tenant_schema('{first}', '{second}')"),
    ] {
        let mut transaction = admin.transaction().expect("begin");
        bind(&mut transaction, bound);
        if transaction.batch_execute(&call).is_ok() {
            // The binding goes on as before.
            assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_tenant()", &[]), bound);
            transaction.commit().expect("commit");
        }
    }
    assert_eq!(
        count(&mut database.superuser(), "public.witnesses WHERE place IS NOT NULL"),
        0,
        "the owner has read the tenant's rows"
    );
}

/// A template in a superuser's schema, where an ordinary role owns a partition and a domain.
#[test]
fn a_guest_in_a_superusers_schema_gains_nothing() {
    let trapped = Trapped::new(
        "guest",
        "ALTER SCHEMA trapped OWNER TO postgres; GRANT USAGE, CREATE ON SCHEMA trapped TO owner;
         CREATE TABLE trapped.parent (id integer) PARTITION BY RANGE (id);
         CREATE TABLE trapped.child PARTITION OF trapped.parent FOR VALUES FROM (0) TO (10); INSERT INTO trapped.child VALUES (1);
         ALTER TABLE trapped.child OWNER TO owner;
         SET ROLE owner;
         CREATE FUNCTION trapped.harmless(value integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
         CREATE DOMAIN trapped.dom AS integer CHECK (trapped.harmless(VALUE));
         RESET ROLE;
         CREATE VIEW trapped.v AS SELECT '{5}'::trapped.dom[] AS x;",
        "CREATE FUNCTION trapped.hidden(value integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.witness('index'); RETURN true; END $$;
         CREATE INDEX of_child ON trapped.child (trapped.hidden(id));
         CREATE OR REPLACE FUNCTION trapped.harmless(value integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN public.witness('turned') = 1; END $$",
    );
    trapped.work("{child}");
    trapped.assert_ran_as_the_owner_alone();
}

/// What the code of a template defines while a copy is made is no part of the copy: the product looks at it as ever.
#[test]
fn what_a_templates_code_defines_is_looked_at() {
    let trapped = Trapped::new(
        "defines",
        "CREATE TABLE public.parts (tenant_id uuid NOT NULL, id integer) PARTITION BY RANGE (id); ALTER TABLE public.parts OWNER TO owner;",
        "CREATE FUNCTION trapped.define(value integer) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             IF current_setting('trap.off', true) = 'on' OR to_regclass('public.part_1') IS NOT NULL THEN
                 RETURN true;
             END IF;
             EXECUTE 'CREATE TABLE public.part_1 PARTITION OF public.parts FOR VALUES FROM (1) TO (2)';
             BEGIN
                 EXECUTE 'CREATE MATERIALIZED VIEW public.kept AS SELECT * FROM public.parts';
             EXCEPTION WHEN OTHERS THEN
                 NULL;
             END;
             RETURN true;
         END $$;
         SET trap.off = on;
         CREATE TABLE trapped.rows (id integer CHECK (trapped.define(id)));
         INSERT INTO trapped.rows VALUES (1)",
    );
    one::<bool>(&mut trapped.database.connect("admin"), "SELECT protect_table('public.parts')", &[]);
    one::<bool>(
        &mut trapped.database.connect("admin"),
        "SELECT register_template('t', 'trapped', data_tables => '{rows}') = 't'",
        &[],
    );
    let create = "SELECT create_tenant('x', isolation => 'schema')";
    let refused = fails(trapped.database.connect("operator").batch_execute(create), "55000");
    assert!(refused.message().contains("public.part_1") || refused.message().contains("part_1"), "{refused}");
    let mut superuser = trapped.database.superuser();
    for relation in ["public.part_1", "public.kept"] {
        let gone = "SELECT to_regclass($1) IS NULL";
        assert!(one::<bool>(&mut superuser, gone, &[&relation]), "{relation} is there");
    }
}
