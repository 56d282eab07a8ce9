//! Migrations of a template reach every tenant: safely, in parallel, once.

#[path = "fleet/fixtures.rs"]
pub mod fixtures;

use fixtures::Fleet;
use harness::*;

#[test]
fn a_migration_reaches_the_template_and_every_tenant_once() {
    let fleet = Fleet::new("fleet", 12);
    fleet.add("001", "ALTER TABLE contacts ADD COLUMN phone text; INSERT INTO log VALUES ('001')", "");
    fleet.add("002", "INSERT INTO log SELECT '002' FROM (SELECT phone FROM contacts LIMIT 1) c RIGHT JOIN (SELECT) d ON true", "");
    assert_eq!(fleet.not("001", "pending"), Vec::<String>::new());
    fleet.migrate(", workers => 3").expect("migrate");
    assert_eq!(fleet.not("001", "applied"), Vec::<String>::new());
    assert_eq!(fleet.not("002", "applied"), Vec::<String>::new());
    assert_eq!((fleet.entries("001"), fleet.entries("002")), ((1, 1), (1, 1)));
    assert_eq!(fleet.workers(), 0);
    let actions = "SELECT string_agg(action, ' ' ORDER BY id) FROM tenancy.audit_log WHERE target = 'crm'";
    let actions: String = one(&mut fleet.superuser(), actions, &[]);
    assert_eq!(actions, "migration.add migration.add migration.run migration.finish");
    fleet.migrate("").expect("migrate again");
    assert_eq!((fleet.entries("001"), fleet.entries("002")), ((1, 1), (1, 1)));
}
