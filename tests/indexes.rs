//! Indexes under row security: conditions whose functions are not leakproof are searched for in an index, and nobody learns anything of other
//! tenants' rows by that.

use crate::row::{column_as, refused_as};
use harness::{
    Client, Database, Notices, Transaction, Uuid, as_tenant, bind, count, fails, one, rows, simple, tenants,
};

/// Texts for [`crate::row`]'s sake are `secret of <tenant> <number>`, so that whatever tells of them names the tenant.
const TABLE: &str = "
CREATE TABLE docs (
    tenant_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    tags text[] NOT NULL,
    numbers numeric[] NOT NULL,
    doc jsonb NOT NULL,
    words tsvector NOT NULL,
    amount numeric NOT NULL,
    span int4range NOT NULL,
    place point NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO app, client;
CREATE FUNCTION tell(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN $1; END $$;
CREATE FUNCTION tell_tags(text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN ARRAY[CASE WHEN $1 < '9' THEN 'few' ELSE 'many' END, $1]; END $$;
";

/// Every tenant has the same rows, but for its name in the texts.
const FILL: &str = "INSERT INTO docs (name, tags, numbers, doc, words, amount, span, place)
    SELECT format('%s secret of %s', md5(i::text), current_tenant()), ARRAY['tag' || i % 500, 'common'], ARRAY[i], jsonb_build_object('n', i % 500),
           to_tsvector('simple', 'word' || i % 500 || ' common'), i, int4range(i, i + 3), point(i, i)
    FROM generate_series(1, 3000) AS i";

/// The remedies: each begins with the tenant.
const INDEXES: &str = "
CREATE INDEX docs_name ON docs (tenant_id, name text_pattern_ops);
CREATE INDEX docs_lower ON docs (tenant_id, lower(name) text_pattern_ops);
CREATE INDEX docs_trigrams ON docs USING gin (tenant_id, name gin_trgm_ops);
CREATE INDEX docs_tags ON docs USING gin (tenant_id, tags);
CREATE INDEX docs_numbers ON docs USING gin (tenant_id, numbers);
CREATE INDEX docs_doc ON docs USING gin (tenant_id, doc);
CREATE INDEX docs_words ON docs USING gin (tenant_id, words);
CREATE INDEX docs_text ON docs USING gin (tenant_id, to_tsvector('simple', name));
CREATE INDEX docs_amount ON docs (tenant_id, amount);
CREATE INDEX docs_span ON docs USING gist (tenant_id, span);
CREATE INDEX docs_place ON docs USING gist (tenant_id, place);
";

/// A condition, and the index that serves it.
const SEARCHES: [(&str, &str); 14] = [
    ("name LIKE 'c4ca4%'", "docs_name"),
    ("lower(name) LIKE 'c4ca4%'", "docs_lower"),
    ("name LIKE '%a0b9238%'", "docs_trigrams"),
    ("name ILIKE '%A0B9238%'", "docs_trigrams"),
    ("name ~ 'a0b92.8'", "docs_trigrams"),
    ("tags @> '{tag77}'", "docs_tags"),
    ("tags && '{tag77,tag78}'", "docs_tags"),
    ("numbers @> '{77}'", "docs_numbers"),
    ("doc @> '{\"n\": 77}'", "docs_doc"),
    ("words @@ 'word77'::tsquery", "docs_words"),
    ("to_tsvector('simple', name) @@ 'c4ca4238a0b923820dcc509a6f75849b'::tsquery", "docs_text"),
    ("amount BETWEEN 77 AND 79", "docs_amount"),
    ("span @> 77", "docs_span"),
    ("name LIKE 'c4ca4%' OR tags @> '{tag77}'", "docs_tags"),
];

struct House {
    database: Database,
    app: Client,
    notices: Notices,
    a: Uuid,
    b: Uuid,
}

impl House {
    fn new(label: &str) -> House {
        Self::with(label, 2, "")
    }

    /// The table with `more` beside it, filled for so many tenants, with indexes and statistics.
    fn with(label: &str, others: usize, more: &str) -> House {
        let database = Database::new(label);
        let mut superuser = database.superuser();
        superuser
            .batch_execute("CREATE EXTENSION btree_gin; CREATE EXTENSION btree_gist; CREATE EXTENSION pg_trgm")
            .expect("create extensions");
        database.connect("owner").batch_execute(&format!("{TABLE}{more}")).expect("create the table");
        assert!(one::<bool>(&mut database.connect("admin"), "SELECT protect_table('docs')", &[]));
        let (mut app, notices) = database.connect_with_notices("app");
        let created = tenants(&mut database.connect("operator"), others);
        for &tenant in &created {
            as_tenant(&mut app, tenant, |transaction| transaction.batch_execute(FILL).expect("fill"));
        }
        database.connect("owner").batch_execute(INDEXES).expect("create indexes");
        superuser.batch_execute("VACUUM ANALYZE docs").expect("analyze");
        notices.take();
        House { database, app, notices, a: created[0], b: created[1] }
    }

    fn plan(&mut self, statement: &str) -> String {
        plan_as(&mut self.app, self.b, statement)
    }
}

fn plan_as(client: &mut Client, tenant: Uuid, statement: &str) -> String {
    column_as(client, tenant, &format!("EXPLAIN (COSTS off) {statement}")).join("\n")
}

/// The lines of a plan that search an index for more than the tenant.
fn searches(plan: &str, index: &str) -> bool {
    let lines: Vec<&str> = plan.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| {
        let begins = pair[0].contains("Index") && pair[0].contains(&format!(" {index}"));
        begins && pair[1].starts_with("Index Cond: ((tenant_id = current_tenant()) AND ")
    })
}

fn ids(transaction: &mut Transaction<'_>, condition: &str) -> Vec<i64> {
    let query = format!("SELECT id FROM docs WHERE {condition} ORDER BY id");
    rows(transaction, &query, &[]).iter().map(|row| row.get(0)).collect()
}

#[test]
fn every_kind_of_search_uses_the_index_that_begins_with_the_tenant() {
    let mut house = House::new("indexes_all");
    let (mut superuser, b) = (house.database.superuser(), house.b);
    for (condition, index) in SEARCHES {
        let plan = house.plan(&format!("SELECT * FROM docs WHERE {condition}"));
        assert!(searches(&plan, index), "{condition}:\n{plan}");
        let found = as_tenant(&mut house.app, b, |transaction| ids(transaction, condition));
        let theirs: Vec<i64> = {
            let query = format!("SELECT id FROM docs WHERE tenant_id = '{b}' AND ({condition}) ORDER BY id");
            rows(&mut superuser, &query, &[]).iter().map(|row| row.get(0)).collect()
        };
        assert_eq!(found, theirs, "{condition}");
        assert!(!found.is_empty(), "{condition}");
    }
}

#[test]
fn updates_deletes_joins_and_parameters_use_it_too() {
    let mut house = House::new("indexes_statements");
    for (statement, index) in [
        ("UPDATE docs SET amount = amount WHERE tags @> '{tag77}'", "docs_tags"),
        ("DELETE FROM docs WHERE name LIKE 'c4ca4%'", "docs_name"),
        ("SELECT * FROM docs WHERE words @@ 'word77'::tsquery FOR UPDATE", "docs_words"),
        ("SELECT * FROM docs a JOIN docs b ON b.tags @> a.tags[1:1] WHERE a.id = 5", "docs_tags"),
        ("SELECT * FROM docs a LEFT JOIN docs b ON b.span @> a.amount::int WHERE a.id = 5", "docs_span"),
        ("SELECT (SELECT count(*) FROM docs b WHERE b.tags @> a.tags[1:1]) FROM docs a WHERE a.id = 5", "docs_tags"),
        (
            "SELECT * FROM (VALUES (77), (78)) v (n), LATERAL (SELECT id FROM docs WHERE span @> n LIMIT 1) x",
            "docs_span",
        ),
        ("WITH found AS (SELECT * FROM docs WHERE name LIKE 'c4ca4%') SELECT * FROM found", "docs_name"),
    ] {
        let plan = house.plan(statement);
        assert!(searches(&plan, index), "{statement}:\n{plan}");
    }
    // A statement that was prepared for one tenant serves the next.
    let (a, b) = (house.a, house.b);
    house
        .app
        .batch_execute("SET plan_cache_mode = force_generic_plan; PREPARE found (text[]) AS SELECT name FROM docs WHERE tags @> $1")
        .expect("prepare");
    for tenant in [a, b, a] {
        let plan = plan_as(&mut house.app, tenant, "EXECUTE found ('{tag77}')");
        assert!(searches(&plan, "docs_tags"), "{plan}");
        let names = column_as(&mut house.app, tenant, "EXECUTE found ('{tag77}')");
        assert_eq!(names.len(), 6);
        assert!(names.iter().all(|name| name.ends_with(&tenant.to_string())), "{names:?}");
    }
}

#[test]
fn partitions_and_other_tenant_columns_are_searched_alike() {
    let mut house = House::with(
        "indexes_partitions",
        2,
        "CREATE TABLE events (org text, at date NOT NULL, tags text[] NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
         CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
         GRANT ALL ON events TO app",
    );
    let protect = "SELECT protect_table('events', 'org')";
    assert!(one::<bool>(&mut house.database.connect("admin"), protect, &[]));
    for tenant in [house.a, house.b] {
        as_tenant(&mut house.app, tenant, |transaction| {
            let fill = "INSERT INTO events (at, tags) SELECT date '2026-01-01' + i % 360, ARRAY['tag' || i % 500] FROM generate_series(1, 4000) AS i";
            transaction.batch_execute(fill).expect("fill");
        });
    }
    house.database.connect("owner").batch_execute("CREATE INDEX ON events USING gin (org, tags)").expect("index");
    house.database.superuser().batch_execute("VACUUM ANALYZE events").expect("analyze");
    let plan = house.plan("SELECT * FROM events WHERE tags @> '{tag77}'");
    assert_eq!(plan.matches("Index Cond: ((org = current_tenant_text()) AND (tags @>").count(), 2, "{plan}");
    let found = column_as(&mut house.app, house.b, "SELECT org FROM events WHERE tags @> '{tag77}'");
    assert_eq!(found, vec![house.b.to_string(); 8]);
}

/// PostgreSQL's own rule for all that is not known to keep tenants apart.
#[test]
fn an_index_that_does_not_keep_tenants_apart_is_not_searched() {
    let mut house = House::new("indexes_apart");
    house
        .database
        .connect("owner")
        .batch_execute(
            "DROP INDEX docs_tags, docs_name, docs_amount, docs_trigrams;
             CREATE INDEX alone_tags ON docs USING gin (tags); CREATE INDEX last_tags ON docs USING gin (tags, tenant_id);
             CREATE INDEX alone_name ON docs (name text_pattern_ops); CREATE INDEX last_name ON docs (name text_pattern_ops, tenant_id);
             CREATE INDEX alone_amount ON docs (amount)",
        )
        .expect("create indexes");
    // Sequential scans would hide what the planner may do.
    for (statement, index) in [
        ("SELECT * FROM docs WHERE tags @> '{tag77}'", "_tags"),
        ("SELECT * FROM docs WHERE name LIKE 'c4ca4%'", "_name"),
        ("SELECT * FROM docs WHERE amount = 77", "_amount"),
        ("SELECT * FROM docs WHERE place <@ box '((1,1),(2,2))'", "docs_place"),
    ] {
        let plan = house.plan(statement);
        let served = plan
            .lines()
            .any(|line| line.contains("Index Cond") && !line.trim().ends_with("(tenant_id = current_tenant())"));
        assert!(!served, "{index}: {plan}");
    }
}

/// A policy of the user's own has to come before the statement's conditions, too.
#[test]
fn beside_a_users_own_policy_all_is_as_postgresql_does_it() {
    let mut house = House::new("indexes_policies");
    house
        .database
        .connect("owner")
        .batch_execute("CREATE POLICY mine ON docs AS RESTRICTIVE USING (tell(name) NOT LIKE 'c4ca4%')")
        .expect("create a policy");
    let plan = house.plan("SELECT * FROM docs WHERE tags @> '{tag1}'");
    assert!(!searches(&plan, "docs_tags"), "{plan}");
    let hidden = "SELECT count(*)::text FROM docs WHERE name LIKE 'c4ca4%'";
    assert_eq!(column_as(&mut house.app, house.b, hidden), ["0"]);
}

/// Such a policy need not name a column.
#[test]
fn a_policy_of_no_column_comes_before_a_search_too() {
    let mut house = House::new("indexes_var_free");
    house
        .database
        .connect("owner")
        .batch_execute("CREATE POLICY mine ON docs AS RESTRICTIVE USING (current_setting('app.is_open', true) = 'yes')")
        .expect("create a policy");
    // Fails at a row that the index has found and that matches up to the backslash.
    let failing = "SELECT * FROM docs WHERE name LIKE '%c4ca4238a0b9%secret of%\\'";
    let plan = house.plan(failing);
    assert!(!searches(&plan, "docs_trigrams"), "{plan}");
    assert!(column_as(&mut house.app, house.b, failing).is_empty());
    house.app.batch_execute("SET app.is_open = 'yes'").expect("open");
    refused_as(&mut house.app, house.b, failing, "22025");
}

/// GIN drops rows at random where each entry of a search has more rows than the limit, of all tenants.
#[test]
fn no_session_has_results_depend_on_how_many_rows_others_have() {
    let mut house = House::new("indexes_fuzzy");
    let (key, b) = (create_key(&mut house), house.b);
    let mut client = house.database.connect("client");
    for limit in [
        "SET gin_fuzzy_search_limit = 5",
        "SET LOCAL gin_fuzzy_search_limit = 5",
        "SELECT set_config('gin_fuzzy_search_limit', '5', true)",
        "UPDATE pg_settings SET setting = 5 WHERE name = 'gin_fuzzy_search_limit'",
        "ALTER ROLE client SET gin_fuzzy_search_limit = 5",
    ] {
        client.batch_execute(&format!("BEGIN; SELECT authenticate_api_key('{key}')")).expect("authenticate");
        fails(client.batch_execute(limit), "42501");
        client.batch_execute("ROLLBACK").expect("roll back");
    }
    // Where an administrator has set it, no index of GIN is searched for what waits for the policies.
    let mut superuser = house.database.superuser();
    superuser.batch_execute("ALTER ROLE app SET gin_fuzzy_search_limit = 5").expect("set");
    let mut limited = house.database.connect("app");
    superuser.batch_execute("ALTER ROLE app RESET gin_fuzzy_search_limit").expect("reset");
    let plan = plan_as(&mut limited, b, "SELECT * FROM docs WHERE tags @> '{tag77}'");
    assert!(!searches(&plan, "docs_tags"), "{plan}");
}

/// What a search may say of rows that are not the tenant's: nothing, by errors, notices or counts, for conditions that fail, tell or cast.
#[test]
fn no_search_tells_of_another_tenants_rows() {
    let mut house = House::new("indexes_probes");
    let (a, b) = (house.a, house.b);
    // B has no such rows, A has.
    as_tenant(&mut house.app, b, |transaction| {
        let remove = "DELETE FROM docs WHERE id % 3000 < 1500 OR tags && '{tag1,tag2,tag3}'";
        transaction.batch_execute(remove).expect("delete");
    });
    house.database.superuser().batch_execute("VACUUM ANALYZE docs").expect("vacuum");
    let of_a = |house: &mut House, condition: &str| {
        as_tenant(&mut house.app, a, |transaction| {
            transaction.batch_execute(&format!("SELECT * FROM docs WHERE {condition}"))
        })
    };
    for (condition, sqlstate) in [
        // Fails at a row that matches up to the backslash.
        ("name LIKE 'c4ca4238%a\\'", "22025"),
        ("name LIKE 'c4ca4238%' AND name LIKE '%c4ca4238a0b9\\'", "22025"),
        ("tags @> '{tag1}' AND name::int > 0", "22P02"),
        ("tags @> '{tag1}' AND 1 / (amount - amount) > 0", "22012"),
        ("doc @> '{\"n\": 1}' AND (doc ->> 'n')::uuid IS NOT NULL", "22P02"),
        ("words @@ 'word1'::tsquery AND name::date > '2026-01-01'", "22007"),
        ("span @> 1 AND int4range(upper(span), lower(span)) IS NOT NULL", "22000"),
        ("amount BETWEEN 1 AND 3 AND 1 / (amount::int / 1000000) > 0", "22012"),
        ("name ~ '^c4ca4238a0b9' AND name::int > 0", "22P02"),
    ] {
        // It would fail, if there were such a row: A's own session is the proof.
        let fault = of_a(&mut house, condition).expect_err(condition);
        assert_eq!(fault.code().map(postgres_code), Some(sqlstate.to_owned()), "{condition}");
        let found = as_tenant(&mut house.app, b, |transaction| ids(transaction, condition));
        assert!(found.is_empty(), "{condition}: {found:?}");
    }
    // Counts, as the trusted backend sees them: rows that an index has found are the tenant's.
    for (condition, index) in SEARCHES {
        let explain =
            format!("EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT * FROM docs WHERE {condition}");
        let plan = column_as(&mut house.app, b, &explain).join("\n");
        let own = as_tenant(&mut house.app, b, |transaction| ids(transaction, condition)).len();
        assert!(searches(&plan, index), "{plan}");
        if condition.contains("tag77") || condition.contains("word77") || condition.contains("amount") {
            assert!(!plan.contains("Rows Removed"), "{condition}, {own} rows:\n{plan}");
        }
    }
}

fn postgres_code(code: &harness::postgres::error::SqlState) -> String {
    code.code().to_owned()
}

/// Pages that do not fit into `work_mem` are looked at row by row, other tenants' too: the tenant's condition comes first.
#[test]
fn rows_that_are_looked_at_again_are_the_tenants_own() {
    let mut house = House::with("indexes_lossy", 3, "");
    house
        .database
        .connect("owner")
        .batch_execute("CREATE INDEX docs_told ON docs USING gin (tenant_id, tell_tags(name))")
        .expect("index");
    // All tenants' rows share the pages.
    let mut superuser = house.database.superuser();
    for mix in [
        "ALTER TABLE docs SET (fillfactor = 10)",
        "CREATE INDEX mixed ON docs (md5(id::text))",
        "CLUSTER docs USING mixed",
        "VACUUM ANALYZE docs",
    ] {
        superuser.batch_execute(mix).expect(mix);
    }
    let (a, b) = (house.a, house.b);
    for tenant in [a, b] {
        house.notices.take();
        let mut transaction = house.app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        transaction
            .batch_execute(
                "SET LOCAL work_mem = '64kB'; SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off",
            )
            .expect("settings");
        let query = "SELECT count(*) FROM docs WHERE tell_tags(name) @> '{few}'";
        let plan: Vec<String> = simple(&mut transaction, &format!("EXPLAIN (ANALYZE, COSTS off, TIMING off) {query}"))
            .into_iter()
            .filter_map(|mut row| row.remove(0))
            .collect();
        let plan = plan.join("\n");
        assert!(searches(&plan, "docs_told"), "{plan}");
        assert!(plan.contains("lossy="), "{plan}");
        assert_eq!(
            simple(&mut transaction, query),
            simple(&mut transaction, "SELECT count(*) FROM docs WHERE name < '9'")
        );
        transaction.rollback().expect("end");
        let told = house.notices.messages();
        assert!(
            told.iter().filter(|message| message.starts_with("told ")).count() > 100,
            "the rows are looked at again"
        );
        let others = told
            .iter()
            .filter(|message| message.starts_with("told ") && !message.contains(&tenant.to_string()))
            .count();
        assert_eq!(others, 0);
    }
}

/// Rows that a search passed over are counted by EXPLAIN ANALYZE: `WHERE name = …` by an index without the tenant tells whether others have the name.
#[test]
fn who_was_bound_by_a_credential_gets_no_counts() {
    let mut house = House::new("indexes_counts");
    house.database.connect("owner").batch_execute("CREATE INDEX everybodys ON docs (amount, id)").expect("index");
    let (key, b) = (create_key(&mut house), house.b);
    let mut client = house.database.connect("client");
    let authenticate = format!("BEGIN; SELECT authenticate_api_key('{key}')");
    for explain in [
        "EXPLAIN ANALYZE SELECT * FROM docs WHERE id = 5",
        "EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM docs",
        "EXPLAIN (ANALYZE true) UPDATE docs SET amount = 1",
        "DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE SELECT * FROM docs'; END $$",
        "PREPARE p AS SELECT * FROM docs; EXPLAIN ANALYZE EXECUTE p",
        "EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT * FROM docs",
        "EXPLAIN ANALYZE SELECT * FROM (SELECT failing(), id FROM docs) AS x",
        "SET CONSTRAINTS ALL IMMEDIATE; EXPLAIN (VERBOSE, ANALYZE) SELECT count(*) FROM docs WHERE failing() > 0",
    ] {
        let function = "CREATE OR REPLACE FUNCTION failing() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
            'BEGIN BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN END; RETURN 1; END'";
        house.database.superuser().batch_execute(function).expect("create a function");
        client.batch_execute(&authenticate).expect("authenticate");
        let fault = fails(client.batch_execute(explain), "42501");
        assert!(fault.message().contains("EXPLAIN ANALYZE of protected table public.docs"), "{explain}: {fault:?}");
        client.batch_execute("ROLLBACK").expect("roll back");
    }
    // A statement that is planned already can be explained before a tenant is bound, and bind it itself.
    client
        .batch_execute(
            "SET plan_cache_mode = force_generic_plan; PREPARE late (text) AS WITH who AS MATERIALIZED (SELECT authenticate_api_key($1) AS is)
             SELECT * FROM who, LATERAL (SELECT * FROM docs WHERE amount = 5 AND who.is::text IS NOT NULL OFFSET 0) AS found",
        )
        .expect("prepare");
    client.batch_execute(&format!("{authenticate}; EXPLAIN EXECUTE late ('{key}'); COMMIT; BEGIN")).expect("plan");
    fails(client.batch_execute(&format!("EXPLAIN ANALYZE EXECUTE late ('{key}')")), "42501");
    client.batch_execute("ROLLBACK; RESET plan_cache_mode").expect("roll back");
    // What tells nothing goes on: plans, other tables, statements after a refused one, and the trusted backend.
    client.batch_execute(&authenticate).expect("authenticate");
    client
        .batch_execute("EXPLAIN SELECT * FROM docs; EXPLAIN ANALYZE SELECT * FROM pg_class; SAVEPOINT s")
        .expect("explain");
    fails(client.batch_execute("EXPLAIN ANALYZE SELECT * FROM docs"), "42501");
    client.batch_execute("ROLLBACK TO s; SELECT * FROM docs; COMMIT").expect("read");
    assert!(!column_as(&mut house.app, b, "EXPLAIN ANALYZE SELECT * FROM docs").is_empty());
    assert!(count(&mut house.database.superuser(), "docs") > 0);
    refused_as(&mut house.app, b, "SELECT 1 / 0", "22012");
}

fn create_key(house: &mut House) -> String {
    let create = "SELECT api_key FROM create_api_key('explain')";
    as_tenant(&mut house.app, house.b, |transaction| one(transaction, create, &[]))
}
