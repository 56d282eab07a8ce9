//! Functions of schemas with arguments that nobody should give, by roles that may not, in transactions that must not: an error of its own
//! class, nothing written, the session alive.

use super::fixtures::House;
use harness::postgres::IsolationLevel;
use harness::*;

/// Calls by an administrator, who may make each of them. `{x}` is a tenant with a schema, `{r}` one without, `{d}` a deleted one.
const WRONG: &[(&str, &str)] = &[
    ("register_template(NULL, 'tpl')", "22023"),
    ("register_template('t', NULL)", "22023"),
    ("register_template('t', 'tpl', data_tables => NULL)", "22023"),
    ("register_template('t', 'tpl', tenant_schema => NULL)", "22023"),
    ("register_template('', 'tpl')", "22023"),
    ("register_template('  ', 'tpl')", "22023"),
    ("register_template('u', '')", "P0002"),
    ("register_template('u', 'tpl''; DROP SCHEMA tpl CASCADE; --')", "P0002"),
    ("register_template('u', 'pg_temp')", "P0002"),
    ("register_template('t', 'tpl', data_tables => ARRAY[repeat('x', 100000)])", "P0002"),
    ("register_template('t', 'tpl', data_tables => '{\"stages; DROP TABLE stages\"}')", "P0002"),
    ("register_template('t', 'tpl', tenant_schema => repeat('{id}', 1000))", "22023"),
    ("register_template('t', 'tpl', tenant_schema => '{slug}' || repeat('x', 63))", "22023"),
    ("register_template('t', 'tpl', tenant_schema => '{ id }')", "22023"),
    ("unregister_template(NULL)", "22023"),
    ("unregister_template('t')", "55000"),
    ("create_tenant_schema(NULL)", "22023"),
    ("create_tenant_schema({r}, NULL)", "22023"),
    ("create_tenant_schema(gen_random_uuid(), 't')", "P0002"),
    ("create_tenant_schema({r}, 'none')", "P0002"),
    ("create_tenant_schema({r}, '')", "P0002"),
    ("create_tenant_schema({r})", "P0002"),
    ("create_tenant_schema({x}, 't')", "23505"),
    ("create_tenant_schema({d}, 't')", "55000"),
    ("create_tenant_schema({r}, 't', '')", "22023"),
    ("create_tenant_schema({r}, 't', 'pg_toast')", "22023"),
    ("create_tenant_schema({r}, 't', 'tenancy')", "22023"),
    ("create_tenant_schema({r}, 't', 'public')", "22023"),
    ("create_tenant_schema({r}, 't', 'of_x')", "23505"),
    ("create_tenant_schema({r}, 't', 'tpl')", "23505"),
    ("clone_tenant_schema(NULL, {r})", "22023"),
    ("clone_tenant_schema({x}, NULL)", "22023"),
    ("clone_tenant_schema({x}, {r}, NULL)", "22023"),
    ("clone_tenant_schema({x}, {x})", "22023"),
    ("clone_tenant_schema({x}, {y})", "23505"),
    ("clone_tenant_schema({r}, {r2})", "55000"),
    ("clone_tenant_schema({x}, {d})", "55000"),
    ("clone_tenant_schema(gen_random_uuid(), {r})", "P0002"),
    ("clone_tenant_schema({x}, gen_random_uuid())", "P0002"),
    ("delete_tenant_schema(NULL)", "22023"),
    ("delete_tenant_schema(gen_random_uuid())", "P0002"),
    ("tenant_statistics(NULL)", "22023"),
    ("maintenance_commands(NULL)", "22023"),
    ("maintenance_commands('')", "22023"),
    ("maintenance_commands('DROP TABLE')", "22023"),
    ("maintenance_commands('VACUUM; DROP TABLE x')", "22023"),
    ("maintenance_commands(repeat('x', 1000000))", "22023"),
    ("maintenance_commands('ANALYZE', gen_random_uuid())", "P0002"),
    ("tenancy.differences(gen_random_uuid())", "P0002"),
    ("allow_schema_drift(NULL, 'x', 'y')", "22023"),
    ("allow_schema_drift({x}, NULL, 'y')", "22023"),
    ("allow_schema_drift({x}, 'x', NULL)", "22023"),
    ("allow_schema_drift({x}, '', 'y')", "22023"),
    ("allow_schema_drift({x}, '  ', 'y')", "22023"),
    ("allow_schema_drift({x}, 'x', '')", "22023"),
    ("allow_schema_drift({x}, 'x', repeat('y', 1000000))", "22023"),
    ("allow_schema_drift({x}, repeat('y', 1000000), 'x')", "22023"),
    ("allow_schema_drift(gen_random_uuid(), 'x', 'y')", "P0002"),
    ("disallow_schema_drift(NULL, 'x')", "22023"),
    ("disallow_schema_drift({x}, NULL)", "22023"),
    ("disallow_schema_drift(gen_random_uuid(), 'x')", "P0002"),
    ("add_migration(NULL, '1', 'SELECT 1')", "22023"),
    ("add_migration('none', '1', 'SELECT 1')", "P0002"),
    ("add_migration('t', repeat('x', 1000000), 'SELECT 1')", "22023"),
    ("add_migration('t', '1', repeat('x', 1000000))", "42601"),
    ("remove_migration('none', '1')", "P0002"),
    ("remove_migration('t', NULL)", "22023"),
    ("create_tenant('n', slug => 'n', isolation => 'schemas')", "22023"),
    ("create_tenant('n', slug => 'n', isolation => 'schema', template => 'none')", "P0002"),
];

/// A house with tenants, and what stands for each in a call.
fn house(label: &str) -> (House, [(&'static str, Uuid); 5]) {
    let house = House::new(label);
    let tenants = [
        ("{x}", house.tenant("x")),
        ("{y}", house.tenant("y")),
        ("{r}", house.without_schema("r")),
        ("{r2}", house.without_schema("r-2")),
        ("{d}", house.without_schema("d")),
    ];
    rows(&mut house.connect("operator"), "SELECT delete_tenant($1)", &[&tenants[4].1]);
    (house, tenants)
}

fn filled(call: &str, tenants: &[(&str, Uuid)]) -> String {
    tenants.iter().fold(call.to_owned(), |call, (name, id)| call.replace(name, &format!("'{id}'::uuid")))
}

#[test]
fn wrong_arguments_are_refused_and_write_nothing() {
    let (house, tenants) = house("wrong_arguments");
    let mut admin = house.connect("admin");
    let pid = backend_pid(&mut admin);
    let before = house.everything();
    for (call, sqlstate) in WRONG {
        let statement = format!("SELECT * FROM {}", filled(call, &tenants));
        match admin.batch_execute(&statement) {
            Ok(()) => panic!("{call} succeeded where {sqlstate} was due"),
            Err(error) => {
                let found = error.code().map(|code| code.code().to_owned());
                assert_eq!(found.as_deref(), Some(*sqlstate), "{call}: {error:?}");
                assert!(error.to_string().len() < 2000, "{call}: a message of {} bytes", error.to_string().len());
            }
        }
        assert_eq!(house.everything(), before, "{call}");
    }
    assert_eq!(backend_pid(&mut admin), pid, "the session goes on");
    house.assert_legal();
}

/// Calls that are right, and the levels that may make them.
const RIGHT: &[(&str, &[&str])] = &[
    ("register_template('t', 'tpl')", &["admin"]),
    ("unregister_template('none')", &["admin"]),
    ("create_tenant_schema({r}, 't')", &["operator", "admin"]),
    ("clone_tenant_schema({x}, {r})", &["admin"]),
    ("delete_tenant_schema({x})", &["admin"]),
    ("create_tenant('n', slug => 'n', isolation => 'schema')", &["operator", "admin"]),
    ("tenant_statistics()", &["monitor", "operator", "admin"]),
    ("tenant_statistics(true)", &["monitor", "operator", "admin"]),
    ("maintenance_commands()", &["monitor", "operator", "admin"]),
    ("tenancy.differences()", &["operator", "admin"]),
    ("tenancy.schema_drift", &["operator", "admin"]),
    ("tenancy.templates", &["operator", "admin"]),
    ("tenancy.applied_migrations", &["operator", "admin"]),
    ("tenancy.allowed_drift", &["operator", "admin"]),
    ("tenancy.migrations", &["operator", "admin"]),
    ("tenancy.migration_status", &["operator", "admin"]),
    ("allow_schema_drift({x}, 'x', 'y')", &["admin"]),
    ("disallow_schema_drift({x}, 'x')", &["admin"]),
    ("add_migration('t', '1', 'SELECT 1')", &["admin"]),
    ("remove_migration('t', '1')", &["admin"]),
];

#[test]
fn each_function_is_for_its_levels() {
    let (house, tenants) = house("schema_levels");
    let before = house.everything();
    for role in ["app", "client", "operator", "monitor", "admin", "owner", "stranger"] {
        let mut session = house.connect(role);
        for (call, levels) in RIGHT {
            let statement = format!("SELECT * FROM {}", filled(call, &tenants));
            let mut transaction = session.transaction().expect("begin");
            let outcome = transaction.batch_execute(&statement);
            if levels.contains(&role) {
                outcome.unwrap_or_else(|error| panic!("{role}: {call}: {error:?}"));
            } else {
                fails(outcome, "42501");
            }
            transaction.rollback().expect("roll back");
        }
    }
    assert_eq!(house.everything(), before);
}

/// What writes, and what reads.
pub const WRITES: &[&str] = &[
    "register_template('t', 'tpl')",
    "create_tenant_schema({r}, 't')",
    "clone_tenant_schema({x}, {r})",
    "delete_tenant_schema({x})",
    "create_tenant('n', slug => 'n', isolation => 'schema')",
    "allow_schema_drift({x}, 'x', 'y')",
    "add_migration('t', '1', 'SELECT 1')",
];
pub const READS: &[&str] = &[
    "tenant_statistics()",
    "tenant_statistics(true)",
    "maintenance_commands()",
    "tenancy.differences()",
    "tenancy.schema_drift",
];

#[test]
fn a_read_only_transaction_reads_and_writes_nothing() {
    let (house, tenants) = house("schema_read_only");
    let mut admin = house.connect("admin");
    let before = house.everything();
    for (calls, writes) in [(WRITES, true), (READS, false)] {
        for call in calls {
            let statement = format!("SELECT * FROM {}", filled(call, &tenants));
            let mut transaction = admin.build_transaction().read_only(true).start().expect("begin");
            let outcome = transaction.batch_execute(&statement);
            if writes {
                fails(outcome, "25006");
            } else {
                outcome.unwrap_or_else(|error| panic!("{call}: {error:?}"));
            }
            transaction.rollback().expect("roll back");
        }
    }
    assert_eq!(house.everything(), before);
}

/// Where a snapshot is older than the locks, what was seen may no longer be so: such calls are refused, or right.
#[test]
fn an_old_snapshot_makes_no_schema_of_what_was() {
    let (house, tenants) = house("schema_snapshots");
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut admin = house.connect("admin");
        for call in WRITES {
            let before = house.everything();
            let mut transaction = admin.build_transaction().isolation_level(level).start().expect("begin");
            let statement = format!("SELECT * FROM {}", filled(call, &tenants));
            match transaction.batch_execute(&statement) {
                Ok(()) => transaction.rollback().expect("roll back"),
                Err(error) => {
                    assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{call}: {error:?}");
                    transaction.rollback().expect("roll back");
                }
            }
            assert_eq!(house.everything(), before, "{call}");
        }
        let mut transaction = admin.build_transaction().isolation_level(level).start().expect("begin");
        for call in READS {
            transaction
                .batch_execute(&format!("SELECT * FROM {call}"))
                .unwrap_or_else(|error| panic!("{call}: {error:?}"));
        }
    }
}
