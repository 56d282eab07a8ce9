//! Names and values of every kind, and tables that are guarded by keys of the application's own.

use super::fixtures::House;
use harness::*;

/// What could be written or read otherwise on the way.
const TABLES: &str = r#"
CREATE TYPE public.pair AS (a integer, "b c" text);
CREATE TYPE public."Odd ""kind" AS ENUM ('it''s', 'back\slash', '\N');
CREATE DOMAIN public.words AS text[] CHECK (cardinality(VALUE) < 10);
CREATE TABLE public."Odd ""table'" (
    tenant_id uuid NOT NULL, "select" integer GENERATED ALWAYS AS IDENTITY, "a ""b" text, "tab	and
line" text, PRIMARY KEY (tenant_id, "select"));
CREATE TABLE kinds (
    tenant_id uuid NOT NULL, id integer NOT NULL, PRIMARY KEY (tenant_id, id),
    p pair, ps pair[], o "Odd ""kind", os "Odd ""kind"[], w words, n numeric, d double precision, f real, t timestamptz, ts timestamp,
    i interval, dt date, b bytea, j json, jb jsonb, x xml, ip inet, bits varbit, r tstzrange, m int4multirange, v tsvector, q tsquery,
    pt point, po polygon, u uuid, c "char", ch character(5), vc varchar(5), nm name, bo boolean, mo money, l text, rc regclass,
    up text GENERATED ALWAYS AS (upper(l)) STORED);
CREATE TABLE organisations (id bigint PRIMARY KEY, name text);
CREATE TABLE members (organisation bigint NOT NULL REFERENCES organisations, id integer NOT NULL, name text, PRIMARY KEY (organisation, id));
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
"#;

const FILL: &str = r#"
INSERT INTO "Odd ""table'" ("a ""b", "tab	and
line") VALUES (E'\\N', ''), (NULL, E'\t\n\r\\.'), (E'\\.', 'é 漢 🐘');
INSERT INTO kinds (id) VALUES (0);
INSERT INTO kinds VALUES (DEFAULT, 1, ROW(1, 'x,"y'), ARRAY[ROW(NULL, '{')::pair, NULL], 'back\slash', ARRAY['it''s', NULL, '\N']::"Odd ""kind"[],
    ARRAY['', NULL, '{"\'], 'NaN', '-Infinity', 1e-30, 'infinity', '4713-01-01 BC', '-1 year 2 days 00:00:00.000001', '-infinity', '\x00ff5c',
    '{"a" : 1.00,  "a":2}', '{"x": 1e500}', '<a>&amp;</a>', '::1/64', B'0101', '[2020-01-01,)', '{[1,3),(5,8]}', 'a:1 ''b c'':2', 'a & !b',
    '(1e300,-0)', '((0,0),(1,1),(1,0))', '00000000-0000-0000-0000-000000000000', E'\\', 'a', 'é漢', 'n', false, '$1.50', repeat('長い ', 300000), 'pg_class');
INSERT INTO kinds (id, n, d, l) SELECT n, n / 3.0, n / 3.0::double precision, repeat(chr(64 + n), n * 100) FROM generate_series(2, 40) n;
"#;

const CONTENT: &str = r#"SELECT 'odd', md5(t::text) FROM "Odd ""table'" t UNION ALL SELECT 'kinds ' || id, md5(t::text) FROM kinds t
    UNION ALL SELECT 'organisation', t::text FROM organisations t UNION ALL SELECT 'member', t::text FROM members t ORDER BY 1, 2"#;

#[test]
fn names_and_values_of_every_kind_are_the_same_in_every_place() {
    let database = Database::new("move_kinds");
    let (mut owner, mut admin) = (database.connect("owner"), database.connect("admin"));
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    owner.batch_execute(TABLES).expect("make the tables");
    let protect = r#"SELECT protect_table('"Odd ""table''"'), protect_table('kinds'), protect_table('organisations', 'id', external_id => true),
        protect_table('members', 'organisation', external_id => true)"#;
    rows(&mut admin, protect, &[]);
    let tenants = [42, 7].map(|key: i32| -> Uuid {
        let create = "SELECT create_tenant('Key ' || $1, isolation => 'row', external_id => $1)";
        let tenant = one(&mut operator, create, &[&key.to_string()]);
        as_tenant(&mut app, tenant, |app| {
            app.batch_execute(FILL).expect("fill");
            let members = format!("INSERT INTO organisations VALUES ({key}, 'Organisation'); INSERT INTO members (id, name) SELECT n, 'member' FROM generate_series(1, 3) n");
            app.batch_execute(&members).expect("members");
        });
        tenant
    });
    one::<String>(&mut admin, "SELECT derive_template('odd ''template', 'public', 'Odd \" template')", &[]);
    let house = House { database };
    let content = |tenant| as_tenant(&mut house.connect_to(tenant, "app"), tenant, |app| simple(app, CONTENT));
    let before = tenants.map(content);
    assert_eq!(before[0].len(), 48);
    assert_ne!(before[0], before[1]);
    for to in ["schema", "database", "schema", "row", "database", "row"] {
        house.move_to(tenants[0], to);
        assert_eq!(tenants.map(content), before, "{to}");
        as_tenant(&mut house.connect_to(tenants[0], "app"), tenants[0], |app| {
            app.batch_execute("INSERT INTO members (id) VALUES (9); DELETE FROM members WHERE id = 9").expect("write");
        });
    }
}
