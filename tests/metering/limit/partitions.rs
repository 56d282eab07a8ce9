//! Partitions at every level, children, and referential actions.

use super::fixtures::*;
use harness::*;

/// Jobs by region, those of europe by priority; only open ones count.
const JOBS: &str = "
CREATE TABLE jobs (tenant_id uuid, region text NOT NULL, priority int NOT NULL DEFAULT 1, state text NOT NULL DEFAULT 'open') PARTITION BY LIST (region);
CREATE TABLE jobs_asia PARTITION OF jobs FOR VALUES IN ('asia');
CREATE TABLE jobs_europe PARTITION OF jobs FOR VALUES IN ('europe') PARTITION BY RANGE (priority);
CREATE TABLE jobs_europe_low PARTITION OF jobs_europe FOR VALUES FROM (0) TO (5);
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs, jobs_asia, jobs_europe, jobs_europe_low TO app;
";
const OPEN: &str = "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state = 'open'";

fn works(label: &str, max: i32) -> (Shop, Uuid) {
    let database = Database::new(label);
    database.connect("owner").batch_execute(JOBS).expect("create jobs");
    let mut admin = database.connect("admin");
    assert!(one::<bool>(&mut admin, "SELECT protect_table('jobs')", &[]));
    assert!(one::<bool>(&mut admin, "SELECT limit_table('jobs', 'jobs', $$state = 'open'$$)", &[]));
    assert!(!one::<bool>(&mut admin, "SELECT limit_table('jobs', 'jobs', $$state = 'open'$$)", &[]));
    let shop = Shop { database };
    let tenant = tenant(&mut shop.connect("operator"));
    shop.set_limit(tenant, "jobs", Some(max));
    (shop, tenant)
}

#[track_caller]
fn check(shop: &Shop, tenant: Uuid, rows: i64) {
    let mut superuser = shop.database.superuser();
    let actual: i64 = one(&mut superuser, OPEN, &[&tenant]);
    assert_eq!(actual, rows);
    let counted: Option<i64> = optional(&mut superuser, COUNTED, &[&tenant, &"jobs"]);
    assert!(counted.is_none_or(|counted| counted == rows), "counted {counted:?} of {rows}");
}

#[test]
fn rows_count_once_on_whatever_level_they_are_written() {
    let (shop, tenant) = works("limit_levels", 4);
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO jobs (region) VALUES ('asia'), ('europe')");
    run_as(&mut app, tenant, "INSERT INTO jobs_europe (region) VALUES ('europe')");
    run_as(&mut app, tenant, "INSERT INTO jobs_europe_low (region) VALUES ('europe')");
    check(&shop, tenant, 4);
    for table in ["jobs", "jobs_europe", "jobs_europe_low"] {
        refused(&mut app, tenant, &format!("INSERT INTO {table} (region) VALUES ('europe')"), "54000");
    }
    // From one partition to another, which is a delete and an insert.
    assert_eq!(run_as(&mut app, tenant, "UPDATE jobs SET region = 'asia' WHERE region = 'europe'"), 3);
    assert_eq!(run_as(&mut app, tenant, "UPDATE jobs SET region = 'europe', state = 'done'"), 4);
    check(&shop, tenant, 0);
    refused(&mut app, tenant, "INSERT INTO jobs SELECT FROM generate_series(1, 5)", "23514");
    run_as(&mut app, tenant, "UPDATE jobs_europe SET state = 'open'");
    refused(&mut app, tenant, "INSERT INTO jobs_asia (region) VALUES ('asia')", "54000");
    run_as(&mut app, tenant, "DELETE FROM jobs_europe_low");
    check(&shop, tenant, 0);
}

#[test]
fn partitions_that_come_are_limited_and_those_that_go_are_not_counted() {
    let (shop, tenant) = works("limit_attach", 3);
    let mut app = shop.connect("app");
    let mut owner = shop.connect("owner");
    run_as(&mut app, tenant, "INSERT INTO jobs (region) VALUES ('asia')");
    let mut ddl = |sql: &str| owner.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    ddl(
        "CREATE TABLE jobs_europe_high PARTITION OF jobs_europe FOR VALUES FROM (5) TO (10); GRANT ALL ON jobs_europe_high TO app",
    );
    run_as(&mut app, tenant, "INSERT INTO jobs_europe_high (region, priority) VALUES ('europe', 7)");
    check(&shop, tenant, 2);
    // With rows of its own.
    ddl("CREATE TABLE jobs_africa (LIKE jobs INCLUDING DEFAULTS); GRANT ALL ON jobs_africa TO app");
    shop.database
        .superuser()
        .execute(
            "INSERT INTO jobs_africa (tenant_id, region) SELECT $1, 'africa' FROM generate_series(1, 2)",
            &[&tenant],
        )
        .expect("fill");
    ddl("ALTER TABLE jobs ATTACH PARTITION jobs_africa FOR VALUES IN ('africa')");
    refused(&mut app, tenant, "INSERT INTO jobs (region) VALUES ('asia')", "54000");
    refused(&mut app, tenant, "INSERT INTO jobs_africa (region) VALUES ('africa')", "54000");
    ddl("DROP TABLE jobs_africa");
    run_as(&mut app, tenant, "INSERT INTO jobs (region) VALUES ('asia')");
    refused(&mut app, tenant, "INSERT INTO jobs (region) VALUES ('asia')", "54000");
    check(&shop, tenant, 3);
    let limited =
        "SELECT string_agg(table_name::text, ' ' ORDER BY table_name::text) FROM tenancy.limited_tables WHERE intact";
    let tables: String = one(&mut shop.connect("monitor"), limited, &[]);
    assert_eq!(tables, "jobs jobs_asia jobs_europe jobs_europe_high jobs_europe_low");
}

#[test]
fn deletes_that_cascade_make_room() {
    let shop = Shop::new("limit_cascade");
    shop.database
        .superuser()
        .batch_execute(
            "CREATE TABLE teams (id int, tenant_id uuid, UNIQUE (tenant_id, id));
             ALTER TABLE agents ADD team int, ADD FOREIGN KEY (tenant_id, team) REFERENCES teams (tenant_id, id) ON DELETE CASCADE;
             ALTER TABLE teams OWNER TO owner; GRANT ALL ON teams TO app",
        )
        .expect("create teams");
    assert!(one::<bool>(&mut shop.connect("admin"), "SELECT protect_table('teams')", &[]));
    let tenant = shop.tenant(Some(6));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO teams VALUES (1), (2), (3)");
    run_as(&mut app, tenant, "INSERT INTO agents (team) SELECT n % 3 + 1 FROM generate_series(1, 6) n");
    refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
    run_as(&mut app, tenant, "DELETE FROM teams WHERE id < 3");
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (2, Some(2)));
}
