//! Tenants with a database of their own.

use super::*;

const TEMPLATE: &str = "
    CREATE SCHEMA crm AUTHORIZATION owner; GRANT USAGE ON SCHEMA crm TO app;
    SET ROLE owner; SET search_path = crm, public;
    CREATE TABLE countries (code text PRIMARY KEY);
    CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL DEFAULT current_tenant(), name text NOT NULL UNIQUE,
        parent bigint REFERENCES customers, country text REFERENCES countries);
    INSERT INTO countries VALUES ('CH'), ('DE');
    GRANT ALL ON ALL TABLES IN SCHEMA crm TO app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA crm TO app;
    RESET ROLE; RESET search_path;
    SELECT register_template('crm', 'crm', '{countries}')";

/// A control database; tenants' databases of it are dropped with it.
struct World(Database);

impl World {
    fn new(label: &str) -> World {
        World::in_cluster(cluster(), label)
    }

    fn in_cluster(cluster: &Cluster, label: &str) -> World {
        let database = cluster.database(label);
        database.superuser().batch_execute(TEMPLATE).unwrap_or_else(|error| panic!("{error:?}"));
        rows(&mut database.connect("operator"), "SELECT create_metric('calls')", &[]);
        World(database)
    }

    fn provision(&self, slug: &str) -> Uuid {
        let create = "SELECT create_tenant($1, slug => $1, isolation => 'database')";
        let tenant = one(&mut self.0.connect("operator"), create, &[&slug]);
        let mut admin = self.0.connect("admin");
        admin.batch_execute("CALL provision_tenants()").unwrap_or_else(|error| panic!("{error:?}"));
        admin.batch_execute("CALL sync_tenant_databases()").unwrap_or_else(|error| panic!("{error:?}"));
        tenant
    }

    /// A session of a role in the database of a tenant.
    fn at_home(&self, role: &str, tenant: Uuid) -> Client {
        let location = "SELECT database_name::text FROM tenancy.tenants WHERE id = $1";
        let name: String = one(&mut self.0.superuser(), location, &[&tenant]);
        self.0
            .connect_with(role, |config| {
                config.dbname(&name);
            })
            .expect("connect")
    }

    fn purge(&self, tenant: Uuid) {
        one::<bool>(&mut self.0.connect("operator"), "SELECT delete_tenant($1) IS NOT NULL", &[&tenant]);
        self.0
            .connect("admin")
            .batch_execute(&format!("CALL purge_tenant('{tenant}', true)"))
            .unwrap_or_else(|error| panic!("{error:?}"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Ok(mut superuser) = self.0.connect_with("postgres", |_| {}) else { return };
        let Ok(left) = superuser.query(
            "SELECT datname::text FROM pg_database WHERE oid IN (SELECT database_oid FROM tenancy.tenant_databases)",
            &[],
        ) else {
            return;
        };
        for row in left {
            let _ = superuser.batch_execute(&format!("DROP DATABASE \"{}\" WITH (FORCE)", row.get::<_, String>(0)));
        }
    }
}

const FILL: &str = "
    DELETE FROM countries WHERE code = 'DE'; INSERT INTO countries VALUES ('AT');
    INSERT INTO customers (name, country) SELECT 'customer ' || i, 'AT' FROM generate_series(1, 500) AS i;
    UPDATE customers SET parent = 1; DELETE FROM customers WHERE id > 490;
    SELECT record_usage('calls', 2.50, 'key ' || n, now() - n * interval '1 day') FROM generate_series(1, 5) AS n";

#[test]
fn a_database_of_a_tenants_own_comes_out_the_same() {
    let (from, to) = (World::new("db_from"), World::new("db_to"));
    let acme = from.provision("acme");
    as_tenant(&mut from.at_home("app", acme), acme, |tx| {
        tx.batch_execute(FILL).unwrap_or_else(|error| panic!("{error:?}"))
    });
    let exported = export(&from.0, acme);
    assert!(exported.iter().any(|record| record.1 == "rows" && record.3.contains("customer 490")));
    // The database of this name is the tenant's there, until it is gone.
    from.purge(acme);
    import(&to.0, &exported, "isolation => 'database'").unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(export(&to.0, acme), exported);
    to.0.connect("admin").batch_execute("CALL sync_tenant_databases()").expect("sync");
    as_tenant(&mut to.at_home("app", acme), acme, |tx| {
        assert_eq!(one::<String>(tx, "SELECT string_agg(code, ',' ORDER BY code) FROM countries", &[]), "AT,CH");
        assert_eq!(one::<i64>(tx, "INSERT INTO customers (name) VALUES ('next') RETURNING id", &[]), 501);
        let used: bool =
            one(tx, "SELECT usage_total('calls', now() - interval '30 days', now() + interval '1 day') = 12.5", &[]);
        assert!(used);
    });

    // Its rows are replaced there, and it becomes a schema here.
    import(&to.0, &exported, "'replace'").unwrap_or_else(|error| panic!("{error:?}"));
    as_tenant(&mut to.at_home("app", acme), acme, |tx| assert_eq!(count(tx, "customers"), 490));
    let again = export(&to.0, acme);
    assert_eq!(again, exported);
    to.purge(acme);
    import(&from.0, &again, "isolation => 'schema'").unwrap_or_else(|error| panic!("{error:?}"));
    as_tenant(&mut from.0.connect("app"), acme, |tx| {
        assert_eq!(count(tx, &format!("customers WHERE tenant_id = '{acme}'")), 490);
        assert_eq!(one::<i64>(tx, "INSERT INTO customers (name) VALUES ('next') RETURNING id", &[]), 501);
    });
}

#[test]
fn an_import_that_fails_in_the_tenants_database_leaves_none() {
    let world = World::new("db_fails");
    let acme = world.provision("acme");
    as_tenant(&mut world.at_home("app", acme), acme, |tx| {
        tx.batch_execute(FILL).unwrap_or_else(|error| panic!("{error:?}"))
    });
    let exported = export(&world.0, acme);
    let spoilt = {
        let mut records = exported.clone();
        let rows = records.iter_mut().find(|record| record.1 == "rows" && record.2 == "customers").expect("rows");
        rows.3 = rows.3.replacen("\t1\tAT", "\t999999\tAT", 1);
        hostile::sign(&mut records);
        records
    };
    // Replaced or as they were.
    fails(import(&world.0, &spoilt, "'replace'"), "23503");
    assert_eq!(export(&world.0, acme), exported);
    world.purge(acme);
    let left = "(SELECT FROM pg_database WHERE datname LIKE 'tenant_%' AND datname LIKE '%' || $1) AS d";
    let left = left.replace("$1", &format!("'{acme}'"));
    fails(import(&world.0, &spoilt, "isolation => 'database'"), "23503");
    let mut superuser = world.0.superuser();
    assert_eq!(
        (
            count(&mut superuser, "tenancy.tenants"),
            count(&mut superuser, "tenancy.tenant_databases"),
            count(&mut superuser, &left)
        ),
        (0, 0, 0)
    );
    import(&world.0, &exported, "isolation => 'database'").unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(export(&world.0, acme), exported);
}

#[test]
fn a_server_that_is_killed_while_a_tenant_comes_leaves_nothing_in_the_way() {
    let mut cluster = Cluster::start(Options::new());
    let world = World::in_cluster(&cluster, "db_killed");
    let acme = world.provision("acme");
    as_tenant(&mut world.at_home("app", acme), acme, |tx| {
        tx.batch_execute(FILL).unwrap_or_else(|error| panic!("{error:?}"))
    });
    let exported = export(&world.0, acme);
    store(&world.0, &exported);
    for milliseconds in [30, 150, 300, 600] {
        world.purge(acme);
        let mut admin = world.0.connect("admin");
        let import =
            std::thread::spawn(move || admin.batch_execute("CALL import_tenant('export', isolation => 'database')"));
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        cluster.kill9();
        let _ = import.join().expect("join");
        cluster.start_again();
        // Nobody can use what is not whole.
        let usable = "SELECT count(*) FROM tenancy.tenants WHERE status = 'active'";
        let is_whole: i64 = one(&mut world.0.superuser(), usable, &[]);
        if is_whole == 0 {
            let call = "CALL import_tenant('export', isolation => 'database')";
            world.0.connect("admin").batch_execute(call).unwrap_or_else(|error| panic!("{milliseconds} ms: {error:?}"));
        }
        assert_eq!(export(&world.0, acme), exported, "{milliseconds} ms");
        let databases = "pg_database WHERE datname LIKE 'tenant\\_%' AND datname LIKE '%-%'";
        assert_eq!(count(&mut world.0.superuser(), databases), 1);
        let known: i64 = one(
            &mut world.0.superuser(),
            "SELECT count(*) FROM pg_ls_dir('base') AS d WHERE d ~ '^[0-9]+$' AND NOT EXISTS (SELECT FROM pg_database WHERE oid = d::oid)",
            &[],
        );
        assert_eq!(known, 0, "a stray directory");
    }
}
