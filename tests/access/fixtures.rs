//! What the tests of people and credentials share.

use harness::postgres::types::ToSql;
use harness::postgres::{Error, IsolationLevel, Row};
use harness::{
    Client, Database, GenericClient, Transaction, Uuid, as_tenant, backend_pid, bind, count, one, rows, simple,
    wait_until,
};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// The four roles that are always there, from the highest rank down.
pub const ROLES: [&str; 4] = ["owner", "admin", "member", "viewer"];

/// Everything that people, credentials and the audit log consist of: what must not change when a call fails.
const STORED: &str = "
    SELECT to_jsonb(t) FROM tenancy.users t ORDER BY id;
    SELECT to_jsonb(t) FROM tenancy.memberships t ORDER BY tenant_id, user_id;
    SELECT to_jsonb(t) FROM tenancy.added_roles t ORDER BY role;
    SELECT to_jsonb(t) FROM tenancy.stored_invitations t ORDER BY id;
    SELECT to_jsonb(t) FROM tenancy.stored_api_keys t ORDER BY id;
    SELECT to_jsonb(t) FROM tenancy.stored_jwt_keys t ORDER BY kid;
    SELECT to_jsonb(t) FROM tenancy.tenants t ORDER BY id;
    SELECT to_jsonb(t) FROM tenancy.audit_log t ORDER BY id";

/// An e-mail address that no other test of this process uses.
pub fn email() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("user{}@example.com", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a user of many tenants, through a session of level app.
#[track_caller]
pub fn user(app: &mut impl GenericClient) -> Uuid {
    one(app, "SELECT create_user($1)", &[&email()])
}

/// Creates a user and makes them a member of the tenant; the backend itself does, bound without a user.
#[track_caller]
pub fn member(app: &mut Client, tenant: Uuid, role: &str) -> Uuid {
    as_tenant(app, tenant, |tx| {
        let user = user(tx);
        one(tx, "SELECT add_member($1, $2)", &[&user, &role])
    })
}

/// One query in a transaction of its own, by default of level app, READ COMMITTED, and with no tenant bound.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    sql: &'a str,
    parameters: &'a [&'a (dyn ToSql + Sync)],
    role: &'a str,
    isolation: IsolationLevel,
    tenant: Option<Uuid>,
    user: Option<Uuid>,
}

impl<'a> Call<'a> {
    pub fn new(sql: &'a str, parameters: &'a [&'a (dyn ToSql + Sync)]) -> Call<'a> {
        let isolation = IsolationLevel::ReadCommitted;
        Call { sql, parameters, role: "app", isolation, tenant: None, user: None }
    }

    /// Bound to a tenant, the backend itself acting (`user` None) or a member.
    pub fn bound(self, tenant: Uuid, user: Option<Uuid>) -> Call<'a> {
        Call { tenant: Some(tenant), user, ..self }
    }

    /// In a session of this role, where the call has one of its own.
    pub fn by(self, role: &'a str) -> Call<'a> {
        Call { role, ..self }
    }

    pub fn isolated(self, isolation: IsolationLevel) -> Call<'a> {
        Call { isolation, ..self }
    }

    /// Runs it, and leaves the transaction open.
    fn begin<'c>(&self, client: &'c mut Client) -> Result<(Transaction<'c>, Vec<Row>), Error> {
        let mut transaction = client.build_transaction().isolation_level(self.isolation).start()?;
        if let Some(tenant) = self.tenant {
            transaction.query("SELECT set_tenant($1, $2)", &[&tenant, &self.user])?;
        }
        let rows = transaction.query(self.sql, self.parameters)?;
        Ok((transaction, rows))
    }

    /// Runs and commits it.
    pub fn run(&self, client: &mut Client) -> Result<Vec<Row>, Error> {
        let (transaction, rows) = self.begin(client)?;
        transaction.commit()?;
        Ok(rows)
    }
}

/// Runs one query as the backend (`user` None) or as a member, in a transaction of its own, which commits when it succeeds.
pub fn attempt(
    app: &mut Client,
    tenant: Uuid,
    user: Option<Uuid>,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    Call::new(sql, parameters).bound(tenant, user).run(app)
}

/// The SQLSTATE of a call; 00000 when it succeeded.
pub fn sqlstate<T>(result: &Result<T, Error>) -> String {
    match result {
        Ok(_) => "00000".to_owned(),
        Err(error) => error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned()),
    }
}

/// Runs `first`, then `second` in another session until that waits for a lock or is done, then commits `first`, which must
/// succeed; how `second` ended.
#[track_caller]
pub fn behind(database: &Database, first: Call<'_>, second: Call<'_>) -> Result<Vec<Row>, Error> {
    let [mut leader, mut follower] = [first.role, second.role].map(|role| database.connect(role));
    let mut observer = database.superuser();
    let waits = format!("pg_locks WHERE pid = {} AND NOT granted", backend_pid(&mut follower));
    let (transaction, _) = first.begin(&mut leader).expect("the first of two calls");
    thread::scope(|scope| {
        let following = scope.spawn(|| second.run(&mut follower));
        wait_until("the second call waits or is done", || following.is_finished() || count(&mut observer, &waits) > 0);
        transaction.commit().expect("commit the first of two calls");
        following.join().expect("the second call's thread")
    })
}

/// Runs calls at once, each in a session and a transaction of its own; how each ended.
#[track_caller]
pub fn at_once(database: &Database, calls: &[Call<'_>]) -> Vec<Result<Vec<Row>, Error>> {
    let start = Barrier::new(calls.len());
    thread::scope(|scope| {
        let run = |call: &Call<'_>| {
            let mut client = database.connect(call.role);
            start.wait();
            call.run(&mut client)
        };
        let running: Vec<_> = calls.iter().map(|call| scope.spawn(move || run(call))).collect();
        running.into_iter().map(|running| running.join().expect("a call's thread")).collect()
    })
}

/// The role of a user in a tenant, as an operator sees it.
#[track_caller]
pub fn role_of(operator: &mut Client, tenant: Uuid, user: Uuid) -> Option<String> {
    const ROLE: &str = "SELECT role FROM tenancy.memberships WHERE tenant_id = $1 AND user_id = $2";
    harness::optional(operator, ROLE, &[&tenant, &user])
}

/// An API key as `create_api_key` gives it, once.
pub struct ApiKey {
    pub id: Uuid,
    pub text: String,
    pub prefix: String,
}

impl ApiKey {
    /// From a row of `create_api_key` or `rotate_api_key`.
    pub fn from(row: &Row) -> ApiKey {
        ApiKey { id: row.get("key_id"), text: row.get("api_key"), prefix: row.get("key_prefix") }
    }
}

/// Creates an API key of the tenant; without a user it acts for the tenant, without a role.
#[track_caller]
pub fn api_key(app: &mut Client, tenant: Uuid, user: Option<Uuid>, scopes: &[&str]) -> ApiKey {
    as_tenant(app, tenant, |tx| {
        let made = rows(tx, "SELECT * FROM create_api_key('test', $1, user_id => $2)", &[&scopes, &user]);
        ApiKey::from(&made[0])
    })
}

/// Binds the open transaction by an API key; the role it binds.
#[track_caller]
pub fn bind_by_key(transaction: &mut Transaction<'_>, key: &str) -> Option<String> {
    one(transaction, "SELECT role FROM authenticate_api_key($1)", &[&key])
}

/// An invitation as `create_invitation` gives it, once.
pub struct Invitation {
    pub id: Uuid,
    pub token: String,
}

impl Invitation {
    /// From a row of `create_invitation`.
    pub fn from(row: &Row) -> Invitation {
        Invitation { id: row.get("invitation_id"), token: row.get("token") }
    }
}

/// Invites an address to the tenant; the backend itself does, bound without a user.
#[track_caller]
pub fn invitation(app: &mut Client, tenant: Uuid, email: &str, role: &str) -> Invitation {
    as_tenant(app, tenant, |tx| {
        Invitation::from(&rows(tx, "SELECT * FROM create_invitation($1, $2)", &[&email, &role])[0])
    })
}

/// Adds an HS256 key that signs tokens, through a session of level admin.
#[track_caller]
pub fn signing_key(admin: &mut Client, kid: &str) {
    assert_eq!(one::<String>(admin, "SELECT add_jwt_key($1, 'HS256')", &[&kid]), kid);
}

/// A token for a member of the tenant, signed by the newest key.
#[track_caller]
pub fn token(app: &mut Client, tenant: Uuid, user: Uuid) -> String {
    as_tenant(app, tenant, |tx| one(tx, "SELECT issue_jwt($1)", &[&user]))
}

/// All that is stored of people, credentials, tenants, and what the audit log tells.
#[track_caller]
pub fn stored(superuser: &mut Client) -> Vec<Vec<Option<String>>> {
    simple(superuser, STORED)
}

/// Runs calls that must fail in a transaction bound to `tenant` (None: unbound), each with its SQLSTATE; nothing is written,
/// and the session goes on.
#[track_caller]
pub fn all_fail(database: &Database, role: &str, tenant: Option<Uuid>, calls: &[(&str, &str)]) {
    let mut superuser = database.superuser();
    let mut client = database.connect(role);
    let before = stored(&mut superuser);
    for (call, sqlstate) in calls {
        let mut transaction = client.transaction().expect("begin");
        if let Some(tenant) = tenant {
            bind(&mut transaction, tenant);
        }
        let result = transaction.batch_execute(&format!("SELECT * FROM {call}"));
        transaction.commit().expect("end the transaction");
        let shown: String = call.chars().take(200).collect();
        assert_eq!(self::sqlstate(&result), *sqlstate, "{shown}: {result:?}");
        let message = result.err().and_then(|error| Some(error.as_db_error()?.message().len()));
        assert!(message.is_some_and(|length| length < 1000), "{shown}: a message of {message:?} bytes");
        assert_eq!(one::<i32>(&mut client, "SELECT 1", &[]), 1, "the backend lives after {shown}");
    }
    assert_eq!(stored(&mut superuser), before, "something was written");
}
