//! Keys and foreign keys that tell one tenant of another.

use super::fixtures::*;
use crate::adopt::fixtures::definitions;
use crate::row::{catalogs, refused_as, touched_as};
use harness::*;

/// Keys of every kind, and references with every action.
const SHOP: &str = "
CREATE TABLE staff (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid, name text,
    boss int CONSTRAINT staff_boss REFERENCES staff ON DELETE SET NULL, CONSTRAINT staff_name UNIQUE (name));
CREATE TABLE customers (id serial PRIMARY KEY, tenant_id uuid, email text NOT NULL, code text NOT NULL,
    served_by int REFERENCES staff ON UPDATE CASCADE ON DELETE SET NULL (served_by));
COMMENT ON CONSTRAINT customers_served_by_fkey ON customers IS 'who knows them';
CREATE UNIQUE INDEX customers_email ON customers (lower(email) text_pattern_ops) INCLUDE (code) WHERE email <> '';
COMMENT ON INDEX customers_email IS 'one account';
CREATE UNIQUE INDEX customers_code ON customers (code DESC NULLS LAST) WITH (fillfactor = 70);
ALTER TABLE customers REPLICA IDENTITY USING INDEX customers_code;
CREATE TABLE products (code text PRIMARY KEY, tenant_id uuid, label text, place int,
    CONSTRAINT products_label UNIQUE NULLS NOT DISTINCT (label) INCLUDE (place),
    CONSTRAINT products_place UNIQUE (place) DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE products CLUSTER ON products_pkey;
CREATE TABLE orders (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid, number text UNIQUE, UNIQUE (tenant_id, number),
    customer int NOT NULL REFERENCES customers ON DELETE CASCADE);
CREATE TABLE lines (order_id uuid REFERENCES orders DEFERRABLE INITIALLY DEFERRED, tenant_id uuid,
    product text REFERENCES products MATCH FULL ON DELETE RESTRICT, old_product text DEFAULT 'p0', PRIMARY KEY (order_id, product));
ALTER TABLE lines ADD FOREIGN KEY (old_product) REFERENCES products ON DELETE SET DEFAULT NOT VALID;
CREATE TABLE rooms (tenant_id uuid, room int4range, EXCLUDE USING gist (room WITH &&) WHERE (NOT isempty(room)) DEFERRABLE);
";
const TABLES: [&str; 6] = ["staff", "customers", "products", "orders", "lines", "rooms"];

#[test]
fn every_step_works_as_given_and_nothing_is_lost_or_left() {
    let database = protected("advice_keys", SHOP, &TABLES);
    let steps = follow(&database);
    let found = definitions(&mut database.superuser(), "public");
    for text in [
        "staff staff_pkey PRIMARY KEY (id)",
        "staff staff_name UNIQUE (tenant_id, name)",
        "staff staff_boss FOREIGN KEY (tenant_id, boss) REFERENCES staff(tenant_id, id) ON DELETE SET NULL (boss)",
        "customers customers_served_by_fkey FOREIGN KEY (tenant_id, served_by) REFERENCES staff(tenant_id, id) ON UPDATE CASCADE ON DELETE SET NULL (served_by)",
        "CREATE UNIQUE INDEX customers_email ON public.customers USING btree (tenant_id, lower(email) text_pattern_ops) INCLUDE (code) WHERE (email <> ''::text)",
        "CREATE UNIQUE INDEX customers_code ON public.customers USING btree (tenant_id, code DESC NULLS LAST) WITH (fillfactor='70')",
        "products products_pkey PRIMARY KEY (tenant_id, code)",
        "products products_label UNIQUE NULLS NOT DISTINCT (tenant_id, label) INCLUDE (place)",
        "products products_place UNIQUE (tenant_id, place) DEFERRABLE INITIALLY DEFERRED",
        "orders orders_pkey PRIMARY KEY (id)",
        "orders orders_tenant_id_number_key UNIQUE (tenant_id, number)",
        "orders orders_customer_fkey FOREIGN KEY (tenant_id, customer) REFERENCES customers(tenant_id, id) ON DELETE CASCADE",
        "lines lines_pkey PRIMARY KEY (tenant_id, order_id, product)",
        "lines lines_order_id_fkey FOREIGN KEY (tenant_id, order_id) REFERENCES orders(tenant_id, id) DEFERRABLE INITIALLY DEFERRED",
        "lines lines_product_fkey FOREIGN KEY (tenant_id, product) REFERENCES products(tenant_id, code) ON DELETE RESTRICT",
        "lines lines_old_product_fkey FOREIGN KEY (tenant_id, old_product) REFERENCES products(tenant_id, code) ON DELETE SET DEFAULT (old_product) NOT VALID INVALID",
        "rooms rooms_room_excl EXCLUDE USING gist (tenant_id WITH =, room WITH &&) WHERE ((NOT isempty(room))) DEFERRABLE",
    ] {
        assert!(found.iter().any(|definition| definition == text), "{text}\nis not among\n{}", found.join("\n"));
    }
    assert!(!found.iter().any(|text| text.starts_with("orders orders_number_key")), "{found:#?}");
    assert_eq!(found.iter().filter(|text| text.contains("INVALID")).count(), 1, "{found:#?}");
    let mut superuser = database.superuser();
    for (query, expected) in [
        ("SELECT obj_description('customers_email'::regclass)", "one account"),
        (
            "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'customers_served_by_fkey'",
            "who knows them",
        ),
        ("SELECT indexrelid::regclass FROM pg_index WHERE indisreplident", "customers_code"),
        ("SELECT indexrelid::regclass FROM pg_index WHERE indisclustered AND indexrelid >= 16384", "products_pkey"),
    ] {
        assert_eq!(text(&mut superuser, query), expected, "{query}");
    }
    // Nothing keeps readers or writers longer than a moment but the exclusion constraint, and that says so.
    for step in &steps {
        let blocks = matches!(step.lock.as_deref(), Some("ACCESS EXCLUSIVE" | "SHARE ROW EXCLUSIVE" | "SHARE"));
        let is_long = step.duration.as_deref() != Some("a moment");
        assert!(!(blocks && is_long) || step.object == "rooms_room_excl", "{step:#?}");
    }
}

/// The statements that tell: what B learns by each while A has a row, and what B gets once the keys are closed.
#[test]
fn what_keys_tell_of_another_tenant_is_told_before_and_no_more_after() {
    let database = protected("advice_told", SHOP, &TABLES);
    let [a, b] = tenants(&mut database.connect("operator"), 2)[..] else { panic!("two tenants") };
    let mut app = database.connect("app");
    let rows_of_a = "INSERT INTO staff (name) VALUES ('Ada'); INSERT INTO customers (email, code, served_by) VALUES ('ada@example.org', 'c', 1);
        INSERT INTO products VALUES ('p1', DEFAULT, 'label', 1), ('p0', DEFAULT, 'other', 2); INSERT INTO orders (number, customer) VALUES ('n1', 1);
        INSERT INTO rooms VALUES (DEFAULT, '[1,5)')";
    as_tenant(&mut app, a, |transaction| transaction.batch_execute(rows_of_a).expect("A's rows"));
    let uniques = [
        ("INSERT INTO staff (name) VALUES ('Ada')", "23505"),
        ("INSERT INTO customers (email, code) VALUES ('ADA@example.org', 'd')", "23505"),
        ("INSERT INTO customers (email, code) VALUES ('', 'c')", "23505"),
        ("INSERT INTO products (code) VALUES ('p1')", "23505"),
        ("INSERT INTO products (code, label) VALUES ('p2', 'label')", "23505"),
        ("INSERT INTO products (code, label, place) VALUES ('p3', 'l3', 1); SET CONSTRAINTS ALL IMMEDIATE", "23505"),
        ("INSERT INTO rooms VALUES (DEFAULT, '[4,9)')", "23P01"),
    ];
    let references = [
        "INSERT INTO staff (name, boss) VALUES ('Bob', 1)",
        "INSERT INTO customers (email, code, served_by) VALUES ('', 'x', 1)",
        "INSERT INTO orders (customer) VALUES (1)",
        "INSERT INTO lines (product, order_id) SELECT 'p1', gen_random_uuid()",
    ];
    for (sql, sqlstate) in uniques {
        refused_as(&mut app, b, sql, sqlstate);
    }
    for sql in references {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, b);
        transaction.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        transaction.rollback().expect("roll back");
    }
    follow(&database);
    for sql in references {
        refused_as(&mut app, b, sql, "23503");
    }
    for (sql, _) in uniques {
        as_tenant(&mut app, b, |transaction| transaction.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}")));
    }
    // Each in its own tenant, keys hold as before.
    for (sql, sqlstate) in uniques {
        refused_as(&mut app, a, sql, sqlstate);
    }
    assert_eq!(touched_as(&mut app, b, "INSERT INTO staff (name, boss) SELECT 'Cleo', id FROM staff"), 1);
    assert_eq!(touched_as(&mut app, a, "DELETE FROM staff"), 1);
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "customers WHERE served_by IS NULL AND tenant_id IS NOT NULL"), 3);
}

#[test]
fn advice_goes_on_where_it_was_left() {
    let database = protected("advice_one_by_one", SHOP, &TABLES);
    follow_one_by_one(&database);
    let all = protected("advice_at_once", SHOP, &TABLES);
    follow(&all);
    assert_eq!(definitions(&mut database.superuser(), "public"), definitions(&mut all.superuser(), "public"));
}

/// As README says: a superuser has psql run every statement.
#[test]
fn psql_runs_all_of_it() {
    let database = protected("advice_psql", SHOP, &TABLES);
    let script = "SELECT statement FROM protection_advice() WHERE statement IS NOT NULL ORDER BY step \\gexec\n";
    run_psql(&database, script);
    assert_eq!(advice(&database), []);
}

#[track_caller]
fn run_psql(database: &Database, script: &str) {
    let output = database.psql("postgres", script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_interrupted_build_is_cleared_away() {
    let tables =
        "CREATE TABLE t (tenant_id uuid, code text UNIQUE, tags text[]); CREATE INDEX t_tags ON t USING gin (tags)";
    let database = protected("advice_invalid", tables, &["t"]);
    let steps = advice(&database);
    let mut superuser = database.superuser();
    for step in &steps {
        let statement = step.statement.as_deref().expect("a statement");
        if statement.starts_with("CREATE ") {
            carry_out(&database, step);
        }
    }
    superuser
        .batch_execute(
            "CREATE UNIQUE INDEX remains ON t (tags); UPDATE pg_index SET indisvalid = false
            WHERE indexrelid IN ('t_code_key_tenant'::regclass, 't_tags_tenant'::regclass, 'remains'::regclass)",
        )
        .expect("as if a build had been interrupted");
    let steps = follow(&database);
    let dropped: Vec<&str> =
        steps.iter().filter_map(|step| step.statement.as_deref()).filter(|sql| sql.starts_with("DROP INDEX")).collect();
    assert_eq!(
        dropped,
        [
            "DROP INDEX public.remains",
            "DROP INDEX public.t_code_key_tenant",
            "DROP INDEX public.t_tags_tenant",
            "DROP INDEX CONCURRENTLY public.t_tags"
        ]
    );
}

#[test]
fn asking_changes_nothing() {
    let database = protected("advice_idle", SHOP, &TABLES);
    let mut superuser = database.superuser();
    let before = (catalogs(&database), count(&mut superuser, "tenancy.audit_log"));
    let mut admin = database.connect("admin");
    admin.batch_execute("BEGIN READ ONLY").expect("begin");
    let first = count(&mut admin, "protection_advice()");
    admin.batch_execute("COMMIT").expect("commit");
    assert!(first > 20, "{first}");
    assert_eq!(advice(&database), advice(&database));
    assert_eq!((catalogs(&database), count(&mut superuser, "tenancy.audit_log")), before);
}

#[test]
fn advice_is_for_administrators_and_on_protected_tables() {
    let tables = format!("{SHOP} CREATE TABLE plain (code text UNIQUE)");
    let database = protected("advice_levels", &tables, &TABLES);
    for role in ["app", "client", "monitor", "operator", "owner", "stranger"] {
        fails(database.connect(role).batch_execute("SELECT * FROM protection_advice()"), "42501");
    }
    let mut admin = database.connect("admin");
    let fault = fails(admin.batch_execute("SELECT * FROM protection_advice('plain')"), "55000");
    assert_eq!(fault.hint(), Some("SELECT protect_table('public.plain');"));
    fails(admin.batch_execute("SELECT * FROM protection_advice(0)"), "P0002");
    fails(admin.batch_execute("SELECT * FROM protection_advice('pg_class')"), "22023");
    fails(admin.batch_execute("SELECT * FROM protection_advice('nowhere')"), "42P01");
    let all = count(&mut admin, "protection_advice(NULL)");
    assert_eq!(all, count(&mut admin, "protection_advice()"));
    // Of one table: what is wrong with it and with its references.
    let objects = |admin: &mut Client, table: &str| {
        let sql = format!("SELECT string_agg(DISTINCT object, ' ' ORDER BY object) FROM protection_advice('{table}')");
        text(admin, &sql)
    };
    assert_eq!(objects(&mut admin, "rooms"), "rooms_room_excl");
    assert_eq!(
        objects(&mut admin, "customers"),
        "customers_code customers_email customers_served_by_fkey orders_customer_fkey"
    );
}

#[test]
fn a_notice_tells_each_problem_once_and_where_the_steps_are() {
    let tables = "CREATE TABLE \"It's\" (tenant_id uuid, code text UNIQUE, price numeric); CREATE INDEX price ON \"It's\" (price)";
    let database = protected("advice_notices", tables, &["\"It's\""]);
    let (mut admin, notices) = database.connect_with_notices("admin");
    admin.batch_execute("SELECT protect_table('\"It''s\"')").expect("protect again");
    let told: Vec<_> =
        notices.take().iter().map(|notice| (notice.message().to_owned(), notice.hint().map(str::to_owned))).collect();
    let query = "SELECT * FROM protection_advice('public.\"It''s\"') ORDER BY step;";
    let hint = Some(query.to_owned());
    assert_eq!(
        told,
        [
            ("unique key \"It's_code_key\" of public.\"It's\" spans all tenants".to_owned(), hint.clone()),
            ("row security keeps statements from searching index price of public.\"It's\"".to_owned(), hint),
        ]
    );
    assert_eq!(rows(&mut admin, query.trim_end_matches(';'), &[]).len(), 4);
}
