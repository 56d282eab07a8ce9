//! Creating tenants, which checks, derives a slug and writes the audit log besides inserting a row.

use crate::pgbench::Run;
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, interleave};
use crate::settings::Settings;
use crate::tables::Bench;

/// Tables like the registry and the audit log, in columns, checks and indexes, that an application might write by itself.
const TABLES: &str = "
CREATE TABLE registry (LIKE tenancy.tenants INCLUDING ALL);
CREATE TABLE journal (LIKE tenancy.audit_log INCLUDING ALL);
GRANT SELECT, INSERT ON registry, journal TO operator;";

const CREATE: &str = "\\set n random(1, 1000000000000000)
SELECT create_tenant('Tenant ' || :n::text);";

const INSERT: &str = "\\set n random(1, 1000000000000000)
INSERT INTO registry (id, slug, name, plan, isolation)
VALUES (gen_random_uuid(), 'tenant-' || :n::text, 'Tenant ' || :n::text, 'free', 'row');";

const INSERT_AND_AUDIT: &str = "\\set n random(1, 1000000000000000)
WITH new AS (
    INSERT INTO registry (id, slug, name, plan, isolation)
    VALUES (gen_random_uuid(), 'tenant-' || :n::text, 'Tenant ' || :n::text, 'free', 'row')
    RETURNING id, slug, name, plan
)
INSERT INTO journal (session_user_name, outer_user_name, tenant_id, action, target, after)
SELECT session_user, current_user, id, 'tenant.created', slug,
       jsonb_build_object('name', name, 'slug', slug, 'plan', plan)
FROM new;";

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(settings.tenants);
    bench.prepare(TABLES);
    let sides = [CREATE, INSERT, INSERT_AND_AUDIT].map(|script| -> Side<'_> {
        let run = Run { database: &bench.database, role: "operator", script, variables: Vec::new() };
        Box::new(move |_| run.tps(settings))
    });
    let [ours, insert, audited] = interleave(settings.rounds, sides);
    let row = |theirs, bar| Row::new("creating a tenant", Unit::Transactions, ("create_tenant", &ours), theirs, bar);
    vec![
        row(("bare INSERT, equally indexed", &insert), Bar::AtLeast(0.5)),
        row(("INSERT there and into an audit log", &audited), Bar::None),
    ]
}
