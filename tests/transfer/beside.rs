//! Another tenant made of an export, beside the one that it was.

use super::*;

/// Rows with their ids replaced by what they refer to: equal for tenants whose rows are alike.
const SHAPE: &str = "SELECT string_agg(line, E'\\n' ORDER BY line COLLATE \"C\") FROM (
        SELECT c.name || '|' || coalesce(p.name, '-') || '|' || coalesce(c.country, '-') AS line
        FROM shop.customers c LEFT JOIN shop.customers p ON p.id = c.parent AND p.tenant_id = c.tenant_id WHERE c.tenant_id = $1
        UNION ALL
        SELECT c.name || '|' || o.amount || '|' || o.note || '|' || coalesce(l.n::text, '-') || '|' || (b.id IS NOT NULL)
        FROM shop.orders o JOIN shop.customers c ON c.id = o.customer AND c.tenant_id = o.tenant_id
        LEFT JOIN shop.lines l ON l.of_order = o.id AND l.tenant_id = o.tenant_id
        LEFT JOIN shop.bills b ON b.id = o.id AND b.tenant_id = o.tenant_id WHERE o.tenant_id = $1
        UNION ALL SELECT 'person ' || id || team FROM shop.people WHERE tenant_id = $1) AS lines";

#[test]
fn a_copy_has_the_same_rows_under_ids_of_its_own() {
    let database = shop(cluster(), "beside");
    let acme = filled(&database, "acme");
    let globex = filled(&database, "globex");
    let mut app = database.connect("app");
    as_tenant(&mut app, acme, |tx| {
        tx.batch_execute(
            "SELECT add_member(create_user('ada@example.com'), 'owner'); SELECT add_member(create_user('bob@example.com', tenant => current_tenant()));
             SELECT api_key FROM create_api_key('robots'); DELETE FROM shop.lines WHERE n = 2;
             INSERT INTO shop.customers (name) VALUES ('later')",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    });
    one::<String>(&mut database.connect("operator"), "SELECT set_tenant_limit($1, 'agents', 7)", &[&acme]);
    let before = (picture(&database, Some(acme)), picture(&database, Some(globex)));
    let exported = export(&database, acme);
    let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (id, slug) in [(first, "copy-1"), (second, "copy-2")] {
        import(&database, &exported, &format!("'beside', slug => '{slug}', id => '{id}'"))
            .unwrap_or_else(|error| panic!("{error:?}"));
    }
    assert_eq!((picture(&database, Some(acme)), picture(&database, Some(globex))), before);
    let mut superuser = database.superuser();
    let shape: String = one(&mut superuser, SHAPE, &[&acme]);
    for copy in [first, second] {
        assert_eq!(one::<String>(&mut superuser, SHAPE, &[&copy]), shape);
        as_tenant(&mut app, copy, |tx| {
            tx.batch_execute("INSERT INTO shop.customers (name) VALUES ('one more')").expect("its numbers go on");
        });
        let members = format!("tenancy.members WHERE tenant_id = '{copy}'");
        assert_eq!(count(&mut superuser, &members), 2);
        for (table, rows) in [("tenant_limits", 1), ("stored_api_keys", 0), ("usage_buckets", 0)] {
            assert_eq!(count(&mut superuser, &format!("tenancy.{table} WHERE tenant_id = '{copy}'")), rows, "{table}");
        }
    }
    // One account for all, and one of each tenant's own.
    assert_eq!(count(&mut superuser, "tenancy.users"), 4);
    let free = import(&database, &exported, "'beside'");
    free.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(count(&mut superuser, "tenancy.tenants"), 5);
}

#[test]
fn a_tenant_comes_where_its_ids_are_taken() {
    let (from, to) = (shop(cluster(), "taken_from"), shop(cluster(), "taken_to"));
    let (acme, _) = (filled(&from, "acme"), filled(&to, "other"));
    let key: String =
        as_tenant(&mut from.connect("app"), acme, |tx| one(tx, "SELECT api_key FROM create_api_key('robots')", &[]));
    let exported = export(&from, acme);
    let taken = fails(import(&to, &exported, ""), "23505");
    assert!(taken.message().contains("customers_pkey"), "{}", taken.message());
    import(&to, &exported, "new_ids => true").unwrap_or_else(|error| panic!("{error:?}"));
    let shape = |database: &Database| one::<String>(&mut database.superuser(), SHAPE, &[&acme]);
    assert_eq!(shape(&to), shape(&from));
    assert_eq!(count(&mut to.connect("app"), &format!("verify_api_key('{key}') WHERE tenant_id = '{acme}'")), 1);
}

#[test]
fn a_key_that_nothing_renews_is_named() {
    let database = shop(cluster(), "beside_refused");
    database
        .superuser()
        .batch_execute("CREATE TABLE shop.numbered (tenant_id uuid, id int PRIMARY KEY); ALTER TABLE shop.numbered OWNER TO owner; GRANT ALL ON shop.numbered TO app; SELECT protect_table('shop.numbered')")
        .expect("create a table");
    let acme = tenant(&mut database.connect("operator"));
    as_tenant(&mut database.connect("app"), acme, |tx| {
        tx.batch_execute("INSERT INTO shop.numbered (id) VALUES (5)").expect("insert")
    });
    let fault = fails(import(&database, &export(&database, acme), "'beside'"), "55000");
    assert!(fault.message().contains("shop.numbered"), "{}", fault.message());
}
