//! `examples/capital_planning/`: its story, and one test for each requirement of system 4.

use super::Examples;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use harness::*;

/// The application with two tenants, of which the first has some data.
struct Application {
    database: Database,
    works: Uuid,
    borealis: Uuid,
}

impl Application {
    fn new() -> Application {
        let database = Database::new("capital_planning");
        Examples::copy().run("capital_planning", "install.sql", &database);
        let mut operator = database.connect("operator");
        let [works, borealis] = ["works", "borealis"]
            .map(|slug| one(&mut operator, "SELECT create_tenant($1, slug => $1, plan => 'professional')", &[&slug]));
        let application = Application { database, works, borealis };
        application.request(works, |tx| {
            tx.batch_execute(
                "INSERT INTO companies (name) VALUES ('Works');
                 INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'PUMP-' || n, 'Pump', 10, 20 FROM companies, generate_series(1, 5) AS n;
                 INSERT INTO sales (product_id, sold_on, quantity, unit_price) SELECT id, day, 2, 20 FROM products, unnest(ARRAY[date '2024-02-29', '2025-06-30', '2026-01-31']) AS day;
                 INSERT INTO inventory (product_id, on_hand, reserved) SELECT id, 100, 30 FROM products;
                 INSERT INTO working_capital_metrics (company_id, month, dso, dio, dpo) SELECT id, '2026-01-01', 45.5, 60, 30.25 FROM companies;
                 INSERT INTO forecasts (scenario_id, product_id, month, quantity) SELECT s.id, p.id, '2026-02-01', 7 FROM scenarios AS s, products AS p;
                 INSERT INTO user_preferences VALUES (gen_random_uuid(), 'theme', '\"dark\"'); SELECT refresh_monthly_sales()",
            )
            .expect("some data");
        });
        application
    }

    /// One request to the backend.
    #[track_caller]
    fn request<T>(&self, tenant: Uuid, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
        as_tenant(&mut self.database.connect("app"), tenant, work)
    }

    /// A registered tenant without a schema.
    fn waiting(&self, slug: &str) -> Uuid {
        let create = "SELECT create_tenant($1, slug => $1, plan => 'starter', isolation => 'row')";
        one(&mut self.database.connect("operator"), create, &[&slug])
    }

    /// The tenant's schema, as an identifier in SQL.
    fn schema(&self, tenant: Uuid) -> String {
        let query = "SELECT quote_ident(schema_name) FROM tenancy.tenants WHERE id = $1";
        one(&mut self.database.superuser(), query, &[&tenant])
    }

    /// All rows of a tenant, in an order that does not depend on where they lie.
    fn contents(&self, tenant: Uuid) -> Vec<Vec<Option<String>>> {
        const TABLES: [&str; 10] = [
            "companies",
            "products",
            "sales",
            "inventory",
            "scenarios",
            "forecasts",
            "working_capital_metrics",
            "api_credentials",
            "user_preferences",
            "monthly_sales",
        ];
        let schema = self.schema(tenant);
        let queries = TABLES.map(|table| format!("SELECT t::text FROM {schema}.{table} AS t ORDER BY 1;"));
        simple(&mut self.database.superuser(), &queries.concat())
    }
}

#[test]
fn capital_planning_keeps_every_promise_of_its_story() {
    let database = Database::new("capital_planning");
    let told = Examples::copy().run("capital_planning", "run.sql", &database);
    assert!(told.matches('✓').count() >= 38, "{told}");
}

#[test]
fn a_tenants_schema_is_named_by_its_id() {
    let application = Application::new();
    let mut operator = application.database.connect("operator");
    let tenant = application.waiting("cascade");
    let name: String = one(&mut operator, "SELECT create_tenant_schema($1)", &[&tenant]);
    assert_eq!(name, format!("tenant_{tenant}"));
    assert_eq!(application.schema(tenant), format!("\"{name}\""));
    application.request(tenant, |tx| assert_eq!(count(tx, "scenarios WHERE is_baseline"), 1));
    fails(operator.query("SELECT create_tenant_schema($1)", &[&tenant]), "23505");
    fails(operator.query("SELECT create_tenant_schema($1)", &[&Uuid::new_v4()]), "P0002");
    fails(
        operator.query("SELECT create_tenant_schema($1, 'no such template')", &[&application.waiting("other")]),
        "P0002",
    );
    fails(operator.batch_execute("SELECT create_tenant_schema(NULL)"), "22023");
}

#[test]
fn what_follows_from_other_columns_is_generated() {
    let application = Application::new();
    application.request(application.works, |tx| {
        assert_eq!(text(tx, "SELECT DISTINCT available FROM inventory"), "70.000");
        assert_eq!(text(tx, "SELECT ccc FROM working_capital_metrics"), "75.25");
        assert_eq!(text(tx, "SELECT count(DISTINCT tableoid) || ' ' || sum(revenue) FROM sales"), "3 600.00");
        assert_eq!(text(tx, "SELECT DISTINCT margin FROM products"), "0.5000");
        assert_eq!(count(tx, "monthly_sales"), 15);
    });
    for (statement, sqlstate) in [
        ("UPDATE inventory SET available = 1", "428C9"),
        ("UPDATE inventory SET reserved = 101", "23514"),
        ("UPDATE working_capital_metrics SET month = '2026-01-02'", "23514"),
        (
            "INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT company_id, sku, name, 1, 1 FROM products LIMIT 1",
            "23505",
        ),
        ("UPDATE products SET sku = 'lower case'", "23514"),
        ("INSERT INTO scenarios (name, is_baseline) VALUES ('Second baseline', true)", "23505"),
        ("INSERT INTO sales (product_id, sold_on, quantity, unit_price) VALUES (99, '2026-01-01', 1, 1)", "23503"),
    ] {
        let mut app = application.database.connect("app");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, application.works);
        fails(transaction.batch_execute(statement), sqlstate);
    }
}

#[test]
fn another_tenants_table_is_permission_denied() {
    let application = Application::new();
    let schema = application.schema(application.works);
    let before = application.contents(application.works);
    for statement in [
        format!("SELECT * FROM {schema}.products"),
        format!("SELECT * FROM {schema}.sales_2025"),
        format!("SELECT * FROM {schema}.cash_conversion"),
        format!("SELECT * FROM {schema}.monthly_sales"),
        format!("SELECT {schema}.refresh_monthly_sales()"),
        format!("SELECT {schema}.reorder_quantity(1)"),
        format!("SELECT '1'::{schema}.quantity"),
        format!("UPDATE {schema}.inventory SET on_hand = 0, reserved = 0"),
        format!("INSERT INTO {schema}.user_preferences VALUES (gen_random_uuid(), 'a', 'null')"),
        format!("DELETE FROM {schema}.sales"),
        format!("SELECT nextval('{schema}.products_id_seq')"),
    ] {
        let mut app = application.database.connect("app");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, application.borealis);
        let fault = fails(transaction.simple_query(&statement), "42501");
        assert!(fault.message().contains("permission denied"), "{statement}: {fault:?}");
        drop(transaction);
        fails(app.simple_query(&statement), "42501");
    }
    assert_eq!(application.contents(application.works), before);
}

#[test]
fn a_clone_has_all_the_data_and_a_life_of_its_own() {
    let application = Application::new();
    let (mut admin, copy) = (application.database.connect("admin"), application.waiting("copy"));
    let name: String = one(&mut admin, "SELECT clone_tenant_schema($1, $2)", &[&application.works, &copy]);
    assert_eq!(name, format!("tenant_{copy}"));
    let original = application.contents(application.works);
    assert_eq!(application.contents(copy), original);
    application.request(copy, |tx| {
        let next: i64 = one(tx, "INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'NEW', 'New', 1, 1 FROM companies RETURNING id", &[]);
        assert_eq!(next, 6);
        tx.batch_execute("DELETE FROM sales; SELECT refresh_monthly_sales()").expect("empty it");
    });
    assert_eq!(application.contents(application.works), original);
    fails(admin.query("SELECT clone_tenant_schema($1, $2)", &[&application.works, &copy]), "23505");
    fails(admin.query("SELECT clone_tenant_schema($1, $2)", &[&copy, &Uuid::new_v4()]), "P0002");
    let empty = application.waiting("empty");
    one::<String>(&mut admin, "SELECT clone_tenant_schema($1, $2, with_data => false)", &[&application.works, &empty]);
    application.request(empty, |tx| assert_eq!(count(tx, "products"), 0));
    // To a role that may not.
    fails(application.database.connect("app").query("SELECT clone_tenant_schema($1, $2)", &[&copy, &empty]), "42501");
}

#[test]
fn a_schema_is_dropped_with_its_registration() {
    let application = Application::new();
    let mut admin = application.database.connect("admin");
    let delete = "SELECT delete_tenant_schema($1)";
    assert!(one::<bool>(&mut admin, delete, &[&application.works]));
    assert!(!one::<bool>(&mut admin, delete, &[&application.works]));
    let mut superuser = application.database.superuser();
    let registered = "SELECT schema_name IS NOT NULL FROM tenancy.tenants WHERE id = $1";
    assert!(!one::<bool>(&mut superuser, registered, &[&application.works]));
    assert_eq!(count(&mut superuser, &format!("pg_namespace WHERE nspname = 'tenant_{}'", application.works)), 0);
    application.request(application.borealis, |tx| assert_eq!(count(tx, "scenarios"), 1));
    fails(application.database.connect("operator").query(delete, &[&application.borealis]), "42501");
}

#[test]
fn a_deleted_tenants_schema_is_kept_thirty_days() {
    let application = Application::new();
    let before = application.contents(application.works);
    let mut operator = application.database.connect("operator");
    let days: i32 = one(&mut operator, "SELECT delete_tenant($1)::date - current_date", &[&application.works]);
    assert!((29..=31).contains(&days), "{days}");
    let mut app = application.database.connect("app");
    fails(app.query("SELECT set_tenant($1)", &[&application.works]), "42501");
    fails(app.simple_query(&format!("SELECT * FROM {}.products", application.schema(application.works))), "42501");
    let mut admin = application.database.connect("admin");
    fails(admin.batch_execute(&format!("CALL purge_tenant('{}')", application.works)), "55000");
    assert_eq!(application.contents(application.works), before);
    one::<Uuid>(&mut operator, "SELECT restore_tenant($1)", &[&application.works]);
    application.request(application.works, |tx| assert_eq!(count(tx, "products"), 5));
}

#[test]
fn every_operation_on_a_tenant_is_audited() {
    let application = Application::new();
    let copy = application.waiting("copy");
    let mut admin = application.database.connect("admin");
    let mut superuser = application.database.superuser();
    let entries = |superuser: &mut Client| count(superuser, "tenancy.audit_log");
    let mut before = entries(&mut superuser);
    for statement in [
        format!("SELECT clone_tenant_schema('{}', '{copy}')", application.works),
        format!("SELECT delete_tenant_schema('{copy}')"),
        format!("SELECT create_tenant_schema('{copy}')"),
        format!("SELECT delete_tenant('{copy}')"),
        format!("SELECT restore_tenant('{copy}')"),
        format!("SELECT change_plan('{copy}', 'enterprise')"),
        format!("SELECT suspend_tenant('{copy}', 'unpaid')"),
        "SELECT register_template('default', 'planning_template', data_tables => '{scenarios}')".to_owned(),
    ] {
        let by = if statement.contains("tenant_schema(") || statement.contains("register") {
            &mut admin
        } else {
            &mut application.database.connect("operator")
        };
        by.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {:?}", error.as_db_error()));
        let now = entries(&mut superuser);
        assert!(now > before || statement.contains("register"), "{statement} leaves no entry");
        before = now;
    }
    let whole = format!(
        "tenancy.audit_log WHERE tenant_id = '{copy}' AND session_user_name IN ('admin', 'operator') AND at IS NOT NULL"
    );
    assert!(count(&mut superuser, &whole) >= 7);
}

#[test]
fn tiers_are_plans_with_a_schema_for_each_tenant() {
    let application = Application::new();
    let mut operator = application.database.connect("operator");
    let tiers = "SELECT p.plan || ' ' || p.isolation || ' ' || string_agg(l.resource || ' ' || coalesce(l.max_value::text, '-'), ' ' ORDER BY l.resource)
        FROM tenancy.plans AS p JOIN tenancy.plan_limits AS l ON l.plan = p.plan GROUP BY p.plan, p.isolation ORDER BY p.plan";
    let tiers: Vec<String> = rows(&mut operator, tiers, &[]).iter().map(|row| row.get(0)).collect();
    assert_eq!(
        tiers,
        [
            "enterprise schema skus - storage_gb 100 users -",
            "professional schema skus 500 storage_gb 10 users 20",
            "starter schema skus 100 storage_gb 1 users 5",
        ]
    );
    let tenant: Uuid = one(&mut operator, "SELECT create_tenant('Dynamo', plan => 'starter')", &[]);
    application.request(tenant, |tx| {
        assert_eq!(count(tx, "scenarios"), 1);
        let fill = "INSERT INTO companies (name) VALUES ('Dynamo');
            INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'PUMP-' || n, 'Pump', 1, 2 FROM companies, generate_series(1, 100) AS n";
        tx.batch_execute(fill).expect("as many SKUs as the tier has");
        let mut attempt = tx.transaction().expect("a savepoint");
        let more = "INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'PUMP-101', 'Pump', 1, 2 FROM companies";
        fails(attempt.batch_execute(more), "54000");
    });
    // Others' SKUs do not count, and their tier is theirs.
    application.request(application.works, |tx| {
        assert_eq!(text(tx, "SELECT max_value || ' ' || used FROM check_limit('skus')"), "500 5");
    });
}

#[test]
fn staging_tenants_go_first_and_failures_are_retried() {
    let application = Application::new();
    let mut operator = application.database.connect("operator");
    let stage = "SELECT update_tenant($1, metadata => '{\"stage\": \"staging\"}')";
    one::<Uuid>(&mut operator, stage, &[&application.works]);
    let mut admin = application.database.connect("admin");
    let add = "SELECT add_migration('default', '1', 'ALTER TABLE products ADD CHECK (unit_price > 20)', down_sql => 'ALTER TABLE products DROP CONSTRAINT products_unit_price_check1')";
    one::<String>(&mut admin, add, &[]);
    let run = "CALL migrate_tenants('default', canary => '{\"stage\": \"staging\"}', max_attempts => 2)";
    fails(admin.batch_execute(run), "55000");
    let status = "SELECT string_agg(coalesce(slug, '-') || ' ' || status || ' ' || attempts, ', ' ORDER BY slug NULLS FIRST) FROM tenancy.migration_status";
    assert_eq!(text(&mut operator, status), "- applied 0, borealis pending 0, works failed 2");
    application
        .request(application.works, |tx| tx.batch_execute("UPDATE products SET unit_price = 21").expect("good data"));
    admin.batch_execute(run).expect("go on");
    assert_eq!(text(&mut operator, status), "- applied 0, borealis applied 0, works applied 0");
}

#[test]
fn credentials_are_stored_encrypted_and_open_for_their_tenant_only() {
    const SECRET: &[u8] = b"the-erp-systems-password";
    let application = Application::new();
    // The backend's key, which the database never sees.
    let key = || LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key"));
    let nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let mut sealed = SECRET.to_vec();
    let whose = |tenant: Uuid| Aad::from(tenant.into_bytes());
    key()
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), whose(application.works), &mut sealed)
        .expect("seal");
    let put = "INSERT INTO api_credentials (name, key_id, nonce, ciphertext) VALUES ('erp', 'k1', $1, $2)";
    for tenant in [application.works, application.borealis] {
        application.request(tenant, |tx| tx.execute(put, &[&&nonce[..], &&sealed[..]]).expect("store"));
    }
    let open = |tenant: Uuid| {
        let (nonce, mut sealed): (Vec<u8>, Vec<u8>) = application.request(tenant, |tx| {
            let row =
                tx.query_one("SELECT nonce, ciphertext FROM api_credentials WHERE name = 'erp'", &[]).expect("read");
            (row.get(0), row.get(1))
        });
        let nonce = Nonce::try_assume_unique_for_key(&nonce).expect("12 bytes");
        key().open_in_place(nonce, whose(tenant), &mut sealed).map(|plain| plain.to_vec())
    };
    assert_eq!(open(application.works).expect("the tenant's own"), SECRET);
    assert!(open(application.borealis).is_err(), "a ciphertext that was copied to another tenant");
    let dump = run(&mut application.database.tool("pg_dump", "postgres"));
    assert!(!dump.contains("the-erp-systems-password") && !dump.contains("7468652d6572702d73797374656d73"));
    // A nonce serves a key once, and what is no ciphertext is refused.
    for (statement, sqlstate) in [
        ("INSERT INTO api_credentials SELECT 'again', key_id, nonce, ciphertext FROM api_credentials", "23505"),
        ("INSERT INTO api_credentials VALUES ('plain', 'k1', 'another nonc', 'in the clear')", "23514"),
        ("INSERT INTO api_credentials VALUES ('plain', 'k1', 'short', repeat('x', 40)::bytea)", "23514"),
    ] {
        let mut app = application.database.connect("app");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, application.works);
        fails(transaction.batch_execute(statement), sqlstate);
    }
}
