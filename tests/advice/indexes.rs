//! Indexes that row security keeps from being searched.

use super::fixtures::*;
use harness::*;

const TABLE: &str = "
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TABLE docs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid, title text, tags text[], body jsonb, price numeric,
    span int4range, words tsvector, state mood, at timestamptz, owner_id int);
CREATE INDEX like_title ON docs (title text_pattern_ops);
CREATE INDEX lower_title ON docs (lower(title)) WHERE price IS NOT NULL;
CREATE INDEX by_tags ON docs USING gin (tags) WITH (fastupdate = off);
CREATE INDEX by_body ON docs USING gin (body jsonb_path_ops);
CREATE INDEX by_words ON docs USING gin (words);
CREATE INDEX by_expression ON docs USING gin (to_tsvector('simple', title));
CREATE INDEX by_trigram ON docs USING gin (title gin_trgm_ops);
CREATE INDEX by_trigram_tree ON docs USING gist (title gist_trgm_ops);
CREATE INDEX by_span ON docs USING gist (span);
CREATE INDEX by_price ON docs (price) INCLUDE (title);
CREATE INDEX by_price_hash ON docs USING hash (price);
CREATE INDEX by_state ON docs (state);
COMMENT ON INDEX by_price IS 'cheap ones';
ALTER TABLE docs CLUSTER ON by_price;
CREATE INDEX good_title ON docs (title); CREATE INDEX good_at ON docs USING brin (at); CREATE INDEX good_owner ON docs USING hash (owner_id);
CREATE INDEX good_pair ON docs (tenant_id, state); CREATE INDEX good_many ON docs (at, owner_id)
";
const UNSEARCHED: [&str; 11] = [
    "by_body",
    "by_expression",
    "by_price",
    "by_price_hash",
    "by_span",
    "by_tags",
    "by_trigram",
    "by_trigram_tree",
    "by_words",
    "like_title",
    "lower_title",
];

/// A condition for each of those.
const CONDITIONS: [(&str, &str); 10] = [
    ("by_body", r#"body @> '{"n": 7}'"#),
    ("by_expression", "to_tsvector('simple', title) @@ 'title'"),
    ("by_price", "price = 7"),
    ("by_span", "span @> 7"),
    ("by_tags", "tags @> '{t7}'"),
    ("by_trigram", "title LIKE '%tle 77%'"),
    ("by_trigram_tree", "title LIKE '%tle 77%'"),
    ("by_words", "words @@ 'w7'"),
    ("like_title", "title LIKE 'title 77%'"),
    ("lower_title", "lower(title) = 'title 77' AND price IS NOT NULL"),
];

fn docs(label: &str) -> Database {
    let database = Database::new(label);
    database.superuser().batch_execute("CREATE EXTENSION pg_trgm").expect("pg_trgm");
    database.connect("owner").batch_execute(TABLE).expect("create");
    database.connect("owner").batch_execute("GRANT ALL ON docs TO app").expect("grant");
    database.connect("admin").batch_execute("SELECT protect_table('docs')").expect("protect");
    database
}

#[test]
fn an_index_that_is_not_searched_is_named_with_its_remedy() {
    let database = docs("advice_indexes");
    let steps = advice(&database);
    let mut named: Vec<&str> = steps.iter().map(|step| step.object.as_str()).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, UNSEARCHED);
    let statements: Vec<&str> =
        steps.iter().filter(|step| step.object == "by_tags").filter_map(|step| step.statement.as_deref()).collect();
    assert_eq!(
        statements,
        [
            "CREATE INDEX CONCURRENTLY by_tags_tenant ON public.docs USING gin (tenant_id, tags) WITH (fastupdate=off)",
            "DROP INDEX CONCURRENTLY public.by_tags"
        ]
    );
    let extensions: Vec<&str> = steps
        .iter()
        .filter_map(|step| step.statement.as_deref())
        .filter(|statement| statement.starts_with("CREATE EXTENSION"))
        .collect();
    assert_eq!(extensions, ["CREATE EXTENSION IF NOT EXISTS btree_gin", "CREATE EXTENSION IF NOT EXISTS btree_gist"]);
    follow(&database);
    let mut superuser = database.superuser();
    let query =
        "SELECT string_agg(pg_get_indexdef(indexrelid), E'\\n' ORDER BY indexrelid::regclass::text) FROM pg_index
        WHERE indrelid = 'docs'::regclass AND indexrelid::regclass::text LIKE '%\\_tenant'";
    let expected = "\
CREATE INDEX by_body_tenant ON public.docs USING gin (tenant_id, body jsonb_path_ops)
CREATE INDEX by_expression_tenant ON public.docs USING gin (tenant_id, to_tsvector('simple'::regconfig, title))
CREATE INDEX by_price_hash_tenant ON public.docs USING btree (tenant_id, price)
CREATE INDEX by_price_tenant ON public.docs USING btree (tenant_id, price) INCLUDE (title)
CREATE INDEX by_span_tenant ON public.docs USING gist (tenant_id, span)
CREATE INDEX by_tags_tenant ON public.docs USING gin (tenant_id, tags) WITH (fastupdate=off)
CREATE INDEX by_trigram_tenant ON public.docs USING gin (tenant_id, title gin_trgm_ops)
CREATE INDEX by_trigram_tree_tenant ON public.docs USING gist (tenant_id, title gist_trgm_ops)
CREATE INDEX by_words_tenant ON public.docs USING gin (tenant_id, words)
CREATE INDEX like_title_tenant ON public.docs USING btree (tenant_id, title text_pattern_ops)
CREATE INDEX lower_title_tenant ON public.docs USING btree (tenant_id, lower(title)) WHERE (price IS NOT NULL)";
    assert_eq!(text(&mut superuser, query), expected);
    assert_eq!(text(&mut superuser, "SELECT obj_description('by_price_tenant'::regclass)"), "cheap ones");
    let clustered = "SELECT indexrelid::regclass FROM pg_index WHERE indisclustered AND indexrelid >= 16384";
    assert_eq!(text(&mut superuser, clustered), "by_price_tenant");
}

/// The index that the plan of a query by a bound tenant searches, each index alone beside the tenant's own.
#[track_caller]
fn searched(database: &Database, tenant: Uuid, index: &str, condition: &str) -> bool {
    let mut app = database.connect("app");
    let plan = as_tenant(&mut app, tenant, |transaction| {
        transaction.batch_execute("SET LOCAL enable_seqscan = off").expect("set");
        simple(transaction, &format!("EXPLAIN (COSTS off) SELECT id FROM docs WHERE {condition}"))
    });
    let plan: Vec<String> = plan.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    let uses = |line: &String| {
        let rest = line.split_once(&format!(" {index}"));
        rest.is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(' '))
    };
    plan.iter().any(uses)
}

#[test]
fn what_is_advised_is_what_the_planner_searches() {
    let database = docs("advice_searched");
    let [a, b] = tenants(&mut database.connect("operator"), 2)[..] else { panic!("two tenants") };
    let mut superuser = database.superuser();
    for tenant in [a, b] {
        let fill = format!(
            "INSERT INTO docs (tenant_id, title, tags, body, price, span, words)
             SELECT '{tenant}', 'title ' || n, ARRAY['t' || n], jsonb_build_object('n', n), n, int4range(n, n + 2), to_tsvector('simple', 'w' || n)
             FROM generate_series(1, 2000) n"
        );
        superuser.batch_execute(&fill).expect("fill");
    }
    superuser.batch_execute("VACUUM ANALYZE docs").expect("analyze");
    for (index, condition) in CONDITIONS {
        assert!(!searched(&database, a, index, condition), "{index} before");
    }
    let steps = advice(&database);
    let build = |step: &&Advice| step.statement.as_deref().is_some_and(|sql| sql.starts_with("CREATE "));
    for step in steps.iter().filter(build) {
        carry_out(&database, step);
    }
    superuser.batch_execute("VACUUM ANALYZE docs").expect("analyze");
    for (index, condition) in CONDITIONS {
        // Alone, or another that serves as well may be chosen.
        let mut app = superuser.transaction().expect("begin");
        let others = format!(
            "SELECT 'DROP INDEX ' || indexrelid::regclass FROM pg_index WHERE indrelid = 'docs'::regclass AND NOT indisprimary
             AND indexrelid::regclass::text NOT IN ('{index}', '{index}_tenant', 'good_pair')"
        );
        for row in simple(&mut app, &others) {
            app.batch_execute(row[0].as_deref().unwrap_or_default()).expect("drop");
        }
        let explain = format!("EXPLAIN (COSTS off) SELECT id FROM docs WHERE {condition}");
        app.batch_execute(&format!("SET LOCAL ROLE app; SET LOCAL enable_seqscan = off; SELECT set_tenant('{a}')"))
            .expect("bind");
        let plan = simple(&mut app, &explain).into_iter().filter_map(|row| row.into_iter().next().flatten());
        let plan = plan.collect::<Vec<_>>().join("\n");
        assert!(plan.contains(&format!("{index}_tenant")), "{condition}:\n{plan}");
        app.rollback().expect("roll back");
    }
}

/// An index that serves already, or that has more columns, is enough; an extension that is there is not asked for.
#[test]
fn an_index_that_serves_already_is_enough() {
    let tables = "CREATE TABLE t (tenant_id uuid, price numeric, tags text[], at int, number numeric, UNIQUE (number, tenant_id));
        CREATE INDEX own ON t (price); CREATE INDEX ours ON t (tenant_id, price, at);
        CREATE INDEX behind ON t USING gin (tags, tenant_id)";
    let database = Database::new("advice_enough");
    database.superuser().batch_execute("CREATE EXTENSION btree_gin").expect("btree_gin");
    database.connect("owner").batch_execute(tables).expect("create");
    database.connect("admin").batch_execute("SELECT protect_table('t')").expect("protect");
    let statements: Vec<String> = follow(&database).into_iter().filter_map(|step| step.statement).collect();
    assert_eq!(
        statements,
        [
            "CREATE INDEX CONCURRENTLY behind_tenant ON public.t USING gin (tenant_id, tags)",
            "DROP INDEX CONCURRENTLY public.behind",
            "CREATE UNIQUE INDEX CONCURRENTLY t_number_tenant_id_key_tenant ON public.t USING btree (tenant_id, number)"
        ]
    );
}
