//! What thousands of schemas cost a server, in figures: printed, for the README. `TENANCY_SCHEMAS` says how many.

use super::crm;
use harness::*;
use std::fs;
use std::time::{Duration, Instant};

const MEGABYTE: i64 = 1 << 20;

pub fn print(tenants: usize) {
    let mut settings = Options::new().set("shared_buffers", "1GB").set("max_locks_per_transaction", "1024");
    for (name, value) in
        [("statement_timeout", "0"), ("log_autovacuum_min_duration", "-1"), ("autovacuum_naptime", "15s")]
    {
        settings = settings.set(name, value);
    }
    let cluster = Cluster::start(settings);
    let database = crm::template(&cluster);
    print_connection(&database, "connecting and a first request, without tenants");
    let begin = Instant::now();
    let taken = crm::create(&database, tenants);
    let [first, last] = crm::first_and_last(&taken);
    say(
        "creating",
        format!(
            "{:.0} s; each of the first hundred {first:.1?}, of the last {last:.1?}",
            begin.elapsed().as_secs_f64()
        ),
    );
    print_catalogs(&database);
    print_connection(&database, "connecting and a first request");
    print_memory(&database, tenants);
    print_dumps(&database);
    print_operators(&database);
    print_autovacuum(&database, tenants);
    print_catalogs(&database);
    print_connection(&database, "connecting and a first request, afterwards");
}

fn say(what: &str, how_much: impl std::fmt::Display) {
    println!("| {what} | {how_much} |");
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let result = work();
    (result, begin.elapsed())
}

fn print_catalogs(database: &Database) {
    const LARGEST: &str = "SELECT string_agg(relname || ' ' || pg_size_pretty(size) || ' (' || rows || ' rows)', ', ' ORDER BY size DESC) FROM (
            SELECT c.relname, pg_total_relation_size(c.oid) AS size, c.reltuples::bigint AS rows FROM pg_class AS c
            WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' ORDER BY size DESC LIMIT 6) AS largest";
    const RELATIONS: &str = "SELECT string_agg(concat(relkind, ' ', count), ', ') FROM (SELECT relkind, count(*) FROM pg_class GROUP BY relkind ORDER BY 2 DESC) AS kinds";
    let mut superuser = database.superuser();
    let size = |superuser: &mut Client, sizes: &str| text(superuser, &format!("SELECT pg_size_pretty({sizes})"));
    let catalog = "(SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r')";
    say("the database", size(&mut superuser, "pg_database_size(current_database())"));
    say("of which pg_catalog", size(&mut superuser, catalog));
    say("its largest", text(&mut superuser, LARGEST));
    say("relations by kind", text(&mut superuser, RELATIONS));
    say(
        "files",
        text(
            &mut superuser,
            "SELECT count(*) FROM pg_ls_dir('base/' || (SELECT oid FROM pg_database WHERE datname = current_database()))",
        ),
    );
}

/// What a request of the example does, roughly: it looks at most of the tables.
const REQUEST: &str = "SELECT count(*) FROM users; SELECT count(*) FROM pipeline;
    SELECT c.full_name, d.title, a.subject FROM contacts AS c JOIN companies AS o ON o.id = c.company_id JOIN deals AS d ON d.contact_id = c.id
    LEFT JOIN activities AS a ON a.deal_id = d.id LEFT JOIN deal_contacts AS p ON p.deal_id = d.id WHERE c.id = 1";

fn request(client: &mut Client, slug: &str) {
    let request = format!("BEGIN; SELECT set_tenant_by_slug('{slug}'); {REQUEST}; COMMIT");
    client.batch_execute(&request).expect("a request");
}

fn print_connection(database: &Database, what: &str) {
    let medians = [false, true].map(|is_request| {
        let mut taken: Vec<Duration> = (0..21)
            .map(|_| {
                let work = || {
                    let mut client = database.connect("app");
                    if is_request && one::<bool>(&mut client, "SELECT to_regnamespace('tenant_1') IS NOT NULL", &[]) {
                        request(&mut client, "t-1");
                    }
                };
                timed(work).1
            })
            .collect();
        taken.sort();
        taken[taken.len() / 2]
    });
    say(what, format!("{:.1?}, {:.1?}", medians[0], medians[1]));
}

/// The memory of a session's process that is its own, and its caches.
fn print_memory(database: &Database, tenants: usize) {
    const CACHES: &str =
        "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts WHERE 'CacheMemoryContext' IN (name, parent)";
    database.superuser().batch_execute("GRANT pg_read_all_stats TO app").expect("grant");
    let mut client = database.connect("app");
    let pid = backend_pid(&mut client);
    let mut visited = 0;
    for visits in [0, 1, 10, 100, 1000, 3000].into_iter().filter(|visits| *visits <= tenants) {
        let (_, taken) =
            timed(|| (visited + 1..=visits).for_each(|number| request(&mut client, &format!("t-{number}"))));
        let new = visits - visited;
        visited = visits;
        let own = own_memory(pid);
        let caches = one::<i64>(&mut client, CACHES, &[]) / 1024;
        let each = taken / u32::try_from(new.max(1)).expect("a number");
        say(
            &format!("a session that has served {visits} tenants"),
            format!("{own} kB of its own, caches {caches} kB; a tenant's first request {each:.1?}"),
        );
    }
    let again = timed(|| request(&mut client, "t-1")).1;
    say("a tenant's next request", format!("{again:.1?}"));
}

fn own_memory(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").to_owned()
}

fn print_dumps(database: &Database) {
    let one_schema = ["-n", "tenant_1"];
    for (what, arguments) in [
        ("pg_dump -n of a tenant", &one_schema[..]),
        ("pg_dump of everything", &[]),
        ("pg_dump --schema-only of everything", &["--schema-only"]),
    ] {
        let mut pg_dump = database.tool("pg_dump", "postgres");
        let begin = Instant::now();
        let mut child = pg_dump.args(arguments).args(["-f", "/dev/null"]).spawn().expect("start pg_dump");
        let mut superuser = database.superuser();
        let mut locks = 0;
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for pg_dump") {
                break status;
            }
            const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE pid = (SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_dump' LIMIT 1)";
            locks = locks.max(one::<i64>(&mut superuser, LOCKS, &[]));
            std::thread::sleep(Duration::from_millis(100));
        };
        assert!(status.success(), "{what}");
        say(what, format!("{:.1?}, {locks} locks", begin.elapsed()));
    }
}

fn print_operators(database: &Database) {
    let mut admin = database.connect("admin");
    let mut monitor = database.connect("monitor");
    let mut operator = database.connect("operator");
    let (rows, taken) = timed(|| count(&mut monitor, "tenant_statistics()"));
    say("tenant_statistics()", format!("{taken:.1?}, {rows} rows"));
    let (rows, taken) = timed(|| count(&mut monitor, "maintenance_commands('ANALYZE')"));
    say("maintenance_commands()", format!("{taken:.1?}, {rows} rows"));
    let (rows, taken) = timed(|| count(&mut operator, "tenancy.schema_drift"));
    say("tenancy.schema_drift", format!("{taken:.1?}, {rows} rows"));
    admin.batch_execute("SELECT add_migration('crm', '002', 'ALTER TABLE contacts ADD COLUMN rank integer NOT NULL DEFAULT 0; CREATE INDEX ON contacts (rank)')").expect("add");
    let (result, taken) = timed(|| admin.batch_execute("CALL migrate_tenants('crm', workers => 2)"));
    result.expect("migrate");
    say("migrate_tenants, a column and an index, 2 workers", format!("{taken:.1?}"));
    let (result, taken) = timed(|| admin.batch_execute("CALL migrate_tenants('crm')"));
    result.expect("migrate");
    say("migrate_tenants, nothing to do", format!("{taken:.1?}"));
    let drop = "SELECT delete_tenant_schema(find_tenant('t-2'))";
    let (result, taken) = timed(|| admin.batch_execute(drop));
    result.expect("delete");
    say("delete_tenant_schema", format!("{taken:.1?}"));
}

/// How long a worker of autovacuum takes to find nothing to do, and three of them for a table of each tenant.
fn print_autovacuum(database: &Database, tenants: usize) {
    const WORKERS: &str =
        "SELECT pid, extract(epoch FROM clock_timestamp() - backend_start)::float8 FROM pg_stat_activity
        WHERE backend_type = 'autovacuum worker' AND datname = current_database()";
    const ANALYZED: &str =
        "SELECT count(*) FROM pg_stat_all_tables WHERE relname = 'contacts' AND autoanalyze_count > 0";
    let mut superuser = database.superuser();
    let rows_each = "DO $$ BEGIN FOR number IN 1 .. $number LOOP
            IF to_regnamespace('tenant_' || number) IS NOT NULL THEN
                EXECUTE format('INSERT INTO tenant_%s.contacts (first_name, last_name) SELECT ''a'', ''b'' FROM generate_series(1, 200)', number);
            END IF;
            COMMIT;
        END LOOP; END $$"
        .replace("$number", &tenants.to_string());
    let (_, taken) = timed(|| superuser.batch_execute(&rows_each).expect("insert"));
    say("200 contacts for each, one session", format!("{taken:.1?}"));
    superuser.batch_execute("SELECT pg_stat_force_next_flush()").expect("flush");
    let begin = Instant::now();
    const OF_TENANTS: &str =
        "SELECT count(*) FROM pg_stat_all_tables WHERE relname = 'contacts' AND schemaname LIKE 'tenant\\_%'";
    let schemas = count_of(&mut superuser, OF_TENANTS);
    while count_of(&mut superuser, ANALYZED) < schemas && begin.elapsed() < Duration::from_secs(600) {
        std::thread::sleep(Duration::from_millis(500));
    }
    let analyzed = count_of(&mut superuser, ANALYZED);
    say("autovacuum until every contacts is analyzed", format!("{:.0?} for {analyzed}", begin.elapsed()));
    let mut longest: std::collections::HashMap<i32, f64> = std::collections::HashMap::new();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        for row in rows(&mut superuser, WORKERS, &[]) {
            longest.insert(row.get(0), row.get(1));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut lives: Vec<f64> = longest.into_values().collect();
    lives.sort_by(f64::total_cmp);
    let shown: Vec<String> = lives.iter().map(|life| format!("{life:.2}")).collect();
    say("lives of autovacuum's workers afterwards, in s", shown.join(" "));
    let size: i64 = one(&mut superuser, "SELECT pg_database_size(current_database())", &[]);
    say("the database then", format!("{} MB", size / MEGABYTE));
    let (_, taken) = timed(|| superuser.batch_execute("VACUUM (ANALYZE)").expect("vacuum"));
    say("VACUUM ANALYZE of everything, one session", format!("{taken:.1?}"));
}

fn count_of(client: &mut Client, query: &str) -> i64 {
    one(client, query, &[])
}
