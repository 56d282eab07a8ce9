//! What a client must not leave behind, looked for on the server by a superuser and through the pooler.

use crate::round::Round;
use harness::*;

/// Each of these finds nothing.
const FORBIDDEN: [(&str, &str); 6] = [
    ("bound tenants", "SELECT pid, role FROM tenancy.activity"),
    (
        "locks of tenants or rows",
        "SELECT pid, mode, locktype FROM pg_locks WHERE pid <> pg_backend_pid()
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    ),
    ("temporary tables", "SELECT oid::regclass, relkind FROM pg_class WHERE relpersistence = 't'"),
    ("prepared transactions", "SELECT gid, owner FROM pg_prepared_xacts"),
    (
        "sessions in a transaction",
        "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
    ),
    ("counters that are wrong", "SELECT tenant_id, resource FROM verify_limits()"),
];

/// The text columns of protected tables, in which stories write the tenant's slug before what they say.
const NAMED: &str = "
    SELECT format('SELECT slug, %1$L, written.%2$I FROM %1$s AS written JOIN tenancy.tenants AS t ON t.id = written.%3$I
                   WHERE written.%2$I ~ ''^(acme|globex|hooli):'' AND written.%2$I NOT LIKE slug || '': %%''', p.table_name, a.attname, p.tenant_column)
    FROM tenancy.protected_tables AS p
    JOIN pg_attribute AS a ON a.attrelid = p.table_name::regclass AND a.attnum > 0 AND a.atttypid = 'text'::regtype AND NOT a.attisdropped";

/// Rows of a tenant that nobody named for it; the tables are those that every story writes.
const UNNAMED: &str = "
    SELECT slug, written.name FROM (SELECT tenant_id, name FROM agent_platform.agents UNION ALL
                            SELECT tenant_id, name FROM agent_platform.workflows UNION ALL
                            SELECT tenant_id, name FROM agent_platform.users) AS written
    JOIN tenancy.tenants AS t ON t.id = written.tenant_id WHERE written.name NOT LIKE slug || ': %'";

/// What a session has that a fresh one has not. The pooler itself passes a few settings on from its clients.
const OF_A_SESSION: &str = "
    SELECT 'setting ' || name || ' = ' || setting FROM pg_settings
    WHERE source = 'session' AND name NOT IN ('client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', 'application_name')
    UNION ALL SELECT 'tenant ' || current_setting('tenancy.context') WHERE current_setting('tenancy.context') <> ''
    UNION ALL SELECT 'role ' || current_user WHERE current_user <> session_user
    UNION ALL SELECT 'search_path ' || current_setting('search_path') WHERE current_setting('search_path') <> 'agent_platform, public'
    UNION ALL SELECT 'prepared statement ' || statement FROM pg_prepared_statements
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors
    UNION ALL SELECT 'temporary schema' WHERE pg_my_temp_schema() <> 0
    UNION ALL SELECT 'channel ' || c FROM pg_listening_channels() AS c";

#[track_caller]
pub fn none_in(round: &Round) {
    let mut superuser = round.database.superuser();
    for (what, query) in FORBIDDEN {
        assert_eq!(simple(&mut superuser, query), Vec::<Vec<_>>::new(), "{what}");
    }
    let named: Vec<String> = rows(&mut superuser, NAMED, &[]).iter().map(|row| row.get(0)).collect();
    assert!(named.len() > 3, "columns to look at: {named:?}");
    for query in named.iter().map(String::as_str).chain([UNNAMED]) {
        assert_eq!(simple(&mut superuser, query), Vec::<Vec<_>>::new(), "rows under another tenant's name: {query}");
    }
    for slug in ["acme", "globex"] {
        let written =
            format!("agent_platform.workflows JOIN tenancy.tenants AS t ON t.id = tenant_id WHERE slug = '{slug}'");
        assert!(count(&mut superuser, &written) > 0, "the story wrote nothing as {slug}");
    }
    if let Some(pooler) = &round.pooler {
        for role in ["app", "client"] {
            pooled_sessions_are_fresh(pooler, role);
        }
    }
}

/// Both sessions of the pool at once, each in a transaction, so that neither is looked at twice.
#[track_caller]
fn pooled_sessions_are_fresh(pooler: &PgBouncer, role: &str) {
    let mut sessions = [pooler.connect(role), pooler.connect(role)];
    let backends = sessions.each_mut().map(|session| {
        session.batch_execute("BEGIN").expect("begin");
        text(session, "SELECT pg_backend_pid()")
    });
    assert_ne!(backends[0], backends[1]);
    for session in &mut sessions {
        let left = simple(session, OF_A_SESSION);
        assert_eq!(left, Vec::<Vec<_>>::new(), "left in a session of {role}");
        fails(session.simple_query("SELECT * FROM agents"), "42501");
        session.batch_execute("ROLLBACK").expect("roll back");
    }
}

/// Writes to other tenants' rows were refused as often as the story attempts them, and no more.
#[track_caller]
pub fn only_its_refusals(round: &Round, mismatches: i64) {
    let refused: i64 = one(
        &mut round.database.superuser(),
        "SELECT coalesce(sum(tenant_mismatches), 0)::bigint FROM tenancy.refusals JOIN tenancy.tenants ON id = tenant_id",
        &[],
    );
    assert_eq!(refused, mismatches, "writes to other tenants' rows that were refused");
}

/// Test suites made databases from the template, and dropped them.
#[track_caller]
pub fn no_databases(cluster: &Cluster) {
    const THEIRS: &str = "SELECT datname FROM pg_database
        WHERE datname NOT IN ('postgres', 'template0', 'template1', 'tenancy_template') AND datname NOT LIKE 'platform%'";
    assert_eq!(simple(&mut cluster.server().superuser(), THEIRS), Vec::<Vec<_>>::new(), "databases left behind");
}
