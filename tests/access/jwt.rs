//! Signed tokens: which are believed, what they bind, and the keys behind them.

mod algorithms;
mod claims;
mod forgery;
mod fuzz;
mod interop;
mod issue;
mod keys;
mod principals;
mod revocation;
mod signer;
mod specimens;

use crate::access::fixtures::{member, user};
use harness::postgres::{Error, Row};
use harness::*;
use serde_json::{Value, json};
use signer::SigningKey;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const AUTHENTICATE: &str = "SELECT tenant_id, user_id, role, api_key_id, scopes FROM authenticate_jwt($1)";
const ADD_KEY: &str = "SELECT add_jwt_key($1, $2, $3)";

/// Seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("before the end of time")
}

/// A kid that no other key has.
fn new_kid() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("kid-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Who a token is.
#[derive(Debug, PartialEq)]
struct Principal {
    tenant: Uuid,
    user: Option<Uuid>,
    role: Option<String>,
    api_key: Option<Uuid>,
    scopes: Option<Vec<String>>,
}

impl Principal {
    fn from(row: &Row) -> Principal {
        Principal { tenant: row.get(0), user: row.get(1), role: row.get(2), api_key: row.get(3), scopes: row.get(4) }
    }

    /// A user whose token names no scopes.
    fn of(tenant: Uuid, user: Uuid, role: &str) -> Principal {
        Principal { tenant, user: Some(user), role: Some(role.to_owned()), api_key: None, scopes: None }
    }
}

/// Authenticates in a transaction of its own.
fn authenticate(client: &mut Client, token: &str) -> Result<Principal, Error> {
    let mut transaction = client.transaction()?;
    let rows = transaction.query(AUTHENTICATE, &[&token])?;
    assert_eq!(rows.len(), 1, "one row, or an error");
    let principal = Principal::from(&rows[0]);
    let bound = one::<Uuid>(&mut transaction, "SELECT current_tenant()", &[]);
    assert_eq!(bound, principal.tenant, "what is bound is what was answered");
    transaction.commit()?;
    Ok(principal)
}

/// The token is believed.
#[track_caller]
fn admits(client: &mut Client, token: &str) -> Principal {
    match authenticate(client, token) {
        Ok(principal) => principal,
        Err(error) => panic!("a good token was refused: {error:?}"),
    }
}

/// The token is refused, and nobody is told more than that.
#[track_caller]
fn refuses(client: &mut Client, token: &str) {
    let fault = fails(authenticate(client, token), "28000");
    assert_eq!(fault.message(), "invalid token");
    assert_eq!(fault.detail(), None);
    assert_eq!(one::<Option<Uuid>>(client, "SELECT current_tenant_or_null()", &[]), None);
}

/// Two tenants with a member each, sessions of the roles, and an HS256 key.
struct Desk {
    admin: Client,
    operator: Client,
    app: Client,
    client: Client,
    monitor: Client,
    /// Ada's tenant.
    tenant: Uuid,
    /// A member of `tenant`, with the role `member`.
    ada: Uuid,
    /// Bob's tenant.
    other: Uuid,
    /// A member of `other`, with the role `member`.
    bob: Uuid,
    key: SigningKey,
    kid: String,
    /// Last: a database without sessions is dropped at once.
    database: Database,
}

impl Desk {
    #[track_caller]
    fn new(label: &str) -> Desk {
        let database = Database::new(label);
        let (admin, client, monitor) =
            (database.connect("admin"), database.connect("client"), database.connect("monitor"));
        let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
        let (tenant, other) = (harness::tenant(&mut operator), harness::tenant(&mut operator));
        let (ada, bob) = (member(&mut app, tenant, "member"), member(&mut app, other, "member"));
        let (key, kid) = (SigningKey::generate("HS256"), new_kid());
        let mut desk = Desk { database, admin, operator, app, client, monitor, tenant, ada, other, bob, key, kid };
        let (kid, key) = (desk.kid.clone(), desk.key.verifying_key());
        desk.add_key(&kid, "HS256", &key);
        desk
    }

    /// Adds a key that verifies.
    #[track_caller]
    fn add_key(&mut self, kid: &str, algorithm: &str, key: &str) {
        assert_eq!(one::<String>(&mut self.admin, ADD_KEY, &[&kid, &algorithm, &key]), kid);
    }

    /// Adds a fresh key of this algorithm that verifies; it, and its kid.
    #[track_caller]
    fn new_key(&mut self, algorithm: &'static str) -> (SigningKey, String) {
        let (key, kid) = (SigningKey::generate(algorithm), new_kid());
        self.add_key(&kid, algorithm, &key.verifying_key());
        (key, kid)
    }

    /// What a token for Ada in her tenant says, for ten minutes.
    fn claims(&self) -> Value {
        claims_of(&self.tenant.to_string(), &self.ada.to_string())
    }

    /// The same with other claims put over it.
    fn claims_with(&self, others: Value) -> Value {
        let mut claims = self.claims();
        let others = others.as_object().expect("claims are an object").clone();
        claims.as_object_mut().expect("claims are an object").extend(others);
        claims
    }

    fn claims_without(&self, name: &str) -> Value {
        let mut claims = self.claims();
        claims.as_object_mut().expect("claims are an object").remove(name).expect("the claim was there");
        claims
    }

    /// A token of the desk's own key.
    fn token(&self, claims: &Value) -> String {
        self.key.token(Some(&self.kid), claims)
    }

    /// A token of the desk's own key, the payload being any text.
    fn token_of(&self, payload: impl AsRef<[u8]>) -> String {
        self.key.seal(json!({ "alg": "HS256", "kid": self.kid }).to_string(), payload)
    }

    /// What Ada's tokens without scopes bind.
    fn ada(&self) -> Principal {
        Principal::of(self.tenant, self.ada, "member")
    }

    /// A client's session believes the token.
    #[track_caller]
    fn admits(&mut self, token: &str) -> Principal {
        admits(&mut self.client, token)
    }

    /// A client's session refuses the token, and the refusal is counted by this reason, under the kid if that is known.
    #[track_caller]
    fn refuses(&mut self, token: &str, kid: Option<&str>, reason: &str) {
        let before = self.failed(kid, reason);
        refuses(&mut self.client, token);
        let after = self.failed(kid, reason);
        assert_eq!(after, before + 1, "refusals counted as {reason}: {:?}", self.reasons(kid));
    }

    /// The same for tokens of the desk's own key.
    #[track_caller]
    fn refuses_own(&mut self, token: &str, reason: &str) {
        let kid = self.kid.clone();
        self.refuses(token, Some(&kid), reason);
    }

    fn failed(&mut self, kid: Option<&str>, reason: &str) -> i64 {
        self.reasons(kid).into_iter().find_map(|(found, attempts)| (found == reason).then_some(attempts)).unwrap_or(0)
    }

    /// How many tokens were refused under this kid, by reason.
    fn reasons(&mut self, kid: Option<&str>) -> Vec<(String, i64)> {
        const REASONS: &str = "SELECT reason, attempts FROM tenancy.failed_attempts
            WHERE credential = 'jwt' AND prefix IS NOT DISTINCT FROM $1 ORDER BY reason";
        rows(&mut self.monitor, REASONS, &[&kid]).iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Changes a setting for the database, and opens the sessions of `app` and `client` anew.
    #[track_caller]
    fn set(&mut self, name: &str, value: &str) {
        let set = format!("ALTER DATABASE {} SET {name} = '{value}'", self.database.name());
        self.database.superuser().batch_execute(&set).expect("change a setting");
        self.app = self.database.connect("app");
        self.client = self.database.connect("client");
    }

    /// A user of many tenants who is a member of none.
    #[track_caller]
    fn outsider(&mut self) -> Uuid {
        user(&mut self.app)
    }

    /// Puts a tenant into a state, by hand where no function leads there.
    #[track_caller]
    fn put_into_state(&mut self, tenant: Uuid, state: &str) {
        let changed = self
            .database
            .superuser()
            .execute("UPDATE tenancy.tenants SET status = $2 WHERE id = $1", &[&tenant, &state])
            .expect("change the state");
        assert_eq!(changed, 1);
    }
}

/// What a token says that is valid for ten minutes.
fn claims_of(tenant: &str, user: &str) -> Value {
    json!({ "sub": user, "tenant_id": tenant, "iat": now(), "exp": now() + 600 })
}

#[test]
fn no_token_that_is_changed_at_random_is_believed() {
    fuzz::survive(3000);
}
