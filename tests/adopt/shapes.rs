//! Tables of every shape: partitioned, inherited, without keys, with names that need quotes.

use super::fixtures::definitions;
use harness::*;

const SHAPES: &str = r#"
CREATE SCHEMA "O'Shape.s";
SET search_path = "O'Shape.s";
CREATE TABLE "A ""b"".c" ("x y" int PRIMARY KEY, "USING btree (" text UNIQUE, up int REFERENCES "A ""b"".c");
CREATE INDEX "USING btree (" ON "A ""b"".c" ("USING btree (" DESC NULLS LAST) WHERE "x y" > 0;
CREATE TABLE nothing ();
CREATE TABLE no_key (v int, w int GENERATED ALWAYS AS (v + 1) STORED);
CREATE TABLE events (id bigint, at date NOT NULL, kind int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (id);
CREATE TABLE events_2_a PARTITION OF events_2 DEFAULT;
CREATE INDEX ON events (kind);
CREATE INDEX ON events_1 (id);
CREATE TABLE notes (event bigint, at date, note text, FOREIGN KEY (event, at) REFERENCES events ON DELETE CASCADE);
CREATE TABLE logs (id bigint, at date, event bigint, day date, FOREIGN KEY (event, day) REFERENCES events) PARTITION BY LIST (at);
CREATE TABLE logs_1 PARTITION OF logs DEFAULT;
CREATE TABLE mother (id int PRIMARY KEY, name text);
CREATE TABLE child (age int, UNIQUE (name)) INHERITS (mother);
CREATE UNLOGGED TABLE quick (k int, PRIMARY KEY (k) WITH (fillfactor = 70));
ALTER TABLE quick REPLICA IDENTITY USING INDEX quick_pkey;
CREATE TABLE ring_a (id int PRIMARY KEY, b int);
CREATE TABLE ring_b (id int PRIMARY KEY, a int REFERENCES ring_a);
ALTER TABLE ring_a ADD FOREIGN KEY (b) REFERENCES ring_b NOT VALID;
CREATE VIEW shown AS SELECT * FROM mother;
INSERT INTO "A ""b"".c" VALUES (1, 'a', 1);
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO no_key VALUES (1);
INSERT INTO events VALUES (1, '2025-05-05', 1), (2, '2026-05-05', 2);
INSERT INTO notes VALUES (1, '2025-05-05', 'n');
INSERT INTO logs VALUES (1, '2025-05-05', 2, '2026-05-05');
INSERT INTO mother VALUES (1, 'm');
INSERT INTO child VALUES (1, 'c', 5);
INSERT INTO quick VALUES (1);
INSERT INTO ring_a VALUES (1, NULL); INSERT INTO ring_b VALUES (1, 1); UPDATE ring_a SET b = 1;
"#;

#[test]
fn tables_of_every_shape_are_adopted() {
    let database = Database::new("adopt_shapes");
    let [first, second] = tenants(&mut database.connect("operator"), 2)[..] else { panic!("two tenants") };
    let mut superuser = database.superuser();
    superuser.batch_execute(&format!("GRANT CREATE ON DATABASE \"{}\" TO owner", database.name())).expect("grant");
    let script = format!(
        "{SHAPES} GRANT USAGE ON SCHEMA \"O'Shape.s\" TO app; GRANT ALL ON ALL TABLES IN SCHEMA \"O'Shape.s\" TO app;"
    );
    database.connect("owner").batch_execute(&script).expect("create");
    let mut admin = database.connect("admin");
    let call = format!("CALL adopt_schema('O''Shape.s', '{first}', keys => 'all')");
    admin.batch_execute(&call).expect("adopt");
    let plan = format!("SELECT count(*) FROM adoption_plan('O''Shape.s', '{first}', keys => 'all')");
    assert_eq!(text(&mut admin, &plan), "0");
    assert_eq!(count(&mut superuser, "tenancy.protection_status WHERE NOT intact"), 0);
    let found = definitions(&mut superuser, "\"O'Shape.s\"");
    let has = |text: &str| assert!(found.iter().any(|found| found.ends_with(text)), "{text}\n{}", found.join("\n"));
    has("events_pkey PRIMARY KEY (tenant_id, id, at)");
    has("USING btree (tenant_id, k) WITH (fillfactor='70')");
    has(
        "notes_event_at_fkey FOREIGN KEY (tenant_id, event, at) REFERENCES \"O'Shape.s\".events(tenant_id, id, at) ON DELETE CASCADE",
    );
    has("logs_event_day_fkey FOREIGN KEY (tenant_id, event, day) REFERENCES \"O'Shape.s\".events(tenant_id, id, at)");
    has("child_name_key UNIQUE (tenant_id, name)");
    has("ring_a_b_fkey FOREIGN KEY (tenant_id, b) REFERENCES \"O'Shape.s\".ring_b(tenant_id, id) NOT VALID INVALID");
    assert_eq!(
        text(&mut superuser, "SELECT relreplident FROM pg_class WHERE oid = '\"O''Shape.s\".quick'::regclass"),
        "i"
    );
    let mut app = database.connect("app");
    let inserts: String = SHAPES.lines().filter(|line| line.starts_with("INSERT")).collect::<Vec<_>>().join("\n");
    as_tenant(&mut app, second, |transaction| {
        transaction.batch_execute("SET LOCAL search_path = \"O'Shape.s\"").expect("path");
        transaction.batch_execute(&inserts).expect("the same rows of another tenant");
        for (table, size) in [("events", 2), ("mother", 2), ("logs", 1), ("nothing", 1)] {
            assert_eq!(count(transaction, table), size, "{table}");
        }
    });
}
