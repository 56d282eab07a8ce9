//! Tables of every shape: partitioned, inherited, with names that need quotes, with owners of their own.

use super::fixtures::*;
use crate::adopt::fixtures::definitions;
use crate::row::refused_as;
use harness::*;

const SHAPES: &str = r#"
CREATE TABLE "A ""b"".c" ("x y" int PRIMARY KEY, "tenant id" uuid, "USING btree (" text UNIQUE, up int REFERENCES "A ""b"".c", "é'" numeric);
CREATE INDEX "USING btree (" ON "A ""b"".c" ("é'" DESC NULLS LAST) WHERE "x y" > 0;
CREATE UNIQUE INDEX "name_of_sixty_three_bytes_that_leaves_no_room_for_any_suffix_é" ON "A ""b"".c" ("x y", (up + 1));
CREATE UNIQUE INDEX "name_of_sixty_three_bytes_that_leaves_no_room_for_any_suffix_ee" ON "A ""b"".c" (("x y" + 1));
ALTER TABLE "A ""b"".c" ADD CONSTRAINT "A ""b"".c_up_fkey_tenant" CHECK (up <> 77);
CREATE TABLE events (id bigint, tenant_id uuid, at date NOT NULL, kind text, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (id);
CREATE TABLE events_2_a PARTITION OF events_2 DEFAULT;
CREATE UNIQUE INDEX events_kind ON events (kind, at, id);
CREATE INDEX events_note ON events (note text_pattern_ops);
CREATE UNIQUE INDEX ON events_1 (note);
CREATE TABLE notes (tenant_id uuid, event bigint, at date, note text, FOREIGN KEY (event, at) REFERENCES events ON DELETE CASCADE);
CREATE TABLE people (code text PRIMARY KEY, tenant_id uuid);
CREATE TABLE logs (tenant_id uuid, at date, event bigint, day date, person text REFERENCES people,
    FOREIGN KEY (event, day) REFERENCES events) PARTITION BY LIST (at);
CREATE TABLE logs_1 PARTITION OF logs DEFAULT PARTITION BY LIST (event);
CREATE TABLE logs_1_a PARTITION OF logs_1 DEFAULT;
CREATE TABLE mother (id int PRIMARY KEY, tenant_id uuid, name text UNIQUE);
CREATE TABLE child (age int, UNIQUE (name)) INHERITS (mother);
CREATE TABLE ring_a (id int PRIMARY KEY, tenant_id uuid, b int);
CREATE TABLE ring_b (id int PRIMARY KEY, tenant_id uuid, a int REFERENCES ring_a);
ALTER TABLE ring_a ADD FOREIGN KEY (b) REFERENCES ring_b;
CREATE TABLE texts (id int PRIMARY KEY, tenant_id varchar(36), up int REFERENCES texts);
CREATE TABLE dated (tenant_id uuid, code text, at date, PRIMARY KEY (code, at), FOREIGN KEY (code, at) REFERENCES dated);
"#;
const TABLES: [&str; 9] = ["events", "notes", "people", "logs", "mother", "ring_a", "ring_b", "texts", "dated"];

fn shapes(label: &str) -> Database {
    let database = protected(label, SHAPES, &TABLES);
    let protect = r#"SELECT protect_table('"A ""b"".c"', 'tenant id')"#;
    database.connect("admin").batch_execute(protect).expect("protect");
    database
}

#[test]
fn tables_of_every_shape_are_closed() {
    let database = shapes("advice_shapes");
    let [a, b] = tenants(&mut database.connect("operator"), 2)[..] else { panic!("two tenants") };
    let mut app = database.connect("app");
    let rows_of_a = r#"INSERT INTO "A ""b"".c" ("x y", "USING btree (") VALUES (1, 'a');
        INSERT INTO events (id, at, kind, note) VALUES (1, '2025-05-05', 'k', 'n'), (2, '2026-05-05', 'k', 'm');
        INSERT INTO people (code) VALUES ('p'); INSERT INTO logs (at, event, day, person) VALUES ('2025-05-05', 2, '2026-05-05', 'p');
        INSERT INTO notes (event, at) VALUES (1, '2025-05-05'); INSERT INTO mother (id, name) VALUES (1, 'm');
        INSERT INTO child (id, name) VALUES (1, 'c'); INSERT INTO ring_a VALUES (1); INSERT INTO ring_b VALUES (1, DEFAULT, 1);
        INSERT INTO texts VALUES (1, DEFAULT, 1); INSERT INTO dated VALUES (DEFAULT, 'd', '2025-01-01')"#;
    as_tenant(&mut app, a, |transaction| transaction.batch_execute(rows_of_a).expect("A's rows"));
    let steps = follow(&database);
    for step in &steps {
        let blocks = matches!(step.lock.as_deref(), Some("ACCESS EXCLUSIVE" | "SHARE ROW EXCLUSIVE" | "SHARE"));
        assert!(!blocks || step.duration.as_deref() == Some("a moment"), "{step:#?}");
    }
    // The same rows of another tenant, and none that refers to the first one's.
    as_tenant(&mut app, b, |transaction| transaction.batch_execute(rows_of_a).expect("B's rows"));
    for sql in [
        r#"DELETE FROM "A ""b"".c"; INSERT INTO "A ""b"".c" ("x y", up) VALUES (2, 1)"#,
        "INSERT INTO events (id, at) VALUES (7, '2025-05-05'); INSERT INTO notes (event, at) VALUES (8, '2025-05-05')",
        "INSERT INTO logs (at, event, day) VALUES ('2025-05-05', 9, '2026-05-05')",
        "INSERT INTO logs (at, person) VALUES ('2025-05-05', 'q')",
    ] {
        refused_as(&mut app, b, sql, "23503");
    }
    as_tenant(&mut app, a, |transaction| {
        transaction
            .batch_execute(
                "INSERT INTO people (code) VALUES ('only A'); INSERT INTO events (id, at) VALUES (9, '2026-05-05')",
            )
            .expect("insert")
    });
    refused_as(&mut app, b, "INSERT INTO logs (at, person) VALUES ('2025-05-05', 'only A')", "23503");
    refused_as(&mut app, b, "INSERT INTO logs (at, event, day) VALUES ('2025-05-05', 9, '2026-05-05')", "23503");
    let found = definitions(&mut database.superuser(), "public");
    let has = |text: &str| assert!(found.iter().any(|found| found.ends_with(text)), "{text}\n{}", found.join("\n"));
    assert!(!found.iter().any(|text| text.contains("INVALID")), "{found:#?}");
    has("events events_pkey PRIMARY KEY (tenant_id, id, at)");
    has("CREATE UNIQUE INDEX events_kind ON ONLY public.events USING btree (tenant_id, kind, at, id)");
    has("events_1_note_idx1 ON public.events_1 USING btree (tenant_id, note)");
    has(
        "notes notes_event_at_fkey FOREIGN KEY (tenant_id, event, at) REFERENCES events(tenant_id, id, at) ON DELETE CASCADE",
    );
    has("logs logs_event_day_fkey FOREIGN KEY (tenant_id, event, day) REFERENCES events(tenant_id, id, at)");
    has("child child_name_key UNIQUE (tenant_id, name)");
    has("texts texts_up_fkey FOREIGN KEY (tenant_id, up) REFERENCES texts(tenant_id, id)");
    has("ring_a ring_a_b_fkey FOREIGN KEY (tenant_id, b) REFERENCES ring_b(tenant_id, id)");
    // A partition that comes has all of it.
    database
        .connect("owner")
        .batch_execute("CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')")
        .expect("a partition");
    assert_eq!(advice(&database), []);
}

#[test]
fn tables_of_every_shape_are_closed_step_by_step() {
    let database = shapes("advice_shapes_slow");
    follow_one_by_one(&database);
    let all = shapes("advice_shapes_at_once");
    follow(&all);
    let found = |database: &Database| {
        let definitions = definitions(&mut database.superuser(), "public");
        // Parts have numbers in their names; and an old index is not named any more once the new one is there.
        let is_stable = |text: &String| !text.contains("_tenant") && !text.starts_with("CREATE INDEX ");
        definitions.into_iter().filter(is_stable).collect::<Vec<_>>()
    };
    assert_eq!(found(&database), found(&all));
}

#[test]
fn a_partition_is_advised_with_its_table() {
    let database = shapes("advice_partition");
    let mut admin = database.connect("admin");
    let of = |admin: &mut Client, table: &str| {
        text(admin, &format!("SELECT string_agg(statement, E'\\n' ORDER BY step) FROM protection_advice('{table}')"))
    };
    assert_eq!(of(&mut admin, "events_2_a"), of(&mut admin, "events"));
}

/// Advice on one table looks at the parents of its references, too: at a partition here, and at what that is a part of.
#[test]
fn what_advice_on_one_table_needs_of_others_is_built_once() {
    let tables = "CREATE TABLE wholes (id int PRIMARY KEY, tenant_id uuid) PARTITION BY LIST (id);
        CREATE TABLE parts PARTITION OF wholes DEFAULT;
        CREATE TABLE users (tenant_id uuid, whole int REFERENCES wholes, part int REFERENCES parts)";
    let database = protected("advice_parents", tables, &["wholes", "users"]);
    let mut admin = database.connect("admin");
    let statements = simple(
        &mut admin,
        "SELECT statement FROM protection_advice('users') WHERE statement LIKE 'CREATE%' ORDER BY step",
    );
    let statements: Vec<String> = statements.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    assert_eq!(statements.len(), 3, "{statements:#?}");
    follow(&database);
    let mut superuser = database.superuser();
    assert_eq!(
        count(&mut superuser, "pg_constraint WHERE conrelid = 'users'::regclass AND array_length(conkey, 1) < 2"),
        0
    );
}

/// Who owns a table may lack what its changes ask for: rights on the schema, and on the table that it refers to.
#[test]
fn what_an_owner_lacks_is_lent() {
    let tables = "CREATE SCHEMA apart AUTHORIZATION postgres; CREATE TABLE apart.parents (code text PRIMARY KEY, tenant_id uuid);
        CREATE TABLE apart.children (tenant_id uuid, code text REFERENCES apart.parents); ALTER TABLE apart.children OWNER TO owner;
        GRANT USAGE ON SCHEMA apart TO owner, app, admin; GRANT ALL ON ALL TABLES IN SCHEMA apart TO app";
    let database = Database::new("advice_owners");
    let mut superuser = database.superuser();
    superuser.batch_execute(tables).expect("create");
    superuser.batch_execute("SELECT protect_table('apart.parents'), protect_table('apart.children')").expect("protect");
    superuser
        .batch_execute("ALTER TABLE apart.children ADD price numeric; CREATE INDEX ON apart.children (price)")
        .expect("index");
    let steps = follow(&database);
    let of = |kind: &str| {
        steps.iter().filter(|step| step.statement.as_deref().is_some_and(|sql| sql.starts_with(kind))).count()
    };
    assert_eq!((of("GRANT REFERENCES ON apart.parents TO owner"), of("GRANT CREATE ON SCHEMA apart TO owner")), (1, 1));
    assert_eq!(
        steps.last().and_then(|step| step.statement.as_deref()),
        Some("REVOKE CREATE ON SCHEMA apart FROM owner")
    );
}
