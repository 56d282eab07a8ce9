//! The back doors that row security leaves open (views, definer functions and materialized views of roles that
//! bypass it, TRUNCATE), what is counted of refusals, and that other errors stay as PostgreSQL makes them.

use crate::access::fixtures;
use crate::row::{column_as, read_as, refused_as, touched_as};
use harness::{
    Client, Database, DbError, Uuid, as_tenant, backend_pid, bind, count, fails, one, optional, protected_table, rows,
    run, simple, tenants, text,
};

/// Two tenants with a row each in the protected table notes, and a role that bypasses row security without being a
/// superuser.
struct House {
    database: Database,
    a: Uuid,
    b: Uuid,
    app: Client,
    bypasser: String,
}

impl House {
    fn new(label: &str) -> House {
        let database = Database::new(label);
        protected_table(&database);
        let created = tenants(&mut database.connect("operator"), 2);
        let mut app = database.connect("app");
        for &tenant in &created {
            touched_as(&mut app, tenant, "INSERT INTO notes (body) VALUES ('secret of ' || current_tenant())");
        }
        let bypasser = format!("bypasser_{}", database.name());
        let create = format!(
            "CREATE ROLE {bypasser} BYPASSRLS; GRANT CREATE ON SCHEMA public TO {bypasser}; GRANT ALL ON notes TO {bypasser}"
        );
        database.superuser().batch_execute(&create).expect("create a role");
        House { database, a: created[0], b: created[1], app, bypasser }
    }

    /// Runs statements as `role`: the superuser's session, which may become any role.
    #[track_caller]
    fn run_as(&self, role: &str, sql: &str) {
        let mut superuser = self.database.superuser();
        superuser.batch_execute(&format!("SET ROLE {role}")).expect("set role");
        if let Err(error) = superuser.batch_execute(sql) {
            panic!("{sql}: {:?}", error.as_db_error());
        }
    }

    #[track_caller]
    fn as_superuser(&self, sql: &str) {
        self.run_as("postgres", sql);
    }

    fn allow(&self, object: &str) {
        let mut admin = self.database.connect("admin");
        assert!(one::<bool>(&mut admin, "SELECT allow_definer($1, 'a test')", &[&object]), "{object}");
    }

    fn disallow(&self, object: &str) -> bool {
        one(&mut self.database.connect("admin"), "SELECT disallow_definer($1)", &[&object])
    }

    /// The guard's refusal of a statement of tenant B's transaction, and of client and app with nothing bound.
    #[track_caller]
    fn is_back_door(&mut self, statement: &str) {
        let before = self.everything();
        expect_back_door(statement, &refused_as(&mut self.app, self.b, statement, "42501"));
        for role in ["app", "client"] {
            let fault = fails(self.database.connect(role).batch_execute(statement), "42501");
            expect_back_door(statement, &fault);
        }
        assert_eq!(text(&mut self.app, "SELECT 1"), "1", "the session lives");
        assert_eq!(self.everything(), before, "{statement} changed something");
    }

    /// All rows of notes, whatever the guard says.
    fn everything(&self) -> Vec<String> {
        let sql = "SELECT id || body || tenant_id || xmin FROM notes ORDER BY id";
        rows(&mut self.database.superuser(), sql, &[]).iter().map(|row| row.get(0)).collect()
    }

    /// What is counted for a tenant: refused binds, tenant mismatches, guard refusals.
    fn refusals(&self, tenant: Option<Uuid>) -> [i64; 3] {
        let sql = "SELECT ARRAY[refused_binds, tenant_mismatches, guard_refusals] FROM tenancy.refusals \
                   WHERE tenant_id IS NOT DISTINCT FROM $1";
        let counted: Option<Vec<i64>> = optional(&mut self.database.connect("monitor"), sql, &[&tenant]);
        counted.map_or([0; 3], |counts| [counts[0], counts[1], counts[2]])
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let drop = format!("DROP OWNED BY {0} CASCADE; DROP ROLE {0}", self.bypasser);
        if let Err(error) = self.database.superuser().batch_execute(&drop) {
            eprintln!("{drop}: {error}");
        }
    }
}

#[track_caller]
fn expect_back_door(statement: &str, fault: &DbError) {
    assert!(fault.message().contains("protected table"), "{statement}: refused by something else: {fault}");
    assert!(fault.message().contains("bypasses row security"), "{statement}: {fault}");
    assert!(fault.hint().is_some_and(|hint| hint.contains("allow_definer")), "{statement}: {fault:?}");
}

/// Objects over notes, and what app calls to get at them. Objects that are made `AS ROLE` are their owner's.
const VIEWS: [(&str, &str); 14] = [
    ("CREATE VIEW v AS SELECT * FROM notes", "SELECT * FROM v"),
    ("CREATE VIEW v WITH (security_barrier) AS SELECT * FROM notes", "SELECT count(*) FROM v"),
    ("CREATE VIEW v WITH (security_invoker = false) AS SELECT * FROM ONLY notes", "TABLE v"),
    ("CREATE VIEW w AS TABLE notes; CREATE VIEW v AS TABLE w", "TABLE v"),
    (
        "CREATE VIEW w AS TABLE notes; CREATE VIEW v WITH (security_invoker) AS TABLE w; GRANT SELECT ON w TO app, client",
        "TABLE v",
    ),
    ("CREATE VIEW v AS SELECT (SELECT string_agg(body, '') FROM notes) AS body", "TABLE v"),
    ("CREATE VIEW v AS WITH x AS MATERIALIZED (TABLE notes) SELECT 1 AS one WHERE EXISTS (TABLE x)", "TABLE v"),
    ("CREATE VIEW v AS SELECT NULL::text AS body UNION ALL SELECT body FROM notes", "TABLE v"),
    (
        "CREATE VIEW v AS SELECT generate_series(1, 2) AS i, (SELECT count(*) FROM notes WHERE id < 0) AS n",
        "SELECT n FROM v LIMIT 1",
    ),
    ("CREATE VIEW v AS SELECT * FROM notes", "SELECT v FROM v FOR UPDATE"),
    ("CREATE VIEW v AS SELECT * FROM notes", "INSERT INTO v (body) VALUES ('x')"),
    ("CREATE VIEW v AS SELECT * FROM notes", "UPDATE v SET body = 'x'"),
    ("CREATE VIEW v AS SELECT * FROM notes", "DELETE FROM v"),
    ("CREATE VIEW v AS SELECT * FROM notes", "EXPLAIN SELECT * FROM v"),
];

#[test]
fn a_bypassing_owners_view_gives_nothing() {
    let mut house = House::new("door_view");
    for owner in ["postgres".to_owned(), house.bypasser.clone()] {
        for (create, statement) in VIEWS {
            house.run_as(&owner, &format!("{create}; GRANT ALL ON v TO app, client"));
            house.is_back_door(statement);
            let prepare =
                format!("DEALLOCATE ALL; PREPARE p AS {}; EXECUTE p", statement.trim_start_matches("EXPLAIN "));
            house.is_back_door(&prepare);
            house.run_as(&owner, "DROP VIEW IF EXISTS w, v CASCADE; DROP VIEW IF EXISTS v");
        }
    }
}

#[test]
fn other_ways_to_read_a_bypassing_owners_view_give_nothing() {
    let mut house = House::new("door_ways");
    house.as_superuser(
        "CREATE VIEW v AS TABLE notes; GRANT ALL ON v TO app, client; CREATE SCHEMA own AUTHORIZATION app;
         GRANT USAGE ON SCHEMA own TO client",
    );
    house.app.batch_execute("CREATE VIEW own.mine AS TABLE public.v; GRANT ALL ON own.mine TO client").expect("create");
    for statement in [
        "TABLE own.mine",
        "COPY (TABLE v) TO STDOUT",
        "DO $$ BEGIN PERFORM * FROM v; END $$",
        "DO $$ BEGIN EXECUTE 'SELECT * FROM v'; END $$",
        "BEGIN; DECLARE c CURSOR FOR TABLE v",
        "SELECT table_to_xml('v', true, true, '')",
        "SELECT query_to_xml('TABLE v', true, true, '')",
        "EXPLAIN (ANALYZE) TABLE v",
        "WITH x AS (TABLE v) SELECT 1 WHERE EXISTS (TABLE x)",
    ] {
        house.is_back_door(statement);
    }
    // With nothing bound these fail for notes itself, before the view has a say.
    for statement in [
        "SELECT 1 FROM notes WHERE EXISTS (TABLE v)",
        "MERGE INTO notes USING v ON notes.id = v.id WHEN MATCHED THEN DELETE",
        "INSERT INTO notes (body) SELECT body FROM v",
    ] {
        expect_back_door(statement, &refused_as(&mut house.app, house.b, statement, "42501"));
    }
    let copy = "CREATE TABLE own.copied AS TABLE public.v";
    expect_back_door(copy, &refused_as(&mut house.app, house.b, copy, "42501"));
    let copy = "CREATE MATERIALIZED VIEW own.copied AS TABLE public.v";
    expect_back_door(copy, &refused_as(&mut house.app, house.b, copy, "42501"));
}

#[test]
fn a_bypassing_owners_rules_and_instead_triggers_give_nothing() {
    let mut house = House::new("door_rules");
    for owner in ["postgres".to_owned(), house.bypasser.clone()] {
        house.run_as(
            &owner,
            "CREATE VIEW v AS SELECT 1 AS id;
             CREATE RULE i AS ON INSERT TO v DO INSTEAD INSERT INTO notes (body) VALUES ('x');
             CREATE RULE u AS ON UPDATE TO v DO INSTEAD UPDATE notes SET body = 'x';
             CREATE RULE d AS ON DELETE TO v DO INSTEAD DELETE FROM notes;
             CREATE TABLE plain (id int);
             CREATE RULE i AS ON INSERT TO plain DO ALSO SELECT * FROM notes;
             CREATE RULE u AS ON UPDATE TO plain DO INSTEAD UPDATE notes SET body = 'x' RETURNING notes.id::int;
             CREATE FUNCTION bury() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN DELETE FROM notes; RETURN NEW; END $$;
             CREATE VIEW t AS SELECT 1 AS id;
             CREATE TRIGGER i INSTEAD OF INSERT ON t FOR EACH ROW EXECUTE FUNCTION bury();
             GRANT ALL ON v, plain, t TO app, client",
        );
        for statement in [
            "INSERT INTO v VALUES (1)",
            "UPDATE v SET id = 2",
            "DELETE FROM v",
            "INSERT INTO plain VALUES (1)",
            "UPDATE plain SET id = 2 RETURNING id",
            "INSERT INTO t VALUES (1)",
        ] {
            house.is_back_door(statement);
        }
        house.run_as(&owner, "DROP VIEW v, t; DROP TABLE plain; DROP FUNCTION bury");
    }
}

const FUNCTIONS: [(&str, &str); 18] = [
    ("f() RETURNS SETOF notes LANGUAGE sql SECURITY DEFINER AS 'TABLE notes'", "SELECT * FROM f()"),
    ("f() RETURNS SETOF notes STABLE LANGUAGE sql SECURITY DEFINER AS 'TABLE notes'", "SELECT f()"),
    ("f() RETURNS bigint LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC SELECT count(*) FROM notes; END", "SELECT f()"),
    ("f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM FROM notes; END'", "SELECT f()"),
    (
        "f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN EXECUTE ''SELECT * FROM notes''; END'",
        "SELECT f()",
    ),
    ("f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN UPDATE notes SET body = 1; END'", "SELECT f()"),
    ("f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN DELETE FROM notes; END'", "SELECT f()"),
    (
        "f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO notes (body) VALUES (1); END'",
        "SELECT f()",
    ),
    (
        "f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN MERGE INTO notes USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE; END'",
        "SELECT f()",
    ),
    (
        "f() RETURNS refcursor LANGUAGE plpgsql SECURITY DEFINER AS 'DECLARE c refcursor := ''c''; BEGIN OPEN c FOR TABLE notes; RETURN c; END'",
        "SELECT f(); FETCH ALL c",
    ),
    (
        "f() RETURNS xml LANGUAGE sql SECURITY DEFINER AS 'SELECT table_to_xml(''notes'', true, true, '''')'",
        "SELECT f()",
    ),
    ("f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM FROM notes FOR UPDATE; END'", "SELECT f()"),
    (
        "f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET row_security = off AS 'BEGIN PERFORM FROM notes; END'",
        "SELECT f()",
    ),
    (
        "f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN CREATE TABLE copied AS TABLE notes; END'",
        "SELECT f()",
    ),
    (
        "f() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN DECLARE n int; BEGIN SELECT id INTO n FROM notes LIMIT 1; RETURN n; END; END'",
        "SELECT * FROM generate_series(f(), f())",
    ),
    (
        "f(x int DEFAULT 0) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*)::int FROM notes'",
        "VALUES (f()), (f(1))",
    ),
    (
        "f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN LOOP BEGIN PERFORM FROM notes; EXIT; END; END LOOP; END'",
        "DO 'BEGIN PERFORM f(); END'",
    ),
    (
        "f() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN EXISTS (TABLE notes); END'",
        "SELECT 1 WHERE f()",
    ),
];

#[test]
fn a_bypassing_owners_definer_function_gives_nothing() {
    let mut house = House::new("door_definer");
    for owner in ["postgres".to_owned(), house.bypasser.clone()] {
        for (create, statement) in FUNCTIONS {
            house.run_as(&owner, &format!("CREATE FUNCTION {create}"));
            house.is_back_door(statement);
            house.run_as(&owner, "DROP FUNCTION f");
        }
        house.run_as(
            &owner,
            "CREATE PROCEDURE p() LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN DELETE FROM notes; END';
             CREATE FUNCTION step(bigint, int) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM notes';
             CREATE AGGREGATE gathered (int) (SFUNC = step, STYPE = bigint);
             CREATE FUNCTION inner_f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM notes';
             CREATE FUNCTION outer_f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT inner_f()'",
        );
        for statement in ["CALL p()", "SELECT gathered(1)", "SELECT outer_f()"] {
            house.is_back_door(statement);
        }
        house.run_as(
            &owner,
            "DROP FUNCTION outer_f, inner_f; DROP AGGREGATE gathered (int); DROP FUNCTION step; DROP PROCEDURE p",
        );
    }
}

/// COPY and TRUNCATE inside a definer function do not go through the executor's ordinary start.
#[test]
fn copy_and_truncate_inside_a_definer_function_give_nothing() {
    let mut house = House::new("door_copy");
    for body in [
        "COPY notes TO ''/dev/null''",
        "COPY (TABLE notes) TO ''/dev/null''",
        "COPY notes FROM ''/dev/null''",
        "COPY notes TO PROGRAM ''cat >/dev/null''",
    ] {
        let create = format!(
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN EXECUTE $x${body}$x$; END'"
        );
        house.as_superuser(&create);
        house.is_back_door("SELECT f()");
        house.as_superuser("DROP FUNCTION f()");
    }
    house.as_superuser(
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN TRUNCATE notes; END'",
    );
    let before = house.everything();
    refused_as(&mut house.app, house.b, "SELECT f()", "42501");
    fails(house.database.connect("client").batch_execute("SELECT f()"), "42501");
    assert_eq!(house.everything(), before);
}

/// Where a statement of app runs somebody's function without naming it.
#[test]
fn a_definer_function_that_nobody_calls_by_name_gives_nothing() {
    let mut house = House::new("door_hidden");
    house.as_superuser(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*)::int FROM notes';
         CREATE FUNCTION constant(int) RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS 'BEGIN RETURN (SELECT count(*) FROM notes); END';
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM FROM notes; RETURN NEW; END';
         CREATE DOMAIN checked AS int CHECK (constant(VALUE) >= 0);
         CREATE TABLE by_default (id int, n int DEFAULT f());
         CREATE TABLE by_index (id int); CREATE INDEX ON by_index (constant(id));
         CREATE TABLE by_predicate (id int); CREATE INDEX ON by_predicate (id) WHERE constant(id) > 0;
         CREATE TABLE by_check (id int CHECK (constant(id) >= 0));
         CREATE TABLE by_generated (id int, n int GENERATED ALWAYS AS (constant(id)) STORED);
         CREATE TABLE by_domain (id checked);
         CREATE TABLE by_before (id int); CREATE TRIGGER t BEFORE INSERT ON by_before FOR EACH ROW EXECUTE FUNCTION look();
         CREATE TABLE by_after (id int); CREATE CONSTRAINT TRIGGER t AFTER INSERT ON by_after DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION look();
         CREATE TABLE by_policy (id int); ALTER TABLE by_policy ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON by_policy USING (true) WITH CHECK (f() > 0);
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app, client;
         CREATE TRIGGER t BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION look()",
    );
    for table in ["default", "index", "predicate", "check", "generated", "domain", "before", "policy"] {
        house.is_back_door(&format!("INSERT INTO by_{table} (id) VALUES (1)"));
    }
    house.is_back_door("INSERT INTO by_after VALUES (1); SET CONSTRAINTS ALL IMMEDIATE");
    let fault = refused_as(&mut house.app, house.b, "INSERT INTO notes (body) VALUES ('x')", "42501");
    expect_back_door("a trigger of notes itself", &fault);

    // At commit, when the statement is long over.
    let mut transaction = house.app.transaction().expect("begin");
    bind(&mut transaction, house.b);
    transaction.batch_execute("INSERT INTO by_after VALUES (1)").expect("insert");
    expect_back_door("at commit", &fails(transaction.commit(), "42501"));
    assert_eq!(count(&mut house.database.superuser(), "by_after"), 0);
}

#[test]
fn an_exempt_view_works_until_it_is_not_exempt() {
    let mut house = House::new("exempt_view");
    let create = "VIEW \"My Views\".\"All '\"\"x\" AS SELECT * FROM public.notes";
    let name = "\"My Views\".\"All '\"\"x\"";
    house.as_superuser(&format!(
        "CREATE SCHEMA \"My Views\"; GRANT USAGE ON SCHEMA \"My Views\" TO app, client, admin; CREATE {create}"
    ));
    let grant = format!("GRANT SELECT ON {name} TO app, client");
    let read = format!("SELECT * FROM {name}");
    house.as_superuser(&grant);
    house.is_back_door(&read);
    house.allow(name);
    house.allow(name);
    assert_eq!(read_as(&mut house.app, house.b, &read).len(), 2);
    assert_eq!(simple(&mut house.database.connect("client"), &read).len(), 2);
    assert!(house.disallow(name));
    assert!(!house.disallow(name));
    house.is_back_door(&read);

    house.allow(name);
    house.as_superuser(&format!("CREATE OR REPLACE {create}"));
    house.is_back_door(&read);

    house.allow(name);
    house.as_superuser(&format!(
        "CREATE OR REPLACE RULE \"_RETURN\" AS ON SELECT TO {name} DO INSTEAD SELECT * FROM public.notes"
    ));
    house.is_back_door(&read);
    house.allow(name);
    // A superuser's rule may be a restore's and changes nothing; another owner's ends the exemption.
    house.as_superuser(&format!(
        "ALTER {} OWNER TO {}; GRANT USAGE ON SCHEMA \"My Views\" TO {}; GRANT INSERT ON {name} TO app, client",
        create.split(" AS ").next().expect("a view"),
        house.bypasser,
        house.bypasser
    ));
    let bypasser = house.bypasser.clone();
    house.run_as(&bypasser, &format!("CREATE RULE added AS ON INSERT TO {name} DO INSTEAD DELETE FROM public.notes"));
    house.is_back_door(&format!("INSERT INTO {name} DEFAULT VALUES"));

    house.allow(name);
    house.as_superuser(&format!("DROP VIEW {name}; CREATE {create}; {grant}"));
    house.is_back_door(&read);
    let left = count(&mut house.database.superuser(), "tenancy.definer_exemptions");
    assert_eq!(left, 0);
    let logged = "tenancy.audit_log WHERE action IN ('definer.allow', 'definer.disallow')";
    assert!(count(&mut house.database.superuser(), logged) >= 3);
}

/// An exemption is given to a view, not to whatever takes its name.
#[test]
fn a_view_that_takes_an_exempt_views_name_is_not_exempt() {
    let mut house = House::new("exempt_rename");
    house.as_superuser("CREATE VIEW counted AS SELECT count(*) FROM notes");
    house.allow("public.counted");
    house.run_as(&house.bypasser, "CREATE VIEW greedy AS SELECT * FROM notes; GRANT SELECT ON greedy TO app, client");
    house.as_superuser("ALTER VIEW counted RENAME TO counted_2");
    house.run_as(&house.bypasser, "ALTER VIEW greedy RENAME TO counted");
    house.is_back_door("TABLE counted");
}

#[test]
fn an_exempt_view_exempts_nothing_else_in_its_statement() {
    let mut house = House::new("exempt_other");
    house.as_superuser(
        "CREATE VIEW allowed AS SELECT count(*) AS n FROM notes; CREATE VIEW other AS SELECT * FROM notes;
         CREATE TABLE plain (id int); CREATE RULE i AS ON INSERT TO plain DO ALSO SELECT * FROM notes;
         CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM notes';
         CREATE VIEW calls AS SELECT f(), n FROM allowed;
         GRANT ALL ON allowed, other, plain, calls TO app, client",
    );
    house.run_as(
        &house.bypasser,
        "CREATE VIEW foreign_view AS SELECT * FROM notes; GRANT SELECT ON foreign_view TO app, client",
    );
    house.allow("public.allowed");
    assert_eq!(column_as(&mut house.app, house.b, "TABLE allowed"), ["2"]);
    for statement in [
        "SELECT * FROM allowed, other",
        "SELECT * FROM allowed, foreign_view",
        "SELECT * FROM allowed WHERE EXISTS (SELECT FROM other)",
        "SELECT (SELECT n FROM allowed), (SELECT string_agg(body, '') FROM other)",
        "SELECT f(), n FROM allowed",
        "SELECT f() FROM allowed",
        "TABLE calls",
        "INSERT INTO plain SELECT n FROM allowed",
        "WITH x AS (SELECT * FROM other) SELECT n FROM allowed, x",
        "DELETE FROM other USING allowed",
    ] {
        house.is_back_door(statement);
    }
    // Beside it, the table itself stays filtered.
    let own = "SELECT tenant_id FROM notes, allowed";
    assert_eq!(column_as(&mut house.app, house.b, own), [house.b.to_string()]);
    let sub = "SELECT (SELECT string_agg(tenant_id::text, ',') FROM notes) FROM allowed WHERE n = 2";
    assert_eq!(column_as(&mut house.app, house.b, sub), [house.b.to_string()]);
    fails(house.app.batch_execute(own), "42501");
}

#[test]
fn an_exempt_function_works_until_it_is_not_exempt() {
    let mut house = House::new("exempt_function");
    let define = |word: &str, body: &str| {
        format!(
            "CREATE {word} FUNCTION \"T otals\"(a int, \"b c\" text DEFAULT 'x') RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN {body} END $$"
        )
    };
    let body = "RETURN (SELECT count(*) FROM notes);";
    let name = "public.\"T otals\"(int, text)";
    let call = "SELECT \"T otals\"(1)";
    house.as_superuser(&define("", body));
    house.is_back_door(call);
    house.allow(name);
    assert_eq!(column_as(&mut house.app, house.b, call), ["2"]);
    assert_eq!(text(&mut house.database.connect("client"), call), "2");
    // Nothing of the exemption is left when the function has returned.
    assert_eq!(text(&mut house.app, "SHOW tenancy.definer_exempt"), "off");
    house.as_superuser(
        "CREATE FUNCTION g() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM notes'",
    );
    house.is_back_door("SELECT \"T otals\"(1), g()");
    house.is_back_door("SELECT \"T otals\"(1); SELECT g()");
    assert!(house.disallow(name));
    house.is_back_door(call);

    house.allow(name);
    house.as_superuser(&define("OR REPLACE", body));
    house.is_back_door(call);

    house.allow(name);
    house.as_superuser(&format!("DROP FUNCTION \"T otals\"; {}", define("", body)));
    house.is_back_door(call);
    assert_eq!(count(&mut house.database.superuser(), "tenancy.definer_exemptions"), 0);

    house.as_superuser(&define("OR REPLACE", "TRUNCATE notes; RETURN 0;"));
    refused_as(&mut house.app, house.b, call, "42501");
    house.allow(name);
    as_tenant(&mut house.app, house.b, |transaction| transaction.batch_execute(call).expect("exempt"));
    assert_eq!(house.everything(), Vec::<String>::new());
}

/// The exemption is a setting that nobody but a superuser may make.
#[test]
fn nobody_exempts_himself() {
    let mut house = House::new("exempt_self");
    let bypasser = house.bypasser.clone();
    house.as_superuser(&format!(
        "CREATE VIEW v AS TABLE notes; GRANT SELECT ON v TO app, client, stranger; GRANT CREATE ON SCHEMA public TO app; \
         CREATE ROLE login_{bypasser} LOGIN; GRANT {bypasser} TO login_{bypasser}; GRANT USAGE ON SCHEMA tenancy TO {bypasser}"
    ));
    for role in ["app", "client", "owner", "operator", "admin", &format!("login_{bypasser}")] {
        let mut client = house.database.connect(role);
        for statement in [
            "SET tenancy.definer_exempt = on",
            "SET LOCAL tenancy.definer_exempt = on",
            "SELECT set_config('tenancy.definer_exempt', 'on', true)",
            "DO $$ BEGIN PERFORM set_config('tenancy.definer_exempt', 'on', false); END $$",
        ] {
            fails(client.batch_execute(statement), "42501");
        }
        assert!(
            house
                .database
                .connect_with(role, |config| {
                    config.options("-c tenancy.definer_exempt=on");
                })
                .is_err()
        );
    }
    let exempting = "CREATE FUNCTION mine() RETURNS SETOF notes LANGUAGE sql SECURITY DEFINER SET tenancy.definer_exempt = on AS 'TABLE notes'";
    fails(house.app.batch_execute(exempting), "42501");
    let mut superuser = house.database.superuser();
    superuser.batch_execute(&format!("SET ROLE {bypasser}")).expect("set role");
    fails(superuser.batch_execute(exempting), "42501");
    superuser.batch_execute("RESET ROLE").expect("reset role");
    for role in ["app", "client", "owner", "operator", "monitor", "stranger"] {
        let mut client = house.database.connect(role);
        fails(client.batch_execute("SELECT allow_definer('public.v', 'please')"), "42501");
        fails(client.batch_execute("SELECT disallow_definer('public.v')"), "42501");
        for object in ["VIEW v", "TABLE notes"] {
            for label in ["'exempt: please'", "'protected'", "NULL"] {
                let statement = format!("SECURITY LABEL FOR pg_tenancy ON {object} IS {label}");
                fails(client.batch_execute(&statement), "42501");
            }
        }
    }
    // The owner of a view decides much about it, but not this.
    let mut owner = house.database.superuser();
    owner.batch_execute(&format!("SET ROLE {bypasser}; CREATE VIEW own AS TABLE notes")).expect("create");
    fails(owner.batch_execute("SECURITY LABEL FOR pg_tenancy ON VIEW own IS 'exempt: please'"), "42501");
    fails(house.database.superuser().batch_execute("SECURITY LABEL FOR pg_tenancy ON VIEW v IS 'anything'"), "22023");
    house.is_back_door("TABLE v");
    house.as_superuser(&format!("DROP ROLE login_{bypasser}"));
}

#[test]
fn bad_exemptions_are_refused() {
    let house = House::new("exempt_bad");
    house.as_superuser(
        "CREATE VIEW v AS TABLE notes; CREATE FUNCTION invoker() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION f(int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    );
    let mut admin = house.database.connect("admin");
    for (arguments, sqlstate) in [
        ("NULL, 'x'", "22023"),
        ("'public.v', NULL", "22023"),
        ("'public.v', ''", "22023"),
        ("'public.v', E' \\t\\n'", "22023"),
        ("'', 'x'", "22023"),
        ("'public.nowhere', 'x'", "22023"),
        ("'public.notes', 'x'", "22023"),
        ("'public.invoker()', 'x'", "22023"),
        ("'public.f()', 'x'", "22023"),
        ("'public.f', 'x'", "22023"),
        ("'public.f(int) SET x = 1; --', 'x'", "22023"),
        ("'public.v; DROP VIEW v', 'x'", "22023"),
        ("'a.b.c.d', 'x'", "22023"),
        ("'((((', 'x'", "22023"),
        ("'💣\"''\\ %s', 'x'", "22023"),
        ("repeat('x', 100000), 'x'", "22023"),
        ("'public.f(' || repeat('int,', 200) || 'int)', 'x'", "22023"),
    ] {
        fails(admin.batch_execute(&format!("SELECT allow_definer({arguments})")), sqlstate);
    }
    for (argument, sqlstate) in [("NULL", "22023"), ("''", "22023"), ("'public.nowhere'", "22023"), ("'(('", "22023")] {
        fails(admin.batch_execute(&format!("SELECT disallow_definer({argument})")), sqlstate);
    }
    assert!(!house.disallow("public.v"));
    assert_eq!(count(&mut house.database.superuser(), "tenancy.definer_exemptions"), 0);
    assert_eq!(count(&mut house.database.superuser(), "tenancy.audit_log WHERE action LIKE 'definer.%'"), 0);
}

#[test]
fn a_statement_prepared_while_exempt_is_refused_afterwards() {
    let mut house = House::new("exempt_plan");
    house.as_superuser("CREATE VIEW v AS TABLE notes; GRANT SELECT ON v TO app");
    house.allow("public.v");
    let statement = house.app.prepare("SELECT count(*) FROM v").expect("prepare");
    for _ in 0..8 {
        assert_eq!(house.app.query_one(&statement, &[]).expect("exempt").get::<_, i64>(0), 2);
    }
    assert!(house.disallow("public.v"));
    expect_back_door("prepared", &fails(house.app.query(&statement, &[]), "42501"));
}

/// What works under row security goes on to work: the guard stops nothing else.
#[test]
fn views_and_functions_of_ordinary_owners_are_filtered() {
    let mut house = House::new("door_ordinary");
    house.as_superuser(
        "CREATE VIEW invoking WITH (security_invoker) AS SELECT tenant_id FROM notes; GRANT ALL ON invoking TO app;
         CREATE FUNCTION f() RETURNS SETOF uuid LANGUAGE sql AS 'SELECT tenant_id FROM notes';
         CREATE FUNCTION unrelated() RETURNS uuid LANGUAGE sql SECURITY DEFINER AS 'SELECT current_tenant()';
         CREATE VIEW unprotected AS SELECT 1 AS one; GRANT SELECT ON unprotected TO app;
         CREATE VIEW mixed AS SELECT tenant_id FROM invoking, unprotected; GRANT SELECT ON mixed TO app",
    );
    house.run_as(
        "owner",
        "CREATE VIEW of_owner AS SELECT tenant_id FROM notes; GRANT ALL ON of_owner TO app;
         CREATE FUNCTION of_owner_f() RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER AS 'SELECT tenant_id FROM notes'",
    );
    for query in [
        "TABLE invoking",
        "TABLE mixed",
        "SELECT f()",
        "SELECT unrelated()",
        "TABLE of_owner",
        "SELECT of_owner_f()",
        "SELECT tenant_id FROM of_owner, unprotected",
    ] {
        assert_eq!(column_as(&mut house.app, house.b, query), [house.b.to_string()], "{query}");
        fails(house.app.batch_execute(query), "42501");
    }
    let bypassing = "SELECT count(*) FROM notes";
    assert_eq!(text(&mut house.database.superuser(), bypassing), "2");
    house.as_superuser("CREATE VIEW v AS TABLE notes; CREATE FUNCTION g() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM v'");
    assert_eq!(text(&mut house.database.superuser(), "SELECT g()"), "2", "a superuser's own session is not guarded");
}

#[test]
fn a_superuser_who_becomes_app_is_guarded() {
    let house = House::new("door_become");
    house.as_superuser("CREATE VIEW v AS TABLE notes; GRANT SELECT ON v TO app");
    let mut superuser = house.database.superuser();
    for become_app in ["SET ROLE app", "SET SESSION AUTHORIZATION app"] {
        superuser.batch_execute(become_app).expect("become app");
        expect_back_door(become_app, &fails(superuser.batch_execute("TABLE v"), "42501"));
        fails(superuser.batch_execute("TABLE notes"), "42501");
        superuser.batch_execute("RESET ROLE; RESET SESSION AUTHORIZATION").expect("reset");
    }
}

/// Whatever takes a tenant's id: called with another tenant's by those who serve tenants, it refuses and changes nothing.
#[test]
fn no_function_does_anything_for_another_tenants_id() {
    const TAKING_A_TENANT: &str = "
        SELECT format('%s %s(''TENANT''%s)', CASE prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, p.oid::regproc,
                      (SELECT coalesce(string_agg(', NULL', '' ORDER BY i), '') FROM generate_series(2, pronargs - pronargdefaults) i))
        FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
        WHERE p.proargnames[1] = 'tenant' ORDER BY 1";
    let mut house = House::new("foreign_ids");
    let mut superuser = house.database.superuser();
    let calls: Vec<String> = rows(&mut superuser, TAKING_A_TENANT, &[]).iter().map(|row| row.get(0)).collect();
    assert!(calls.len() >= 10, "{calls:?}");
    let state = "SELECT t::text FROM tenancy.tenants t ORDER BY 1";
    let before = simple(&mut superuser, state);
    let logged = count(&mut superuser, "tenancy.audit_log");
    for call in &calls {
        let call = call.replace("TENANT", &house.a.to_string());
        let mut transaction = house.app.transaction().expect("begin");
        bind(&mut transaction, house.b);
        let error = transaction.batch_execute(&call).err().unwrap_or_else(|| panic!("succeeded: {call}"));
        let code = error.as_db_error().map(|fault| fault.code().code().to_owned()).unwrap_or_default();
        assert!(["42501", "55000"].contains(&code.as_str()), "{call}: {error:?}");
        transaction.rollback().expect("roll back");
        let error = house.database.connect("client").batch_execute(&call).err();
        assert!(error.is_some_and(|error| error.code().is_some_and(|code| code.code() == "42501")), "{call}");
    }
    assert_eq!(simple(&mut superuser, state), before);
    assert_eq!(count(&mut superuser, "tenancy.audit_log"), logged);
    for table in ["tenancy.tenants WHERE id =", "tenancy.audit_log WHERE tenant_id ="] {
        let foreign = format!("SELECT 1 FROM {table} '{}'", house.a);
        assert_eq!(read_as(&mut house.app, house.b, &foreign).len(), 0, "{table}");
        let own = format!("SELECT 1 FROM {table} '{}'", house.b);
        assert_eq!(read_as(&mut house.app, house.b, &own).len(), 1, "{table}");
        assert_eq!(simple(&mut house.app, &own).len(), 0, "{table} with nothing bound");
    }
}

/// Ids of a tenant's people and credentials: a user at home in it, one of many tenants, a key, an invitation.
struct People {
    home: Uuid,
    home_email: String,
    user: Uuid,
    key: Uuid,
    invitation: Uuid,
}

impl People {
    fn of(database: &Database, tenant: Uuid) -> People {
        let mut app = database.connect("app");
        let (user, home_email) = (fixtures::member(&mut app, tenant, "owner"), fixtures::email());
        let home = as_tenant(&mut app, tenant, |tx| {
            let home: Uuid = one(tx, "SELECT create_user($1, tenant => $2)", &[&home_email, &tenant]);
            one(tx, "SELECT add_member($1, 'member')", &[&home])
        });
        let key = fixtures::api_key(&mut app, tenant, Some(home), &["*"]).id;
        let invitation = fixtures::invitation(&mut app, tenant, &fixtures::email(), "viewer").id;
        People { home, home_email, user, key, invitation }
    }
}

/// Every function that takes an id of people or credentials, and how it answers when the id is another tenant's: an SQLSTATE, or the
/// one value (none for no row) that says that there is nothing.
const FOREIGN_IDS: [(&str, &str); 30] = [
    ("add_member('HOME')", "P0002"),
    ("add_member('HOME', 'viewer')", "P0002"),
    ("change_role('HOME', 'viewer')", "P0002"),
    ("change_role('USER', 'viewer')", "P0002"),
    ("remove_member('HOME')", "f"),
    ("remove_member('USER')", "f"),
    ("create_api_key('mine', user_id => 'HOME')", "P0002"),
    ("create_api_key('mine', '{*}', NULL, 'USER')", "P0002"),
    ("rotate_api_key('KEY')", "P0002"),
    ("rotate_api_key('KEY', '1 day')", "P0002"),
    ("revoke_api_key('KEY')", "P0002"),
    ("revoke_invitation('INVITATION')", "P0002"),
    ("create_user('mine@example.com', tenant => 'TENANT')", "42501"),
    ("create_user('mine@example.com', id => 'HOME')", "23505"),
    ("update_user('HOME', name => 'Mine')", "P0002"),
    ("update_user('USER', email => 'mine@example.com')", "42501"),
    ("revoke_tokens('HOME')", "P0002"),
    ("revoke_tokens('USER')", "42501"),
    ("record_login('HOME')", "P0002"),
    ("issue_jwt('HOME')", "P0002"),
    ("issue_jwt('USER', '1 day', '{*}')", "P0002"),
    ("user_tenants('HOME')", "none"),
    ("find_user('EMAIL')", "NULL"),
    ("find_user('EMAIL', tenant => 'TENANT')", "42501"),
    ("add_member('KEY')", "P0002"),
    ("revoke_api_key('INVITATION')", "P0002"),
    ("clone_tenant_schema('TENANT', current_tenant())", "42501"),
    ("clone_tenant_schema(current_tenant(), 'TENANT', false)", "42501"),
    ("maintenance_commands('ANALYZE', 'TENANT')", "42501"),
    ("adoption_plan('public', 'TENANT')", "42501"),
];

#[test]
fn no_function_does_anything_for_another_tenants_people() {
    // Those that take a user's id beside a tenant's, or whose token says which tenant, have tests of their own; what usage is recorded for is
    // any id that the application gives.
    const TAKING_AN_ID: &str = "
        SELECT p.proname::text FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
        WHERE 'uuid'::regtype = ANY (p.proargtypes) AND p.proargnames[1] <> 'tenant' AND p.prokind = 'f'
          AND p.proname NOT IN ('accept_invitation', 'create_tenant', 'delete_user', 'record_duration', 'record_usage', 'set_tenant_by_slug')";
    let mut house = House::new("foreign_people");
    let mut superuser = house.database.superuser();
    for row in rows(&mut superuser, TAKING_AN_ID, &[]) {
        let name: String = row.get(0);
        let known = FOREIGN_IDS.iter().any(|(call, _)| call.starts_with(&format!("{name}(")));
        assert!(known, "{name} has no row in this test: how does it answer another tenant's id?");
    }
    fixtures::signing_key(&mut house.database.connect("admin"), "k1");
    let (foreign, own) = (People::of(&house.database, house.a), People::of(&house.database, house.b));
    let mut before = fixtures::stored(&mut superuser);
    let mut failures = Vec::new();
    for (call, due) in FOREIGN_IDS {
        let call = call
            .replace("HOME", &foreign.home.to_string())
            .replace("USER", &foreign.user.to_string())
            .replace("KEY", &foreign.key.to_string())
            .replace("INVITATION", &foreign.invitation.to_string())
            .replace("EMAIL", &foreign.home_email)
            .replace("TENANT", &house.a.to_string());
        for actor in [None, Some(own.user)] {
            let mut transaction = house.app.transaction().expect("begin");
            one::<Uuid>(&mut transaction, "SELECT set_tenant($1, $2)", &[&house.b, &actor]);
            let found = match transaction.simple_query(&format!("SELECT * FROM {call}")) {
                Err(error) => error.code().map(|code| code.code().to_owned()).unwrap_or_default(),
                Ok(messages) => answer(&messages),
            };
            transaction.commit().expect("end the transaction");
            if found != due {
                failures.push(format!("{call} by {actor:?}: {found} where {due} was due"));
            }
        }
        let after = fixtures::stored(&mut superuser);
        if after != before {
            failures.push(format!("{call} wrote something"));
            before = after;
        }
        let fault = fails(house.database.connect("client").batch_execute(&format!("SELECT * FROM {call}")), "42501");
        assert!(fault.message().starts_with("permission denied for function"), "{call}: {fault}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(text(&mut house.app, "SELECT 1"), "1", "the session lives");
}

/// The first value of the first row; "NULL", or "none" where there is no row.
fn answer(messages: &[harness::postgres::SimpleQueryMessage]) -> String {
    let first = messages.iter().find_map(|message| match message {
        harness::postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    first.unwrap_or_else(|| "none".to_owned())
}

#[test]
fn foreign_keys_of_a_superusers_tables_go_on_to_work() {
    let mut house = House::new("door_ri");
    house.as_superuser(
        "CREATE TABLE orders (id int, tenant_id uuid, UNIQUE (tenant_id, id));
         CREATE TABLE cascading (id int, tenant_id uuid, FOREIGN KEY (tenant_id, id) REFERENCES orders (tenant_id, id)
             ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE nulled (id int, tenant_id uuid, FOREIGN KEY (tenant_id, id) REFERENCES orders (tenant_id, id)
             ON DELETE SET NULL (id));
         CREATE TABLE plain (id int, tenant uuid, FOREIGN KEY (tenant, id) REFERENCES orders (tenant_id, id) DEFERRABLE INITIALLY DEFERRED);
         GRANT ALL ON orders, cascading, nulled, plain TO app;
         SELECT protect_table('orders'), protect_table('cascading'), protect_table('nulled')",
    );
    for tenant in [house.a, house.b] {
        as_tenant(&mut house.app, tenant, |transaction| {
            transaction
                .batch_execute(
                    "INSERT INTO orders (id) VALUES (1), (2), (3); INSERT INTO cascading (id) VALUES (1), (2);
                     INSERT INTO nulled (id) VALUES (1), (3); INSERT INTO plain VALUES (3, current_tenant())",
                )
                .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
        });
    }
    refused_as(&mut house.app, house.b, "INSERT INTO cascading (id) VALUES (9)", "23503");
    refused_as(&mut house.app, house.b, "DELETE FROM orders WHERE id = 3; SET CONSTRAINTS ALL IMMEDIATE", "23503");
    assert_eq!(touched_as(&mut house.app, house.b, "DELETE FROM orders WHERE id = 1"), 1);
    assert_eq!(touched_as(&mut house.app, house.b, "UPDATE orders SET id = 22 WHERE id = 2"), 1);
    assert_eq!(column_as(&mut house.app, house.b, "SELECT id FROM cascading"), ["22"]);
    assert_eq!(column_as(&mut house.app, house.b, "SELECT coalesce(id, 0) FROM nulled ORDER BY 1"), ["0", "3"]);
    assert_eq!(column_as(&mut house.app, house.a, "SELECT id FROM cascading ORDER BY 1"), ["1", "2"]);
    assert_eq!(column_as(&mut house.app, house.a, "SELECT coalesce(id, 0) FROM nulled ORDER BY 1"), ["1", "3"]);
}

// ---------------------------------------------------------------------------------------------------------
// Materialized views
// ---------------------------------------------------------------------------------------------------------

#[test]
fn a_materialized_view_over_a_protected_table_is_refused() {
    let house = House::new("matview");
    house.as_superuser(
        "CREATE VIEW invoking WITH (security_invoker) AS TABLE notes; CREATE VIEW nested AS SELECT * FROM invoking, (SELECT 1) x;
         CREATE TABLE events (id int, tenant_id uuid) PARTITION BY RANGE (id); \
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (9); SELECT protect_table('events')",
    );
    for (role, source) in [
        ("postgres", "TABLE notes"),
        ("postgres", "SELECT 1 WHERE EXISTS (TABLE notes)"),
        ("postgres", "WITH x AS (TABLE notes) SELECT count(*) FROM x"),
        ("postgres", "TABLE nested"),
        ("postgres", "TABLE events_1"),
        (house.bypasser.as_str(), "TABLE notes"),
        ("owner", "SELECT * FROM notes"),
    ] {
        for (create, options) in [
            ("CREATE MATERIALIZED VIEW copied", "WITH DATA"),
            ("CREATE MATERIALIZED VIEW copied", "WITH NO DATA"),
            ("CREATE MATERIALIZED VIEW IF NOT EXISTS copied", "WITH NO DATA"),
        ] {
            let mut superuser = house.database.superuser();
            superuser.batch_execute(&format!("SET ROLE {role}")).expect("set role");
            fails(superuser.batch_execute(&format!("{create} AS {source} {options}")), "42501");
            assert_eq!(count(&mut superuser, "pg_class WHERE relkind = 'm'"), 0, "{create} {source}");
        }
    }
    let mut superuser = house.database.superuser();
    let fault = fails(superuser.batch_execute("CREATE MATERIALIZED VIEW copied AS TABLE notes"), "42501");
    assert!(fault.message().contains("copied") && fault.message().contains("notes"), "{fault}");
    fails(
        superuser.batch_execute(
            "CREATE SCHEMA inside; DO 'BEGIN EXECUTE ''CREATE MATERIALIZED VIEW inside.m AS TABLE notes''; END'",
        ),
        "42501",
    );
}

#[test]
fn a_table_that_a_materialized_view_reads_is_not_protected() {
    let house = House::new("matview_before");
    house.as_superuser(
        "CREATE TABLE t (id int, tenant_id uuid); CREATE VIEW over AS TABLE t; CREATE MATERIALIZED VIEW direct AS TABLE t;
         CREATE MATERIALIZED VIEW indirect AS TABLE over",
    );
    let mut admin = house.database.connect("admin");
    fails(admin.batch_execute("SELECT protect_table('t')"), "42501");
    house.as_superuser("DROP MATERIALIZED VIEW direct");
    let fault = fails(admin.batch_execute("SELECT protect_table('t')"), "42501");
    assert!(fault.message().contains("indirect"), "{fault}");
    assert_eq!(count(&mut house.database.superuser(), "tenancy.protected_tables"), 1);
    house.allow("public.indirect");
    assert!(one::<bool>(&mut admin, "SELECT protect_table('t')", &[]));
    house.as_superuser("REFRESH MATERIALIZED VIEW indirect");
    assert!(house.disallow("public.indirect"));
    fails(house.database.superuser().batch_execute("REFRESH MATERIALIZED VIEW indirect"), "42501");
}

#[test]
fn an_exempt_materialized_view_is_refused_again_when_made_anew() {
    let mut house = House::new("matview_exempt");
    house.as_superuser("CREATE TABLE t (id int); CREATE VIEW source AS SELECT id FROM t; CREATE MATERIALIZED VIEW copied AS TABLE source");
    house.allow("public.copied");
    house.as_superuser("CREATE OR REPLACE VIEW source AS SELECT id::int FROM notes; REFRESH MATERIALIZED VIEW copied; GRANT SELECT ON copied TO app");
    assert_eq!(text(&mut house.app, "SELECT count(*) FROM copied"), "2");
    house.as_superuser("DROP MATERIALIZED VIEW copied");
    fails(house.database.superuser().batch_execute("CREATE MATERIALIZED VIEW copied AS TABLE source"), "42501");
}

/// The view below a materialized view may change after it was made.
#[test]
fn a_materialized_view_whose_source_becomes_protected_is_not_refreshed() {
    let house = House::new("matview_source");
    house.as_superuser(
        "CREATE TABLE t (id bigint); CREATE VIEW source AS TABLE t; CREATE MATERIALIZED VIEW copied AS TABLE source",
    );
    let mut superuser = house.database.superuser();
    if superuser.batch_execute("CREATE OR REPLACE VIEW source AS SELECT id FROM notes").is_ok() {
        fails(superuser.batch_execute("REFRESH MATERIALIZED VIEW copied"), "42501");
        assert_eq!(count(&mut superuser, "copied"), 0);
    }
}

#[test]
fn a_table_that_a_materialized_view_reads_does_not_become_a_partition() {
    let house = House::new("matview_attach");
    house.as_superuser(
        "CREATE TABLE events (id int, tenant_id uuid) PARTITION BY RANGE (id); SELECT protect_table('events');
         CREATE TABLE part (id int, tenant_id uuid NOT NULL); CREATE MATERIALIZED VIEW copied AS TABLE part",
    );
    let attach = "ALTER TABLE events ATTACH PARTITION part FOR VALUES FROM (1) TO (9)";
    fails(house.database.superuser().batch_execute(attach), "42501");
    assert_eq!(count(&mut house.database.superuser(), "pg_inherits WHERE inhparent = 'events'::regclass"), 0);
}

// ---------------------------------------------------------------------------------------------------------
// TRUNCATE
// ---------------------------------------------------------------------------------------------------------

#[test]
fn truncate_is_refused_however_it_comes() {
    let mut house = House::new("truncate");
    house.run_as(
        "owner",
        "CREATE TABLE events (id int, tenant_id uuid) PARTITION BY RANGE (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (9);
         CREATE TABLE child () INHERITS (notes);
         CREATE TABLE referenced (id int PRIMARY KEY); CREATE TABLE referencing (id int REFERENCES referenced, tenant_id uuid);
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
    );
    house.as_superuser("SELECT protect_table('events'), protect_table('referencing')");
    for tenant in [house.a, house.b] {
        as_tenant(&mut house.app, tenant, |transaction| {
            transaction
                .batch_execute(
                    "INSERT INTO events (id) VALUES (1); INSERT INTO child (id, body) VALUES (100, 'x');
                     INSERT INTO referenced VALUES (1) ON CONFLICT DO NOTHING; INSERT INTO referencing (id) VALUES (1)",
                )
                .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
        });
    }
    let rows_left = |house: &House| {
        let sql =
            "SELECT (SELECT count(*) FROM notes) + (SELECT count(*) FROM events) + (SELECT count(*) FROM referencing)";
        text(&mut house.database.superuser(), sql)
    };
    let before = rows_left(&house);
    for statement in [
        "TRUNCATE notes",
        "TRUNCATE ONLY notes",
        "TRUNCATE notes RESTART IDENTITY CASCADE",
        "TRUNCATE child",
        "TRUNCATE events",
        "TRUNCATE events_1",
        "TRUNCATE referencing",
        "TRUNCATE referenced CASCADE",
        "TRUNCATE referenced, referencing",
        "DO 'BEGIN TRUNCATE notes; END'",
    ] {
        for role in ["app", "owner"] {
            let mut client = house.database.connect(role);
            let fault = fails(client.batch_execute(statement), "42501");
            assert!(fault.message().contains("TRUNCATE"), "{role} {statement}: {fault}");
        }
        refused_as(&mut house.app, house.b, statement, "42501");
    }
    assert_eq!(rows_left(&house), before);
    house.as_superuser("TRUNCATE notes, events, referenced CASCADE");
    assert_eq!(rows_left(&house), "0");
}

#[test]
fn truncate_of_other_tables_is_left_alone() {
    let house = House::new("truncate_other");
    house.run_as("owner", "CREATE TABLE t (id int); INSERT INTO t VALUES (1); TRUNCATE t");
    assert_eq!(count(&mut house.database.superuser(), "t"), 0);
}

// ---------------------------------------------------------------------------------------------------------
// Counters and activity
// ---------------------------------------------------------------------------------------------------------

#[test]
fn refused_binds_are_counted_for_their_tenant() {
    let mut house = House::new("count_binds");
    let mut operator = house.database.connect("operator");
    operator.execute("SELECT suspend_tenant($1, 'unpaid')", &[&house.a]).expect("suspend");
    for _ in 0..3 {
        fails(house.app.execute("SELECT set_tenant($1)", &[&house.a]), "42501");
    }
    // Refused in a subtransaction and forgotten by the caller.
    let caught = format!("DO $$ BEGIN PERFORM set_tenant('{}'); EXCEPTION WHEN OTHERS THEN NULL; END $$", house.a);
    house.app.batch_execute(&caught).expect("caught");
    // Another tenant than the one bound first.
    refused_as(&mut house.app, house.b, &format!("SELECT set_tenant('{}')", house.a), "42501");
    let counted = house.refusals(Some(house.a));
    assert_eq!(counted, [5, 0, 0]);
    assert_eq!(house.refusals(Some(house.b)), [0, 0, 0]);
    let overview = "SELECT refused_binds FROM tenancy.tenant_overview WHERE id = $1";
    assert_eq!(one::<i64>(&mut operator, overview, &[&house.a]), 5);
}

#[test]
fn mismatches_and_guard_refusals_are_counted_and_survive_rollback() {
    let mut house = House::new("count_rows");
    house.as_superuser("CREATE VIEW v AS TABLE notes; GRANT SELECT ON v TO app; GRANT TRUNCATE ON notes TO app");
    let (a, b) = (house.a, house.b);
    let insert = format!("INSERT INTO notes (tenant_id) VALUES ('{a}')");
    for statement in
        [insert.as_str(), &format!("UPDATE notes SET tenant_id = '{a}'"), &format!("SELECT assert_tenant('{a}')")]
    {
        refused_as(&mut house.app, b, statement, "42501");
    }
    assert_eq!(house.refusals(Some(b)), [0, 3, 0]);
    let caught = |statement: &str| {
        format!("DO $$ BEGIN {}; EXCEPTION WHEN OTHERS THEN NULL; END $$", statement.replace("SELECT", "PERFORM"))
    };
    as_tenant(&mut house.app, b, |transaction| transaction.batch_execute(&caught(&insert)).expect("caught"));
    assert_eq!(house.refusals(Some(b)), [0, 4, 0], "also when an exception block hides it");
    for statement in ["TABLE v", "TRUNCATE notes"] {
        refused_as(&mut house.app, b, statement, "42501");
        let perform = caught(&statement.replace("TABLE v", "SELECT * FROM v"));
        as_tenant(&mut house.app, b, |transaction| transaction.batch_execute(&perform).expect("caught"));
    }
    assert_eq!(house.refusals(Some(b)), [0, 4, 4]);
    assert_eq!(house.refusals(Some(a)), [0, 0, 0], "nothing is counted for the tenant that was aimed at");
    let last = "SELECT last_refusal_at BETWEEN now() - interval '5 minutes' AND now() FROM tenancy.refusals WHERE tenant_id = $1";
    assert!(one::<bool>(&mut house.database.connect("monitor"), last, &[&b]));
}

/// Rows that name no tenant and binds of nobody's tenant are counted, too. Other tests count there at the same time.
#[test]
fn what_has_no_tenant_is_counted_together() {
    let mut house = House::new("count_none");
    house.as_superuser("CREATE VIEW v AS TABLE notes; GRANT SELECT ON v TO app");
    let before = house.refusals(None);
    fails(house.app.execute("SELECT set_tenant($1)", &[&Uuid::new_v4()]), "P0002");
    fails(house.app.batch_execute("TABLE v"), "42501");
    let after = house.refusals(None);
    assert!(after[0] > before[0] && after[2] > before[2], "{before:?} {after:?}");
}

#[test]
fn only_monitors_see_counters_and_activity() {
    let house = House::new("count_levels");
    for view in ["tenancy.refusals", "tenancy.activity", "tenancy.protected_tables", "tenancy.protection_status"] {
        for role in ["monitor", "operator", "admin"] {
            count(&mut house.database.connect(role), view);
        }
        for role in ["app", "client", "owner", "stranger"] {
            fails(house.database.connect(role).batch_execute(&format!("TABLE {view}")), "42501");
        }
    }
}

#[test]
fn activity_shows_bound_backends_while_they_are_bound() {
    let mut house = House::new("activity");
    let mut monitor = house.database.connect("monitor");
    let user = Uuid::new_v4();
    let pid = backend_pid(&mut house.app);
    let seen = |monitor: &mut Client, pid: i32| -> Option<(Uuid, Option<Uuid>, String, String)> {
        let sql = "SELECT tenant_id, user_id, role, state FROM tenancy.activity WHERE pid = $1";
        let found = rows(monitor, sql, &[&pid]);
        found.first().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
    };
    assert_eq!(seen(&mut monitor, pid), None);
    let mut transaction = house.app.transaction().expect("begin");
    let _: Uuid = one(&mut transaction, "SELECT set_tenant($1, $2)", &[&house.a, &user]);
    let expected = (house.a, Some(user), "app".to_owned(), "idle in transaction".to_owned());
    assert_eq!(seen(&mut monitor, pid), Some(expected.clone()));
    transaction.commit().expect("commit");
    assert_eq!(seen(&mut monitor, pid), None);

    let mut transaction = house.app.transaction().expect("begin");
    let mut savepoint = transaction.transaction().expect("savepoint");
    bind(&mut savepoint, house.b);
    assert_eq!(seen(&mut monitor, pid).map(|(tenant, ..)| tenant), Some(house.b));
    savepoint.rollback().expect("roll back");
    assert_eq!(seen(&mut monitor, pid), None, "the savepoint took the binding with it");
    bind(&mut transaction, house.b);
    fails(transaction.batch_execute("SELECT 1/0"), "22012");
    transaction.rollback().expect("roll back");
    assert_eq!(seen(&mut monitor, pid), None);

    // A session that ends in the middle leaves nothing.
    let mut leaving = house.database.connect("app");
    let leaving_pid = backend_pid(&mut leaving);
    leaving.batch_execute(&format!("BEGIN; SELECT set_tenant('{}')", house.a)).expect("bind");
    assert!(seen(&mut monitor, leaving_pid).is_some());
    drop(leaving);
    harness::wait_until("the session has left", || seen(&mut monitor, leaving_pid).is_none());
}

/// A backend that a tenant is bound in, twice, counts as what it is now.
#[test]
fn activity_counts_each_backend_once() {
    let mut house = House::new("activity_once");
    let mut operator = house.database.connect("operator");
    let backends = "SELECT backends FROM tenancy.tenant_overview WHERE id = $1";
    let mut transaction = house.app.transaction().expect("begin");
    bind(&mut transaction, house.a);
    bind(&mut transaction, house.a);
    assert_eq!(one::<i64>(&mut operator, backends, &[&house.a]), 1);
    transaction.commit().expect("commit");
    assert_eq!(one::<i64>(&mut operator, backends, &[&house.a]), 0);
}

// ---------------------------------------------------------------------------------------------------------
// Other errors
// ---------------------------------------------------------------------------------------------------------

const CONSTRAINED: &str = "
CREATE TABLE parent_TABLE (id int PRIMARY KEY);
CREATE TABLE \"T able\" (id int PRIMARY KEY, code text CONSTRAINT \"U nique\" UNIQUE, parent int CONSTRAINT \"F oreign\" REFERENCES parent_TABLE,
    amount int CONSTRAINT \"C heck\" CHECK (amount > 0), needed int NOT NULL DEFAULT 1, tenant_id uuid,
    span int4range, CONSTRAINT \"E xclude\" EXCLUDE USING gist (span WITH &&));
GRANT ALL ON \"T able\", parent_TABLE TO app;
CREATE FUNCTION do_it(statement text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE statement; END';
CREATE TABLE by_trigger (statement text); GRANT ALL ON by_trigger TO app;
CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE NEW.statement; RETURN NEW; END';
CREATE TRIGGER t AFTER INSERT ON by_trigger FOR EACH ROW EXECUTE FUNCTION on_insert();
";

/// Violations, with SQLSTATE, constraint and column as PostgreSQL reports them.
const VIOLATIONS: [(&str, &str, Option<&str>, Option<&str>); 7] = [
    ("INSERT INTO \"T able\" (id) VALUES (1), (1)", "23505", Some("T able_pkey"), None),
    ("INSERT INTO \"T able\" (id, code) VALUES (1, 'x'), (2, 'x')", "23505", Some("U nique"), None),
    ("INSERT INTO \"T able\" (id, parent) VALUES (1, 9)", "23503", Some("F oreign"), None),
    ("INSERT INTO \"T able\" (id, amount) VALUES (1, 0)", "23514", Some("C heck"), None),
    ("INSERT INTO \"T able\" (id, needed) VALUES (1, NULL)", "23502", None, Some("needed")),
    ("INSERT INTO \"T able\" (id, span) VALUES (1, '[1,5)'), (2, '[2,6)')", "23P01", Some("E xclude"), None),
    ("INSERT INTO \"T able\" (id) VALUES (3); UPDATE \"T able\" SET amount = -1", "23514", Some("C heck"), None),
];

fn violations(label: &str, protected: bool) {
    let mut house = House::new(label);
    house.run_as("owner", CONSTRAINED);
    if protected {
        house.as_superuser("SELECT protect_table('\"T able\"')");
    }
    for (statement, sqlstate, constraint, column) in VIOLATIONS {
        let quoted = statement.replace('\'', "''");
        for way in [
            statement.to_owned(),
            format!("SELECT do_it('{quoted}')"),
            format!("INSERT INTO by_trigger VALUES ('{quoted}')"),
            format!("DO $$ BEGIN {statement}; END $$"),
            format!("SAVEPOINT s; {statement}"),
        ] {
            let fault = refused_as(&mut house.app, house.b, &way, sqlstate);
            assert_eq!(fault.constraint(), constraint, "{way}: {fault:?}");
            assert_eq!(fault.table(), Some("T able"), "{way}: {fault:?}");
            assert_eq!(fault.schema(), Some("public"), "{way}: {fault:?}");
            assert_eq!(fault.column(), column, "{way}: {fault:?}");
            assert!(!fault.message().is_empty() && !fault.message().contains("pgrx"), "{fault:?}");
        }
    }
    // Prepared, and with values that come apart from the statement.
    let insert = "INSERT INTO \"T able\" (id, amount) VALUES ($1, $2)";
    let statement = house.app.prepare(insert).expect("prepare");
    for _ in 0..7 {
        let mut transaction = house.app.transaction().expect("begin");
        bind(&mut transaction, house.b);
        let fault = fails(transaction.execute(&statement, &[&1_i32, &0_i32]), "23514");
        assert_eq!((fault.constraint(), fault.table()), (Some("C heck"), Some("T able")));
        transaction.rollback().expect("roll back");
    }
}

#[test]
fn violations_in_protected_tables_are_reported_in_full() {
    violations("errors_protected", true);
}

#[test]
fn violations_in_other_tables_are_reported_in_full() {
    violations("errors_plain", false);
}

#[test]
fn errors_that_users_raise_arrive_as_they_were_raised() {
    let mut house = House::new("errors_raised");
    house.run_as(
        "owner",
        "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             RAISE EXCEPTION 'too bad: %', NEW.body USING ERRCODE = 'XY123', DETAIL = 'a detail', HINT = 'a hint',
                 COLUMN = 'a column', CONSTRAINT = 'a constraint', DATATYPE = 'a type', TABLE = 'a table', SCHEMA = 'a schema';
         END $$;
         CREATE TRIGGER complain BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION complain()",
    );
    for statement in
        ["INSERT INTO notes (body) VALUES ('x')", "DO $$ BEGIN INSERT INTO notes (body) VALUES ('x'); END $$"]
    {
        let fault = refused_as(&mut house.app, house.b, statement, "XY123");
        assert_eq!(fault.message(), "too bad: x");
        assert_eq!((fault.detail(), fault.hint()), (Some("a detail"), Some("a hint")));
        assert_eq!((fault.column(), fault.constraint()), (Some("a column"), Some("a constraint")));
        assert_eq!((fault.table(), fault.schema()), (Some("a table"), Some("a schema")));
        assert_eq!(fault.datatype(), Some("a type"));
        assert!(fault.where_().is_some_and(|context| context.contains("complain()")), "{fault:?}");
    }
}

/// A refusal that the hooks raise tells the caller nothing that a stack trace of the server would.
#[test]
fn refusals_carry_no_internals() {
    let mut house = House::new("errors_own");
    house.as_superuser("CREATE VIEW v AS TABLE notes; GRANT SELECT ON v TO app");
    for statement in ["TABLE v", "INSERT INTO notes (tenant_id) VALUES (NULL)"] {
        let fault = refused_as(&mut house.app, house.b, statement, "42501");
        let told = format!("{:?} {:?} {:?}", fault.message(), fault.detail(), fault.where_());
        assert!(!told.contains("pgrx") && !told.contains(".rs"), "{told}");
    }
}

// ---------------------------------------------------------------------------------------------------------
// DROP EXTENSION
// ---------------------------------------------------------------------------------------------------------

#[test]
fn dropping_the_extension_leaves_tables_closed() {
    let mut house = House::new("dropped");
    house.run_as(
        "owner",
        "CREATE TABLE texts (tenant_id text, body text); GRANT ALL ON texts TO app; CREATE VIEW of_owner AS TABLE notes;
         GRANT ALL ON of_owner TO app",
    );
    house.as_superuser("SELECT protect_table('texts'); CREATE VIEW v AS TABLE notes; GRANT ALL ON v TO app, client");
    touched_as(&mut house.app, house.a, "INSERT INTO texts (body) VALUES ('x')");
    let before = run(house.database.tool("psql", "postgres").args(["-XAtc", "SELECT * FROM notes ORDER BY id"]));
    house.as_superuser("DROP EXTENSION pg_tenancy CASCADE");
    for table in ["notes", "texts", "of_owner"] {
        for role in ["app", "owner"] {
            let mut client = house.database.connect(role);
            assert_eq!(count(&mut client, table), 0, "{role} {table}");
            fails(client.batch_execute(&format!("INSERT INTO {table} (body) VALUES ('x')")), "42501");
            assert_eq!(client.execute(&format!("DELETE FROM {table}"), &[]).expect("delete nothing"), 0);
            assert_eq!(client.execute(&format!("UPDATE {table} SET body = 'x'"), &[]).expect("update nothing"), 0);
        }
    }
    let after = run(house.database.tool("psql", "postgres").args(["-XAtc", "SELECT * FROM notes ORDER BY id"]));
    assert_eq!(after, before);
    for role in ["app", "client"] {
        let mut client = house.database.connect(role);
        let open = client.query("SELECT * FROM v", &[]).map_or(0, |rows| rows.len());
        assert_eq!(open, 0, "{role} reads a superuser's view");
    }
    house.run_as("owner", "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY");
    assert_eq!(count(&mut house.database.connect("owner"), "notes"), 2, "the owner's explicit act");
}

#[test]
fn dropping_the_extension_without_cascade_is_refused_while_tables_are_protected() {
    let house = House::new("dropped_restrict");
    fails(house.database.superuser().batch_execute("DROP EXTENSION pg_tenancy"), "2BP01");
    fails(house.database.superuser().batch_execute("DROP SCHEMA tenancy CASCADE"), "2BP01");
    fails(house.database.superuser().batch_execute("DROP FUNCTION tenancy_guard CASCADE"), "2BP01");
}

/// After the extension is created anew, protect_table takes the tables up where they were.
#[test]
fn a_new_extension_takes_the_tables_up_again() {
    let mut house = House::new("dropped_anew");
    house.as_superuser(
        "DROP EXTENSION pg_tenancy CASCADE; CREATE EXTENSION pg_tenancy;
         SELECT grant_access('app', 'app'), grant_access('operator', 'operator'), grant_access('admin', 'admin')",
    );
    assert_eq!(count(&mut house.app, "notes"), 0);
    let mut admin = house.database.connect("admin");
    fails(admin.batch_execute("SELECT protect_table('notes')"), "55000");
    let mut operator = house.database.connect("operator");
    for tenant in [house.a, house.b] {
        operator.execute("SELECT create_tenant('T ' || $1::uuid, id => $1::uuid)", &[&tenant]).expect("create");
    }
    assert!(one::<bool>(&mut admin, "SELECT protect_table('notes')", &[]));
    let own = column_as(&mut house.app, house.b, "SELECT tenant_id FROM notes");
    assert_eq!(own, [house.b.to_string()]);
}
