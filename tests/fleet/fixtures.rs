//! A template and tenants made from it.

use harness::*;

/// The schemas by hand: template `crm` in schema `crm_template` and `$count` tenants in schemas `s_1` ..., all owned by `owner`.
const BUILD: &str = "DO $do$
    DECLARE
        place text;
        tenant uuid;
    BEGIN
        FOR i IN 0 .. $count LOOP
            place := CASE i WHEN 0 THEN 'crm_template' ELSE 's_' || i END;
            EXECUTE format('CREATE SCHEMA %I AUTHORIZATION owner', place);
            EXECUTE format('CREATE TABLE %I.contacts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)', place);
            EXECUTE format('CREATE TABLE %I.log (entry text)', place);
            EXECUTE format('ALTER TABLE %I.contacts OWNER TO owner', place);
            EXECUTE format('ALTER TABLE %I.log OWNER TO owner', place);
            IF i = 0 THEN
                EXECUTE format('SECURITY LABEL FOR pg_tenancy ON SCHEMA %I IS ''template''', place);
                INSERT INTO tenancy.templates (template, schema_name, tenant_schema) VALUES ('crm', place, 'tenant_{id}');
            ELSE
                tenant := create_tenant('Tenant ' || i, slug => 't-' || i);
                EXECUTE format('SECURITY LABEL FOR pg_tenancy ON SCHEMA %I IS %L', place, 'tenant: ' || tenant);
                UPDATE tenancy.tenants SET isolation = 'schema', schema_name = place, template = 'crm' WHERE id = tenant;
            END IF;
        END LOOP;
    END $do$";

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
        superuser.batch_execute(&BUILD.replace("$count", &tenants.to_string())).expect("build the schemas");
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
