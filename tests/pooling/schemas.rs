//! Tenants with schemas of their own behind a pooler: the same names mean another schema in each transaction.

use crate::schema::fixtures::House;
use harness::*;

/// Two tenants whose accounts all bear their own slug, behind a pooler with one server session.
fn shared_session(label: &str) -> (House, PgBouncer, [(Uuid, &'static str); 2]) {
    let house = House::new(label);
    let tenants = [("a", 3), ("b", 5)].map(|(slug, accounts)| {
        let tenant = house.tenant(slug);
        let fill = format!("INSERT INTO accounts (name, stage) SELECT '{slug}', 1 FROM generate_series(1, {accounts})");
        as_tenant(&mut house.connect("app"), tenant, |tx| tx.batch_execute(&fill).expect("fill"));
        (tenant, slug)
    });
    let bouncer = PgBouncer::start(&house.database, PoolOptions::new(1));
    (house, bouncer, tenants)
}

/// A driver's statements, prepared once in the server session and used for one tenant after the other: plans, `search_path` and cached
/// functions follow the binding in each of them.
#[test]
fn statements_prepared_once_serve_the_bound_tenants_schema_in_five_thousand_transactions() {
    const TRANSACTIONS: usize = 5_000;
    let (house, bouncer, tenants) = shared_session("pool_schemas");
    let mut client = bouncer.connect("app");
    let mut setup = client.transaction().expect("begin");
    bind(&mut setup, tenants[0].0);
    let prepared = [
        "SELECT min(name) || max(name) || '' FROM accounts",
        "SELECT min(name) || max(name) FROM accounts WHERE stage = (SELECT min(id) FROM stages)",
        "SELECT repeat(CASE by_name('a') WHEN 0 THEN 'b' ELSE 'a' END, 2)",
        "SELECT CASE WHEN how_many() = (SELECT accounts FROM totals) THEN (SELECT min(name) || max(name) FROM accounts) END",
        "WITH n AS (INSERT INTO accounts (name) SELECT min(name) FROM accounts RETURNING id, name), d AS (DELETE FROM accounts WHERE id = (SELECT max(id) FROM accounts))
         SELECT n.name || n.name FROM n WHERE id = currval(pg_get_serial_sequence('accounts', 'id'))",
        "SELECT min(name) || max(name) FROM accounts a WHERE mood = 'glad'::mood",
    ]
    .map(|sql| setup.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}")));
    setup.batch_execute("PREPARE by_sql AS SELECT min(name) || max(name) FROM accounts").expect("prepare");
    setup.commit().expect("commit");
    // The other tenant's client finds what this one has prepared by SQL, in the one server session there is.
    let mut second = bouncer.connect("app");
    let mut random = Random::new(41);
    let pid = text(&mut second, "SELECT pg_backend_pid()");
    for turn in 0..TRANSACTIONS {
        let (tenant, slug) = *random.one_of(&tenants);
        let own = slug.repeat(2);
        if turn % 50 == 0 {
            let sql = format!(
                "BEGIN; SELECT set_tenant('{tenant}'); EXECUTE by_sql; SAVEPOINT s; EXECUTE by_sql; ROLLBACK TO s; EXECUTE by_sql; COMMIT"
            );
            let found = simple(&mut second, &sql);
            assert_eq!(found[1..], [[Some(own.clone())], [Some(own.clone())], [Some(own.clone())]], "turn {turn}");
            // With nothing bound it means nothing: neither by plan nor by name.
            let fault = second.batch_execute("EXECUTE by_sql").expect_err("nothing is bound");
            assert!(["42P01", "42501"].contains(&fault.code().expect("a code").code()), "{fault:?}");
            let other = tenants[usize::from(slug == "a")].1;
            fails(
                second
                    .batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}'); SELECT * FROM of_{other}.accounts")),
                "42501",
            );
            second.batch_execute("ROLLBACK").expect("roll back");
        }
        if turn % 1000 == 500 {
            second.batch_execute("DISCARD PLANS").expect("discard");
        }
        let mut transaction = client.transaction().expect("begin");
        transaction.execute("SELECT set_tenant($1)", &[&tenant]).expect("bind");
        let statement = random.one_of(&prepared);
        let found: Option<String> = transaction.query_one(statement, &[]).expect("run").get(0);
        assert_eq!(found.as_deref(), Some(own.as_str()), "turn {turn}");
        if turn % 7 == 0 {
            transaction.rollback().expect("roll back");
        } else {
            transaction.commit().expect("commit");
        }
    }
    assert_eq!(text(&mut second, "SELECT pg_backend_pid()"), pid, "one server session served all");
    let mut superuser = house.superuser();
    for (_, slug) in tenants {
        assert_eq!(count(&mut superuser, &format!("of_{slug}.accounts WHERE name <> '{slug}'")), 0);
    }
}

/// What a transaction leaves in the session finds nothing of its tenant in the next one.
#[test]
fn what_one_tenant_leaves_in_the_server_session_finds_nothing_for_the_next() {
    let (_house, bouncer, [(a, _), (b, _)]) = shared_session("pool_schema_rest");
    let (mut first, mut second) = (bouncer.connect("app"), bouncer.connect("app"));
    first
        .batch_execute(&format!(
            "BEGIN; SELECT set_tenant('{a}'); PREPARE named AS SELECT name FROM of_a.accounts; PREPARE moody AS SELECT mood::text FROM accounts WHERE mood = 'glad';
             SELECT nextval('entries_id_seq'); COMMIT; SET search_path = of_a, public; SET plan_cache_mode = force_generic_plan"
        ))
        .expect("leave things behind");
    for _ in 0..7 {
        for statement in [
            "EXECUTE named",
            "SELECT * FROM of_a.accounts",
            "SELECT lastval()",
            "SELECT currval('of_a.entries_id_seq')",
        ] {
            for bind in [String::new(), format!("SELECT set_tenant('{b}');")] {
                let fault = second.batch_execute(&format!("BEGIN; {bind} {statement}")).expect_err(statement);
                assert!(["42501", "55000"].contains(&fault.code().expect("a code").code()), "{statement}: {fault:?}");
                second.batch_execute("ROLLBACK").expect("roll back");
            }
        }
        let moods = simple(&mut second, &format!("BEGIN; SELECT set_tenant('{b}'); EXECUTE moody; COMMIT"));
        assert_eq!(moods.len(), 1 + 5, "the five accounts of b");
        assert_eq!(text(&mut second, "SELECT count(*) FROM unnest(current_schemas(false)) s WHERE s LIKE 'of_%'"), "0");
    }
}
