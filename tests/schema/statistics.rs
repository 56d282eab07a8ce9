//! What operators see of tenants' schemas, and the commands they are given.

use super::fixtures::*;
use harness::*;

#[test]
fn exact_statistics_count_every_row_whoever_may_see_it() {
    let house = House::new("statistics");
    let tenants = [house.tenant("a"), house.tenant("b")];
    let mut superuser = house.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE of_a.parts (id integer) PARTITION BY RANGE (id); CREATE TABLE of_a.part_1 PARTITION OF of_a.parts FOR VALUES FROM (0) TO (10);
             CREATE TABLE of_a.part_2 PARTITION OF of_a.parts FOR VALUES FROM (10) TO (100); INSERT INTO of_a.parts SELECT generate_series(0, 19);
             CREATE TABLE of_a.parent (id integer); CREATE TABLE of_a.child () INHERITS (of_a.parent);
             INSERT INTO of_a.parent VALUES (1); INSERT INTO of_a.child VALUES (2), (3);
             CREATE MATERIALIZED VIEW of_a.kept AS SELECT generate_series(1, 7) AS n; CREATE MATERIALIZED VIEW of_a.empty AS SELECT 1 AS n WITH NO DATA;
             ALTER TABLE of_a.parts OWNER TO owner; ALTER TABLE of_a.part_1 OWNER TO owner; ALTER TABLE of_a.kept OWNER TO owner; ALTER TABLE of_a.empty OWNER TO stranger;
             ALTER TABLE of_a.accounts ENABLE ROW LEVEL SECURITY; ALTER TABLE of_a.accounts FORCE ROW LEVEL SECURITY;
             CREATE POLICY none ON of_a.accounts AS RESTRICTIVE USING (false);
             REVOKE ALL ON of_a.entries FROM owner;
             CREATE TABLE of_a.\"Odd \"\"name\"\" %s; --\" (id integer); INSERT INTO of_a.\"Odd \"\"name\"\" %s; --\" VALUES (1)",
        )
        .expect("tables");
    superuser.batch_execute("INSERT INTO of_a.accounts (name) SELECT i::text FROM generate_series(1, 5) i; INSERT INTO of_a.entries (account, amount) VALUES (1, 1)").expect("rows");
    as_tenant(&mut house.connect("app"), tenants[1], |tx| {
        tx.batch_execute("INSERT INTO accounts (name) VALUES ('x')").expect("insert")
    });
    for role in ["monitor", "operator", "admin"] {
        let mut session = house.connect(role);
        const COUNTS: &str =
            "SELECT slug || ' ' || table_name, row_count FROM tenant_statistics(exact => true) ORDER BY 1";
        let counts: Vec<(String, Option<i64>)> =
            rows(&mut session, COUNTS, &[]).iter().map(|row| (row.get(0), row.get(1))).collect();
        // Where its owner may not read it or it has never been filled, nobody counts.
        let expected = [
            ("a Odd \"name\" %s; --", Some(1)),
            ("a accounts", Some(5)),
            ("a child", Some(2)),
            ("a empty", None),
            ("a entries", None),
            ("a kept", Some(7)),
            ("a parent", Some(1)),
            ("a part_1", Some(10)),
            ("a part_2", Some(10)),
            ("a stages", Some(3)),
            ("b accounts", Some(1)),
            ("b entries", Some(0)),
            ("b stages", Some(3)),
        ];
        let mut expected = expected.map(|(name, count)| (name.to_owned(), count));
        expected.sort();
        let mut counts = counts;
        counts.sort();
        assert_eq!(counts, expected, "{role}");
        let sizes = "SELECT bool_and(table_bytes >= 0 AND index_bytes >= 0 AND schema_name = 'of_' || slug AND dead_rows >= 0) FROM tenant_statistics()";
        assert!(one::<bool>(&mut session, sizes, &[]));
        // It tells numbers, and opens no rows.
        fails(session.batch_execute("SELECT * FROM of_a.accounts"), "42501");
    }
}

#[test]
fn maintenance_commands_run_as_they_are() {
    let house = House::new("maintenance");
    let a = house.tenant("a");
    house.tenant("b");
    let mut superuser = house.superuser();
    superuser
        .batch_execute("CREATE TABLE of_a.\"Odd \"\"name\"\" 'x'; DROP TABLE of_a.entries; --\" (id integer PRIMARY KEY); CREATE MATERIALIZED VIEW of_a.kept AS SELECT 1 AS n")
        .expect("odd names");
    for command in ["VACUUM", "VACUUM (ANALYZE)", "vacuum (freeze)", "ANALYZE", "REINDEX", "reindex concurrently"] {
        let script = format!("SELECT maintenance_commands('{command}') \\gexec\n");
        let output = house.database.psql("postgres", &script);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let worked = "SELECT count(*) FROM pg_class c WHERE relnamespace = 'of_a'::regnamespace AND relkind IN ('r', 'm') AND reltuples < 0";
    assert_eq!(one::<i64>(&mut superuser, worked, &[]), 0, "each has been analyzed");
    assert_eq!(count(&mut superuser, "of_a.entries"), 0, "and nothing was dropped");
    let mut monitor = house.connect("monitor");
    let of_a = rows(&mut monitor, "SELECT maintenance_commands('ANALYZE', $1)", &[&a]);
    assert_eq!(of_a.len(), 5);
    assert!(of_a.iter().all(|row| row.get::<_, String>(0).starts_with("ANALYZE of_a.")));
}
