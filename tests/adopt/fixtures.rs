//! Applications to be adopted.

use harness::*;

/// A small shop in schema `shop`: keys of every kind, references with every action, a circle, rows.
pub const SHOP: &str = "
CREATE SCHEMA shop;
CREATE TABLE shop.staff (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    boss integer CONSTRAINT staff_boss REFERENCES shop.staff ON DELETE SET NULL,
    CONSTRAINT staff_name UNIQUE (name)
);
CREATE TABLE shop.customers (
    id serial PRIMARY KEY,
    email text NOT NULL,
    region text,
    served_by integer REFERENCES shop.staff ON UPDATE CASCADE ON DELETE SET NULL
);
COMMENT ON CONSTRAINT customers_served_by_fkey ON shop.customers IS 'who knows them';
CREATE UNIQUE INDEX customers_email ON shop.customers (lower(email)) WHERE email <> '';
CREATE INDEX customers_region ON shop.customers (region) INCLUDE (email);
CREATE TABLE shop.products (
    code text PRIMARY KEY,
    label text,
    CONSTRAINT products_label UNIQUE NULLS NOT DISTINCT (label) DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE shop.orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer integer NOT NULL REFERENCES shop.customers ON DELETE CASCADE,
    placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX orders_placed_at ON shop.orders USING brin (placed_at);
CREATE TABLE shop.lines (
    order_id uuid REFERENCES shop.orders DEFERRABLE INITIALLY DEFERRED,
    product text MATCH_FULL,
    number integer,
    PRIMARY KEY (order_id, product)
);
CREATE TABLE shop.countries (code text PRIMARY KEY);
ALTER TABLE shop.customers ADD country text REFERENCES shop.countries;
INSERT INTO shop.countries VALUES ('PT'), ('DE');
INSERT INTO shop.staff (name, boss) VALUES ('Ada', NULL), ('Bob', 1), ('Cleo', 1);
INSERT INTO shop.customers (email, region, served_by, country)
    SELECT 'c' || n || '@example.org', 'r' || n % 5, n % 3 + 1, 'PT' FROM generate_series(1, 200) n;
INSERT INTO shop.products SELECT 'p' || n, 'label ' || n FROM generate_series(1, 30) n;
INSERT INTO shop.orders (customer) SELECT n % 200 + 1 FROM generate_series(1, 400) n;
INSERT INTO shop.lines SELECT o.id, 'p' || n, n FROM shop.orders o, generate_series(1, 3) n;
";

pub const TABLES: [&str; 5] = ["shop.customers", "shop.lines", "shop.orders", "shop.products", "shop.staff"];

/// Installs the shop as `owner`.
#[track_caller]
pub fn install(database: &Database) {
    database
        .superuser()
        .batch_execute(&format!("GRANT CREATE ON DATABASE \"{}\" TO owner", database.name()))
        .expect("grant");
    let script = SHOP.replace("text MATCH_FULL", "text REFERENCES shop.products MATCH FULL");
    database.connect("owner").batch_execute(&script).expect("install the shop");
    database
        .connect("owner")
        .batch_execute(
            "GRANT USAGE ON SCHEMA shop TO app, admin; GRANT ALL ON ALL TABLES IN SCHEMA shop TO app;
            GRANT ALL ON ALL SEQUENCES IN SCHEMA shop TO app",
        )
        .expect("grant");
}

/// A database with the shop and a tenant.
pub struct Shop {
    pub database: Database,
    pub tenant: Uuid,
}

impl Shop {
    #[track_caller]
    pub fn new(label: &str) -> Self {
        Self::in_database(Database::new(label))
    }

    #[track_caller]
    pub fn in_database(database: Database) -> Self {
        install(&database);
        let tenant = tenant(&mut database.connect("operator"));
        Self { database, tenant }
    }

    /// Adopts the schema but for its countries.
    pub fn adopt(&self, more: &str) -> Result<(), postgres::Error> {
        self.database.connect("admin").batch_execute(&self.call(more))
    }

    pub fn call(&self, more: &str) -> String {
        format!("CALL adopt_schema('shop', '{}', shared_tables => '{{countries}}'{more})", self.tenant)
    }
}

/// The constraints and indexes of a schema, as PostgreSQL prints them.
#[track_caller]
pub fn definitions(client: &mut Client, schema: &str) -> Vec<String> {
    const QUERY: &str = "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || CASE WHEN convalidated THEN '' ELSE ' INVALID' END
            FROM pg_constraint WHERE connamespace = $1::text::regnamespace AND conparentid = 0
        UNION ALL SELECT pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END FROM pg_index
            JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace = $1::text::regnamespace
        UNION ALL SELECT format('%s %s %s %s %s', attrelid::regclass, attname, atttypid::regtype, attnotnull, pg_get_expr(adbin, adrelid))
            FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
        ORDER BY 1";
    rows(client, QUERY, &[&schema]).iter().map(|row| row.get(0)).collect()
}

/// An order-independent checksum of the rows of a table, without the tenant.
#[track_caller]
pub fn checksum(client: &mut impl postgres::GenericClient, table: &str) -> (i64, Option<String>) {
    let sql = format!(
        "SELECT count(*), md5(string_agg(t, '' ORDER BY t)) FROM (SELECT (to_jsonb(x) - 'tenant_id')::text AS t FROM {table} x) y"
    );
    let found = rows(client, &sql, &[]);
    (found[0].get(0), found[0].get(1))
}
