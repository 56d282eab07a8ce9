//! Tables of a template: limited in every tenant's schema.

use super::fixtures::*;
use harness::*;

const TEMPLATE: &str = "
CREATE SCHEMA tpl AUTHORIZATION owner;
GRANT USAGE ON SCHEMA tpl TO app;
SET ROLE owner;
CREATE TYPE tpl.mood AS ENUM ('glad', 'sad');
CREATE FUNCTION tpl.counts(tpl.mood) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1 = 'glad'; END $$;
CREATE TABLE tpl.skus (id bigserial, mood tpl.mood DEFAULT 'glad');
CREATE TABLE tpl.parts (id bigserial, region text DEFAULT 'x') PARTITION BY LIST (region);
CREATE TABLE tpl.parts_x PARTITION OF tpl.parts DEFAULT;
GRANT ALL ON ALL TABLES IN SCHEMA tpl TO app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA tpl TO app;
RESET ROLE;
";

struct House(Shop);

impl House {
    fn new(label: &str) -> House {
        let database = Database::new(label);
        database.superuser().batch_execute(TEMPLATE).expect("make the template");
        let register = "SELECT register_template('t', 'tpl', tenant_schema => 'of_{slug}')";
        let _: String = one(&mut database.connect("admin"), register, &[]);
        House(Shop { database })
    }

    #[track_caller]
    fn tenant(&self, slug: &str, max: Option<i32>) -> Uuid {
        const CREATE: &str = "SELECT create_tenant($1, slug => $1, isolation => 'schema')";
        let id = one(&mut self.0.connect("operator"), CREATE, &[&slug]);
        self.0.set_limit(id, "skus", max);
        id
    }

    #[track_caller]
    fn limit(&self) {
        let limit = "SELECT limit_table('tpl.skus', 'skus', 'counts(mood)')";
        assert!(one::<bool>(&mut self.0.database.superuser(), limit, &[]));
    }

    #[track_caller]
    fn check(&self, tenant: Uuid, slug: &str, rows: i64) {
        let mut superuser = self.0.database.superuser();
        assert_eq!(count(&mut superuser, &format!("of_{slug}.skus WHERE mood = 'glad'")), rows);
        let counted: Option<i64> = optional(&mut superuser, COUNTED, &[&tenant, &"skus"]);
        assert!(counted.is_none_or(|counted| counted == rows), "counted {counted:?} of {rows}");
    }
}

#[test]
fn a_limit_on_a_templates_table_holds_in_every_tenants_schema_old_and_new() {
    let house = House::new("limit_template");
    let old = house.tenant("old", Some(2));
    house.limit();
    let new = house.tenant("new", Some(3));
    let mut app = house.0.connect("app");
    for (tenant, slug, max) in [(old, "old", 2), (new, "new", 3)] {
        run_as(&mut app, tenant, "INSERT INTO skus (mood) SELECT 'sad' FROM generate_series(1, 5)");
        run_as(&mut app, tenant, &format!("INSERT INTO skus SELECT FROM generate_series(1, {max})"));
        refused(&mut app, tenant, "INSERT INTO skus DEFAULT VALUES", "54000");
        refused(&mut app, tenant, "UPDATE skus SET mood = 'glad'", "54000");
        house.check(tenant, slug, max);
        run_as(&mut app, tenant, "UPDATE skus SET mood = 'sad'");
        house.check(tenant, slug, 0);
    }
    assert_eq!(count(&mut house.0.connect("operator"), "tenancy.schema_drift"), 0);
    // COPY works here, where no row security is.
    let script =
        format!("BEGIN; SELECT set_tenant('{old}');\nCOPY skus (mood) FROM stdin;\nglad\nglad\nglad\n\\.\nCOMMIT;\n");
    let output = house.0.database.psql("app", &script);
    assert!(String::from_utf8_lossy(&output.stderr).contains("limit reached for skus (2)"), "{output:?}");
    house.check(old, "old", 0);
    run_as(&mut app, old, "INSERT INTO skus DEFAULT VALUES");
    // Who may not use the template's schema names the table by its number.
    let unlimit = "SELECT unlimit_table(oid, 'skus') FROM pg_class WHERE oid = $1";
    let table: u32 = one(&mut house.0.database.superuser(), "SELECT 'tpl.skus'::regclass::oid", &[]);
    assert!(one::<bool>(&mut house.0.connect("admin"), unlimit, &[&table]));
    run_as(&mut app, old, "INSERT INTO skus SELECT FROM generate_series(1, 5)");
    assert_eq!(count(&mut house.0.connect("operator"), "tenancy.schema_drift"), 0);
}

#[test]
fn a_clone_with_data_begins_with_what_it_has() {
    let house = House::new("limit_clone");
    house.limit();
    let source = house.tenant("source", Some(3));
    let mut app = house.0.connect("app");
    run_as(&mut app, source, "INSERT INTO skus SELECT FROM generate_series(1, 3)");
    let copy: Uuid = one(&mut house.0.connect("operator"), "SELECT create_tenant('copy')", &[]);
    house.0.set_limit(copy, "skus", Some(4));
    let _: String = one(&mut house.0.connect("admin"), "SELECT clone_tenant_schema($1, $2)", &[&source, &copy]);
    run_as(&mut app, copy, "INSERT INTO skus DEFAULT VALUES");
    refused(&mut app, copy, "INSERT INTO skus DEFAULT VALUES", "54000");
    refused(&mut app, source, "INSERT INTO skus DEFAULT VALUES", "54000");
    house.check(copy, "copy", 4);
    // A schema that goes takes its rows along.
    house.0.connect("admin").query("SELECT delete_tenant_schema($1)", &[&copy]).expect("delete the schema");
    house.0.connect("operator").query("SELECT create_tenant_schema($1, 't')", &[&copy]).expect("make another");
    run_as(&mut app, copy, "INSERT INTO skus SELECT FROM generate_series(1, 4)");
    refused(&mut app, copy, "INSERT INTO skus DEFAULT VALUES", "54000");
    house.check(copy, "copy", 4);
    // In the tenant's own transaction, TRUNCATE too makes room.
    house.0.database.superuser().batch_execute("GRANT TRUNCATE ON of_copy.skus TO app").expect("grant");
    run_as(&mut app, copy, "TRUNCATE skus");
    run_as(&mut app, copy, "INSERT INTO skus SELECT FROM generate_series(1, 4)");
    refused(&mut app, copy, "INSERT INTO skus DEFAULT VALUES", "54000");
}

#[test]
fn ddl_in_one_tenants_schema_counts_that_tenant_anew() {
    let house = House::new("limit_schema_ddl");
    house.limit();
    let admin = &mut house.0.database.superuser();
    assert!(one::<bool>(admin, "SELECT limit_table('tpl.parts', 'parts')", &[]));
    let tenant = house.tenant("a", Some(5));
    house.0.set_limit(tenant, "parts", Some(2));
    let mut app = house.0.connect("app");
    run_as(&mut app, tenant, "INSERT INTO parts SELECT FROM generate_series(1, 2)");
    refused(&mut app, tenant, "INSERT INTO parts_x DEFAULT VALUES", "54000");
    house.0.database.superuser().batch_execute("DROP TABLE of_a.parts_x; CREATE TABLE of_a.parts_x PARTITION OF of_a.parts DEFAULT; ALTER TABLE of_a.parts_x OWNER TO owner; GRANT ALL ON of_a.parts_x TO app").expect("replace");
    run_as(&mut app, tenant, "INSERT INTO parts SELECT FROM generate_series(1, 2)");
    refused(&mut app, tenant, "INSERT INTO parts_x DEFAULT VALUES", "54000");
    assert_eq!(count(admin, "verify_limits()"), 0);
}
