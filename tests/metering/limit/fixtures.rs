//! A limited table, and what must hold of it.

use harness::*;

/// Agents of tenants, of which those that are active count.
const AGENTS: &str = "
CREATE TABLE agents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid,
    name text,
    status text NOT NULL DEFAULT 'active',
    UNIQUE (tenant_id, name)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON agents TO app, client;
";

/// The rows that count, as they are: what counters are compared with.
pub const ACTUAL: &str = "SELECT count(*) FROM agents WHERE tenant_id = $1 AND status = 'active'";
/// What the counter says, if there is one that is valid.
pub const COUNTED: &str =
    "SELECT used FROM tenancy.row_counters c JOIN tenancy.limited_resources r USING (resource, version)
    WHERE tenant_id = $1 AND resource = $2";

/// A database with the limited table.
pub struct Shop {
    pub database: Database,
}

impl Shop {
    pub fn new(label: &str) -> Shop {
        Shop::in_database(Database::new(label))
    }

    pub fn in_database(database: Database) -> Shop {
        database.connect("owner").batch_execute(AGENTS).expect("create agents");
        let mut admin = database.connect("admin");
        assert!(one::<bool>(&mut admin, "SELECT protect_table('agents')", &[]));
        assert!(one::<bool>(&mut admin, "SELECT limit_table('agents', 'agents', $$status = 'active'$$)", &[]));
        Shop { database }
    }

    pub fn connect(&self, role: &str) -> Client {
        self.database.connect(role)
    }

    /// A tenant that may have this many agents; None for any number.
    #[track_caller]
    pub fn tenant(&self, max: Option<i32>) -> Uuid {
        let id = tenant(&mut self.connect("operator"));
        self.set_limit(id, "agents", max);
        id
    }

    #[track_caller]
    pub fn set_limit(&self, tenant: Uuid, resource: &str, max: Option<i32>) {
        const SET: &str = "SELECT set_tenant_limit($1, $2, $3::int4::numeric)";
        let _: String = one(&mut self.connect("operator"), SET, &[&tenant, &resource, &max]);
    }

    /// How many of the tenant's agents count.
    #[track_caller]
    pub fn actual(&self, tenant: Uuid) -> i64 {
        one(&mut self.database.superuser(), ACTUAL, &[&tenant])
    }

    /// The counter.
    #[track_caller]
    pub fn counted(&self, tenant: Uuid) -> Option<i64> {
        optional(&mut self.database.superuser(), COUNTED, &[&tenant, &"agents"])
    }

    /// Fails unless the counter, where there is one, is the number of rows. Gives that.
    #[track_caller]
    pub fn check(&self, tenant: Uuid) -> i64 {
        let actual = self.actual(tenant);
        if let Some(counted) = self.counted(tenant) {
            assert_eq!(counted, actual, "the counter is not the number of rows");
        }
        actual
    }
}

/// Runs a statement in a transaction of the tenant, which commits: the rows it touched.
#[track_caller]
pub fn run_as(client: &mut Client, tenant: Uuid, sql: &str) -> u64 {
    as_tenant(client, tenant, |transaction| match transaction.execute(sql, &[]) {
        Ok(rows) => rows,
        Err(error) => panic!("{sql}: {:?}", error.as_db_error()),
    })
}

/// The error of such a statement; nothing of it stays.
#[track_caller]
pub fn refused(client: &mut Client, tenant: Uuid, sql: &str, sqlstate: &str) -> DbError {
    let mut transaction = client.transaction().expect("begin");
    bind(&mut transaction, tenant);
    let fault = fails(transaction.batch_execute(sql), sqlstate);
    transaction.rollback().expect("roll back");
    fault
}
