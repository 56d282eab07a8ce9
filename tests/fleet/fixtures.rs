//! A template and tenants made from it.

use harness::*;

/// The template `crm` in schema `crm_template`, owned by `owner`.
const TEMPLATE: &str = "CREATE SCHEMA crm_template AUTHORIZATION owner;
    SET ROLE owner;
    CREATE TABLE crm_template.contacts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
    CREATE TABLE crm_template.log (entry text);
    RESET ROLE;
    SELECT register_template('crm', 'crm_template')";

/// Tenants `t-1` ... with schemas `s_1` ... as copies of it.
const TENANTS: &str = "SELECT create_tenant('Tenant ' || i, slug => 't-' || i, isolation => 'schema', template => 'crm', schema_name => ('s_' || i)::name)
    FROM generate_series($1::int, $2::int) i";

pub struct Fleet {
    pub database: Database,
    pub tenants: usize,
}

impl Fleet {
    #[track_caller]
    pub fn new(label: &str, tenants: usize) -> Self {
        Self::on(Database::new(label), tenants)
    }

    #[track_caller]
    pub fn on(database: Database, tenants: usize) -> Self {
        let mut superuser = database.superuser();
        superuser.batch_execute(TEMPLATE).expect("make the template");
        for first in (1..=tenants as i32).step_by(50) {
            let last = (first + 49).min(tenants as i32);
            rows(&mut superuser, TENANTS, &[&first, &last]);
        }
        superuser.batch_execute("ANALYZE tenancy.tenants").expect("analyze");
        Self { database, tenants }
    }

    pub fn admin(&self) -> Client {
        self.database.connect("admin")
    }

    pub fn superuser(&self) -> Client {
        self.database.superuser()
    }

    /// Adds a migration; `more` are further arguments.
    #[track_caller]
    pub fn add(&self, version: &str, sql: &str, more: &str) {
        let call = format!("SELECT add_migration('crm', $1, $2{more})");
        assert_eq!(one::<String>(&mut self.admin(), &call, &[&version, &sql]), version);
    }

    /// Migrates, with further arguments.
    pub fn migrate(&self, more: &str) -> Result<(), postgres::Error> {
        self.admin().batch_execute(&format!("CALL migrate_tenants('crm'{more})"))
    }

    /// The status of a version for each tenant that is not so.
    #[track_caller]
    pub fn not(&self, version: &str, status: &str) -> Vec<String> {
        const QUERY: &str = "SELECT coalesce(slug, 'template') || ' ' || status || ' ' || coalesce(sqlstate, '') || ' ' || coalesce(message, '')
            FROM tenancy.migration_status WHERE version = $1 AND status <> $2 ORDER BY slug";
        rows(&mut self.database.connect("operator"), QUERY, &[&version, &status]).iter().map(|row| row.get(0)).collect()
    }

    /// How often an entry is in the log of each schema, the template's too: the least and the most.
    #[track_caller]
    pub fn entries(&self, entry: &str) -> (i64, i64) {
        let mut superuser = self.superuser();
        let schemas = std::iter::once("crm_template".to_owned()).chain((1..=self.tenants).map(|i| format!("s_{i}")));
        let counts: Vec<String> =
            schemas.map(|schema| format!("(SELECT count(*) FROM {schema}.log WHERE entry = '{entry}')")).collect();
        let counts = counts.chunks(100).flat_map(|chunk| {
            let sql = format!("SELECT unnest(ARRAY[{}])", chunk.join(", "));
            rows(&mut superuser, &sql, &[]).iter().map(|row| row.get(0)).collect::<Vec<i64>>()
        });
        counts.fold((i64::MAX, i64::MIN), |(least, most), count| (least.min(count), most.max(count)))
    }
}
