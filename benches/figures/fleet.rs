//! Migrating many tenants' schemas.

use crate::crm;
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, seconds_once};
use crate::settings::Settings;
use crate::tables::options;
use harness::{Cluster, Database, count, one, rows, text};
use std::cell::Cell;
use std::time::Instant;

/// A database with many tenants, and how many migrations their template has got.
struct Fleet {
    database: Database,
    schemas: Vec<String>,
    versions: Cell<usize>,
}

pub fn measure(settings: &Settings) -> Vec<Row> {
    let cluster = Cluster::start(options());
    let fleet = Fleet::start(cluster.database("fleet"), settings.tenants);
    let size = format!("{} tenants", settings.tenants);
    let sides: [Side<'_>; 3] =
        [Box::new(|_| fleet.migrate(2)), Box::new(|_| fleet.migrate(1)), Box::new(|_| fleet.migrate_by_hand())];
    let [two, one, by_hand] = interleave(settings.rounds, sides);
    let sides: [Side<'_>; 2] = [Box::new(|_| fleet.nothing_to_do()), Box::new(|_| fleet.ask_each())];
    let [nothing, asked] = interleave(settings.rounds, sides);
    let second = vec![1.0; nothing.len()];
    let figure = format!("migration of {size}: a column and an index");
    let (rate, seconds) = (Unit::Schemas, Unit::Seconds);
    vec![
        Row::new(&figure, rate, ("2 workers", &two), ("1 worker", &one), Bar::AtLeast(1.5)),
        Row::new(&figure, rate, ("1 worker", &one), ("one session, a transaction each", &by_hand), Bar::None),
        Row::new(&figure, rate, ("2 workers", &two), ("one session, a transaction each", &by_hand), Bar::None),
        Row::new(
            &format!("nothing to do for {size}"),
            seconds,
            ("migrate_tenants", &nothing),
            ("a second", &second),
            Bar::AtMost(1.0),
        ),
        Row::new(
            &format!("nothing to do for {size}"),
            seconds,
            ("migrate_tenants", &nothing),
            ("asking each schema for its version", &asked),
            Bar::None,
        ),
    ]
}

impl Fleet {
    fn start(database: Database, tenants: usize) -> Fleet {
        const CREATE: &str = "SELECT create_tenant('Tenant ' || $1::int, isolation => 'schema', template => 'crm')";
        const SCHEMAS: &str =
            "SELECT quote_ident(schema_name) FROM tenancy.tenants WHERE schema_name IS NOT NULL ORDER BY id";
        crm::install(&database);
        let mut operator = database.connect("operator");
        for number in (1..).take(tenants) {
            rows(&mut operator, CREATE, &[&number]);
        }
        execute(&mut database.superuser(), "VACUUM ANALYZE");
        execute(&mut database.superuser(), "CHECKPOINT");
        let schemas = rows(&mut operator, SCHEMAS, &[]).iter().map(|row| row.get(0)).collect();
        Fleet { database, schemas, versions: Cell::new(0) }
    }

    /// The next version, and what is typical of one.
    fn next(&self) -> (String, String) {
        self.versions.set(self.versions.get() + 1);
        let version = format!("v{}", self.versions.get());
        let sql = format!(
            "ALTER TABLE contacts ADD COLUMN {version} integer NOT NULL DEFAULT 0;
             CREATE INDEX contacts_{version}_idx ON contacts ({version});
             INSERT INTO schema_migrations (version) VALUES ('{version}')"
        );
        (version, sql)
    }

    /// Schemas in a second.
    fn migrate(&self, workers: usize) -> f64 {
        let (version, sql) = self.next();
        let mut admin = self.database.connect("admin");
        one::<String>(&mut admin, "SELECT add_migration('crm', $1, $2)", &[&version, &sql]);
        let seconds = seconds_once(&mut admin, &format!("CALL migrate_tenants('crm', workers => {workers})"));
        let applied = format!("tenancy.applied_migrations WHERE version = '{version}' AND tenant_id IS NOT NULL");
        let applied = count(&mut admin, &applied);
        assert_eq!(usize::try_from(applied), Ok(self.schemas.len()), "applied");
        self.schemas.len() as f64 / seconds
    }

    /// What a script of the user's would do, without anything that makes it safe to run.
    fn migrate_by_hand(&self) -> f64 {
        let (_, sql) = self.next();
        let mut superuser = self.database.superuser();
        let begin = Instant::now();
        for schema in &self.schemas {
            execute(&mut superuser, &format!("BEGIN; SET LOCAL search_path = {schema}, public; {sql}; COMMIT"));
        }
        self.schemas.len() as f64 / begin.elapsed().as_secs_f64()
    }

    fn nothing_to_do(&self) -> f64 {
        seconds_once(&mut self.database.connect("admin"), "CALL migrate_tenants('crm')")
    }

    fn ask_each(&self) -> f64 {
        let mut superuser = self.database.superuser();
        let begin = Instant::now();
        for schema in &self.schemas {
            text(&mut superuser, &format!("SELECT max(version) FROM {schema}.schema_migrations"));
        }
        begin.elapsed().as_secs_f64()
    }
}
