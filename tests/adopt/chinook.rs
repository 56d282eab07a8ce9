//! Chinook, a real application's schema and rows (skipped where it is not at hand).

use super::fixtures::checksum;
use harness::*;
use std::path::Path;

fn script() -> Option<String> {
    let file = match std::env::var_os("PG_TENANCY_DATA") {
        Some(directory) => Path::new(&directory).join("chinook.sql"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/chinook.sql"),
    };
    let Ok(script) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: there is no {}", file.display());
        return None;
    };
    Some(script.split_once("\\c chinook_serial;").expect("the script connects to its database").1.to_owned())
}

/// The rows as statements, with their keys, parents first.
fn rows_of(database: &Database) -> String {
    let mut pg_dump = database.tool("pg_dump", "postgres");
    let dump = run(pg_dump.args(["--data-only", "--column-inserts", "--rows-per-insert=500", "--schema=public"]));
    dump.lines()
        .filter(|line| !line.starts_with("SE") && !line.starts_with('\\'))
        .flat_map(|line| [line, "\n"])
        .collect()
}

const TABLES: &str =
    "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1";
const KEYS_WITHOUT_TENANT: &str = "SELECT count(*) FROM pg_constraint c WHERE connamespace = 'public'::regnamespace
    AND contype IN ('f', 'p', 'u') AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.conrelid
        AND a.attname = 'tenant_id' AND a.attnum = ANY (c.conkey))";

#[test]
fn chinook_is_adopted_and_a_second_tenant_loads_its_own_copy() {
    let Some(script) = script() else { return };
    let database = Database::new("adopt_chinook");
    let loaded = database.psql("owner", &script);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let [first, second] = tenants(&mut database.connect("operator"), 2)[..] else { panic!("two tenants") };
    let mut superuser = database.superuser();
    let tables: Vec<String> = rows(&mut superuser, TABLES, &[]).iter().map(|row| row.get(0)).collect();
    assert_eq!(tables.len(), 11);
    let before: Vec<_> = tables.iter().map(|table| checksum(&mut superuser, table)).collect();
    let keys: i64 =
        one(&mut superuser, "SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace", &[]);

    let copy = rows_of(&database);

    let (mut admin, notices) = database.connect_with_notices("admin");
    const PLAN: &str = "SELECT statement FROM adoption_plan('public', $1, keys => 'all') ORDER BY step";
    let plan: Vec<String> = rows(&mut admin, PLAN, &[&first]).iter().map(|row| row.get(0)).collect();
    notices.take();
    admin.batch_execute(&format!("CALL adopt_schema('public', '{first}', keys => 'all')")).expect("adopt");
    let done: Vec<String> = notices
        .messages()
        .into_iter()
        .filter_map(|notice| {
            notice.split_once(": ").filter(|(number, _)| number.contains(" of ")).map(|(_, text)| text.to_owned())
        })
        .collect();
    assert_eq!(done, plan, "what is done is what was planned");
    assert!(rows(&mut admin, PLAN, &[&first]).is_empty(), "nothing is left");

    assert_eq!(one::<i64>(&mut superuser, KEYS_WITHOUT_TENANT, &[]), 0);
    assert_eq!(
        one::<i64>(
            &mut superuser,
            "SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
            &[]
        ),
        keys
    );
    assert_eq!(count(&mut superuser, "pg_constraint WHERE NOT convalidated"), 0);
    assert_eq!(count(&mut superuser, "pg_index WHERE NOT indisvalid"), 0);
    assert_eq!(count(&mut superuser, "tenancy.protection_status WHERE intact"), 11);
    superuser
        .batch_execute(
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app",
        )
        .expect("grant");

    let mut app = database.connect("app");
    as_tenant(&mut app, second, |transaction| transaction.batch_execute(&copy).expect("load a second copy"));
    for (table, before) in tables.iter().zip(&before) {
        for tenant in [first, second] {
            assert_eq!(as_tenant(&mut app, tenant, |transaction| checksum(transaction, table)), *before, "{table}");
        }
        let all: i64 = count(&mut superuser, table);
        assert_eq!(all, before.0 * 2, "{table}");
    }
    // Neither can refer to a row that only the other has.
    as_tenant(&mut app, second, |transaction| {
        transaction
            .batch_execute("DELETE FROM invoice_line; DELETE FROM invoice; DELETE FROM customer WHERE customer_id = 7")
            .expect("delete")
    });
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, second);
    let invoice = "INSERT INTO invoice (invoice_id, customer_id, invoice_date, total) VALUES (9999, 7, now(), 1)";
    let error = fails(transaction.batch_execute(invoice), "23503");
    assert_eq!(error.constraint(), Some("invoice_customer_id_fkey"));
    transaction.rollback().expect("roll back");
    assert_eq!(as_tenant(&mut app, first, |transaction| count(transaction, "customer WHERE customer_id = 7")), 1);
}
