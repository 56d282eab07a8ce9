//! Many sessions that change the same few people at once, at random. Whatever they do, each call ends as it may, and the state
//! stays legal: an owner in each tenant, no role that does not exist, no key of who is no member.

use harness::postgres::types::ToSql;
use harness::postgres::{Error, IsolationLevel, Row};
use harness::{Client, Database, Random, Uuid, as_tenant, count, one, rows, tenants};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Every way in which a call may end; above all not by a deadlock (40P01).
const OUTCOMES: [&str; 8] = ["00000", "22023", "23505", "25006", "28000", "42501", "55000", "P0002"];
const TRY_AGAIN: &str = "40001";

const ROLES: [&str; 5] = ["owner", "admin", "member", "viewer", "passing"];
const TENANTS: usize = 2;
const PEOPLE: usize = 5;

/// What must be empty whenever one looks.
const ILLEGAL: [&str; 6] = [
    "tenancy.tenants t WHERE NOT EXISTS (SELECT FROM tenancy.memberships m WHERE m.tenant_id = t.id AND m.role = 'owner')",
    "tenancy.memberships m WHERE m.role NOT IN (SELECT role FROM tenancy.roles)",
    "tenancy.memberships m WHERE m.user_id NOT IN (SELECT id FROM tenancy.users)",
    "tenancy.stored_api_keys k WHERE k.revoked_at IS NULL AND k.user_id IS NOT NULL
        AND (k.tenant_id, k.user_id) NOT IN (SELECT tenant_id, user_id FROM tenancy.memberships)",
    "(SELECT FROM tenancy.stored_invitations WHERE accepted_at IS NULL AND revoked_at IS NULL GROUP BY tenant_id, email
        HAVING count(*) > 1) twice",
    "(SELECT FROM tenancy.audit_log WHERE action = 'invitation.accept' GROUP BY target HAVING count(*) > 1) twice",
];

/// What the sessions share.
struct World {
    tenants: Vec<Uuid>,
    people: [Uuid; PEOPLE],
    keys: Mutex<Vec<(Uuid, Uuid)>>,
    invitations: Mutex<Vec<(Uuid, Uuid, String)>>,
    done: AtomicUsize,
}

/// One session of each level, and its dice.
struct Session<'w> {
    world: &'w World,
    dice: Random,
    app: Client,
    client: Client,
    operator: Client,
    admin: Client,
}

impl Session<'_> {
    /// One call in a transaction bound to a tenant, the backend or one of the people acting; gives its first row's columns.
    fn bound(&mut self, tenant: Uuid, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Outcome {
        let person = *self.dice.one_of(&self.world.people);
        let acting = (self.dice.below(3) > 0).then_some(person);
        let isolation = match self.dice.below(6) {
            0 => IsolationLevel::RepeatableRead,
            1 => IsolationLevel::Serializable,
            _ => IsolationLevel::ReadCommitted,
        };
        let mut run = || {
            let mut transaction = self.app.build_transaction().isolation_level(isolation).start()?;
            transaction.query("SELECT set_tenant($1, $2)", &[&tenant, &acting])?;
            let found = transaction.query(sql, parameters)?;
            transaction.commit()?;
            Ok(found)
        };
        Outcome { result: run(), may_try_again: !matches!(isolation, IsolationLevel::ReadCommitted) }
    }

    /// Does something, and says what and how it ended.
    fn turn(&mut self) -> (&'static str, Outcome) {
        let tenant = *self.dice.one_of(&self.world.tenants);
        let user = *self.dice.one_of(&self.world.people);
        let role = *self.dice.one_of(&ROLES);
        match self.dice.below(16) {
            0 | 1 => ("add_member", self.bound(tenant, "SELECT add_member($1, $2)", &[&user, &role])),
            2..=4 => ("change_role", self.bound(tenant, "SELECT change_role($1, $2)", &[&user, &role])),
            5 => ("remove_member", self.bound(tenant, "SELECT remove_member($1)", &[&user])),
            6 => ("create_invitation", self.invite(tenant, user, role)),
            7 => ("accept_invitation", self.accept(user)),
            8 => ("revoke_invitation", self.revoke_invitation()),
            9 => ("create_api_key", self.make_key(tenant, user)),
            10 => ("rotate_api_key", self.with_key("SELECT * FROM rotate_api_key($1)")),
            11 => ("revoke_api_key", self.with_key("SELECT revoke_api_key($1)")),
            12 => ("update_user", self.bound(tenant, "SELECT update_user($1, name => $2)", &[&user, &role])),
            13 => ("delete_user", self.replace(user)),
            14 if self.dice.below(2) == 0 => {
                ("add_role", Outcome::of(self.admin.query("SELECT add_role('passing', 50)", &[])))
            }
            14 => ("remove_role", Outcome::of(self.admin.query("SELECT remove_role('passing')", &[]))),
            _ => ("suspend_tenant", self.close_and_open(tenant)),
        }
    }

    fn invite(&mut self, tenant: Uuid, user: Uuid, role: &str) -> Outcome {
        let made = self.bound(tenant, "SELECT * FROM create_invitation($1, $2)", &[&address(user, "guest"), &role]);
        if let Ok(found) = &made.result {
            let mut invitations = self.world.invitations.lock().expect("no session panicked");
            invitations.push((tenant, found[0].get(0), found[0].get(1)));
        }
        made
    }

    /// Some thing that was made lately.
    fn recent<T: Clone>(&mut self, made: &Mutex<Vec<T>>) -> Option<T> {
        const FEW: usize = 4;
        let made = made.lock().expect("no session panicked");
        let recent = &made[made.len().saturating_sub(FEW)..];
        (!recent.is_empty()).then(|| self.dice.one_of(recent).clone())
    }

    fn accept(&mut self, user: Uuid) -> Outcome {
        let Some((_, _, token)) = self.recent(&self.world.invitations) else { return Outcome::of(Ok(Vec::new())) };
        Outcome::of(self.client.query("SELECT accept_invitation($1, $2)", &[&token, &user]))
    }

    fn revoke_invitation(&mut self) -> Outcome {
        let Some((tenant, id, _)) = self.recent(&self.world.invitations) else { return Outcome::of(Ok(Vec::new())) };
        self.bound(tenant, "SELECT revoke_invitation($1)", &[&id])
    }

    fn make_key(&mut self, tenant: Uuid, user: Uuid) -> Outcome {
        let made = self.bound(tenant, "SELECT * FROM create_api_key('storm', user_id => $1)", &[&user]);
        if let Ok(found) = &made.result {
            self.world.keys.lock().expect("no session panicked").push((tenant, found[0].get(0)));
        }
        made
    }

    fn with_key(&mut self, sql: &str) -> Outcome {
        let Some((tenant, id)) = self.recent(&self.world.keys) else { return Outcome::of(Ok(Vec::new())) };
        self.bound(tenant, sql, &[&id])
    }

    /// Deletes a person, and registers them again.
    fn replace(&mut self, user: Uuid) -> Outcome {
        let deleted = self.operator.query("SELECT delete_user($1)", &[&user]);
        if deleted.is_ok() {
            let created = self.app.query("SELECT create_user($1, id => $2)", &[&address(user, "user"), &user]);
            let created = Outcome::of(created);
            assert!(["00000", "23505"].contains(&created.state().as_str()), "create_user: {}", created.state());
        }
        Outcome::of(deleted)
    }

    fn close_and_open(&mut self, tenant: Uuid) -> Outcome {
        let mode = *self.dice.one_of(&["blocked", "read_only"]);
        let closed = self.operator.query("SELECT suspend_tenant($1, mode => $2)", &[&tenant, &mode]);
        let opened = Outcome::of(self.operator.query("SELECT resume_tenant($1)", &[&tenant]));
        assert!(["00000", "55000"].contains(&opened.state().as_str()), "resume_tenant: {}", opened.state());
        Outcome::of(closed)
    }
}

/// How a call ended.
struct Outcome {
    result: Result<Vec<Row>, Error>,
    may_try_again: bool,
}

impl Outcome {
    fn of(result: Result<Vec<Row>, Error>) -> Outcome {
        Outcome { result, may_try_again: false }
    }

    fn state(&self) -> String {
        match &self.result {
            Ok(_) => "00000".to_owned(),
            Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
        }
    }
}

fn address(user: Uuid, domain: &str) -> String {
    format!("{user}@{domain}.example")
}

/// Looks whether the state is legal.
pub fn check(observer: &mut Client) {
    for illegal in ILLEGAL {
        assert_eq!(count(observer, illegal), 0, "{illegal}");
    }
}

/// Lets `sessions` sessions do `turns` things each, looking at the state all the while; how often each thing succeeded.
pub fn run(sessions: usize, turns: usize) -> BTreeMap<&'static str, usize> {
    let database = Database::new("people_storm");
    let (mut app, mut operator) = (database.connect("app"), database.connect("operator"));
    let people = [0; PEOPLE].map(|_| Uuid::new_v4());
    for person in people {
        one::<Uuid>(&mut app, "SELECT create_user($1, id => $2)", &[&address(person, "user"), &person]);
    }
    let tenants = tenants(&mut operator, TENANTS);
    for tenant in &tenants {
        as_tenant(&mut app, *tenant, |tx| {
            for (person, role) in people.iter().zip(["owner", "owner", "admin", "member"]) {
                rows(tx, "SELECT add_member($1, $2)", &[person, &role]);
            }
        });
    }
    let world =
        World { tenants, people, keys: Mutex::default(), invitations: Mutex::default(), done: AtomicUsize::new(0) };
    let succeeded = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for number in 1..=sessions {
            let (world, succeeded, database) = (&world, &succeeded, &database);
            scope.spawn(move || {
                let _done = Done(&world.done);
                let [app, client, operator, admin] =
                    ["app", "client", "operator", "admin"].map(|role| database.connect(role));
                let dice = Random::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64));
                let mut session = Session { world, dice, app, client, operator, admin };
                for _ in 0..turns {
                    let (what, outcome) = session.turn();
                    let state = outcome.state();
                    let legal = OUTCOMES.contains(&state.as_str()) || outcome.may_try_again && state == TRY_AGAIN;
                    assert!(legal, "{what} ended with {state}: {:?}", outcome.result.err());
                    if outcome.result.is_ok() {
                        *succeeded.lock().expect("no session panicked").entry(what).or_default() += 1;
                    }
                }
            });
        }
        let mut observer = database.superuser();
        while world.done.load(Ordering::Relaxed) < sessions {
            check(&mut observer);
        }
    });
    check(&mut database.superuser());
    succeeded.into_inner().expect("no session panicked")
}

/// Tells that a session has ended, also by a panic.
struct Done<'w>(&'w AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
