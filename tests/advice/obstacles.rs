//! What no statement mends is named all the same, with the way out.

use super::fixtures::*;
use harness::*;

const TABLES: &str = "
CREATE TABLE parents (code text PRIMARY KEY, tenant_id uuid, kind text, UNIQUE (code, kind), UNIQUE (kind));
CREATE TABLE plain (code text REFERENCES parents);
CREATE TABLE loose (tenant_id uuid, code text, kind text, FOREIGN KEY (code, kind) REFERENCES parents (code, kind) MATCH FULL);
CREATE TABLE unset (tenant_id uuid, kind text REFERENCES parents (kind) ON UPDATE SET NULL);
CREATE TABLE numbers (id text PRIMARY KEY, tenant_id text);
CREATE TABLE mixed (tenant_id uuid, number text REFERENCES numbers);
CREATE TABLE crossed (tenant_id uuid, other uuid UNIQUE);
ALTER TABLE crossed ADD FOREIGN KEY (tenant_id) REFERENCES crossed (other);
CREATE TABLE grouped (id text PRIMARY KEY, tenant_id uuid, label text);
CREATE VIEW by_id AS SELECT id, label FROM grouped GROUP BY id;
CREATE TABLE places (tenant_id uuid, at point, name text, EXCLUDE USING hash (name WITH =));
CREATE INDEX places_at ON places USING gist (at);
CREATE INDEX places_quad ON places USING spgist (at);
CREATE INDEX places_x ON places USING brin ((at[0]::numeric));
";

#[test]
fn what_no_statement_mends_is_named() {
    let names = ["parents", "loose", "unset", "numbers", "mixed", "crossed", "grouped", "places"];
    let database = protected("advice_obstacles", TABLES, &names);
    let steps = advice(&database);
    let expected = [
        ("parents_pkey", "foreign key plain_code_fkey of public.plain refers to it and is not protected"),
        ("parents_code_kind_key", "MATCH FULL of columns that can be null"),
        ("parents_kind_key", "would take the tenant from a row"),
        ("numbers_pkey", "tenant columns differ in type"),
        ("crossed_other_key", "has the tenant column, and refers to a key that has it not"),
        ("grouped_pkey", "view public.by_id depends on it"),
        ("loose_code_kind_fkey", "MATCH FULL of columns that can be null"),
        ("unset_kind_fkey", "would take the tenant from a row"),
        ("mixed_number_fkey", "tenant columns differ in type"),
        ("crossed_tenant_id_fkey", "make it anew by hand"),
        ("places_name_excl", "has one column: use GiST"),
        ("places_at", "known to tell nothing of other tenants' keys"),
        ("places_quad", "no index of method spgist"),
        ("places_x", "no index of method brin"),
    ];
    for (object, note) in expected {
        let found: Vec<&Advice> = steps.iter().filter(|step| step.object == object).collect();
        assert_eq!(found.len(), 1, "{object}: {found:#?}\nof {steps:#?}");
        assert!(found[0].note.contains(note), "{note}: {found:#?}");
        let nothing = (&found[0].statement, &found[0].run_as, &found[0].lock, &found[0].duration);
        assert_eq!(nothing, (&None, &None, &None, &None), "{object}");
    }
    assert_eq!(steps.len(), expected.len(), "{steps:#?}");
    // With them out of the way, the rest is done.
    database
        .connect("owner")
        .batch_execute(
            "DROP TABLE plain, unset, mixed; DROP VIEW by_id; ALTER TABLE crossed DROP CONSTRAINT crossed_tenant_id_fkey;
             ALTER TABLE loose ALTER code SET NOT NULL, ALTER kind SET NOT NULL; ALTER TABLE places DROP CONSTRAINT places_name_excl;
             DROP INDEX places_at, places_quad, places_x",
        )
        .expect("clear the way");
    assert!(!follow(&database).is_empty());
}

/// A schema of a tenant may refer to shared tables: its tables are not protected, and need not be.
#[test]
fn a_tenants_schema_that_refers_to_a_shared_key_is_named_as_what_keeps_it() {
    let tables = "CREATE TABLE shared (code text PRIMARY KEY, tenant_id uuid)";
    let database = protected("advice_schemas", tables, &["shared"]);
    database
        .superuser()
        .batch_execute("CREATE SCHEMA \"of a tenant\"; CREATE TABLE \"of a tenant\".\"T\" (code text CONSTRAINT \"to shared\" REFERENCES shared)")
        .expect("refer");
    let steps = advice(&database);
    assert_eq!(steps.len(), 1, "{steps:#?}");
    assert!(steps[0].note.contains("\"to shared\" of \"of a tenant\".\"T\""), "{steps:#?}");
    // By its number: an administrator may not use that schema.
    let number = text(&mut database.superuser(), "SELECT '\"of a tenant\".\"T\"'::regclass::oid");
    let ask = format!("SELECT * FROM protection_advice({number})");
    fails(database.connect("admin").batch_execute(&ask), "55000");
}
