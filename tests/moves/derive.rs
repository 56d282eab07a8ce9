//! Templates that are made of shared tables.

use super::fixtures::House;
use harness::*;

#[test]
fn a_derived_template_is_the_shared_tables_without_their_guard() {
    let house = House::new("derive_same");
    let mut superuser = house.superuser();
    assert_eq!(
        count(
            &mut superuser,
            "pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = 'grown_template'::regnamespace"
        ),
        0
    );
    assert_eq!(
        count(
            &mut superuser,
            "pg_class WHERE relnamespace = 'grown_template'::regnamespace AND (relrowsecurity OR relforcerowsecurity)"
        ),
        0
    );
    assert_eq!(count(&mut superuser, "grown_template.stages"), 3);
    assert_eq!(count(&mut superuser, "grown_template.accounts"), 0);
    let same = "SELECT string_agg(concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull), ', ' ORDER BY c.relname, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p', 'v', 'i', 'S')
        AND c.relname NOT LIKE '%tenant%idx' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')";
    let [shared, own] = ["public", "grown_template"]
        .map(|schema| one::<String>(&mut superuser, same, &[&schema]).replace("grown_template.", ""));
    assert_eq!(own, shared);
    let template = "SELECT concat_ws(' ', schema_name, data_tables::text, shared_schema) FROM tenancy.templates WHERE template = 'grown'";
    assert_eq!(one::<String>(&mut superuser, template, &[]), "grown_template {stages} public");
    // Nothing of it is of the shared tables.
    let strangers = "SELECT count(*) FROM pg_depend d JOIN pg_class c ON d.refobjid = c.oid AND c.relnamespace = 'public'::regnamespace
        JOIN pg_class m ON m.oid = d.objid AND m.relnamespace = 'grown_template'::regnamespace";
    assert_eq!(one::<i64>(&mut superuser, strangers, &[]), 0);
    let owner = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'grown_template'";
    assert_eq!(one::<String>(&mut superuser, owner, &[]), "owner");
}

#[test]
fn a_tenant_can_begin_in_a_schema_of_a_derived_template() {
    let house = House::new("derive_begin");
    let tenant: Uuid = one(&mut house.connect("operator"), "SELECT create_tenant('new', isolation => 'schema')", &[]);
    house.fill(tenant, 4);
    let before = house.content(tenant);
    house.move_to(tenant, "row");
    assert_eq!(house.content(tenant), before);
    let drift = "SELECT count(*) FROM tenancy.schema_drift";
    let again: Uuid = one(&mut house.connect("operator"), "SELECT create_tenant('again', isolation => 'schema')", &[]);
    assert_eq!(one::<i64>(&mut house.connect("operator"), drift, &[]), 0, "{again}");
}

#[test]
fn what_cannot_be_derived_is_refused_and_nothing_is_made() {
    let house = House::without_template(Database::new("derive_refused"));
    let (mut admin, mut superuser) = (house.connect("admin"), house.superuser());
    superuser.batch_execute("CREATE SCHEMA empty; CREATE SCHEMA taken").expect("schemas");
    let huge = "x".repeat(64);
    for (arguments, sqlstate) in [
        ("NULL, 'public'", "22023"),
        ("'t', NULL", "22023"),
        ("'  ', 'public'", "22023"),
        ("'t', 'unknown'", "P0002"),
        ("'t', 'empty'", "55000"),
        ("'t', 'tenancy'", "22023"),
        ("'t', 'pg_catalog'", "22023"),
        ("'t', 'public', 'public'", "22023"),
        ("'t', 'public', 'pg_x'", "22023"),
        ("'t', 'public', 'taken'", "23505"),
        (&format!("'{huge}', 'public'"), "22023"),
    ] {
        fails(admin.query(&format!("SELECT derive_template({arguments})"), &[]), sqlstate);
    }
    // A view that names the schema in a way that a copy would keep.
    superuser.batch_execute("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (x integer) SERVER s").expect("far");
    let error = fails(admin.query("SELECT derive_template('t', 'public')", &[]), "0A000");
    assert!(error.message().contains("far"), "{}", error.message());
    superuser.batch_execute("DROP FOREIGN TABLE far").expect("drop");
    assert_eq!(count(&mut superuser, "tenancy.templates"), 0);
    assert_eq!(count(&mut superuser, "pg_namespace WHERE nspname LIKE 't%template'"), 0);
    one::<String>(&mut admin, "SELECT derive_template('t', 'public', 'Odd \" name')", &[]);
    fails(admin.query("SELECT derive_template('t', 'public')", &[]), "23505");
    fails(admin.query("SELECT derive_template('u', 'Odd \" name')", &[]), "22023");
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        fails(house.connect(role).query("SELECT derive_template('v', 'public')", &[]), "42501");
    }
}

#[test]
fn shared_tables_in_a_schema_of_their_own_can_be_derived() {
    let database = Database::new("derive_schema");
    database
        .superuser()
        .batch_execute("CREATE SCHEMA shop AUTHORIZATION owner; GRANT USAGE ON SCHEMA shop TO app")
        .expect("shop");
    let mut owner = database.connect("owner");
    owner
        .batch_execute(
            "CREATE TABLE shop.items (tenant_id uuid, id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text);
             GRANT ALL ON shop.items TO app",
        )
        .expect("items");
    let mut admin = database.connect("admin");
    one::<bool>(&mut database.superuser(), "SELECT protect_table('shop.items', foreign_key => true)", &[]);
    one::<String>(&mut admin, "SELECT derive_template('shop', 'shop')", &[]);
    let tenant: Uuid = one(&mut database.connect("operator"), "SELECT create_tenant('one', isolation => 'row')", &[]);
    let mut app = database.connect("app");
    app.batch_execute("SET search_path = shop, public").expect("path");
    as_tenant(&mut app, tenant, |app| {
        app.batch_execute("INSERT INTO items (name) VALUES ('a'), ('b')").expect("items")
    });
    for isolation in ["schema", "row"] {
        admin.batch_execute(&format!("CALL move_tenant('{tenant}', '{isolation}')")).expect("move");
        as_tenant(&mut app, tenant, |app| {
            assert_eq!(count(app, "items"), 2);
            app.batch_execute("INSERT INTO items (name) VALUES ('c'); DELETE FROM items WHERE name = 'c'")
                .expect("write");
        });
    }
}
