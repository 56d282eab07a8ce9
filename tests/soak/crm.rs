//! Many tenants of `examples/crm`.

use harness::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// A database with the template of the example.
pub fn template(cluster: &Cluster) -> Database {
    let database = cluster.database("crm");
    let mut psql = database.tool("psql", "postgres");
    psql.args(["-X", "-q"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/crm"));
    for role in ["owner", "app", "operator", "admin"] {
        psql.args(["-v", &format!("{role}={role}")]);
    }
    run(psql.args(["-f", "install.sql"]));
    database
}

/// Creates tenants `t-1` ... with schemas `tenant_1` ..., a transaction each; how long each took.
pub fn create(database: &Database, tenants: usize) -> Vec<Duration> {
    let mut operator = database.connect("operator");
    let create = |number| {
        let create = format!(
            "SELECT create_tenant('Tenant {number}', slug => 't-{number}', isolation => 'schema', template => 'crm', schema_name => 'tenant_{number}')"
        );
        let begin = Instant::now();
        operator.batch_execute(&create).expect("create a tenant");
        begin.elapsed()
    };
    (1..=tenants).map(create).collect()
}

/// The middle of the first hundred of such measurements, and of the last.
pub fn first_and_last(taken: &[Duration]) -> [Duration; 2] {
    let median = |hundred: &[Duration]| {
        let mut sorted = hundred.to_vec();
        sorted.sort();
        sorted[sorted.len() / 2]
    };
    let hundred = taken.len().min(100);
    [median(&taken[..hundred]), median(&taken[taken.len() - hundred..])]
}
