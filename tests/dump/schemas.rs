//! Templates and tenants with schemas of their own go through a dump: what is restored is the same, and as closed.

use super::*;
use crate::schema::fixtures::House;

/// What the restored database answers as the dumped one does.
const SAME: [&str; 10] = [
    "SELECT * FROM tenancy.tenants ORDER BY id",
    "SELECT * FROM tenancy.templates ORDER BY 1",
    "SELECT * FROM tenancy.applied_migrations ORDER BY 1, 2, 3",
    "SELECT * FROM tenancy.failed_migrations ORDER BY 1, 2, 3",
    "SELECT * FROM tenancy.migrations ORDER BY 1, 2",
    "SELECT * FROM tenancy.migration_status ORDER BY 1, 2, 5",
    "SELECT * FROM tenancy.allowed_drift ORDER BY 1, 2",
    "SELECT nspname, label FROM pg_seclabel s JOIN pg_namespace n ON n.oid = s.objoid AND s.classoid = 'pg_namespace'::regclass ORDER BY 1",
    "SELECT * FROM tenancy.schema_drift ORDER BY 2, 5, 6",
    "SELECT slug, table_name, row_count FROM tenant_statistics(true) ORDER BY 1, 2",
];

/// Tenants a (with rows, and an index of its own that is allowed), b (whose data one migration does not fit), an odd one in a schema of an odd name, one
/// that is read-only, one that is deleted, one without a schema, and one whose index nobody allowed.
fn schemas() -> (House, [Uuid; 2]) {
    let house = House::new("dumped_schemas");
    let [a, b] = ["a", "b"].map(|slug| house.tenant(slug));
    let mut operator = house.connect("operator");
    let odd =
        r#"SELECT create_tenant('x', slug => 'odd', isolation => 'schema', schema_name => E'Odd "n\'ame" $$; --')"#;
    operator.batch_execute(odd).expect("an odd name");
    for (slug, change) in [
        ("reader", "suspend_tenant($1, 'unpaid', 'read_only')"),
        ("gone", "delete_tenant($1)"),
        ("drifting", "resume_tenant($1)"),
    ] {
        let tenant = house.tenant(slug);
        operator.query(&format!("SELECT {change} WHERE $2 <> 'drifting'"), &[&tenant, &slug]).expect(change);
    }
    house.without_schema("row");
    for tenant in [a, b] {
        let fill = "INSERT INTO accounts (name, country) SELECT current_schema || i, 'CH' FROM generate_series(1, 20) i; INSERT INTO entries (account, amount) SELECT id, id FROM accounts";
        as_tenant(&mut house.connect("app"), tenant, |tx| tx.batch_execute(fill).expect("fill"));
    }
    let mut admin = house.connect("admin");
    admin
        .batch_execute(
            "SELECT add_migration('t', '001', 'ALTER TABLE accounts ADD COLUMN phone text DEFAULT ''none''', down_sql => 'ALTER TABLE accounts DROP COLUMN phone');
             SELECT add_migration('t', '002', 'ALTER TABLE accounts ADD CHECK (balance < 20)')",
        )
        .expect("migrations");
    as_tenant(&mut house.connect("app"), a, |tx| {
        tx.batch_execute("DELETE FROM accounts WHERE balance >= 20").expect("delete")
    });
    admin.batch_execute("CALL migrate_tenants('t', max_attempts => 1)").expect("migrate");
    admin
        .batch_execute("SELECT add_migration('t', '003', 'CREATE TABLE tasks (id serial)')")
        .expect("a migration to come");
    house
        .superuser()
        .batch_execute("CREATE INDEX own ON of_a.accounts (phone); CREATE INDEX own ON of_drifting.accounts (phone)")
        .expect("indexes");
    admin.query("SELECT allow_schema_drift($1, 'own', 'their report')", &[&a]).expect("allow");
    assert_eq!(count(&mut house.superuser(), "tenancy.failed_migrations"), 1);
    (house, [a, b])
}

fn same(database: &Database) -> Vec<Vec<Vec<Option<String>>>> {
    let mut superuser = database.superuser();
    SAME.iter().map(|query| simple(&mut superuser, query)).collect()
}

/// The guard is closed, the tenants work, and so do migrations.
fn restored_is_whole(source: &House, target: Database, [a, b]: [Uuid; 2]) {
    for ((query, expected), found) in SAME.iter().zip(same(&source.database)).zip(same(&target)) {
        assert_eq!(found, expected, "{query}");
    }
    is_closed(&target, [a, b]);
    let house = House { database: target };
    let mut app = house.connect("app");
    for (tenant, accounts, schema) in [(a, 19, "of_a"), (b, 20, "of_b")] {
        as_tenant(&mut app, tenant, |tx| {
            assert_eq!(count(tx, "accounts"), accounts);
            assert_eq!(text(tx, "SELECT current_schema"), schema);
            let new: i64 = one(tx, "INSERT INTO accounts (name, country) VALUES ('new', 'SE') RETURNING id", &[]);
            assert_eq!(new, 21, "numbers go on where they were");
            rows(tx, "INSERT INTO entries (account, amount) VALUES ($1, 3)", &[&new]);
            assert_eq!(one::<i64>(tx, "SELECT balance FROM accounts WHERE id = $1", &[&new]), 3);
        });
    }
    let reader: Uuid = one(&mut house.superuser(), "SELECT id FROM tenancy.tenants WHERE slug = 'reader'", &[]);
    refused_as(&mut app, reader, "INSERT INTO accounts (name) VALUES ('x')", "25006");
    let mut superuser = house.superuser();
    superuser.batch_execute("DELETE FROM of_b.accounts WHERE balance >= 20; DROP INDEX of_drifting.own").expect("mend");
    house.connect("admin").batch_execute("CALL migrate_tenants('t')").expect("migrate on");
    assert_eq!(count(&mut superuser, "tenancy.migration_status WHERE status <> 'applied'"), 0);
    house.tenant("new");
    house.assert_legal();
    // The registry still follows what is done by hand.
    superuser.batch_execute("ALTER SCHEMA of_a RENAME TO renamed").expect("rename");
    as_tenant(&mut app, a, |tx| assert_eq!(text(tx, "SELECT current_schema"), "renamed"));
}

/// Nothing of A for B, for a session with nothing bound, or for the schemas' owner.
#[track_caller]
fn is_closed(database: &Database, [_, b]: [Uuid; 2]) {
    for statement in [
        "SELECT * FROM of_a.accounts",
        "SELECT of_a.how_many()",
        "SELECT nextval('of_a.entries_id_seq')",
        "TRUNCATE of_a.entries",
    ] {
        for role in ["app", "client", "owner", "operator", "admin"] {
            fails(database.connect(role).batch_execute(statement), "42501");
        }
        let mut app = database.connect("app");
        let mut transaction = app.transaction().expect("begin");
        if transaction.query("SELECT set_tenant($1)", &[&b]).is_ok() {
            fails(transaction.batch_execute(statement), "42501");
        }
    }
    fails(database.connect("app").batch_execute("SELECT * FROM tpl.stages"), "42501");
}

#[test]
fn schemas_of_tenants_go_through_a_dump() {
    let (house, tenants) = schemas();
    let file = dump(&house.database, "custom");
    let new = Cluster::start(Options::new());
    for arguments in [vec![], vec!["-j", "4"]] {
        let target = empty_target(&new);
        restore(&target, &arguments, &file.0);
        restored_is_whole(&house, target, tenants);
    }
}

#[test]
fn schemas_of_tenants_go_through_a_dump_of_definitions_and_one_of_data() {
    let (house, tenants) = schemas();
    let file = dump(&house.database, "custom");
    let target = empty_target(cluster());
    restore(&target, &["--schema-only"], &file.0);
    is_closed(&target, tenants);
    restore(&target, &["--data-only", "--disable-triggers"], &file.0);
    restored_is_whole(&house, target, tenants);
    let plain = dump(&house.database, "plain");
    let target = empty_target(cluster());
    let mut psql = target.tool("psql", "postgres");
    without_complaint(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(&plain.0));
    restored_is_whole(&house, target, tenants);
}

#[test]
fn a_half_done_restore_of_schemas_is_closed() {
    let (house, tenants) = schemas();
    let file = dump(&house.database, "custom");
    let target = empty_target(cluster());
    restore(&target, &["--section=pre-data"], &file.0);
    is_closed(&target, tenants);
    restore(&target, &["--section=data"], &file.0);
    assert_eq!(count(&mut target.superuser(), "of_a.accounts"), 19, "the rows are there");
    is_closed(&target, tenants);
    restore(&target, &["--section=post-data"], &file.0);
    restored_is_whole(&house, target, tenants);
}
