//! Tenants whose rows are known by keys of the application's own.

use super::fixtures::House;
use harness::*;

const TABLES: &str = "
CREATE TABLE organizations (id bigint PRIMARY KEY, name text);
CREATE TABLE items (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, org bigint NOT NULL REFERENCES organizations, name text);
INSERT INTO organizations VALUES (7, 'Seven'), (8, 'Eight');
INSERT INTO items (org, name) SELECT 7 + n % 2, 'item ' || n FROM generate_series(1, 100) n;
GRANT SELECT, INSERT, UPDATE, DELETE ON organizations, items TO app";

#[test]
fn rows_under_a_key_of_the_application_move_with_their_tenant() {
    let house = House { database: Database::new("move_keys") };
    house.connect("owner").batch_execute(TABLES).expect("make the tables");
    let mut admin = house.connect("admin");
    admin.batch_execute("CALL adopt_tenants('organizations', 'id', 'name')").expect("adopt");
    house.derive();
    let find = "SELECT find_tenant(external_id => $1)";
    let [seven, eight]: [Uuid; 2] = ["7", "8"].map(|key| one(&mut house.connect("operator"), find, &[&key]));
    let content = |tenant| {
        let rows = "SELECT coalesce(string_agg(x, ',' ORDER BY x), '') FROM (SELECT to_jsonb(i)::text AS x FROM items i
            UNION ALL SELECT to_jsonb(o)::text FROM organizations o) AS all_rows";
        as_tenant(&mut house.connect_to(tenant, "app"), tenant, |app| text(app, rows))
    };
    let (before, others) = (content(seven), content(eight));
    for isolation in ["schema", "row", "database", "schema", "row"] {
        house.move_to(seven, isolation);
        assert_eq!(content(seven), before, "{isolation}");
        assert_eq!(content(eight), others, "{isolation}");
        let left = count(&mut house.superuser(), "public.items WHERE org = 7");
        assert_eq!(left, if isolation == "row" { 50 } else { 0 }, "{isolation}");
        as_tenant(&mut house.connect_to(seven, "app"), seven, |app| {
            assert_eq!(text(app, "INSERT INTO items (name) VALUES ('by default') RETURNING org"), "7", "{isolation}");
            app.batch_execute("DELETE FROM items WHERE name = 'by default'").expect("delete");
        });
    }
    assert_eq!(house.phases(seven), "done done done done done");
}
