//! Templates with names that break out of quotes, and templates whose owner means harm.

use super::{World, load};
use crate::row::without_restrict;
use harness::*;

/// 63 bytes each, with everything that quoting has to hold.
const TEMPLATE: &str = "Tem'pl\"ate. %I {id} $$ ; DROP -- /* ünïcödé .......... \u{202e}1";
const TENANT: &str = "Ten'an\"t. %s {%} $$ ); -- */ ''\"\" вторая сх..... ..\u{202e}2";

/// `{s}` is the schema as an identifier, `{l}` as one within a string.
const SCRIPT: &str = r#"
    CREATE SCHEMA {s} AUTHORIZATION owner;
    SET ROLE owner;
    CREATE TYPE {s}."mo'od" AS ENUM ('a', 'it''s');
    CREATE FUNCTION {s}."ok""?"(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
    CREATE TABLE {s}."t'able" (id serial PRIMARY KEY CHECK ({s}."ok""?"(id)), "m""" {s}."mo'od" DEFAULT 'it''s', parent integer REFERENCES {s}."t'able");
    CREATE TABLE {s}.noted (id bigint GENERATED ALWAYS AS IDENTITY, what text);
    CREATE FUNCTION {s}.note() RETURNS trigger LANGUAGE plpgsql SET search_path = {s}, pg_temp AS $body$
    BEGIN
        INSERT INTO {s}.noted (what) SELECT count(*) FROM {s}."t'able";
        EXECUTE 'INSERT INTO {l}.noted (what) VALUES (''dynamic'')';
        INSERT INTO noted (what) VALUES ('by search_path');
        RETURN NEW;
    END
    $body$;
    CREATE TRIGGER "n'ote" AFTER INSERT ON {s}."t'able" FOR EACH ROW EXECUTE FUNCTION {s}.note();
    CREATE VIEW {s}."v""iew" AS SELECT t.*, 'it''s'::{s}."mo'od" AS other FROM {s}."t'able" AS t;
    CREATE INDEX "in""dex" ON {s}."t'able" (({s}."ok""?"(id))) WHERE "m""" = 'a'::{s}."mo'od";
    INSERT INTO {s}."t'able" DEFAULT VALUES;
    RESET ROLE;
"#;

#[test]
fn names_of_schemas_may_hold_anything() {
    assert_eq!([TEMPLATE.len(), TENANT.len()], [63, 63]);
    let database = Database::new("hostile_names");
    let mut superuser = database.superuser();
    let quote = |superuser: &mut Client, name: &str| -> String { one(superuser, "SELECT quote_ident($1)", &[&name]) };
    let [from, to] = [TEMPLATE, TENANT].map(|name| quote(&mut superuser, name));
    let quoted = from.replace('\'', "''");
    load(&database, "postgres", &SCRIPT.replace("{s}", &from).replace("{l}", &quoted));
    let register = "SELECT register_template($1::text::name, $1::text::name, data_tables => ARRAY[$2])";
    one::<String>(&mut database.connect("admin"), register, &[&TEMPLATE, &"t'able"]);
    let create = "SELECT create_tenant($1, isolation => 'schema', slug => 'hostile', template => $1::text::name, schema_name => $2::text::name)";
    let tenant: Uuid = one(&mut database.connect("operator"), create, &[&TEMPLATE, &TENANT]);

    let dump = |schema: &str| {
        let mut pg_dump = database.tool("pg_dump", "postgres");
        let pattern = format!("\"{}\"", schema.replace('"', "\"\""));
        let dump = without_restrict(&run(pg_dump.args([
            "--schema-only",
            "--no-security-labels",
            "--strict-names",
            "-n",
            &pattern,
        ])));
        dump.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect::<String>()
    };
    // As an identifier, as one within a string, and alone in the list of a search_path.
    let expected = dump(TEMPLATE)
        .replace(&from, &to)
        .replace(&from.replace('\'', "''"), &to.replace('\'', "''"))
        .replace(&format!("'{}'", TEMPLATE.replace('\'', "''")), &format!("'{}'", TENANT.replace('\'', "''")));
    for (found, expected) in dump(TENANT).lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(dump(TENANT).len(), expected.len());

    // And it works, without the template's having a part in it.
    superuser.batch_execute(&format!("INSERT INTO {to}.\"t'able\" DEFAULT VALUES")).expect("insert");
    let noted = |superuser: &mut Client, schema: &str| {
        one::<i64>(superuser, &format!("SELECT count(*) FROM {schema}.noted"), &[])
    };
    assert_eq!(noted(&mut superuser, &to), 3);
    assert_eq!(noted(&mut superuser, &from), 3, "the three of the template's own row");
    assert!(one::<bool>(&mut database.connect("admin"), "SELECT delete_tenant_schema($1)", &[&tenant]));
    let left: i64 = one(&mut superuser, "SELECT count(*) FROM pg_namespace WHERE nspname = $1::text::name", &[&TENANT]);
    assert_eq!(left, 0);
}

/// A template whose owner has put code wherever PostgreSQL runs some. Each call notes who it runs as, and reaches for more.
const TRAPS: &str = r#"
    CREATE TABLE public.witnesses (place text, who text, is_superuser boolean, gained text);
    GRANT SELECT, INSERT ON public.witnesses TO PUBLIC;
    CREATE SCHEMA trapped AUTHORIZATION owner;
    SET ROLE owner;
    CREATE FUNCTION trapped.witness(place text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
        gained text := '';
        attempt text;
    BEGIN
        FOREACH attempt IN ARRAY ARRAY['ALTER ROLE owner SUPERUSER', 'SET ROLE postgres', 'RESET ROLE; ALTER ROLE owner SUPERUSER', 'RESET SESSION AUTHORIZATION',
                'GRANT admin TO owner', 'SELECT set_tenant(id) FROM tenancy.tenants', 'UPDATE tenancy.tenants SET name = ''stolen''',
                'SELECT body FROM victim.secrets', 'INSERT INTO victim.secrets VALUES (''planted'')', 'SELECT * FROM tenancy.tenants WHERE slug = ''victim'''] LOOP
            BEGIN
                EXECUTE attempt;
                IF attempt NOT LIKE 'SELECT%' OR attempt LIKE '%victim.secrets' THEN
                    gained := gained || attempt || '; ';
                END IF;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
        INSERT INTO public.witnesses VALUES (place, current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), gained);
        RETURN true;
    END
    $$;
    CREATE FUNCTION trapped.trap(value anyelement, place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        PERFORM trapped.witness(place);
        RETURN true;
    END
    $$;
    CREATE FUNCTION trapped.number(place text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM trapped.witness(place); RETURN 1; END $$;
    CREATE FUNCTION trapped.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM trapped.witness('trigger ' || TG_NAME); RETURN NEW; END $$;
    CREATE DOMAIN trapped.dom AS integer CHECK (trapped.trap(VALUE, 'domain'));
    CREATE TYPE trapped.odd_range AS RANGE (subtype = integer);
    CREATE TABLE trapped.rows (
        id integer PRIMARY KEY DEFAULT trapped.number('default'),
        d trapped.dom DEFAULT 5,
        g boolean GENERATED ALWAYS AS (trapped.trap(id, 'generated')) STORED,
        CONSTRAINT checked CHECK (trapped.trap(id, 'check')),
        CONSTRAINT excluded EXCLUDE USING btree ((trapped.trap(id, 'exclusion')::text || id) WITH =)
    );
    CREATE INDEX expression ON trapped.rows (trapped.trap(id, 'index')) WHERE trapped.trap(id, 'predicate');
    CREATE TABLE trapped.children (id integer PRIMARY KEY, parent integer REFERENCES trapped.rows ON DELETE CASCADE);
    CREATE TABLE trapped.partitioned (id integer, x integer DEFAULT trapped.number('partition default')) PARTITION BY LIST (trapped.trap(id, 'partition key'));
    CREATE TABLE trapped.partition PARTITION OF trapped.partitioned FOR VALUES IN (true);
    CREATE STATISTICS trapped.stats ON trapped.trap(id, 'statistics'), id FROM trapped.rows;
    CREATE TRIGGER before_row BEFORE INSERT ON trapped.rows FOR EACH ROW WHEN (trapped.trap(NEW.id, 'when')) EXECUTE FUNCTION trapped.fire();
    CREATE TRIGGER before_statement BEFORE INSERT ON trapped.rows EXECUTE FUNCTION trapped.fire();
    CREATE TRIGGER always AFTER INSERT ON trapped.rows FOR EACH ROW EXECUTE FUNCTION trapped.fire();
    ALTER TABLE trapped.rows ENABLE ALWAYS TRIGGER always;
    CREATE RULE also AS ON INSERT TO trapped.partitioned DO ALSO SELECT trapped.witness('rule');
    CREATE MATERIALIZED VIEW trapped.materialized AS SELECT trapped.number('materialized view') AS n, trapped.trap(id, 'materialized row') FROM trapped.rows;
    CREATE INDEX of_materialized ON trapped.materialized (trapped.trap(n, 'index of a materialized view'));
    CREATE VIEW trapped.seen AS SELECT trapped.number('view') AS n;
    ALTER TABLE trapped.rows ENABLE ROW LEVEL SECURITY;
    ALTER TABLE trapped.rows FORCE ROW LEVEL SECURITY;
    CREATE POLICY own ON trapped.rows USING (trapped.trap(id, 'policy')) WITH CHECK (trapped.trap(id, 'policy check'));
    CREATE FUNCTION trapped.added(integer, integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM trapped.witness('aggregate'); RETURN 1; END $$;
    CREATE AGGREGATE trapped.agg(integer) (SFUNC = trapped.added, STYPE = integer, INITCOND = '0');
    RESET ROLE;
"#;

#[test]
fn a_templates_code_never_runs_with_anybody_elses_rights() {
    let database = Database::new("hostile_owner");
    let mut superuser = database.superuser();
    load(&database, "postgres", TRAPS);
    load(
        &database,
        "owner",
        "INSERT INTO trapped.rows (id, d) VALUES (1, 1), (2, 2); INSERT INTO trapped.children VALUES (1, 1); INSERT INTO trapped.partitioned (id) VALUES (1); REFRESH MATERIALIZED VIEW trapped.materialized",
    );
    // Whose schema the code would like to reach.
    load(
        &database,
        "postgres",
        "CREATE SCHEMA other AUTHORIZATION owner; CREATE TABLE other.secrets (body text); ALTER TABLE other.secrets OWNER TO owner; GRANT ALL ON ALL TABLES IN SCHEMA other TO app; GRANT USAGE ON SCHEMA other TO app",
    );
    let (mut admin, mut operator) = (database.connect("admin"), database.connect("operator"));
    one::<String>(&mut admin, "SELECT register_template('other', 'other')", &[]);
    one::<Uuid>(
        &mut operator,
        "SELECT create_tenant('Victim', slug => 'victim', isolation => 'schema', template => 'other', schema_name => 'victim')",
        &[],
    );
    load(&database, "postgres", "INSERT INTO victim.secrets VALUES ('a secret')");
    superuser.batch_execute("TRUNCATE public.witnesses").expect("forget what making it noted");

    one::<String>(
        &mut admin,
        "SELECT register_template('t', 'trapped', data_tables => '{rows,children,partition}')",
        &[],
    );
    let create = "SELECT create_tenant('Copied', slug => 'copied', isolation => 'schema', template => 't', schema_name => 'copied')";
    let first: Uuid = one(&mut operator, create, &[]);
    let second: Uuid = one(&mut operator, "SELECT create_tenant('Second', slug => 'second', isolation => 'row')", &[]);
    one::<String>(&mut admin, "SELECT clone_tenant_schema($1, $2)", &[&first, &second]);
    one::<bool>(&mut admin, "SELECT delete_tenant_schema($1)", &[&second]);
    // A superuser who does it is no more at risk.
    one::<Uuid>(
        &mut superuser,
        "SELECT create_tenant('Third', slug => 'third', isolation => 'schema', template => 't')",
        &[],
    );

    let seen =
        simple(&mut superuser, "SELECT DISTINCT place, who, is_superuser, gained FROM public.witnesses ORDER BY 1");
    for witness in &seen {
        assert_eq!(witness[1].as_deref(), Some("owner"), "{seen:?}");
        assert_eq!(witness[2].as_deref(), Some("f"), "{seen:?}");
        assert_eq!(witness[3].as_deref(), Some(""), "{seen:?}");
    }
    // Something has run, or this proves nothing.
    assert!(!seen.is_empty());
    assert!(!one::<bool>(&mut superuser, "SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'", &[]));
    assert!(!one::<bool>(&mut superuser, "SELECT pg_has_role('owner', 'admin', 'MEMBER')", &[]));
    assert_eq!(text(&mut superuser, "SELECT string_agg(body, ',') FROM victim.secrets"), "a secret");
    assert_eq!(count(&mut superuser, "tenancy.tenants WHERE name = 'stolen'"), 0);
    assert_eq!(count(&mut superuser, "copied.rows"), 2);
    assert_eq!(text(&mut operator, "SELECT current_user"), "operator");
    assert!(one::<Option<Uuid>>(&mut operator, "SELECT current_tenant_or_null()", &[]).is_none());
}

/// The event triggers look away from the product's own DDL, but not from what users' code does within.
#[test]
fn a_templates_code_opens_no_protected_table() {
    let database = Database::new("hostile_opens");
    let mut superuser = database.superuser();
    load(
        &database,
        "postgres",
        "CREATE SCHEMA opens AUTHORIZATION owner; SET ROLE owner; CREATE TABLE notes (tenant_id uuid, body text);
         CREATE FUNCTION opens.attempt(id integer) RETURNS boolean LANGUAGE plpgsql AS $$
            BEGIN EXECUTE coalesce(current_setting('test.attempt', true), 'SELECT 1'); RETURN true; END $$;
         CREATE TABLE opens.rows (id integer PRIMARY KEY); INSERT INTO opens.rows VALUES (1);
         ALTER TABLE opens.rows ADD CHECK (opens.attempt(id))",
    );
    let (mut admin, mut operator) = (database.connect("admin"), database.connect("operator"));
    assert!(one::<bool>(&mut admin, "SELECT protect_table('notes')", &[]));
    one::<String>(&mut admin, "SELECT register_template('t', 'opens', data_tables => '{rows}')", &[]);
    let create = "SELECT create_tenant('Copied', slug => 'copied', isolation => 'schema', template => 't')";
    for attempt in [
        "ALTER TABLE public.notes NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenancy_isolation ON public.notes",
        "ALTER POLICY tenancy_isolation ON public.notes USING (true)",
    ] {
        for client in [&mut operator, &mut superuser] {
            client.execute("SELECT set_config('test.attempt', $1, false)", &[&attempt]).expect("choose");
            let fault = fails(client.batch_execute(create), "42501");
            assert!(fault.message().contains("row security of protected table public.notes"), "{attempt}: {fault:?}");
        }
    }
    operator.execute("SELECT set_config('test.attempt', 'SELECT 1', false)", &[]).expect("choose");
    operator.batch_execute(create).expect("copy");
    assert!(one::<bool>(&mut superuser, "SELECT intact FROM tenancy.protection_status", &[]));
}

#[test]
fn what_a_superuser_owns_is_copied_with_its_owner() {
    let world = World::of(
        "superusers_function",
        "superusers",
        "CREATE SCHEMA superusers AUTHORIZATION owner;
         CREATE FUNCTION superusers.plain() RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE TABLE superusers.t (id serial)",
    );
    world.register(&[]);
    world.tenant("copied");
    super::assert_exact(&world, "superusers", "copied");
}
