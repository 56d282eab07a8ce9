//! What cannot be kept is named before anything changes.

use super::fixtures::*;
use harness::*;

/// Each obstacle, what is said of it, and the SQLSTATE.
const OBSTACLES: [(&str, &str, &str); 11] = [
    (
        "CREATE EXTENSION btree_gist; CREATE TABLE shop.rooms (room int, during tstzrange, EXCLUDE USING gist (room WITH =, during WITH &&))",
        "exclusion constraint rooms_room_during_excl",
        "55000",
    ),
    (
        "ALTER TABLE shop.orders ADD FOREIGN KEY (customer) REFERENCES shop.customers ON UPDATE SET NULL",
        "would take the tenant from a row",
        "55000",
    ),
    (
        "CREATE TABLE shop.parts (o uuid, p text, FOREIGN KEY (o, p) REFERENCES shop.lines MATCH FULL)",
        "is MATCH FULL of columns that can be null",
        "55000",
    ),
    (
        "CREATE SCHEMA other; CREATE TABLE other.wishes (product text REFERENCES shop.products)",
        "wishes_product_fkey",
        "55000",
    ),
    (
        "CREATE VIEW shop.grouped AS SELECT code, label FROM shop.products GROUP BY code",
        "depends on key products_pkey",
        "55000",
    ),
    ("CREATE MATERIALIZED VIEW shop.copied AS SELECT * FROM shop.products", "materialized view shop.copied", "42501"),
    ("CREATE TABLE shop.boxes (content shop.products)", "has its row type", "55000"),
    ("CREATE TYPE shop.kind AS (a int); CREATE TABLE shop.typed OF shop.kind", "is a typed table", "55000"),
    (
        "CREATE TABLE shop.mother1 (a int); CREATE TABLE shop.mother2 (b int); CREATE TABLE shop.child () INHERITS (shop.mother1, shop.mother2)",
        "inherits from",
        "55000",
    ),
    ("ALTER TABLE shop.staff ADD tenant_id int", "has type integer", "22023"),
    (
        "GRANT CREATE ON SCHEMA shop TO app; ALTER TABLE shop.staff OWNER TO app",
        "role app could step around level app",
        "42501",
    ),
];

#[test]
fn what_cannot_be_kept_is_refused_before_anything_changes() {
    let shop = Shop::new("adopt_refused");
    let mut superuser = shop.database.superuser();
    for (obstacle, message, sqlstate) in OBSTACLES {
        let mut transaction = superuser.transaction().expect("begin");
        transaction.batch_execute(obstacle).unwrap_or_else(|error| panic!("{obstacle}: {error:?}"));
        // What the plan refuses, the call refuses: the same function makes both.
        let error = fails(
            transaction.batch_execute("SELECT * FROM adoption_plan('shop', shared_tables => '{countries}')"),
            sqlstate,
        );
        assert!(error.message().contains(message), "{obstacle}: {error:?}");
        transaction.rollback().expect("roll back");
    }
    superuser.batch_execute(OBSTACLES[3].0).expect("an obstacle that stays");
    let before = definitions(&mut superuser, "shop");
    fails(shop.adopt(""), "55000");
    assert_eq!(definitions(&mut superuser, "shop"), before);
    assert_eq!(count(&mut superuser, "tenancy.adoptions"), 0);
    superuser.batch_execute("REVOKE CREATE ON SCHEMA shop FROM owner; ALTER SCHEMA shop OWNER TO postgres; GRANT USAGE ON SCHEMA shop TO owner").expect("revoke");
    let error = fails(shop.adopt(", keys => 'none'"), "55000");
    assert!(error.hint().expect("a hint").contains("GRANT CREATE ON SCHEMA shop TO owner"), "{error:?}");
}

#[test]
fn bad_arguments_are_refused() {
    let shop = Shop::new("adopt_arguments");
    let mut admin = shop.database.connect("admin");
    let tenant = shop.tenant;
    let gone = Uuid::from_u128(7);
    let long = "x".repeat(64);
    for (call, sqlstate) in [
        (format!("CALL adopt_schema(NULL, '{tenant}')"), "22023"),
        ("CALL adopt_schema('shop', NULL)".to_owned(), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', tenant_column => NULL)"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', tenant_column => '')"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', keys => NULL)"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', keys => 'some''; DROP TABLE x')"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', shared_tables => NULL)"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', shared_tables => '{{NULL}}')"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', shared_tables => '{{{long}}}')"), "P0002"),
        (format!("CALL adopt_schema('shop', '{tenant}', protect => NULL)"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', batch_size => 0)"), "22023"),
        (format!("CALL adopt_schema('shop', '{tenant}', batch_size => NULL)"), "22023"),
        (format!("CALL adopt_schema('nowhere', '{tenant}')"), "P0002"),
        (format!("CALL adopt_schema('pg_catalog', '{tenant}')"), "22023"),
        (format!("CALL adopt_schema('tenancy', '{tenant}')"), "22023"),
        (format!("CALL adopt_schema('shop', '{gone}')"), "P0002"),
        ("CALL adopt_table('shop.staff', NULL)".to_owned(), "22023"),
        (format!("CALL adopt_table(NULL, '{tenant}')"), "22023"),
        (format!("CALL adopt_table('pg_class', '{tenant}')"), "22023"),
        (format!("CALL adopt_table('tenancy.tenants', '{tenant}')"), "22023"),
        (format!("CALL adopt_table(123456789, '{tenant}')"), "P0002"),
        (format!("BEGIN; CALL adopt_table('shop.staff', '{tenant}')"), "25001"),
        ("SELECT * FROM adoption_plan(NULL)".to_owned(), "22023"),
        ("SELECT * FROM adoption_plan('shop', keys => '')".to_owned(), "22023"),
        (format!("SELECT * FROM adoption_plan('shop', '{gone}')"), "P0002"),
    ] {
        let error = admin.batch_execute(&call);
        assert!(error.is_err(), "{call}");
        fails(error, sqlstate);
        let _ = admin.batch_execute("ROLLBACK");
    }
    let mut operator = shop.database.connect("operator");
    operator.batch_execute(&format!("SELECT suspend_tenant('{tenant}')")).expect("suspend");
    fails(shop.adopt(""), "42501");
    operator.batch_execute(&format!("SELECT resume_tenant('{tenant}')")).expect("resume");
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        fails(shop.database.connect(role).batch_execute(&shop.call("")), "42501");
    }
    assert_eq!(
        count(
            &mut shop.database.superuser(),
            "pg_attribute WHERE attname = 'tenant_id' AND attrelid::regclass::text LIKE 'shop.%'"
        ),
        0
    );
}

/// What runs while a table is adopted runs as its owner: an index expression of the owner's cannot use the caller's rights.
#[test]
fn the_owners_code_does_not_run_with_other_rights() {
    let database = Database::new("adopt_hostile");
    let tenant = tenant(&mut database.connect("operator"));
    database
        .connect("owner")
        .batch_execute(
            "CREATE TABLE seen (who name, what text);
            GRANT INSERT ON seen TO PUBLIC;
            CREATE FUNCTION escalate() RETURNS void VOLATILE LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE ROLE hacked SUPERUSER'; END $$;
            CREATE FUNCTION spy(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
                $$ BEGIN
                    IF current_user <> 'owner' THEN RAISE EXCEPTION 'runs as %', current_user; END IF;
                    BEGIN PERFORM escalate(); EXCEPTION WHEN OTHERS THEN NULL; END;
                    RETURN t;
                END $$;
            CREATE DOMAIN spied AS text CHECK (spy(VALUE) IS NOT NULL);
            CREATE TABLE t (id int PRIMARY KEY CHECK (spy('x') = 'x'), body spied DEFAULT spy('default'), parent int REFERENCES t);
            INSERT INTO t VALUES (1, 'a', NULL), (2, 'b', 1);
            CREATE INDEX ON t (spy(body)) WHERE spy(body) <> '';
            CREATE UNIQUE INDEX ON t (spy(body))",
        )
        .expect("create");
    let mut admin = database.connect("admin");
    admin.batch_execute(&format!("CALL adopt_table('t', '{tenant}')")).expect("adopt");
    assert_eq!(count(&mut database.superuser(), "pg_roles WHERE rolname = 'hacked'"), 0);
    assert_eq!(count(&mut database.superuser(), "tenancy.protection_status WHERE intact"), 1);
}
