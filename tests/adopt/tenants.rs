//! An application that has organisations of its own: their keys stay, and guard.

use harness::*;

/// Organisations of a key type, with keys `1` to `3` made by `key`, and what refers to them.
fn install(database: &Database, key_type: &str, key: &str) {
    let script = format!(
        "CREATE TABLE organizations (id {key_type} PRIMARY KEY, title text);
        CREATE TABLE projects (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, org {key_type} NOT NULL REFERENCES organizations ON DELETE CASCADE, name text);
        CREATE INDEX ON projects (name);
        CREATE TABLE tasks (id int GENERATED ALWAYS AS IDENTITY, owner_org {key_type} NOT NULL REFERENCES organizations, title text);
        INSERT INTO organizations SELECT {key}, CASE n WHEN 3 THEN NULL ELSE 'Org ' || n END FROM generate_series(1, 3) n;
        INSERT INTO projects (org, name) SELECT id, 'p' FROM organizations, generate_series(1, 10);
        INSERT INTO tasks (owner_org, title) SELECT id, 't' FROM organizations;
        GRANT ALL ON ALL TABLES IN SCHEMA public TO app"
    );
    database.connect("owner").batch_execute(&script).expect("install");
}

#[test]
fn organisations_become_tenants_and_their_keys_guard() {
    for (key_type, key, external) in [
        ("uuid", "('00000000-0000-4000-8000-00000000000' || n)::uuid", false),
        ("text", "'org|' || n", true),
        ("varchar(20)", "'ö''' || n", true),
        ("bigint", "n * 10000000000", true),
        ("integer", "n", true),
        ("smallint", "-n", true),
    ] {
        let database = Database::new("adopt_organizations");
        install(&database, key_type, key);
        let mut admin = database.connect("admin");
        admin
            .batch_execute("CALL adopt_tenants('organizations', 'id', 'title')")
            .unwrap_or_else(|error| panic!("{key_type}: {error:?}"));
        let mut superuser = database.superuser();
        assert_eq!(count(&mut superuser, "tenancy.tenants"), 3, "{key_type}");
        let same = if external { "t.external_id" } else { "t.id::text" };
        assert_eq!(
            count(&mut superuser, &format!("tenancy.tenants t JOIN organizations o ON o.id::text = {same}")),
            3,
            "{key_type}"
        );
        assert_eq!(count(&mut superuser, "tenancy.protection_status WHERE intact"), 3, "{key_type}");
        let types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'projects'::regclass AND attname = 'org'";
        assert_eq!(text(&mut superuser, types), key_type.replace("varchar", "character varying"));
        let all: Vec<Uuid> = rows(&mut superuser, "SELECT id FROM tenancy.tenants ORDER BY slug", &[])
            .iter()
            .map(|row| row.get(0))
            .collect();
        let mut app = database.connect("app");
        fails(app.batch_execute("SELECT * FROM projects"), "42501");
        for tenant in &all {
            as_tenant(&mut app, *tenant, |transaction| {
                assert_eq!(count(transaction, "organizations"), 1, "{key_type}");
                assert_eq!(count(transaction, "projects"), 10, "{key_type}");
                transaction.batch_execute("INSERT INTO projects (name) VALUES ('by default')").expect("insert");
                assert_eq!(count(transaction, "projects p JOIN organizations o ON o.id = p.org"), 11, "{key_type}");
            });
            let other: String = text(
                &mut superuser,
                &format!(
                    "SELECT quote_literal(o.id) FROM organizations o JOIN tenancy.tenants t ON {} = o.id::text WHERE t.id <> '{tenant}' LIMIT 1",
                    if external { "t.external_id" } else { "t.id::text" }
                ),
            );
            for forged in
                [format!("INSERT INTO projects (org) VALUES ({other})"), format!("UPDATE projects SET org = {other}")]
            {
                let mut transaction = app.transaction().expect("begin");
                bind(&mut transaction, *tenant);
                let error = fails(transaction.batch_execute(&forged), "42501");
                assert!(error.message().contains("mismatch"), "{forged}: {error:?}");
            }
        }
        // Parallel workers have the key, too.
        superuser.batch_execute("ALTER TABLE projects SET (parallel_workers = 2)").expect("parallel");
        as_tenant(&mut app, all[0], |transaction| {
            transaction
                .batch_execute("SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL force_parallel_mode = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
                .expect("settings");
            assert_eq!(count(transaction, "projects"), 11, "{key_type}");
        });
        // A savepoint that is rolled back leaves what was bound.
        as_tenant(&mut app, all[1], |transaction| {
            transaction.batch_execute("SAVEPOINT s; SELECT clear_tenant(); ROLLBACK TO s").expect("savepoint");
            assert_eq!(count(transaction, "projects"), 11, "{key_type}");
        });
        // New organisations: a call registers them; a second changes nothing.
        superuser
            .batch_execute(&format!("INSERT INTO organizations SELECT {key}, 'New' FROM generate_series(4, 4) n"))
            .expect("insert");
        for _ in 0..2 {
            admin.batch_execute("CALL adopt_tenants('organizations', 'id', 'title')").expect("again");
            assert_eq!(count(&mut superuser, "tenancy.tenants"), 4, "{key_type}");
        }
        if external {
            let change = format!("SELECT update_tenant('{}', external_id => '77')", all[0]);
            fails(database.connect("operator").batch_execute(&change), "55000");
            let keyless = tenant(&mut database.connect("operator"));
            let mut transaction = app.transaction().expect("begin");
            bind(&mut transaction, keyless);
            fails(transaction.batch_execute("SELECT * FROM projects"), "55000");
            transaction.rollback().expect("roll back");
            fails(admin.batch_execute("SELECT limit_table('projects', 'projects')"), "0A000");
        }
        // An export has them, and no other's.
        let export = format!("SELECT count(*) FROM export_tenant('{}') e WHERE e::text LIKE '%by default%'", all[0]);
        assert_eq!(text(&mut admin, &export), "1", "{key_type}");
        // A purge removes the tenant's rows, and no other's.
        database
            .connect("operator")
            .batch_execute(&format!("SELECT delete_tenant('{}', '0')", all[2]))
            .expect("delete");
        admin.batch_execute(&format!("CALL purge_tenant('{}', force => true)", all[2])).expect("purge");
        assert_eq!(count(&mut superuser, "projects"), 22, "{key_type}");
        assert_eq!(count(&mut superuser, "organizations"), 3, "{key_type}");
        for table in ["projects", "tasks", "organizations"] {
            assert!(one::<bool>(&mut admin, &format!("SELECT unprotect_table('{table}')"), &[]));
        }
        assert_eq!(count(&mut superuser, "pg_policy WHERE polname = 'tenancy_isolation'"), 0, "{key_type}");
    }
}

#[test]
fn what_is_no_organisation_is_refused_before_anything_changes() {
    let database = Database::new("adopt_no_organizations");
    install(&database, "bigint", "n");
    let mut owner = database.connect("owner");
    owner
        .batch_execute(
            "CREATE TABLE loose (id bigint, title text); CREATE TABLE odd (id numeric PRIMARY KEY, title text);
            CREATE TABLE long (id text PRIMARY KEY, title text); INSERT INTO long VALUES ('a', 'ok'), (repeat('x', 64), 'too long')",
        )
        .expect("create");
    let mut admin = database.connect("admin");
    for (call, sqlstate) in [
        ("CALL adopt_tenants(NULL, 'id', 'title')", "22023"),
        ("CALL adopt_tenants('organizations', NULL, 'title')", "22023"),
        ("CALL adopt_tenants('organizations', 'id', NULL)", "22023"),
        ("CALL adopt_tenants('organizations', 'id', 'title', plan => NULL)", "22023"),
        ("CALL adopt_tenants('organizations', 'id', 'title', protect => NULL)", "22023"),
        ("CALL adopt_tenants('organizations', 'id', 'title', plan => 'none such')", "P0002"),
        ("CALL adopt_tenants('organizations', 'nothing', 'title')", "P0002"),
        ("CALL adopt_tenants('organizations', 'id', 'xmin; DROP TABLE organizations')", "P0002"),
        ("CALL adopt_tenants('loose', 'id', 'title')", "22023"),
        ("CALL adopt_tenants('odd', 'id', 'title')", "22023"),
        ("CALL adopt_tenants('long', 'id', 'title')", "55000"),
        ("CALL adopt_tenants('tenancy.tenants', 'id', 'name')", "22023"),
        ("BEGIN; CALL adopt_tenants('organizations', 'id', 'title')", "25001"),
    ] {
        let result = admin.batch_execute(call);
        assert!(result.is_err(), "{call}");
        fails(result, sqlstate);
        let _ = admin.batch_execute("ROLLBACK");
        assert_eq!(count(&mut database.superuser(), "tenancy.tenants"), 0, "{call}");
    }
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        fails(database.connect(role).batch_execute("CALL adopt_tenants('organizations', 'id', 'title')"), "42501");
    }
    // Rows of no organisation.
    owner
        .batch_execute("ALTER TABLE tasks ALTER owner_org DROP NOT NULL; INSERT INTO tasks (title) VALUES ('lost')")
        .expect("insert");
    let error = fails(admin.batch_execute("CALL adopt_tenants('organizations', 'id', 'title')"), "55000");
    assert!(error.message().contains("public.tasks has rows that belong to no known tenant: NULL"), "{error:?}");
    owner.batch_execute("DELETE FROM tasks WHERE owner_org IS NULL").expect("mend");
    admin.batch_execute("CALL adopt_tenants('organizations', 'id', 'title')").expect("adopt");
    assert_eq!(count(&mut database.superuser(), "tenancy.protection_status WHERE intact"), 3);
}

/// An external id that spells a number in another way is another tenant's.
#[test]
fn a_key_that_only_looks_like_a_number_guards_nothing() {
    let database = Database::new("adopt_numbers");
    install(&database, "bigint", "n");
    let mut operator = database.connect("operator");
    let lookalikes = ["01", "+1", " 1", "1.0", "1e0", "0x1", "9223372036854775808", "eins"];
    let tenants: Vec<Uuid> = lookalikes
        .iter()
        .map(|key| one(&mut operator, "SELECT create_tenant('Like', external_id => $1)", &[key]))
        .collect();
    database.connect("admin").batch_execute("CALL adopt_tenants('organizations', 'id', 'title')").expect("adopt");
    let mut app = database.connect("app");
    for tenant in tenants {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        fails(transaction.batch_execute("SELECT * FROM projects"), "55000");
    }
}

/// A purge waits for nobody who reads, and the key of a purged tenant is free for another.
#[test]
fn who_is_bound_to_a_purged_tenant_sees_nothing_of_the_next_one_with_its_key() {
    for (key_type, key) in [("text", "n::text"), ("integer", "n")] {
        let database = Database::new("adopt_key_again");
        install(&database, key_type, key);
        let mut admin = database.connect("admin");
        admin.batch_execute("CALL adopt_tenants('organizations', 'id', 'title')").expect("adopt");
        let old: Uuid = one(&mut admin, "SELECT id FROM tenancy.tenants WHERE external_id = '1'", &[]);
        let (mut seeing, mut waiting) = (database.connect("app"), database.connect("app"));
        let mut seeing = seeing.transaction().expect("begin");
        let mut waiting = waiting.transaction().expect("begin");
        for transaction in [&mut seeing, &mut waiting] {
            transaction.execute("SELECT set_tenant($1)", &[&old]).expect("bind");
        }
        // What a savepoint gives back is not the lock.
        seeing.batch_execute("SAVEPOINT s; SELECT count(*) FROM projects; ROLLBACK TO s").expect("look");
        admin.query("SELECT delete_tenant($1)", &[&old]).expect("delete");
        admin.batch_execute(&format!("CALL purge_tenant('{old}', true)")).expect("purge");
        let create = "SET lock_timeout = '200ms'; SELECT create_tenant('Next', external_id => '1')";
        fails(admin.batch_execute(create), "55P03");
        let taken = "SET lock_timeout = '200ms'; SELECT update_tenant(create_tenant('Other'), external_id => '1')";
        fails(admin.batch_execute(taken), "55P03");
        assert_eq!(count(&mut seeing, "projects"), 0);
        seeing.commit().expect("end");
        admin.batch_execute(create).expect("create");
        let new: Uuid = one(&mut admin, "SELECT id FROM tenancy.tenants WHERE external_id = '1'", &[]);
        as_tenant(&mut database.connect("app"), new, |transaction| {
            transaction
                .batch_execute("INSERT INTO organizations (id, title) VALUES (1, 'Next'); INSERT INTO projects (name) VALUES ('secret')")
                .expect("write");
        });
        fails(waiting.query("SELECT * FROM projects", &[]), "P0002");
        waiting.rollback().expect("end");
        as_tenant(&mut database.connect("app"), new, |transaction| assert_eq!(count(transaction, "projects"), 1));
    }
}
