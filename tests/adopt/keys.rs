//! Which keys become keys of each tenant, and what becomes of everything that hangs on them.

use super::fixtures::*;
use harness::*;

#[track_caller]
fn has(definitions: &[String], text: &str) {
    assert!(
        definitions.iter().any(|definition| definition == text),
        "{text}\nis not among\n{}",
        definitions.join("\n")
    );
}

#[test]
fn natural_keys_become_keys_of_each_tenant_and_generated_ones_stay() {
    let shop = Shop::new("adopt_keys");
    let mut superuser = shop.database.superuser();
    let before: Vec<_> = TABLES.map(|table| checksum(&mut superuser, table)).into();
    let unadopted =
        definitions(&mut superuser, "shop").into_iter().filter(|text| text.contains("countries")).collect::<Vec<_>>();
    shop.adopt("").expect("adopt");
    let found = definitions(&mut superuser, "shop");
    for text in [
        "shop.staff staff_pkey PRIMARY KEY (id)",
        "shop.staff staff_name UNIQUE (tenant_id, name)",
        "shop.staff staff_boss FOREIGN KEY (tenant_id, boss) REFERENCES shop.staff(tenant_id, id) ON DELETE SET NULL (boss)",
        "shop.customers customers_pkey PRIMARY KEY (id)",
        "shop.customers customers_served_by_fkey FOREIGN KEY (tenant_id, served_by) REFERENCES shop.staff(tenant_id, id) ON UPDATE CASCADE ON DELETE SET NULL (served_by)",
        "shop.customers customers_country_fkey FOREIGN KEY (country) REFERENCES shop.countries(code)",
        "CREATE UNIQUE INDEX customers_email ON shop.customers USING btree (tenant_id, lower(email)) WHERE (email <> ''::text)",
        "CREATE INDEX customers_region ON shop.customers USING btree (region) INCLUDE (email)",
        "CREATE INDEX customers_region_tenant ON shop.customers USING btree (tenant_id, region) INCLUDE (email)",
        "shop.products products_pkey PRIMARY KEY (tenant_id, code)",
        "shop.products products_label UNIQUE NULLS NOT DISTINCT (tenant_id, label) DEFERRABLE INITIALLY DEFERRED",
        "shop.orders orders_customer_fkey FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers(tenant_id, id) ON DELETE CASCADE",
        "CREATE UNIQUE INDEX orders_pkey_tenant ON shop.orders USING btree (tenant_id, id)",
        "CREATE INDEX orders_placed_at ON shop.orders USING brin (placed_at)",
        "shop.lines lines_pkey PRIMARY KEY (tenant_id, order_id, product)",
        "shop.lines lines_order_id_fkey FOREIGN KEY (tenant_id, order_id) REFERENCES shop.orders(tenant_id, id) DEFERRABLE INITIALLY DEFERRED",
        "shop.lines lines_product_fkey FOREIGN KEY (tenant_id, product) REFERENCES shop.products(tenant_id, code)",
        "shop.lines tenant_id uuid t current_tenant()",
    ] {
        has(&found, text);
    }
    assert!(!found.iter().any(|text| text.contains("INVALID")), "{found:#?}");
    for text in &unadopted {
        has(&found, text);
    }
    let comment =
        "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'customers_served_by_fkey'";
    assert_eq!(text(&mut superuser, comment), "who knows them");
    let mut app = shop.database.connect("app");
    for (table, before) in TABLES.iter().zip(before) {
        assert_eq!(as_tenant(&mut app, shop.tenant, |transaction| checksum(transaction, table)), before, "{table}");
    }
    // A boss leaves: the tenant of those who had one stays.
    as_tenant(&mut app, shop.tenant, |transaction| {
        transaction.batch_execute("DELETE FROM shop.staff WHERE name = 'Ada'").expect("delete");
        assert_eq!(count(transaction, "shop.staff WHERE boss IS NULL"), 2);
        assert_eq!(count(transaction, "shop.customers WHERE served_by IS NULL"), 66);
    });
    // Another tenant has a product of the same code.
    let other = tenant(&mut shop.database.connect("operator"));
    as_tenant(&mut app, other, |transaction| {
        transaction.batch_execute("INSERT INTO shop.products VALUES ('p1', 'label 1')").expect("insert");
        assert_eq!(count(transaction, "shop.products"), 1);
    });
    let log =
        "SELECT string_agg(DISTINCT action, ' ' ORDER BY action) FROM tenancy.audit_log WHERE action LIKE 'table.%'";
    assert_eq!(text(&mut superuser, log), "table.adopt table.adopted table.protect");
    assert_eq!(
        count(
            &mut shop.database.connect("monitor"),
            "tenancy.adoptions WHERE steps_done = steps AND finished_at > started_at"
        ),
        5
    );
}

#[test]
fn keys_stay_where_that_is_asked_for_and_references_close_all_the_same() {
    let shop = Shop::new("adopt_no_keys");
    shop.adopt(", keys => 'none'").expect("adopt");
    let found = definitions(&mut shop.database.superuser(), "shop");
    for text in [
        "shop.products products_pkey PRIMARY KEY (code)",
        "shop.staff staff_name UNIQUE (name)",
        "CREATE UNIQUE INDEX products_pkey_tenant ON shop.products USING btree (tenant_id, code)",
        "shop.lines lines_product_fkey FOREIGN KEY (tenant_id, product) REFERENCES shop.products(tenant_id, code)",
    ] {
        has(&found, text);
    }
    // The same tables again, with keys: what is there is used.
    shop.adopt("").expect("adopt again");
    let found = definitions(&mut shop.database.superuser(), "shop");
    has(&found, "shop.products products_pkey PRIMARY KEY (tenant_id, code)");
    assert_eq!(
        found.iter().filter(|text| text.contains("ON shop.products USING btree (tenant_id, code)")).count(),
        1,
        "{found:#?}"
    );
}

#[test]
fn a_plan_changes_nothing_and_says_what_is_done() {
    let shop = Shop::new("adopt_plan");
    let mut superuser = shop.database.superuser();
    let before = definitions(&mut superuser, "shop");
    let mut admin = shop.database.connect("admin");
    let open = rows(&mut admin, "SELECT statement, lock, duration FROM adoption_plan('shop')", &[]);
    assert!(open.iter().any(|row| row.get::<_, String>(0).contains("'<tenant>'")));
    const KINDS: &str = "SELECT string_agg(DISTINCT lock || ', ' || duration, '; ' ORDER BY lock || ', ' || duration) FROM adoption_plan('shop')";
    assert_eq!(
        text(&mut admin, KINDS),
        "ACCESS EXCLUSIVE, a moment; SHARE ROW EXCLUSIVE, a moment; SHARE UPDATE EXCLUSIVE, builds an index; SHARE UPDATE EXCLUSIVE, reads every row"
    );
    assert_eq!(definitions(&mut superuser, "shop"), before);
    assert_eq!(count(&mut superuser, "tenancy.adoptions"), 0);
}

#[test]
fn tables_are_adopted_one_by_one_in_any_order() {
    let orders: [[&str; 5]; 2] =
        [TABLES, ["shop.staff", "shop.products", "shop.orders", "shop.lines", "shop.customers"]];
    let mut found = Vec::new();
    for (number, order) in orders.into_iter().enumerate() {
        let shop = Shop::new(&format!("adopt_order_{number}"));
        // A key that an unadopted table refers to cannot become one of each tenant.
        let error = fails(
            shop.database
                .connect("admin")
                .batch_execute(&format!("CALL adopt_table('shop.products', '{}')", shop.tenant)),
            "55000",
        );
        assert!(error.message().contains("lines_product_fkey"), "{error:?}");
        let mut admin = shop.database.connect("admin");
        for table in order {
            let keys = if table == "shop.products" { "none" } else { "natural" };
            admin
                .batch_execute(&format!("CALL adopt_table('{table}', '{}', keys => '{keys}')", shop.tenant))
                .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        }
        shop.adopt("").expect("the rest");
        found.push(definitions(&mut shop.database.superuser(), "shop"));
    }
    assert_eq!(found[0], found[1]);
    let whole = Shop::new("adopt_order_all");
    whole.adopt("").expect("adopt");
    assert_eq!(definitions(&mut whole.database.superuser(), "shop"), found[0]);
}
