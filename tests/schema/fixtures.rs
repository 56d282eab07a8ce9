//! A template with tenants, and what must hold of them whatever was done.

use harness::*;

/// The template `t` in schema tpl, as an application would have it: reference rows, an account whose balance is the sum of its entries,
/// numbers of every kind, and a reference to a shared table.
const TEMPLATE: &str = "
CREATE TABLE public.countries (code text PRIMARY KEY);
INSERT INTO public.countries VALUES ('CH'), ('SE');
ALTER TABLE public.countries OWNER TO owner;
GRANT SELECT ON public.countries TO app, client;
CREATE SCHEMA tpl AUTHORIZATION owner;
GRANT USAGE ON SCHEMA tpl TO app, client;
SET ROLE owner;
SET search_path = tpl;
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE stages (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
INSERT INTO stages (name) VALUES ('new'), ('won'), ('lost');
CREATE TABLE accounts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, balance bigint NOT NULL DEFAULT 0,
    country text REFERENCES public.countries, stage integer DEFAULT 1 REFERENCES stages, mood mood DEFAULT 'glad');
CREATE TABLE entries (id bigserial PRIMARY KEY, account bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, amount bigint NOT NULL);
CREATE INDEX entries_account ON entries (account);
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tpl.accounts SET balance = balance + NEW.amount WHERE id = NEW.account;
    RETURN NEW;
END $$;
CREATE TRIGGER add_up AFTER INSERT ON entries FOR EACH ROW EXECUTE FUNCTION add_up();
CREATE VIEW totals AS SELECT count(*) AS accounts, coalesce(sum(balance), 0)::bigint AS balance FROM accounts;
CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM tpl.accounts';
CREATE FUNCTION by_name(text) RETURNS bigint LANGUAGE sql STABLE AS $$SELECT count(*) FROM tpl.accounts WHERE name = $1$$;
COMMENT ON TABLE accounts IS 'Who has what';
GRANT ALL ON ALL TABLES IN SCHEMA tpl TO app, client;
GRANT ALL ON ALL SEQUENCES IN SCHEMA tpl TO app, client;
RESET ROLE;
RESET search_path;
";

/// Registers the template; tenants' schemas are called `of_` and their slug.
pub const REGISTER: &str =
    "SELECT register_template('t', 'tpl', data_tables => '{stages}', tenant_schema => 'of_{slug}')";
pub const CREATE: &str = "SELECT create_tenant($1, slug => $1, isolation => 'schema')";

/// Makes the template and registers it.
pub fn install(database: &Database) {
    run_script(database, "postgres", TEMPLATE);
    one::<String>(&mut database.connect("admin"), REGISTER, &[]);
}

/// A database with the template.
pub struct House {
    pub database: Database,
}

impl House {
    pub fn new(label: &str) -> House {
        House::in_database(Database::new(label))
    }

    pub fn in_database(database: Database) -> House {
        install(&database);
        House { database }
    }

    pub fn connect(&self, role: &str) -> Client {
        self.database.connect(role)
    }

    pub fn superuser(&self) -> Client {
        self.database.superuser()
    }

    /// A tenant with its schema `of_<slug>`.
    #[track_caller]
    pub fn tenant(&self, slug: &str) -> Uuid {
        one(&mut self.connect("operator"), CREATE, &[&slug])
    }

    /// A tenant without one.
    #[track_caller]
    pub fn without_schema(&self, slug: &str) -> Uuid {
        one(&mut self.connect("operator"), "SELECT create_tenant($1, slug => $1, isolation => 'row')", &[&slug])
    }

    /// Everything that a call could have written: the registry, the catalogs of schemas and their objects, the audit log.
    pub fn everything(&self) -> Vec<Vec<Option<String>>> {
        everything(&mut self.superuser())
    }

    /// Fails unless every tenant, schema, label and version fits the others, and no copy is a half one.
    #[track_caller]
    pub fn assert_legal(&self) {
        assert_legal(&mut self.superuser());
    }
}

pub fn everything(superuser: &mut Client) -> Vec<Vec<Option<String>>> {
    const ALL: &str = "
        SELECT to_jsonb(t) FROM tenancy.tenants t ORDER BY 1; SELECT to_jsonb(t) FROM tenancy.templates t ORDER BY 1;
        SELECT to_jsonb(t) FROM tenancy.applied_migrations t ORDER BY 1; SELECT to_jsonb(t) FROM tenancy.allowed_drift t ORDER BY 1;
        SELECT to_jsonb(t) FROM tenancy.migrations t ORDER BY 1; SELECT to_jsonb(t) FROM tenancy.audit_log t ORDER BY 1;
        SELECT nspname, nspowner, nspacl FROM pg_namespace WHERE nspname NOT LIKE 'pg_t%' ORDER BY 1; SELECT objoid, label FROM pg_seclabel ORDER BY 1, 2;
        SELECT oid, relname, relacl, relowner FROM pg_class WHERE relnamespace NOT IN (99, 11) AND relkind <> 't' AND oid >= 16384 ORDER BY 1;
        SELECT oid, proacl, prosrc FROM pg_proc WHERE oid >= 16384 ORDER BY 1";
    simple(superuser, ALL)
}

/// What is never true of a tenant's schema, each a query of what is wrong.
const ILLEGAL: [(&str, &str); 9] = [
    (
        "a tenant whose schema is not there, or not labelled as its own",
        "SELECT t.slug FROM tenancy.tenants t WHERE t.schema_name IS NOT NULL AND NOT EXISTS (SELECT FROM pg_namespace n
            JOIN pg_seclabel s ON s.objoid = n.oid AND s.classoid = 'pg_namespace'::regclass
            WHERE n.nspname = t.schema_name AND s.label = 'tenant: ' || t.id)",
    ),
    (
        "a schema that is labelled as the schema of a tenant that does not have it",
        "SELECT n.nspname FROM pg_namespace n JOIN pg_seclabel s ON s.objoid = n.oid AND s.classoid = 'pg_namespace'::regclass
            WHERE s.label LIKE 'tenant: %' AND NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.schema_name = n.nspname AND s.label = 'tenant: ' || t.id)",
    ),
    (
        "a schema of nobody's",
        "SELECT n.nspname FROM pg_namespace n WHERE n.nspname ~ '^(of_|tenant_)'
            AND NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.schema_name = n.nspname)",
    ),
    (
        "a template whose schema is not there, or not labelled",
        "SELECT t.template FROM tenancy.templates t WHERE NOT EXISTS (SELECT FROM pg_namespace n
            JOIN pg_seclabel s ON s.objoid = n.oid AND s.classoid = 'pg_namespace'::regclass
            WHERE n.nspname = t.schema_name AND s.label = 'template: ' || t.template)",
    ),
    (
        "a schema that is labelled as an unknown template",
        "SELECT n.nspname FROM pg_namespace n JOIN pg_seclabel s ON s.objoid = n.oid AND s.classoid = 'pg_namespace'::regclass
            WHERE s.label LIKE 'template: %' AND NOT EXISTS (SELECT FROM tenancy.templates t WHERE t.schema_name = n.nspname)",
    ),
    (
        "a tenant of an unknown template",
        "SELECT slug FROM tenancy.tenants t WHERE template IS NOT NULL AND NOT EXISTS (SELECT FROM tenancy.templates p WHERE p.template = t.template)",
    ),
    (
        "a schema of another version than its template, or versions of no schema",
        "SELECT coalesce(t.slug, tenant_id::text) FROM tenancy.tenants t FULL JOIN
            (SELECT tenant_id, array_agg(version ORDER BY version) AS versions FROM tenancy.applied_migrations WHERE tenant_id IS NOT NULL GROUP BY 1) a
            ON a.tenant_id = t.id
            -- One whose purge has begun is migrated no more.
            WHERE t.purge_started_at IS NULL AND coalesce(a.versions, '{}') <> CASE WHEN t.schema_name IS NULL THEN '{}' ELSE
                (SELECT coalesce(array_agg(version ORDER BY version), '{}') FROM tenancy.applied_migrations m WHERE m.template = t.template AND m.tenant_id IS NULL) END",
    ),
    ("a schema that is not what its template is", "SELECT slug || ' ' || kind || ' ' || object || ' ' || difference FROM tenancy.schema_drift"),
    (
        "a tenant in an illegal state",
        "SELECT slug FROM tenancy.tenants WHERE status NOT IN ('active', 'read_only', 'suspended', 'cancelled', 'deleted')",
    ),
];

#[track_caller]
pub fn assert_legal(superuser: &mut Client) {
    for (what, query) in ILLEGAL {
        let wrong = simple(superuser, query);
        assert!(wrong.is_empty(), "{what}: {wrong:?}");
    }
}

/// Runs a script that must succeed.
#[track_caller]
pub fn run_script(database: &Database, role: &str, script: &str) {
    let output = database.psql(role, script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
