//! API keys: recognising one among very many, and a transaction that is bound by one, against what a user would write.

use crate::cpu::Watched;
use crate::pgbench::Run;
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, interleave};
use crate::settings::Settings;
use crate::tables::{Bench, assert_plan};
use harness::postgres::Statement;
use harness::postgres::types::{ToSql, Type};
use harness::{Client, GenericClient, Uuid, as_tenant, one, rows, text};

/// Keys of each tenant whose texts are known, half of them of its one member, the others of nobody.
const KEYS_EACH: usize = 10;
/// Rows of each tenant in the table that is read.
const ROWS_EACH: usize = 200;
/// Keys that one run of pgbench looks up, of as many tenants.
const KEYS_AT_ONCE: usize = 20;
/// Executions that the server's CPU time is taken of.
const STATEMENTS: usize = 5000;
const CALLS: usize = 20_000;
/// Keys in use, of as many tenants.
const KEYS_IN_USE: usize = 1000;

/// One way to look up a key. `{key}` stands for its text.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    statement: &'static str,
}

const VERIFY: Way = Way { name: "verify_api_key", statement: "SELECT * FROM verify_api_key({key})" };
const SHA256: Way = Way {
    name: "SELECT … WHERE key_hash = sha256($1)",
    statement: "SELECT tenant_id, id, user_id, scopes FROM own_keys WHERE key_hash = sha256({key})",
};
const DIGEST: Way = Way {
    name: "SELECT … WHERE key_hash = digest($1, 'sha256')",
    statement: "SELECT tenant_id, id, user_id, scopes FROM own_keys WHERE key_hash = digest({key}::text, 'sha256')",
};
const OWN_FUNCTION: Way =
    Way { name: "own function by digest(), same checks", statement: "SELECT * FROM own_verify({key})" };
const OWN_LOOK_UP: Way =
    Way { name: "own function by digest(), look-up alone", statement: "SELECT * FROM own_look_up({key})" };
const INLINED: Way =
    Way { name: "inlined SQL by digest(), look-up alone", statement: "SELECT * FROM own_inlined({key})" };

/// The user's own tables, alike in columns, indexes and rows, and functions that find a key with pgcrypto. Callers may not read the keys
/// of others, so the functions are SECURITY DEFINER with a search_path, but for the last one, which is the fastest way there is.
const OWN: &str = "
CREATE EXTENSION pgcrypto;
CREATE TABLE own_keys (LIKE tenancy.stored_api_keys INCLUDING ALL);
CREATE TABLE own_tenants (LIKE tenancy.tenants INCLUDING ALL);
CREATE TABLE own_members (LIKE tenancy.memberships INCLUDING ALL);
CREATE TABLE own_usage (LIKE tenancy.api_key_usage INCLUDING ALL) WITH (fillfactor = 50);
GRANT SELECT ON own_keys TO app;
GRANT SELECT, UPDATE ON own_usage TO app;
CREATE FUNCTION own_verify(api_key text) RETURNS TABLE (tenant_id uuid, key_id uuid, user_id uuid, scopes text[])
    LANGUAGE plpgsql STABLE ROWS 1 SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT k.tenant_id, k.id, k.user_id, k.scopes
        FROM own_keys k JOIN own_tenants t ON t.id = k.tenant_id AND t.status IN ('active', 'read_only')
        WHERE k.key_hash = digest(api_key, 'sha256') AND k.revoked_at IS NULL
          AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
          AND (k.user_id IS NULL OR EXISTS (
              SELECT FROM own_members m WHERE m.tenant_id = k.tenant_id AND m.user_id = k.user_id));
END $$;
CREATE FUNCTION own_look_up(api_key text) RETURNS TABLE (tenant_id uuid, key_id uuid, user_id uuid, scopes text[])
    LANGUAGE plpgsql STABLE ROWS 1 SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT k.tenant_id, k.id, k.user_id, k.scopes FROM own_keys k
        WHERE k.key_hash = digest(api_key, 'sha256');
END $$;
CREATE FUNCTION own_inlined(api_key text) RETURNS TABLE (tenant_id uuid, key_id uuid, user_id uuid, scopes text[])
    LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT k.tenant_id, k.id, k.user_id, k.scopes FROM own_keys k WHERE k.key_hash = digest(api_key, 'sha256')
$$;";

pub fn measure(settings: &Settings) -> Vec<Row> {
    let keys = Keys::make(settings);
    let first_uses = first_uses(&keys, settings);
    let mut rows = by_pgbench(&keys, settings);
    rows.extend(by_statement(&keys, settings));
    rows.extend(by_call(&keys, settings));
    rows.push(first_uses);
    rows.extend(requests(&keys, settings));
    rows.extend(requests_by_cpu(&keys, settings));
    rows
}

/// A key whose text is known, and the number of its tenant.
struct Key {
    text: String,
    tenant: usize,
}

/// A server with many keys, in the product's tables and in the user's own.
struct Keys {
    bench: Bench,
    /// Some of them: the first of each tenant, then the second of each, and so on.
    known: Vec<Key>,
    /// How many there are in all.
    number: usize,
}

impl Keys {
    fn make(settings: &Settings) -> Keys {
        let bench = Bench::start(settings.tenants);
        let mut app = bench.database.connect("app");
        let texts: Vec<Vec<String>> = bench.tenants.iter().map(|tenant| make_keys(&mut app, *tenant)).collect();
        let nth = |place: usize| {
            texts.iter().enumerate().map(move |(tenant, texts)| Key { text: texts[place].clone(), tenant })
        };
        let known = (0..KEYS_EACH).flat_map(nth).collect();
        let keys = Keys { bench, known, number: settings.keys };
        keys.fill();
        keys
    }

    /// Adds keys whose texts nobody knows until there are as many as asked for, all in one random order in both tables.
    fn fill(&self) {
        let unknown = self.number.saturating_sub(self.known.len());
        self.bench.prepare(OWN);
        self.bench.prepare(&format!(
            "INSERT INTO own_tenants SELECT * FROM tenancy.tenants;
             INSERT INTO own_members SELECT * FROM tenancy.memberships;
             CREATE TEMPORARY TABLE unknown (LIKE tenancy.stored_api_keys INCLUDING DEFAULTS);
             INSERT INTO unknown (key_hash, tenant_id, user_id, scopes, name, key_prefix)
                 SELECT sha256(number::text::bytea), tenant_id, CASE WHEN number % 2 = 0 THEN user_id END,
                        '{{notes:read,notes:write}}', 'key', 'ptk_00000000'
                 FROM generate_series(1, {unknown}) AS number
                 JOIN (SELECT *, row_number() OVER () - 1 AS place FROM own_members) AS members
                     ON place = number % {tenants};
             INSERT INTO own_keys SELECT * FROM (TABLE unknown UNION ALL TABLE tenancy.stored_api_keys) AS keys ORDER BY id;
             TRUNCATE tenancy.stored_api_keys, tenancy.api_key_usage;
             INSERT INTO tenancy.stored_api_keys SELECT * FROM own_keys;
             INSERT INTO tenancy.api_key_usage SELECT id FROM own_keys;
             INSERT INTO own_usage SELECT id FROM own_keys;",
            tenants = self.bench.tenants.len(),
        ));
        self.bench.fill(ROWS_EACH * self.bench.tenants.len());
        self.bench.prepare("VACUUM (FREEZE, ANALYZE)");
        self.bench.prepare("CHECKPOINT");
        let mut app = self.bench.database.connect("app");
        assert_plan(&mut app, "SELECT id FROM own_keys WHERE key_hash = '\\x00'", "Index Scan");
        for way in [VERIFY, SHA256, DIGEST, OWN_FUNCTION, OWN_LOOK_UP, INLINED] {
            let found = format!("SELECT tenant_id FROM ({}) AS found", way.statement);
            let key = &self.known[0];
            let tenant = text(&mut app, &found.replace("{key}", &format!("'{}'", key.text)));
            assert_eq!(tenant, self.bench.tenant(key.tenant).to_string(), "{found}");
        }
    }

    fn figure(&self, what: &str) -> String {
        format!("{what}, {} keys", self.number)
    }

    /// Other keys each round.
    fn of_round(&self, round: usize, number: usize) -> impl Iterator<Item = &Key> + Clone {
        (0..number).map(move |place| &self.known[(round * number + place) % self.known.len()])
    }
}

/// Makes the tenant's member and keys; the keys' texts.
fn make_keys(app: &mut Client, tenant: Uuid) -> Vec<String> {
    as_tenant(app, tenant, |transaction| {
        let member: Uuid = one(
            transaction,
            "SELECT add_member(create_user($1::text || '@example.com'), 'member')",
            &[&tenant.to_string()],
        );
        let create = "SELECT api_key FROM generate_series(1, $2) AS number,
            create_api_key('key ' || number, '{notes:read,notes:write}', user_id => CASE WHEN number % 2 = 0 THEN $1::uuid END)";
        let number = i32::try_from(KEYS_EACH).expect("a number of keys");
        rows(transaction, create, &[&member, &number]).iter().map(|row| row.get(0)).collect()
    })
}

/// Looking up keys, each in a transaction of its own, by pgbench.
fn by_pgbench(keys: &Keys, settings: &Settings) -> Vec<Row> {
    let ways = [VERIFY, SHA256, DIGEST, OWN_FUNCTION];
    let scripts = ways.map(|way| {
        let statement = |place: usize| way.statement.replace("{key}", &format!(":key{place}")) + ";\n";
        (0..KEYS_AT_ONCE).map(statement).collect::<String>()
    });
    let short = Settings { seconds: 1, ..*settings };
    let names: Vec<String> = (0..KEYS_AT_ONCE).map(|place| format!("key{place}")).collect();
    let sides = scripts.each_ref().map(|script| -> Side<'_> {
        Box::new(|round| {
            let texts = keys.of_round(round, KEYS_AT_ONCE).map(|key| key.text.clone());
            let variables = names.iter().map(String::as_str).zip(texts).collect();
            let run = Run { database: &keys.bench.database, role: "app", script, variables };
            run.tps(&short) * KEYS_AT_ONCE as f64
        })
    });
    let measured = interleave(settings.fine_rounds, sides);
    let side = |way: usize| (ways[way].name, &measured[way][..]);
    let figure = keys.figure("looking up a key");
    let row = |way, bar| Row::new(&figure, Unit::Transactions, side(0), side(way), bar);
    vec![row(1, Bar::AtLeast(0.95)), row(2, Bar::None), row(3, Bar::None)]
}

/// A look-up that a session has prepared.
struct LookUp {
    prepared: Statement,
    takes_bytes: bool,
}

impl LookUp {
    fn prepare(client: &mut Client, statement: &str) -> LookUp {
        let prepared = client.prepare(&statement.replace("{key}", "$1")).expect("prepare a look-up");
        let takes_bytes = prepared.params()[0] == Type::BYTEA;
        LookUp { prepared, takes_bytes }
    }

    fn run(&self, client: &mut impl GenericClient, key: &str) {
        let bytes = key.as_bytes();
        let parameter: &(dyn ToSql + Sync) = if self.takes_bytes { &bytes } else { &key };
        let found = client.query(&self.prepared, &[parameter]).expect("look up a key");
        assert_eq!(found.len(), 1, "a key is found");
    }
}

/// The server's CPU time for one statement of each way: receiving it, executing it, answering. `texts` gives the keys of a round.
fn statements<'a, const WAYS: usize, Texts: Iterator<Item = &'a str>>(
    keys: &'a Keys,
    rounds: usize,
    ways: [Way; WAYS],
    number: usize,
    texts: impl Fn(usize) -> Texts + Copy + 'a,
) -> [Vec<f64>; WAYS] {
    let sides = ways.map(|way| -> Side<'a> {
        let mut session = Watched::connect(&keys.bench.database, "app", "");
        let look_up = LookUp::prepare(&mut session.client, way.statement);
        Box::new(move |round| {
            session.seconds_each(number, |client| texts(round).for_each(|text| look_up.run(client, text)))
        })
    });
    interleave(rounds, sides)
}

fn by_statement(keys: &Keys, settings: &Settings) -> Vec<Row> {
    let ways = [VERIFY, SHA256, DIGEST, OWN_FUNCTION];
    let texts = |round| keys.of_round(round, KEYS_AT_ONCE).map(|key| key.text.as_str()).cycle().take(STATEMENTS);
    let measured = statements(keys, settings.fine_rounds, ways, STATEMENTS, texts);
    let side = |way: usize| (ways[way].name, &measured[way][..]);
    let figure = keys.figure("server CPU of a look-up's statement");
    (1..ways.len()).map(|way| Row::new(&figure, Unit::Seconds, side(0), side(way), Bar::None)).collect()
}

/// The server's CPU time for the look-up itself: one statement looks up many keys.
fn by_call(keys: &Keys, settings: &Settings) -> Vec<Row> {
    let all = keys.known.len();
    let in_use = KEYS_IN_USE.min(all);
    let bars = [Bar::AtMost(0.5), Bar::None, Bar::None];
    let mut rows = calls(keys, settings, in_use, [VERIFY, OWN_FUNCTION, OWN_LOOK_UP, INLINED], bars);
    rows.extend(calls(keys, settings, all, [VERIFY, OWN_FUNCTION], [Bar::None]));
    rows
}

/// Otherwise PostgreSQL remembers what a function has answered before, a volatile one too, and reads a table whole for many keys.
const ONE_BY_ONE: &str = "SET enable_memoize = off; SET enable_hashjoin = off; SET enable_mergejoin = off";

/// Calls with random keys of the first `in_use`: our way, which is the first, against each of the others.
fn calls<const WAYS: usize, const OTHERS: usize>(
    keys: &Keys,
    settings: &Settings,
    in_use: usize,
    ways: [Way; WAYS],
    bars: [Bar; OTHERS],
) -> Vec<Row> {
    let texts: Vec<&str> = keys.known[..in_use].iter().map(|key| key.text.as_str()).collect();
    keys.bench
        .prepare("DROP TABLE IF EXISTS calls; CREATE TABLE calls (key text NOT NULL); GRANT SELECT ON calls TO app");
    let fill = "INSERT INTO calls SELECT ($1::text[])[1 + floor(random() * $2)] FROM generate_series(1, $3::bigint)";
    let parameters: (f64, i64) = (in_use as f64, i64::try_from(CALLS).expect("a number of calls"));
    rows(&mut keys.bench.database.superuser(), fill, &[&texts, &parameters.0, &parameters.1]);
    keys.bench.prepare("VACUUM (FREEZE, ANALYZE) calls");
    let sides = ways.map(|way| -> Side<'_> {
        let mut session = Watched::connect(&keys.bench.database, "app", ONE_BY_ONE);
        let look_up = way.statement.replace("{key}", "calls.key");
        let sql = format!("SELECT count(found.tenant_id) FROM calls, LATERAL ({look_up}) AS found");
        Box::new(move |_| {
            session.seconds_each(CALLS, |client| assert_eq!(text(client, &sql), CALLS.to_string(), "{sql}"))
        })
    });
    let measured = interleave(settings.fine_rounds, sides);
    let side = |way: usize| (ways[way].name, &measured[way][..]);
    let figure = keys.figure(&format!("server CPU of a call, {in_use} keys in use"));
    let others = bars.into_iter().enumerate();
    others.map(|(other, bar)| Row::new(&figure, Unit::Seconds, side(0), side(other + 1), bar)).collect()
}

/// The server's CPU time for the first use of a key, which is noted, as it is again once a minute; each key's first use in all.
fn first_uses(keys: &Keys, settings: &Settings) -> Row {
    const NOTE: Way = Way {
        name: "look-up by sha256() and UPDATE",
        statement: "WITH found AS (SELECT tenant_id, id, user_id, scopes FROM own_keys WHERE key_hash = sha256({key})),
            noted AS (UPDATE own_usage SET last_used_at = clock_timestamp() FROM found WHERE key_id = found.id)
            SELECT * FROM found",
    };
    let number = (keys.known.len() / 2 / (settings.rounds + 1)).min(500);
    let texts = |round| keys.known.iter().rev().skip(round * number).take(number).map(|key| key.text.as_str());
    let [ours, theirs] = statements(keys, settings.rounds, [VERIFY, NOTE], number, texts);
    let figure = keys.figure("server CPU of a key's first use in a minute");
    Row::new(&figure, Unit::Seconds, (VERIFY.name, &ours), (NOTE.name, &theirs), Bar::None)
}

/// A transaction that finds out who asks, and reads one row of theirs. `{key}`, `{tenant}` and `{id}` stand for what they name.
#[derive(Clone, Copy)]
struct Request {
    name: &'static str,
    first: Option<&'static str>,
    read: &'static str,
}

const AUTHENTICATED: Request = Request {
    name: "authenticate_api_key, guarded table",
    first: Some("SELECT * FROM authenticate_api_key({key})"),
    read: "SELECT amount FROM guarded WHERE id = {id}",
};
const LOOKED_UP: Request = Request {
    name: "look-up by sha256($1), explicit WHERE",
    first: Some(SHA256.statement),
    read: "SELECT amount FROM plain WHERE id = {id} AND tenant_id = {tenant}",
};
const KNOWN: Request = Request { name: "no look-up at all, explicit WHERE", first: None, ..LOOKED_UP };
const REQUESTS: [Request; 3] = [AUTHENTICATED, LOOKED_UP, KNOWN];

/// The rows of a figure of [`REQUESTS`]; `bar` is that of the same read with the same knowledge of who asks.
fn compare_requests(figure: &str, unit: Unit, bar: Bar, measured: &[Vec<f64>; 3]) -> [Row; 2] {
    let side = |request: usize| (REQUESTS[request].name, &measured[request][..]);
    [Row::new(figure, unit, side(0), side(1), bar), Row::new(figure, unit, side(0), side(2), Bar::None)]
}

/// Such transactions by pgbench, statement by statement, and all statements of each sent at once.
fn requests(keys: &Keys, settings: &Settings) -> Vec<Row> {
    let [one_by_one, at_once] = [false, true].map(|at_once| {
        let scripts = REQUESTS.map(|request| script(request, keys.bench.tenants.len(), at_once));
        let sides = scripts.map(|script| -> Side<'_> {
            Box::new(move |round| {
                let key = &keys.known[round % keys.known.len()];
                let tenant = keys.bench.tenant(key.tenant).to_string();
                let variables = vec![("key", key.text.clone()), ("tenant", tenant), ("number", key.tenant.to_string())];
                Run { database: &keys.bench.database, role: "app", script: &script, variables }.tps(settings)
            })
        });
        interleave(settings.rounds, sides)
    });
    let figure = keys.figure("transaction of a key and one point read");
    let mut rows = Vec::from(compare_requests(&figure, Unit::Transactions, Bar::AtLeast(0.8), &one_by_one));
    rows.extend(compare_requests("the same, pipelined", Unit::Transactions, Bar::None, &at_once));
    rows
}

fn script(request: Request, tenants: usize, at_once: bool) -> String {
    let first = request.first.map(|first| format!("{first};\n")).unwrap_or_default();
    let (start, end) = if at_once { ("\\startpipeline\n", "\\endpipeline\n") } else { ("", "") };
    let pick = format!("\\set id {tenants} * random(0, {}) + :number\n", ROWS_EACH - 1);
    let statements = format!("{pick}{start}BEGIN;\n{first}{};\nCOMMIT;\n{end}", request.read);
    statements.replace("{key}", ":key").replace("{tenant}", ":tenant").replace("{id}", ":id")
}

/// The server's CPU time for such a transaction.
fn requests_by_cpu(keys: &Keys, settings: &Settings) -> [Row; 2] {
    let sides = REQUESTS.map(|request| -> Side<'_> {
        let mut session = Watched::connect(&keys.bench.database, "app", "");
        let first = request.first.map(|first| LookUp::prepare(&mut session.client, first));
        let read = request.read.replace("{id}", "$1").replace("{tenant}", "$2");
        let read = session.client.prepare(&read).expect("prepare the read");
        Box::new(move |round| {
            let round: Vec<&Key> = keys.of_round(round, KEYS_AT_ONCE).collect();
            session.seconds_each(STATEMENTS, |client| {
                for (place, key) in round.iter().cycle().take(STATEMENTS).enumerate() {
                    let mut transaction = client.transaction().expect("begin");
                    if let Some(first) = &first {
                        first.run(&mut transaction, &key.text);
                    }
                    let row = place % ROWS_EACH * keys.bench.tenants.len() + key.tenant;
                    let parameters: [&(dyn ToSql + Sync); 2] = [&(row as i64), &keys.bench.tenant(key.tenant)];
                    let found = transaction.query(&read, &parameters[..read.params().len()]).expect("read a row");
                    assert_eq!(found.len(), 1, "a row is found");
                    transaction.commit().expect("commit");
                }
            })
        })
    });
    let figure = keys.figure("server CPU of a transaction of a key and one point read");
    compare_requests(&figure, Unit::Seconds, Bar::None, &interleave(settings.fine_rounds, sides))
}
