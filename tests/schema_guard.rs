//! The guard of tenants' schemas: what one tenant cannot do to another's, what goes on working in its own, and what binding does to
//! `search_path`.

use crate::pooling::wire::Wire;
use crate::row::refused_as;
use harness::postgres;
use harness::{
    Client, Database, DbError, Transaction, Uuid, as_tenant, bind, count, fails, one, rows, run, simple, tenants, text,
};
use std::io::{Read, Write};

/// What each schema holds: tables with serial, identity and foreign key, a view, functions, a type, an operator.
const OBJECTS: &str = "
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE contacts (id bigserial PRIMARY KEY, name text NOT NULL, email text UNIQUE, mood mood DEFAULT 'glad', data jsonb,
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', name)) STORED);
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, contact bigint REFERENCES contacts ON DELETE CASCADE, body text);
CREATE VIEW names AS SELECT name FROM contacts;
CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM {s}.contacts';
CREATE FUNCTION answer() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'secret of {s}'$$;
CREATE FUNCTION add_up(bigint, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT $1 + $2';
CREATE OPERATOR <+> (FUNCTION = add_up, LEFTARG = bigint, RIGHTARG = bigint);
CREATE FUNCTION next_number() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('{s}.contacts_id_seq')$$;
INSERT INTO contacts (name, email) SELECT 'secret of {s} ' || i, i || '@example.com' FROM generate_series(1, 100) i;
INSERT INTO notes (contact, body) SELECT i, 'note of {s}' FROM generate_series(1, 10) i;
ANALYZE contacts, notes;
GRANT USAGE ON SCHEMA {s} TO app, client;
GRANT ALL ON ALL TABLES IN SCHEMA {s} TO app, client;
GRANT ALL ON ALL SEQUENCES IN SCHEMA {s} TO app, client;
";

/// Two tenants with a schema each and a template, all of the role owner, and a session of app that may make temporary objects.
struct House {
    database: Database,
    a: Uuid,
    b: Uuid,
    app: Client,
}

impl House {
    fn new(label: &str) -> House {
        let database = Database::new(label);
        let created = tenants(&mut database.connect("operator"), 2);
        let mut superuser = database.superuser();
        for (schema, tenant) in [("tenant_a", Some(created[0])), ("tenant_b", Some(created[1])), ("template_t", None)] {
            make_schema(&mut superuser, schema);
            label_schema(&mut superuser, schema, tenant);
        }
        let grant = format!("GRANT TEMPORARY ON DATABASE {} TO app", database.name());
        superuser.batch_execute(&grant).expect("let app make temporary objects");
        let app = database.connect("app");
        House { database, a: created[0], b: created[1], app }
    }

    /// A relation of A's as a number.
    fn oid(&self, relation: &str) -> String {
        text(&mut self.database.superuser(), &format!("SELECT '{relation}'::regclass::oid"))
    }

    /// The statement, with `$contacts` and the like as numbers of A's relations.
    fn with_oids(&self, statement: &str) -> String {
        ["contacts_id_seq", "notes_id_seq", "contacts"].iter().fold(statement.to_owned(), |statement, relation| {
            if statement.contains('$') {
                statement.replace(&format!("${relation}"), &self.oid(&format!("tenant_a.{relation}")))
            } else {
                statement
            }
        })
    }

    /// The statement is refused to tenant B and to a session with nothing bound, and works for A.
    #[track_caller]
    fn is_for_a_alone(&mut self, statement: &str) {
        let statement = &self.with_oids(statement);
        self.is_refused(statement);
        let mut transaction = self.app.transaction().expect("begin");
        bind(&mut transaction, self.a);
        let outcome = if statement.starts_with("COPY") {
            transaction
                .copy_out(statement)
                .map(|mut rows| assert!(rows.read_to_end(&mut Vec::new()).expect("read") > 0))
        } else {
            transaction.batch_execute(statement)
        };
        if let Err(error) = outcome {
            panic!("{statement}: refused to its own tenant: {error:?}");
        }
    }

    /// The statement is refused to tenant B, and to app and client with nothing bound.
    #[track_caller]
    fn is_refused(&mut self, statement: &str) {
        let before = self.everything();
        let fault = refused_as(&mut self.app, self.b, statement, "42501");
        is_about_schemas(statement, &fault);
        let mut client = self.database.connect("client");
        for session in [&mut self.app, &mut client] {
            // A client makes no temporary objects.
            is_about_schemas(statement, &fails(session.batch_execute(statement), "42501"));
            session.batch_execute("ROLLBACK; DISCARD TEMP").expect("clean up");
        }
        assert_eq!(self.everything(), before, "{statement} changed something");
    }

    /// All of A, and where its sequences stand.
    fn everything(&self) -> Vec<String> {
        let sql = "SELECT c::text FROM tenant_a.contacts c UNION ALL SELECT n::text FROM tenant_a.notes n
            UNION ALL SELECT last_value::text FROM tenant_a.contacts_id_seq UNION ALL SELECT last_value::text FROM tenant_a.notes_id_seq";
        rows(&mut self.database.superuser(), sql, &[]).iter().map(|row| row.get(0)).collect()
    }

    #[track_caller]
    fn as_superuser(&self, sql: &str) {
        if let Err(error) = self.database.superuser().batch_execute(sql) {
            panic!("{sql}: {:?}", error.as_db_error());
        }
    }
}

/// Binds by the function's full name: the session's path is its own.
#[track_caller]
fn enter(transaction: &mut Transaction, tenant: Uuid) {
    one::<Uuid>(transaction, "SELECT public.set_tenant($1)", &[&tenant]);
}

#[track_caller]
fn within(session: &mut Client, tenant: Uuid, work: impl FnOnce(&mut Transaction)) {
    let mut transaction = session.transaction().expect("begin");
    enter(&mut transaction, tenant);
    work(&mut transaction);
    transaction.commit().expect("commit");
}

/// COPY FROM STDIN.
fn copy_in(transaction: &mut Transaction, statement: &str, lines: &str) -> Result<u64, postgres::Error> {
    let mut writer = transaction.copy_in(statement)?;
    writer.write_all(lines.as_bytes()).expect("send rows");
    writer.finish()
}

fn make_schema(superuser: &mut Client, schema: &str) {
    let make = format!(
        "CREATE SCHEMA {schema} AUTHORIZATION owner; SET ROLE owner; SET search_path = {schema}; {}; RESET ROLE; RESET search_path",
        OBJECTS.replace("{s}", schema)
    );
    superuser.batch_execute(&make).expect("make a schema");
}

fn label_schema(superuser: &mut Client, schema: &str, tenant: Option<Uuid>) {
    let label = tenant.map_or("template: t".to_owned(), |tenant| format!("tenant: {tenant}"));
    superuser
        .batch_execute(&format!("SECURITY LABEL FOR pg_tenancy ON SCHEMA {schema} IS '{label}'"))
        .expect("label the schema");
    if let Some(tenant) = tenant {
        let register = "UPDATE tenancy.tenants SET isolation = 'schema', schema_name = $1::text::name, template = 't' WHERE id = $2";
        assert_eq!(superuser.execute(register, &[&schema, &tenant]).expect("register the schema"), 1);
    }
}

#[track_caller]
fn is_about_schemas(statement: &str, fault: &DbError) {
    let known =
        ["schema \"tenant_a\"", "where its sequence may be another tenant's", "permission denied to create temporary"];
    let message = fault.message();
    assert!(
        known.iter().any(|known| message.contains(known)) || message.contains("temporary"),
        "{statement}: refused by something else: {fault}"
    );
}

/// Uses of A's schema by name, and of its relations by number.
const USES: &[&str] = &[
    "SELECT * FROM tenant_a.contacts",
    "TABLE tenant_a.contacts",
    "SELECT 1 FROM tenant_a.contacts WHERE false",
    "SELECT count(*) FROM ONLY tenant_a.contacts",
    "SELECT * FROM tenant_a.contacts TABLESAMPLE SYSTEM (100)",
    "SELECT * FROM tenant_a.contacts FOR UPDATE",
    "SELECT (SELECT min(name) FROM tenant_a.contacts)",
    "WITH c AS (SELECT * FROM tenant_a.contacts) SELECT 1 FROM c",
    "SELECT 1 WHERE EXISTS (SELECT FROM tenant_a.contacts)",
    "SELECT c FROM tenant_a.contacts c, LATERAL (SELECT c.name) n",
    "INSERT INTO tenant_a.contacts (name) VALUES ('x')",
    "INSERT INTO tenant_a.contacts (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'x'",
    "UPDATE tenant_a.contacts SET name = 'x'",
    "DELETE FROM tenant_a.contacts",
    "MERGE INTO tenant_a.contacts c USING (VALUES (1)) v (id) ON c.id = v.id WHEN MATCHED THEN DELETE",
    "TRUNCATE tenant_a.notes",
    "TRUNCATE tenant_a.contacts CASCADE",
    "BEGIN; LOCK TABLE tenant_a.contacts IN ACCESS SHARE MODE",
    "COPY tenant_a.contacts TO STDOUT",
    "COPY (SELECT * FROM tenant_a.contacts) TO STDOUT",
    "EXPLAIN SELECT * FROM tenant_a.contacts",
    "EXPLAIN SELECT * FROM tenant_a.contacts WHERE name < 'secret of tenant_a 5'",
    "EXPLAIN (ANALYZE) SELECT * FROM tenant_a.contacts",
    "EXPLAIN (ANALYZE) DELETE FROM tenant_a.contacts",
    "SELECT * FROM tenant_a.names",
    "SELECT tenant_a.how_many()",
    "SELECT tenant_a.answer()",
    "SELECT * FROM tenant_a.answer()",
    "SELECT tenant_a.next_number()",
    "SELECT 'glad'::tenant_a.mood",
    "SELECT NULL::tenant_a.contacts",
    "SELECT enum_range(NULL::tenant_a.mood)",
    "SELECT 1::bigint OPERATOR(tenant_a.<+>) 2::bigint",
    "SELECT nextval('tenant_a.contacts_id_seq')",
    "SELECT nextval('tenant_a.notes_id_seq'::regclass)",
    "SELECT nextval('tenant_a.contacts_id_seq'::text)",
    "SELECT setval('tenant_a.contacts_id_seq', 1000)",
    "SELECT setval('tenant_a.contacts_id_seq', 1000, false)",
    "SELECT last_value FROM tenant_a.contacts_id_seq",
    "SELECT nextval($contacts_id_seq::oid::regclass)",
    "SELECT nextval('$contacts_id_seq')",
    "SELECT nextval($contacts_id_seq)",
    "SELECT nextval(($contacts_id_seq + length(current_user) - length(current_user))::oid)",
    "SELECT nextval(s) FROM (SELECT $contacts_id_seq::oid::regclass AS s OFFSET 0) q",
    "SELECT * FROM nextval($contacts_id_seq)",
    "SELECT * FROM (VALUES (nextval($contacts_id_seq))) v",
    "SELECT 1 LIMIT nextval($contacts_id_seq)",
    "SELECT 1 WHERE nextval($contacts_id_seq) > 0",
    "SELECT max(nextval($contacts_id_seq)) OVER () FROM generate_series(1, 2)",
    "SELECT array_agg(nextval($contacts_id_seq)) FILTER (WHERE nextval($contacts_id_seq) > 0)",
    "SELECT CASE WHEN true THEN nextval($contacts_id_seq) END",
    "WITH n AS MATERIALIZED (SELECT nextval($contacts_id_seq)) TABLE n",
    "SELECT count(*) FROM generate_series(1, nextval($contacts_id_seq) - nextval($contacts_id_seq) + 2)",
    "SELECT setval($contacts_id_seq, 1)",
    "SELECT setval($contacts_id_seq, 1, false)",
    "SELECT (SELECT setval($contacts_id_seq, 1))",
    "SELECT to_regclass('tenant_a.contacts')",
    "SELECT 'tenant_a.contacts'::regclass",
    "SELECT 'tenant_a.answer'::regproc",
    "SELECT to_regtype('tenant_a.mood')",
    "SELECT has_table_privilege('tenant_a.contacts', 'SELECT')",
    "SELECT pg_relation_size('tenant_a.contacts')",
    "SELECT query_to_xml('SELECT * FROM tenant_a.contacts', true, false, '')",
    "SELECT table_to_xml('tenant_a.contacts', true, false, '')",
    "SELECT table_to_xml($contacts, true, false, '')",
    "SELECT schema_to_xml('tenant_a', true, false, '')",
    "SELECT * FROM ts_stat('SELECT words FROM tenant_a.contacts')",
    "BEGIN; DECLARE c CURSOR FOR SELECT * FROM tenant_a.contacts; FETCH ALL c",
    "PREPARE p AS SELECT * FROM tenant_a.contacts; EXECUTE p; DEALLOCATE p",
    "DO $x$ BEGIN EXECUTE 'SELECT * FROM tenant_a.contacts'; END $x$",
    "DO $x$ BEGIN PERFORM * FROM tenant_a.contacts; END $x$",
    "DO $x$ DECLARE n bigint := nextval($contacts_id_seq); BEGIN END $x$",
    "DO $x$ BEGIN PERFORM setval($contacts_id_seq, 1); END $x$",
    "CREATE TEMP TABLE t AS SELECT * FROM tenant_a.contacts; DROP TABLE t",
    "CREATE TEMP VIEW t AS SELECT * FROM tenant_a.contacts; DROP VIEW t",
    "CREATE TEMP TABLE t (LIKE tenant_a.contacts); DROP TABLE t",
];

#[test]
fn a_tenants_schema_is_for_that_tenant_alone() {
    let mut house = House::new("schema_alone");
    for statement in USES {
        house.is_for_a_alone(statement);
    }
}

#[test]
fn copy_in_reaches_the_own_schema_alone() {
    let house = House::new("schema_copy");
    for (tenant, allowed) in [(Some(house.a), true), (Some(house.b), false), (None, false)] {
        for into in ["tenant_a.contacts (name)", "tenant_a.notes (body)"] {
            let mut app = house.database.connect("app");
            let mut transaction = app.transaction().expect("begin");
            if let Some(tenant) = tenant {
                bind(&mut transaction, tenant);
            }
            let copied = copy_in(&mut transaction, &format!("COPY {into} FROM STDIN"), "one\ntwo\n");
            if allowed {
                assert_eq!(copied.expect("copy in"), 2, "serial and identity columns take numbers of A's");
            } else {
                is_about_schemas(into, &fails(copied, "42501"));
            }
        }
    }
}

/// Statements without a schema's name, which the bound tenant's search_path finds; each gives a value.
const OWN: &[(&str, &str)] = &[
    ("SELECT count(*) FROM contacts", "100"),
    ("INSERT INTO contacts (name) VALUES ('x') RETURNING id", "101"),
    ("INSERT INTO notes (contact) VALUES (1) RETURNING id", "11"),
    ("WITH n AS (INSERT INTO contacts (name) VALUES ('x'), ('y') RETURNING id) SELECT max(id) FROM n", "102"),
    ("SELECT nextval('contacts_id_seq')", "101"),
    ("SELECT setval('contacts_id_seq', 500)", "500"),
    ("SELECT setval('contacts_id_seq', 500, false)", "500"),
    ("SELECT nextval('contacts_id_seq') + currval('contacts_id_seq') + lastval()", "303"),
    ("SELECT nextval(pg_get_serial_sequence('contacts', 'id'))", "101"),
    ("SELECT next_number()", "101"),
    ("SELECT how_many()", "100"),
    ("SELECT answer()", "secret of tenant_a"),
    ("SELECT 1::bigint <+> 2::bigint", "3"),
    ("SELECT 'sad'::mood", "sad"),
    ("SELECT count(*) FROM names", "100"),
    ("DELETE FROM contacts WHERE id = 1 RETURNING id", "1"),
    ("UPDATE contacts SET name = 'x' WHERE id = 2 RETURNING id", "2"),
    ("SELECT count(*) FROM contacts c JOIN notes n ON n.contact = c.id", "10"),
];

#[test]
fn in_its_own_schema_everything_works() {
    let mut house = House::new("schema_own");
    for (statement, expected) in OWN {
        let mut superuser = house.database.superuser();
        superuser
            .batch_execute("SELECT setval('tenant_a.contacts_id_seq', 100), setval('tenant_a.notes_id_seq', 10)")
            .unwrap();
        let mut transaction = house.app.transaction().expect("begin");
        bind(&mut transaction, house.a);
        assert_eq!(text(&mut transaction, statement), *expected, "{statement}");
        let prepared = transaction.prepare(statement).expect(statement);
        for _ in 0..7 {
            let mut savepoint = transaction.transaction().expect("savepoint");
            savepoint.query(&prepared, &[]).expect(statement);
            savepoint.rollback().expect("roll back");
        }
    }
}

#[test]
fn errors_of_a_tenants_own_tables_keep_every_field() {
    let mut house = House::new("schema_errors");
    let unique = refused_as(
        &mut house.app,
        house.a,
        "INSERT INTO contacts (name, email) VALUES ('x', '1@example.com')",
        "23505",
    );
    assert_eq!(
        (unique.schema(), unique.table(), unique.constraint()),
        (Some("tenant_a"), Some("contacts"), Some("contacts_email_key"))
    );
    assert!(unique.detail().is_some());
    let foreign = refused_as(&mut house.app, house.a, "INSERT INTO notes (contact) VALUES (-1)", "23503");
    assert_eq!((foreign.table(), foreign.constraint()), (Some("notes"), Some("notes_contact_fkey")));
    let null = refused_as(&mut house.app, house.a, "INSERT INTO contacts (name) VALUES (NULL)", "23502");
    assert_eq!((null.table(), null.column()), (Some("contacts"), Some("name")));
    let position = refused_as(&mut house.app, house.a, "SELECT nothing FROM contacts", "42703");
    assert!(position.position().is_some());
    let context =
        refused_as(&mut house.app, house.a, "DO $$ BEGIN PERFORM nextval('contacts_id_seq') / 0; END $$", "22012");
    assert!(context.where_().is_some(), "{context:?}");
}

/// What runs under A and is kept by the session, then runs under B and unbound, with A's search_path forged.
#[test]
fn plans_made_under_one_tenant_serve_no_other() {
    let house = House::new("schema_plans");
    house.as_superuser(
        "CREATE FUNCTION public.tally() RETURNS bigint LANGUAGE plpgsql AS
            $$DECLARE n bigint; BEGIN SELECT count(*) INTO n FROM contacts WHERE name LIKE 'secret of tenant_a%'; RETURN n; END$$;
         CREATE FUNCTION public.take() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RETURN nextval('contacts_id_seq'); END$$;
         CREATE FUNCTION public.tell() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN answer(); END$$",
    );
    let kept = [
        "SELECT count(*) FROM tenant_a.contacts WHERE name LIKE 'secret of tenant_a%'",
        "SELECT count(*) FROM contacts WHERE name LIKE 'secret of tenant_a%'",
        "SELECT nextval('contacts_id_seq') > 100000",
        "SELECT answer() = 'secret of tenant_a'",
        "SELECT public.tally()",
        "SELECT public.take() > 100000",
        "SELECT public.tell() = 'secret of tenant_a'",
    ];
    house.as_superuser("SELECT setval('tenant_a.contacts_id_seq', 200000)");
    let mut app = house.database.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, house.a);
    let path = text(&mut transaction, "SHOW search_path");
    let mut statements = Vec::new();
    for (place, sql) in kept.iter().enumerate() {
        transaction.batch_execute(&format!("PREPARE kept_{place} AS {sql}")).expect(sql);
        let statement = transaction.prepare(sql).expect(sql);
        for _ in 0..7 {
            transaction.query(&statement, &[]).expect(sql);
            transaction.batch_execute(&format!("EXECUTE kept_{place}")).expect(sql);
        }
        statements.push(statement);
    }
    transaction.commit().expect("commit");
    let before = house.everything();
    for tenant in [Some(house.b), None] {
        for forged in [false, true] {
            for (place, statement) in statements.iter().enumerate() {
                for by_name in [false, true] {
                    let mut transaction = app.transaction().expect("begin");
                    if let Some(tenant) = tenant {
                        bind(&mut transaction, tenant);
                    }
                    if forged {
                        transaction.execute("SELECT set_config('search_path', $1, true)", &[&path]).expect("forge");
                    }
                    let answer = if by_name {
                        transaction.simple_query(&format!("EXECUTE kept_{place}")).map(|answer| {
                            let value = answer.iter().find_map(|message| match message {
                                postgres::SimpleQueryMessage::Row(row) => row.get(0),
                                _ => None,
                            });
                            value.expect("a value").to_owned()
                        })
                    } else {
                        transaction.query_one(statement, &[]).map(|row| {
                            row.try_get::<_, i64>(0)
                                .map(|n| n.to_string())
                                .unwrap_or_else(|_| row.get::<_, bool>(0).to_string())
                        })
                    };
                    match answer {
                        // B's own, found by its own path.
                        Ok(answer) => {
                            assert!(["0", "false", "f"].contains(&answer.as_str()), "{}: {answer}", kept[place])
                        }
                        Err(error) => {
                            let code = error.as_db_error().expect("an error of the server").code().code().to_owned();
                            assert!(
                                ["42501", "42P01", "42883", "3F000"].contains(&code.as_str()),
                                "{}: {error:?}",
                                kept[place]
                            );
                        }
                    }
                }
            }
        }
    }
    assert_eq!(house.everything(), before);
}

#[test]
fn a_search_path_set_under_one_tenant_finds_nothing_under_another() {
    let house = House::new("schema_paths");
    let statements = [
        "SELECT * FROM contacts",
        "LOCK TABLE contacts IN ACCESS SHARE MODE",
        "SELECT nextval('contacts_id_seq')",
        "SELECT setval('contacts_id_seq', 1)",
        "SELECT 'contacts'::regclass",
        "SELECT 'sad'::mood",
        "SELECT answer()",
        "SELECT how_many()",
        "SELECT 1::bigint <+> 2::bigint",
        "TRUNCATE notes",
        "COPY contacts TO STDOUT",
        "EXPLAIN SELECT * FROM contacts",
        "SELECT query_to_xml('SELECT * FROM contacts', true, false, '')",
    ];
    let before = house.everything();
    for set in [
        "SET search_path = tenant_a",
        "SET search_path = tenant_a, public",
        "SELECT set_config('search_path', 'tenant_a', false)",
    ] {
        let mut app = house.database.connect("app");
        within(&mut app, house.a, |transaction| {
            transaction.batch_execute(set).expect(set);
            transaction.batch_execute("SELECT * FROM contacts; SELECT answer()").expect("bound, it is found");
        });
        for statement in statements {
            let result = app.batch_execute(&format!("BEGIN; {statement}"));
            let code = result.err().and_then(|error| error.as_db_error().map(|fault| fault.code().code().to_owned()));
            assert!(matches!(code.as_deref(), Some("42P01" | "42883" | "42704")), "{set}; {statement}: {code:?}");
            app.batch_execute("ROLLBACK").expect("roll back");
            let mut transaction = app.transaction().expect("begin");
            enter(&mut transaction, house.b);
            transaction.batch_execute("SET LOCAL search_path = tenant_a").expect("set");
            let code = transaction
                .batch_execute(statement)
                .err()
                .and_then(|error| error.code().map(|code| code.code().to_owned()));
            assert!(matches!(code.as_deref(), Some("42P01" | "42883" | "42704")), "{statement}: {code:?}");
        }
        // Bound again, it is found again.
        within(&mut app, house.a, |transaction| {
            transaction.batch_execute("SET LOCAL search_path = tenant_a; SELECT * FROM contacts").expect("bound again");
        });
    }
    // Paths of roles, of functions, of the connection.
    house.as_superuser(
        "CREATE FUNCTION public.peek() RETURNS bigint LANGUAGE plpgsql SET search_path = tenant_a AS
            $$BEGIN RETURN (SELECT count(*) FROM contacts); END$$;
         CREATE FUNCTION public.peek_sql() RETURNS text LANGUAGE sql SET search_path = tenant_a AS $$SELECT body FROM notes LIMIT 1$$",
    );
    let mut app = house
        .database
        .connect_with("app", |config| {
            config.options("-c search_path=tenant_a");
        })
        .expect("connect");
    for statement in ["SELECT * FROM contacts", "SELECT public.peek()", "SELECT public.peek_sql()"] {
        let code = app.batch_execute(statement).err().and_then(|error| error.code().map(|code| code.code().to_owned()));
        assert_eq!(code.as_deref(), Some("42P01"), "{statement}");
    }
    within(&mut app, house.a, |transaction| {
        assert_eq!(text(transaction, "SELECT public.peek()"), "100");
        assert_eq!(text(transaction, "SELECT public.peek_sql()"), "note of tenant_a");
    });
    assert_eq!(house.everything(), before);
}

#[test]
fn binding_sets_the_search_path_for_as_long_as_it_lasts() {
    let house = House::new("schema_bind_path");
    let row = harness::tenant(&mut house.database.connect("operator"));
    let mut app = house.database.connect("app");
    app.batch_execute("SET search_path = public, pg_catalog").expect("set");
    let own = "public, pg_catalog";
    let path = |session: &mut Transaction| text(session, "SHOW search_path");

    let mut transaction = app.transaction().expect("begin");
    assert_eq!(path(&mut transaction), own);
    let mut savepoint = transaction.transaction().expect("savepoint");
    bind(&mut savepoint, house.a);
    assert_eq!(path(&mut savepoint), r#""tenant_a", "public""#);
    savepoint.rollback().expect("roll back");
    assert_eq!(path(&mut transaction), own, "a savepoint's rollback undoes both");
    bind(&mut transaction, house.a);
    assert_eq!(text(&mut transaction, "SELECT count(*) FROM contacts"), "100");
    text(&mut transaction, "SELECT clear_tenant()");
    assert_eq!(path(&mut transaction), own);
    bind(&mut transaction, house.a);
    bind(&mut transaction, house.a);
    text(&mut transaction, "SELECT clear_tenant()");
    assert_eq!(path(&mut transaction), own);
    bind(&mut transaction, house.a);
    transaction.commit().expect("commit");
    assert_eq!(text(&mut app, "SHOW search_path"), own, "it ends with the transaction");

    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, row);
    assert_eq!(path(&mut transaction), own, "a row tenant's is untouched");
    drop(transaction);

    let mut admin = house.database.connect("admin");
    let mut transaction = admin.transaction().expect("begin");
    for (tenant, expected) in [
        (house.a, r#""tenant_a", "public""#),
        (house.b, r#""tenant_b", "public""#),
        (row, r#""$user", public"#),
        (house.a, r#""tenant_a", "public""#),
    ] {
        one::<Uuid>(&mut transaction, "SELECT rebind_tenant($1)", &[&tenant]);
        assert_eq!(path(&mut transaction), expected);
    }
    text(&mut transaction, "SELECT clear_tenant()");
    assert_eq!(path(&mut transaction), r#""$user", public"#);
}

#[test]
fn the_extensions_own_schema_is_on_the_path() {
    let database = Database::new("schema_elsewhere");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(r#"DROP EXTENSION pg_tenancy CASCADE; CREATE SCHEMA "the ""house"; CREATE EXTENSION pg_tenancy SCHEMA "the ""house";
            SELECT "the ""house".grant_access('app', 'app')"#)
        .expect("install elsewhere");
    let tenant: Uuid = one(&mut superuser, r#"SELECT "the ""house".create_tenant('x')"#, &[]);
    make_schema(&mut superuser, "tenant_a");
    label_schema(&mut superuser, "tenant_a", Some(tenant));
    let mut app = database.connect("app");
    let mut paths = Vec::new();
    for rename in ["", r#"ALTER SCHEMA "the ""house" RENAME TO other"#] {
        superuser.batch_execute(rename).expect("rename");
        let mut transaction = app.transaction().expect("begin");
        let schema = if rename.is_empty() { r#""the ""house""# } else { "other" };
        text(&mut transaction, &format!("SELECT {schema}.set_tenant('{tenant}')"));
        text(&mut transaction, "SELECT current_tenant()");
        paths.push(text(&mut transaction, "SHOW search_path"));
    }
    assert_eq!(paths, [r#""tenant_a", "the ""house", "public""#, r#""tenant_a", "other", "public""#]);
}

#[test]
fn a_tenant_without_its_schema_is_not_bound_and_one_in_a_database_of_its_own_has_no_tables() {
    let mut house = House::new("schema_none");
    let mut superuser = house.database.superuser();
    superuser.execute("UPDATE tenancy.tenants SET schema_name = NULL WHERE id = $1", &[&house.a]).expect("update");
    superuser
        .execute("UPDATE tenancy.tenants SET schema_name = NULL, isolation = 'database' WHERE id = $1", &[&house.b])
        .expect("update");
    let fault = fails(house.app.query("SELECT set_tenant($1)", &[&house.a]), "55000");
    assert!(fault.hint().is_some_and(|hint| hint.contains("create_tenant_schema()")), "{fault:?}");
    let mut transaction = house.app.transaction().expect("begin");
    text(&mut transaction, &format!("SELECT set_tenant('{}')", house.b));
    let fault = fails(transaction.query("SELECT * FROM tenant_b.contacts", &[]), "55000");
    assert!(fault.message().contains("database of its own"), "{fault:?}");
    drop(transaction);
    assert_eq!(text(&mut house.app, "SELECT current_tenant_or_null() IS NULL"), "t");
}

#[test]
fn a_pooled_session_remembers_no_other_tenants_sequences() {
    let mut house = House::new("schema_lastval");
    let number = house.oid("tenant_a.contacts_id_seq");
    for statement in [
        "SELECT lastval()".to_owned(),
        format!("SELECT currval({number})"),
        "SELECT currval('contacts_id_seq')".to_owned(),
    ] {
        for by_copy in [false, true] {
            as_tenant(&mut house.app, house.a, |transaction| {
                if by_copy {
                    copy_in(transaction, "COPY contacts (name) FROM STDIN", "x\n").expect("copy");
                } else {
                    transaction.batch_execute("INSERT INTO contacts (name) VALUES ('x')").expect("insert");
                }
                text(transaction, &statement);
            });
            let code = fails_with(&mut house.app, &statement);
            assert!(["55000", "42P01"].contains(&code.as_str()), "unbound, {statement}: {code}");
            as_tenant(&mut house.app, house.a, |transaction| {
                transaction.batch_execute("INSERT INTO contacts (name) VALUES ('x')").expect("insert");
            });
            refused_as(&mut house.app, house.b, &statement, "55000");
        }
    }
}

#[track_caller]
fn fails_with(session: &mut Client, statement: &str) -> String {
    match session.batch_execute(statement) {
        Ok(()) => panic!("succeeded: {statement}"),
        Err(error) => error.code().expect("an error of the server").code().to_owned(),
    }
}

#[test]
fn statistics_of_all_schemas_are_closed_where_tenants_have_schemas() {
    let mut house = House::new("schema_statistics");
    house.as_superuser(
        "CREATE VIEW public.stats AS SELECT most_common_vals::text FROM pg_stats; GRANT SELECT ON stats TO app, client",
    );
    let views =
        ["pg_stats", "pg_stats_ext", "pg_stats_ext_exprs", "pg_sequences", "pg_catalog.pg_stats", "public.stats"];
    for view in views {
        let statement = format!("SELECT * FROM {view}");
        for tenant in [house.a, house.b] {
            let fault = refused_as(&mut house.app, tenant, &statement, "42501");
            assert!(fault.hint().is_some(), "{fault:?}");
        }
        fails(house.app.batch_execute(&statement), "42501");
        fails(house.database.connect("owner").batch_execute(&statement), "42501");
        house.database.superuser().batch_execute(&statement).expect("for those who bypass");
    }
    house.as_superuser("SELECT allow_definer('public.stats', 'a test')");
    house.app.batch_execute("SELECT * FROM public.stats").expect("exempt");
    house.as_superuser("SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS NULL; SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_b IS NULL;
        SECURITY LABEL FOR pg_tenancy ON SCHEMA template_t IS NULL");
    house.app.batch_execute("SELECT * FROM pg_stats").expect("no tenant has a schema");
}

/// Ways to reach nextval and setval that no plan shows, each with a statement that prepares it.
const UNSEEN: &[(&str, &str)] = &[
    ("PREPARE p (bigint) AS SELECT $1", "EXECUTE p(nextval($contacts_id_seq))"),
    ("CREATE PROCEDURE pg_temp.p(n bigint) LANGUAGE sql AS 'SELECT n'", "CALL pg_temp.p(nextval($contacts_id_seq))"),
    ("CREATE OPERATOR pg_temp.!! (FUNCTION = pg_catalog.nextval, RIGHTARG = regclass)", "SELECT OPERATOR(pg_temp.!!) $contacts_id_seq::oid::regclass"),
    (
        "CREATE OPERATOR pg_temp.!! (FUNCTION = pg_catalog.setval, LEFTARG = regclass, RIGHTARG = bigint)",
        "SELECT $contacts_id_seq::oid::regclass OPERATOR(pg_temp.!!) 1",
    ),
    (
        "CREATE FUNCTION pg_temp.keep(regclass, int) RETURNS regclass LANGUAGE sql AS 'SELECT $1';
         CREATE AGGREGATE pg_temp.agg(int) (SFUNC = pg_temp.keep, STYPE = regclass, INITCOND = '$contacts_id_seq', FINALFUNC = pg_catalog.nextval)",
        "SELECT pg_temp.agg(1)",
    ),
    ("CREATE TEMP TABLE t (a int, n bigint DEFAULT nextval($contacts_id_seq::oid::regclass))", "INSERT INTO t (a) VALUES (1)"),
    ("CREATE DOMAIN pg_temp.d AS bigint CHECK (nextval($contacts_id_seq::oid::regclass) > value)", "SELECT 0::pg_temp.d"),
    (
        "CREATE FUNCTION pg_temp.f(n bigint DEFAULT nextval($contacts_id_seq::oid::regclass)) RETURNS bigint LANGUAGE sql AS 'SELECT n'",
        "SELECT pg_temp.f()",
    ),
    ("CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql AS 'SELECT NextVal($contacts_id_seq)'", "SELECT pg_temp.f()"),
    (r#"CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql AS 'SELECT U&"next\0076al"($contacts_id_seq)'"#, "SELECT pg_temp.f()"),
    ("CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql RETURN nextval($contacts_id_seq)", "SELECT pg_temp.f()"),
    ("CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT setval($contacts_id_seq, 1); END", "SELECT pg_temp.f()"),
    ("CREATE FUNCTION pg_temp.f() RETURNS SETOF bigint LANGUAGE sql AS 'SELECT nextval($contacts_id_seq)'", "SELECT * FROM pg_temp.f()"),
    ("CREATE FUNCTION pg_temp.f() RETURNS SETOF bigint LANGUAGE sql STABLE AS 'SELECT nextval($contacts_id_seq)'", "SELECT * FROM pg_temp.f()"),
    ("CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN nextval($contacts_id_seq); END'", "SELECT pg_temp.f()"),
    ("CREATE TEMP VIEW v AS SELECT nextval($contacts_id_seq)", "TABLE v"),
    ("CREATE TEMP TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO INSTEAD SELECT nextval($contacts_id_seq)", "INSERT INTO t VALUES (1)"),
    ("CREATE TEMP TABLE t (a int, CHECK (nextval($contacts_id_seq) > 0))", "INSERT INTO t VALUES (1)"),
    ("SELECT 1", "SELECT pg_sequence_last_value($contacts_id_seq)"),
    ("PREPARE p AS SELECT nextval($contacts_id_seq)", "EXECUTE p"),
    ("PREPARE p (oid) AS SELECT nextval($1)", "EXECUTE p($contacts_id_seq)"),
];

#[test]
fn a_sequence_is_closed_by_whatever_way_it_is_reached() {
    let house = House::new("schema_sequences");
    for (prepare, statement) in UNSEEN {
        let (prepare, statement) = (&house.with_oids(prepare), &house.with_oids(statement));
        let before = house.everything();
        for tenant in [Some(house.b), None] {
            let mut app = house.database.connect("app");
            app.batch_execute(prepare).expect(prepare);
            let mut transaction = app.transaction().expect("begin");
            if let Some(tenant) = tenant {
                bind(&mut transaction, tenant);
            }
            is_about_schemas(statement, &fails(transaction.batch_execute(statement), "42501"));
        }
        assert_eq!(house.everything(), before, "{statement}");
    }
}

#[test]
fn copy_takes_numbers_of_lasting_tables_alone() {
    let house = House::new("schema_copy_numbers");
    house.as_superuser(
        "CREATE TABLE public.counted (id serial, a int); CREATE TABLE public.taken (id bigint DEFAULT nextval('tenant_a.contacts_id_seq'), a int);
         GRANT ALL ON counted, taken TO app; GRANT ALL ON SEQUENCE counted_id_seq TO app",
    );
    let before = house.everything();
    let temporary =
        house.with_oids("CREATE TEMP TABLE own (id bigint DEFAULT nextval($contacts_id_seq::oid::regclass), a int)");
    for tenant in [Some(house.b), None] {
        let mut app = house.database.connect("app");
        app.batch_execute(&temporary).expect("make a table");
        for (into, allowed) in
            [("public.counted (a)", true), ("public.taken (a)", false), ("own (a)", false), ("pg_temp.own (a)", false)]
        {
            let mut transaction = app.transaction().expect("begin");
            if let Some(tenant) = tenant {
                bind(&mut transaction, tenant);
            }
            let copied = copy_in(&mut transaction, &format!("COPY {into} FROM STDIN"), "1\n2\n");
            if allowed {
                assert_eq!(copied.expect("copy in"), 2);
                transaction.batch_execute("INSERT INTO public.counted (a) VALUES (1), (2)").expect("insert");
            } else {
                fails(copied, "42501");
                drop(transaction);
                app = house.database.connect("app");
                app.batch_execute(&temporary).expect("make a table");
            }
        }
    }
    assert_eq!(house.everything(), before);
}

#[test]
fn the_protocols_function_call_reaches_no_foreign_sequence() {
    let house = House::new("schema_fastpath");
    let own = text(&mut house.database.superuser(), "SELECT 'tenant_b.contacts_id_seq'::regclass::oid");
    let (foreign, before) = (house.oid("tenant_a.contacts_id_seq"), house.everything());
    let mut wire = Wire::open(house.database.server().port(), "app", house.database.name(), &[]).expect("connect");
    for bound in [false, true] {
        for (function, arguments) in [
            (1574, vec![foreign.as_str()]),
            (1576, vec![&foreign, "1"]),
            (1765, vec![&foreign, "1", "t"]),
            (1574, vec![&own]),
        ] {
            wire.run(&if bound { format!("BEGIN; SELECT set_tenant('{}')", house.b) } else { "BEGIN".to_owned() });
            let refusal = wire.call(function, &arguments).expect_err("refused");
            assert!(refusal.contains("42501"), "{function}: {refusal}");
            wire.run("ROLLBACK");
        }
    }
    assert_eq!(house.everything(), before);
}

/// Objects outside A's schema that reach into it, made by `owner` or the superuser, and what app calls. None is exempt.
const DETOURS: &[(&str, &str)] = &[
    ("CREATE VIEW public.d AS SELECT * FROM tenant_a.contacts", "SELECT * FROM public.d"),
    ("CREATE VIEW public.d WITH (security_barrier) AS SELECT * FROM tenant_a.contacts", "SELECT * FROM public.d"),
    ("CREATE VIEW public.d WITH (security_invoker) AS SELECT * FROM tenant_a.contacts", "SELECT * FROM public.d"),
    ("CREATE VIEW public.d AS SELECT name FROM tenant_a.names", "SELECT * FROM public.d"),
    ("CREATE VIEW public.d AS SELECT * FROM tenant_a.contacts", "INSERT INTO public.d (name) VALUES ('x')"),
    ("CREATE VIEW public.d AS SELECT * FROM tenant_a.contacts", "UPDATE public.d SET name = 'x'"),
    ("CREATE VIEW public.d AS SELECT * FROM tenant_a.contacts", "DELETE FROM public.d"),
    ("CREATE VIEW public.d AS SELECT * FROM tenant_a.contacts", "EXPLAIN SELECT * FROM public.d"),
    ("CREATE VIEW public.d AS SELECT nextval('tenant_a.contacts_id_seq')", "SELECT * FROM public.d"),
    ("CREATE VIEW public.d AS SELECT tenant_a.answer()", "SELECT * FROM public.d"),
    ("CREATE VIEW public.d AS SELECT 1::bigint OPERATOR(tenant_a.<+>) 2::bigint", "SELECT * FROM public.d"),
    ("CREATE VIEW public.d AS SELECT last_value FROM tenant_a.contacts_id_seq", "SELECT * FROM public.d"),
    (
        "CREATE FUNCTION public.d() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM tenant_a.contacts'",
        "SELECT public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS bigint SECURITY DEFINER LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM tenant_a.contacts; END",
        "SELECT public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS SETOF tenant_a.contacts LANGUAGE sql STABLE AS 'SELECT * FROM tenant_a.contacts'",
        "SELECT * FROM public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN DELETE FROM tenant_a.notes; END'",
        "SELECT public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN TRUNCATE tenant_a.notes; END'",
        "SELECT public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN LOCK TABLE tenant_a.notes; END'",
        "SELECT public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS $$SELECT nextval('tenant_a.contacts_id_seq')$$",
        "SELECT public.d()",
    ),
    (
        "CREATE PROCEDURE public.d() SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN UPDATE tenant_a.contacts SET name = NULL; END'",
        "CALL public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS bigint SECURITY DEFINER SET search_path = tenant_a LANGUAGE plpgsql AS
            'BEGIN EXECUTE $x$DROP TABLE tenant_a.notes$x$; RETURN 1; END'",
        "SELECT public.d()",
    ),
    (
        "CREATE FUNCTION public.d() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS $$BEGIN DROP SCHEMA tenant_a CASCADE; END$$",
        "SELECT public.d()",
    ),
    (
        "CREATE TABLE public.d (a int); CREATE FUNCTION public.t() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS
            'BEGIN PERFORM * FROM tenant_a.contacts; RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON public.d FOR EACH ROW EXECUTE FUNCTION public.t()",
        "INSERT INTO public.d VALUES (1)",
    ),
    (
        "CREATE TABLE public.d (a bigint DEFAULT nextval('tenant_a.contacts_id_seq'), b int)",
        "INSERT INTO public.d (b) VALUES (1)",
    ),
    (
        "CREATE TABLE public.d (a int); CREATE RULE r AS ON INSERT TO public.d DO ALSO DELETE FROM tenant_a.notes",
        "INSERT INTO public.d VALUES (1)",
    ),
    (
        "CREATE TABLE public.d (a int); ALTER TABLE public.d ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON public.d USING (a IN (SELECT id FROM tenant_a.contacts))",
        "SELECT * FROM public.d",
    ),
    ("CREATE TABLE public.d (a int); CREATE TABLE tenant_a.child () INHERITS (public.d)", "SELECT * FROM public.d"),
    ("CREATE TABLE public.d (a int); CREATE TABLE tenant_a.child () INHERITS (public.d)", "UPDATE public.d SET a = 1"),
    ("CREATE TABLE public.d (a int); CREATE TABLE tenant_a.child () INHERITS (public.d)", "TRUNCATE public.d"),
    (
        "CREATE TABLE public.d (a int) PARTITION BY LIST (a); CREATE TABLE tenant_a.child PARTITION OF public.d FOR VALUES IN (1)",
        "SELECT * FROM public.d",
    ),
    (
        "CREATE TABLE public.d (a int) PARTITION BY LIST (a); CREATE TABLE tenant_a.child PARTITION OF public.d FOR VALUES IN (1)",
        "INSERT INTO public.d VALUES (1)",
    ),
    (
        "CREATE TABLE public.d (a int, b int) PARTITION BY LIST (a); CREATE TABLE public.e PARTITION OF public.d FOR VALUES IN (1, 2)
            PARTITION BY LIST (b); CREATE TABLE tenant_a.child PARTITION OF public.e FOR VALUES IN (1)",
        "INSERT INTO public.d VALUES (1, 1)",
    ),
    (
        "CREATE TABLE public.d (a int PRIMARY KEY); INSERT INTO public.d VALUES (1);
         ALTER TABLE tenant_a.notes ADD d int DEFAULT 1 REFERENCES public.d ON DELETE CASCADE",
        "DELETE FROM public.d",
    ),
    (
        "CREATE TABLE public.d (a int PRIMARY KEY); INSERT INTO public.d VALUES (1); ALTER TABLE tenant_a.notes ADD d int DEFAULT 1 REFERENCES public.d",
        "DELETE FROM public.d",
    ),
];

#[test]
fn no_object_outside_leads_into_a_foreign_schema() {
    for (owner, label) in [("owner", "schema_detour_owner"), ("postgres", "schema_detour_super")] {
        let mut house = House::new(label);
        for (create, statement) in DETOURS {
            let before = house.everything();
            let mut superuser = house.database.superuser();
            // Made while the schema is not A's, since an owner is guarded as well.
            let make = format!(
                "BEGIN; SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS NULL; SET LOCAL ROLE {owner}; {create};
                 GRANT ALL ON ALL TABLES IN SCHEMA public TO app, client; RESET ROLE;
                 GRANT ALL ON ALL TABLES IN SCHEMA tenant_a TO app, client;
                 SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS 'tenant: {}'; COMMIT",
                house.a
            );
            superuser.batch_execute(&make).expect(create);
            let with_column = house.everything();
            for tenant in [Some(house.b), None] {
                let mut transaction = house.app.transaction().expect("begin");
                if let Some(tenant) = tenant {
                    bind(&mut transaction, tenant);
                }
                is_about_schemas(statement, &fails(transaction.batch_execute(statement), "42501"));
            }
            fails(house.database.connect("client").batch_execute(statement), "42501");
            assert_eq!(house.everything(), with_column, "{create}; {statement}");
            let is_ddl = ["DROP", "TRUNCATE", "LOCK", "NULL;"]
                .iter()
                .any(|word| create.contains(word) || statement.contains(word));
            if !is_ddl {
                let mut transaction = house.app.transaction().expect("begin");
                bind(&mut transaction, house.a);
                let outcome = transaction.batch_execute(statement);
                let code = outcome.as_ref().err().and_then(|error| error.code()).map(|code| code.code());
                assert!(matches!(code, None | Some("23503")), "for A itself, {statement}: {outcome:?}");
            }
            superuser
                .batch_execute(
                    "DO $$ DECLARE o text; BEGIN
                        FOR o IN SELECT CASE prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END || oid::regprocedure FROM pg_proc
                            WHERE pronamespace = 'public'::regnamespace AND proname IN ('d', 't')
                        LOOP EXECUTE 'DROP ' || o || ' CASCADE'; END LOOP; END $$;
                     DO $$ BEGIN IF (SELECT relkind FROM pg_class WHERE oid = to_regclass('public.d')) = 'v' THEN DROP VIEW public.d CASCADE;
                        ELSE DROP TABLE IF EXISTS public.d CASCADE; END IF; END $$;
                     ALTER TABLE tenant_a.notes DROP COLUMN IF EXISTS d; DROP TABLE IF EXISTS tenant_a.child",
                )
                .expect("clean up");
            superuser
                .batch_execute("SELECT setval('tenant_a.contacts_id_seq', 100), setval('tenant_a.notes_id_seq', 10)")
                .expect("reset");
            assert_eq!(house.everything(), before, "{create}");
        }
    }
}

#[test]
fn an_exempt_object_may_use_every_tenants_schema() {
    let house = House::new("schema_exempt");
    house.as_superuser(
        "CREATE VIEW public.all_contacts AS SELECT name FROM tenant_a.contacts UNION ALL SELECT name FROM tenant_b.contacts;
         CREATE FUNCTION public.total() RETURNS bigint SECURITY DEFINER LANGUAGE plpgsql AS
            $$DECLARE n bigint; BEGIN EXECUTE 'SELECT count(*) FROM tenant_a.contacts' INTO n; RETURN n; END$$;
         GRANT SELECT ON all_contacts TO app",
    );
    let mut app = house.database.connect("app");
    let mut admin = house.database.connect("admin");
    for (object, statement, expected) in [
        ("public.all_contacts", "SELECT count(*) FROM all_contacts", "200"),
        ("public.total()", "SELECT total()", "100"),
    ] {
        fails(app.batch_execute(statement), "42501");
        one::<bool>(&mut admin, "SELECT allow_definer($1, 'a test')", &[&object]);
        assert_eq!(text(&mut app, statement), expected, "unbound");
        as_tenant(&mut app, house.b, |transaction| assert_eq!(text(transaction, statement), expected, "bound"));
        one::<bool>(&mut admin, "SELECT disallow_definer($1)", &[&object]);
        fails(app.batch_execute(statement), "42501");
    }
}

/// An operator that tells what it is given, for the planner's estimates to call.
const TELLTALE: &str = "
    CREATE FUNCTION pg_temp.tell(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
        $$BEGIN RAISE NOTICE 'told %', $1; RETURN true; END$$;
    CREATE OPERATOR pg_temp.<~ (FUNCTION = pg_temp.tell, LEFTARG = text, RIGHTARG = text, RESTRICT = scalarltsel);
    CREATE OPERATOR pg_temp.=~ (FUNCTION = pg_temp.tell, LEFTARG = text, RIGHTARG = text, RESTRICT = eqsel)";

#[test]
fn planning_tells_nothing_of_another_tenants_values() {
    let house = House::new("schema_planning");
    house.as_superuser(
        "UPDATE tenant_a.contacts SET mood = 'glad', name = 'secret of tenant_a ' || id % 5; ANALYZE tenant_a.contacts;
         BEGIN; SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS NULL; SET LOCAL ROLE owner;
         CREATE VIEW public.owners AS SELECT * FROM tenant_a.contacts; GRANT SELECT ON public.owners TO app; COMMIT",
    );
    house.as_superuser(&format!("SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS 'tenant: {}'", house.a));
    let (mut app, notices) = house.database.connect_with_notices("app");
    app.batch_execute(TELLTALE).expect("make a telltale");
    let statement =
        |operator| format!("EXPLAIN SELECT * FROM public.owners WHERE name OPERATOR(pg_temp.{operator}) 'x'");
    for operator in ["<~", "=~"] {
        for tenant in [Some(house.b), None] {
            let mut transaction = app.transaction().expect("begin");
            if let Some(tenant) = tenant {
                bind(&mut transaction, tenant);
            }
            fails(transaction.batch_execute(&statement(operator)), "42501");
        }
        let told = notices.take();
        assert!(told.iter().all(|notice| !notice.message().contains("secret")), "{told:?}");
        as_tenant(&mut app, house.a, |transaction| {
            transaction.batch_execute(&statement(operator)).expect("for A itself")
        });
        assert!(notices.contains("secret of tenant_a"), "the test would not notice");
        notices.take();
    }
}

#[test]
fn the_guard_outlives_the_extension() {
    let house = House::new("schema_dropped");
    let mut app = house.database.connect("app");
    as_tenant(&mut app, house.a, |transaction| {
        transaction.batch_execute("PREPARE p AS SELECT * FROM tenant_a.contacts; EXECUTE p").unwrap()
    });
    house.as_superuser("DROP EXTENSION pg_tenancy CASCADE");
    let number = house.oid("tenant_a.contacts_id_seq");
    let mut fresh = house.database.connect("app");
    for session in [&mut app, &mut fresh] {
        for statement in [
            "SELECT * FROM tenant_a.contacts",
            "SELECT nextval('tenant_a.contacts_id_seq')",
            &format!("SELECT nextval({number})"),
            "SELECT tenant_a.answer()",
            "TRUNCATE tenant_a.notes",
            "SELECT * FROM template_t.contacts",
        ] {
            fails(session.batch_execute(statement), "42501");
        }
    }
    fails(app.batch_execute("EXECUTE p"), "42501");
    house.database.superuser().batch_execute("SELECT * FROM tenant_a.contacts").expect("for those who bypass");
}

#[test]
fn a_label_counts_from_the_moment_it_is_committed() {
    let house = House::new("schema_label");
    let mut superuser = house.database.superuser();
    superuser.batch_execute("SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS NULL; SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_b IS NULL;
        SECURITY LABEL FOR pg_tenancy ON SCHEMA template_t IS NULL").expect("no labels");
    let mut app = house.database.connect("app");
    app.batch_execute("SET search_path = tenant_a, public; PREPARE p AS SELECT count(*) FROM contacts; PREPARE q AS SELECT nextval('contacts_id_seq')").expect("prepare");
    for _ in 0..7 {
        app.batch_execute("EXECUTE p; EXECUTE q; SELECT answer()").expect("not a tenant's");
    }
    let label = format!("SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS 'tenant: {}'", house.a);
    // In mid-transaction, with the table's lock held.
    app.batch_execute("BEGIN; EXECUTE p; SAVEPOINT s").expect("read");
    superuser.batch_execute(&label).expect("label");
    for statement in [
        "EXECUTE p",
        "SELECT count(*) FROM tenant_a.contacts",
        "SELECT count(*) FROM contacts",
        "EXECUTE q",
        "SELECT answer()",
    ] {
        let code = fails_with(&mut app, statement);
        assert!(["42501", "42P01", "42883"].contains(&code.as_str()), "{statement}: {code}");
        app.batch_execute("ROLLBACK TO s").expect("roll back");
    }
    app.batch_execute("ROLLBACK").expect("roll back");
    superuser.batch_execute("SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS NULL").expect("no label");
    app.batch_execute("EXECUTE p; EXECUTE q; SELECT answer()").expect("no more a tenant's");
    // A label that is undone was never there, for its own session too.
    superuser.batch_execute(&format!("BEGIN; {label}; ROLLBACK; SET ROLE app")).expect("label and undo");
    superuser.batch_execute("SELECT * FROM tenant_a.contacts").expect("no label");
    superuser.batch_execute(&format!("RESET ROLE; {label}; SET ROLE app")).expect("label");
    fails(superuser.batch_execute("SELECT * FROM tenant_a.contacts"), "42501");
}

#[test]
fn nobody_but_a_superuser_labels_a_schema() {
    let house = House::new("schema_labels");
    for role in ["app", "client", "owner", "operator", "admin"] {
        let mut session = house.database.connect(role);
        for label in ["NULL".to_owned(), "'template: t'".to_owned(), format!("'tenant: {}'", house.b)] {
            let statement = format!("SECURITY LABEL FOR pg_tenancy ON SCHEMA tenant_a IS {label}");
            fails(session.batch_execute(&statement), "42501");
        }
    }
}

#[test]
fn an_owner_is_guarded_and_a_bypassing_role_is_not() {
    let house = House::new("schema_owner");
    house.as_superuser(&format!("GRANT CREATE ON DATABASE {} TO owner", house.database.name()));
    let mut owner = house.database.connect("owner");
    for statement in [
        "SELECT * FROM tenant_a.contacts",
        "DROP TABLE tenant_a.notes",
        "ALTER TABLE tenant_a.contacts ADD x int",
        "CREATE TABLE tenant_a.x (a int)",
        "CREATE OR REPLACE FUNCTION tenant_a.answer() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT 1::text'",
        "CREATE INDEX ON tenant_a.contacts (name)",
        "COMMENT ON TABLE tenant_a.contacts IS 'x'",
        "DROP SCHEMA tenant_a CASCADE",
        "ALTER SCHEMA tenant_a RENAME TO x",
        "VACUUM tenant_a.contacts",
        "GRANT SELECT ON ALL TABLES IN SCHEMA tenant_a TO PUBLIC",
    ] {
        is_about_schemas(statement, &fails(owner.batch_execute(statement), "42501"));
    }
    let fault = fails(owner.batch_execute("DROP OWNED BY owner"), "42501");
    assert!(fault.message().contains("permission denied for schema"), "{fault}");
    owner.batch_execute("CREATE TABLE template_t.x (a int); INSERT INTO template_t.x VALUES (1); SELECT nextval('template_t.contacts_id_seq')")
        .expect("the template is its owner's");
    let mut app = house.database.connect("app");
    for tenant in [Some(house.a), None] {
        let mut transaction = app.transaction().expect("begin");
        if let Some(tenant) = tenant {
            bind(&mut transaction, tenant);
        }
        let fault = fails(transaction.batch_execute("SELECT * FROM template_t.contacts"), "42501");
        assert!(fault.message().contains("template"), "{fault}");
    }
    house.as_superuser("SELECT * FROM tenant_a.contacts; SET search_path = tenant_a; SELECT nextval('contacts_id_seq'); SELECT answer()");
    let dump = run(house.database.tool("pg_dump", "postgres").args(["-n", "tenant_a"]));
    assert!(dump.contains("secret of tenant_a 100") && dump.contains("SECURITY LABEL"), "{dump}");
}

#[test]
fn a_read_only_tenants_schema_is_not_written() {
    let mut house = House::new("schema_read_only");
    one::<Uuid>(&mut house.database.connect("operator"), "SELECT suspend_tenant($1, mode => 'read_only')", &[&house.a]);
    assert_eq!(as_tenant(&mut house.app, house.a, |transaction| count(transaction, "contacts")), 100);
    for statement in [
        "INSERT INTO contacts (name) VALUES ('x')",
        "DELETE FROM notes",
        "TRUNCATE notes",
        "SELECT nextval('contacts_id_seq')",
        "SAVEPOINT s; RELEASE s; UPDATE contacts SET name = 'x'",
        "SAVEPOINT s; RELEASE s; TRUNCATE notes",
        "SAVEPOINT s; RELEASE s; SELECT setval('contacts_id_seq', 1)",
    ] {
        refused_as(&mut house.app, house.a, statement, "25006");
    }
}

#[test]
fn writers_of_a_schema_hold_off_a_change_of_state() {
    let mut house = House::new("schema_writers");
    let pid = harness::backend_pid(&mut house.app);
    let mut transaction = house.app.transaction().expect("begin");
    bind(&mut transaction, house.a);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1";
    let mut superuser = house.database.superuser();
    transaction.batch_execute("SELECT * FROM contacts").expect("read");
    assert_eq!(one::<i64>(&mut superuser, locks, &[&pid]), 0, "readers take no lock");
    transaction.batch_execute("INSERT INTO contacts (name) VALUES ('x')").expect("write");
    assert_eq!(one::<i64>(&mut superuser, locks, &[&pid]), 1);
}

#[test]
fn a_statement_over_a_tenants_schema_does_not_change_the_tenant() {
    let house = House::new("schema_mixing");
    let mut admin = house.database.connect("admin");
    house.as_superuser("GRANT USAGE ON SCHEMA tenant_a, tenant_b TO admin; GRANT SELECT ON ALL TABLES IN SCHEMA tenant_a, tenant_b TO admin");
    let mut transaction = admin.transaction().expect("begin");
    one::<Uuid>(&mut transaction, "SELECT rebind_tenant($1)", &[&house.a]);
    let mixing = format!("SELECT name, rebind_tenant('{}') FROM contacts", house.b);
    let fault = fails(transaction.batch_execute(&mixing), "55000");
    assert!(fault.message().contains("statement"), "{fault}");
    drop(transaction);
    let mut transaction = admin.transaction().expect("begin");
    one::<Uuid>(&mut transaction, "SELECT rebind_tenant($1)", &[&house.a]);
    transaction.batch_execute("DECLARE c CURSOR FOR SELECT name FROM contacts; FETCH c").expect("open a cursor");
    fails(transaction.batch_execute(&format!("SELECT rebind_tenant('{}')", house.b)), "55000");
}

#[test]
fn indexes_serve_a_tenants_schema_as_they_serve_any() {
    let mut house = House::new("schema_indexes");
    let mut superuser = house.database.superuser();
    superuser
        .batch_execute(
            "CREATE INDEX words_idx ON tenant_a.contacts USING gin (words);
             CREATE INDEX name_idx ON tenant_a.contacts (name text_pattern_ops);
             CREATE INDEX data_idx ON tenant_a.contacts USING gin (data jsonb_path_ops);
             INSERT INTO tenant_a.contacts (name, data) SELECT 'word' || i || ' x', jsonb_build_object('k', i) FROM generate_series(1, 20000) i",
        )
        .expect("fill");
    superuser.batch_execute("VACUUM ANALYZE tenant_a.contacts").expect("analyse");
    for (condition, index) in [
        ("words @@ to_tsquery('simple', 'word77')", "words_idx"),
        ("name LIKE 'word777 %'", "name_idx"),
        (r#"data @> '{"k": 7}'"#, "data_idx"),
        ("email = '1@example.com'", "contacts_email_key"),
    ] {
        let plan = as_tenant(&mut house.app, house.a, |transaction| {
            simple(transaction, &format!("EXPLAIN SELECT * FROM contacts WHERE {condition}"))
        });
        assert!(format!("{plan:?}").contains(index), "{condition}: {plan:?}");
    }
}

#[test]
fn who_owns_what_is_in_a_tenants_schema_holds_no_level() {
    let house = House::new("schema_holder");
    let mut admin = house.database.connect("admin");
    for level in ["client", "app"] {
        let fault = fails(admin.query("SELECT grant_access('owner', $1)", &[&level]), "42501");
        let (detail, hint) = (fault.detail().unwrap_or_default(), fault.hint().unwrap_or_default());
        assert!(detail.contains("schemas of tenants: ") && detail.contains("more"), "{fault:?}");
        assert!(hint.contains("REASSIGN OWNED BY owner TO another_role"), "{fault:?}");
    }
    let member = format!("member_{}", house.database.name());
    house.as_superuser(&format!("CREATE ROLE {member} IN ROLE owner"));
    let fault = fails(admin.query(&format!("SELECT grant_access('{member}', 'app')"), &[]), "42501");
    assert!(fault.hint().is_some_and(|hint| hint.contains(&format!("REVOKE owner FROM {member}"))), "{fault:?}");
    house.as_superuser(&format!("DROP ROLE {member}"));
    one::<bool>(&mut admin, "SELECT grant_access('owner', 'operator')", &[]);
}

/// A client chooses no tenant: its credential does, and opens that tenant's schema and no other.
#[test]
fn a_clients_key_opens_its_tenants_schema_alone() {
    let mut house = House::new("client_schema");
    let (a, b) = (house.a, house.b);
    let mut key = String::new();
    within(&mut house.app, a, |transaction| {
        key = text(transaction, "SELECT api_key FROM create_api_key('of the client')");
    });
    let mut client = house.database.connect("client");
    let mut transaction = client.transaction().expect("begin");
    let bound: Uuid = one(&mut transaction, "SELECT tenant_id FROM authenticate_api_key($1)", &[&key]);
    assert_eq!(bound, a);
    assert!(text(&mut transaction, "SHOW search_path").starts_with("\"tenant_a\", "));
    count(&mut transaction, "contacts");
    let foreign = transaction.batch_execute("SELECT * FROM tenant_b.contacts");
    fails(foreign, "42501");
    transaction.rollback().expect("roll back");
    fails(client.query("SELECT set_tenant($1)", &[&b]), "42501");
    fails(client.batch_execute("SELECT * FROM tenant_a.contacts"), "42501");
}
