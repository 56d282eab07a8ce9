//! What many tests begin with.

use crate::asserts::one;
use crate::database::Database;
use postgres::{Client, GenericClient, Transaction};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A user's table, made by the role `owner`, that `app` and `client` may read and write.
const NOTES: &str = "
CREATE TABLE notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid,
    body text
);
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO app, client;
";

/// Creates `n` tenants through a session of level operator and gives their ids.
#[track_caller]
pub fn tenants(operator: &mut impl GenericClient, n: usize) -> Vec<Uuid> {
    (0..n).map(|_| tenant(operator)).collect()
}

/// Creates a tenant of a name that no other test of this process uses.
#[track_caller]
pub fn tenant(operator: &mut impl GenericClient) -> Uuid {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("Tenant {}", NEXT.fetch_add(1, Ordering::Relaxed));
    one(operator, "SELECT create_tenant($1)", &[&name])
}

/// Creates the table `notes(id, tenant_id uuid, body)` as `owner` and protects it as `admin`.
#[track_caller]
pub fn protected_table(database: &Database) {
    database.connect("owner").batch_execute(NOTES).expect("create the table notes");
    assert!(one::<bool>(&mut database.connect("admin"), "SELECT protect_table('notes')", &[]));
}

/// Binds the open transaction to a tenant by `set_tenant`.
#[track_caller]
pub fn bind(transaction: &mut Transaction<'_>, tenant: Uuid) {
    let bound: Uuid = one(transaction, "SELECT set_tenant($1)", &[&tenant]);
    assert_eq!(bound, tenant);
}

/// Does `work` in a transaction of this tenant, and commits it.
#[track_caller]
pub fn as_tenant<T>(client: &mut Client, tenant: Uuid, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
    let mut transaction = client.transaction().expect("begin");
    bind(&mut transaction, tenant);
    let result = work(&mut transaction);
    transaction.commit().expect("commit");
    result
}

/// The process id of the session's backend.
#[track_caller]
pub fn backend_pid(client: &mut impl GenericClient) -> i32 {
    one(client, "SELECT pg_backend_pid()", &[])
}

/// Waits until `condition` holds, for at most a minute; `what` names it when it does not come.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited a minute in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the backend `pid` waits for a lock, as any other session sees it.
#[track_caller]
pub fn wait_for_lock(observer: &mut impl GenericClient, pid: i32) {
    const WAITS: &str = "SELECT count(*) > 0 FROM pg_locks WHERE pid = $1 AND NOT granted";
    wait_until(&format!("backend {pid} waits for a lock"), || one(observer, WAITS, &[&pid]));
}
