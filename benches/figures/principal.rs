//! Who acts: signed tokens of each algorithm, a member's role, and asking for roles and scopes.

use crate::cpu::Watched;
use crate::pgbench::{Run, transaction};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave};
use crate::settings::Settings;
use crate::tables::Bench;
use harness::{Uuid, as_tenant, one, rows, text};

/// Tokens of PyJWT for one user, which last until 2100, with what verifies them.
const TOKENS: &str = include_str!("../../tests/interop/tokens.json");
/// The tenant and the user that they name, and a scope that they grant.
const TENANT: Uuid = Uuid::from_u128(0x5eed_0000_0000_4000_8000_0000_0000_0001);
const USER: Uuid = Uuid::from_u128(0x5eed_0000_0000_4000_8000_0000_0000_0002);
const SCOPE: &str = "files:read";

/// How often a condition is asked for in one statement.
const TIMES: usize = 100_000;

/// A token and its algorithm.
struct Token {
    algorithm: String,
    text: String,
}

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(settings.tenants);
    let tokens = make_principal(&bench);
    let mut rows = binds(&bench, settings, &tokens);
    let text = &tokens[0].text;
    rows.push(condition(&bench, settings, text, ["has_role('member')", "current_setting('app.role') = 'member'"]));
    let own_scope = format!("'{SCOPE}' = ANY (string_to_array(current_setting('app.scopes'), ' '))");
    rows.push(condition(&bench, settings, text, [&format!("has_scope('{SCOPE}')"), &own_scope]));
    rows
}

/// Makes the tokens' tenant, user and keys; a token of each algorithm.
fn make_principal(bench: &Bench) -> [Token; 4] {
    one::<Uuid>(&mut bench.database.connect("operator"), "SELECT create_tenant('Tokens', id => $1)", &[&TENANT]);
    as_tenant(&mut bench.database.connect("app"), TENANT, |transaction| {
        let add = "SELECT add_member(create_user('tokens@example.com', id => $1), 'member')";
        one::<Uuid>(transaction, add, &[&USER]);
    });
    let add =
        "SELECT key ->> 'algorithm', key ->> 'token', add_jwt_key(key ->> 'kid', key ->> 'algorithm', key ->> 'key')
        FROM jsonb_array_elements($1::text::jsonb) AS key WHERE key ->> 'library' LIKE 'PyJWT%'";
    let added = rows(&mut bench.database.connect("admin"), add, &[&TOKENS]);
    std::array::from_fn(|place| Token { algorithm: added[place].get(0), text: added[place].get(1) })
}

/// Transactions that do nothing but bind.
fn binds(bench: &Bench, settings: &Settings, tokens: &[Token; 4]) -> Vec<Row> {
    let short = &Settings { seconds: 1, ..*settings };
    let side = |first: &str, token: &Token| -> Side<'_> {
        let script = transaction(first, "", "", 0);
        let token = token.text.clone();
        Box::new(move |_| {
            let variables = vec![("tenant", TENANT.to_string()), ("user", USER.to_string()), ("token", token.clone())];
            Run { database: &bench.database, role: "app", script: &script, variables }.tps(short)
        })
    };
    let [first, second, third, fourth] =
        tokens.each_ref().map(|token| side("SELECT * FROM authenticate_jwt(:token)", token));
    let with_user = side("SELECT set_tenant(:tenant, :user)", &tokens[0]);
    let without = side("SELECT set_tenant(:tenant)", &tokens[0]);
    let [with_user, without, by_token @ ..] =
        interleave(settings.rounds, [with_user, without, first, second, third, fourth]);
    let member = ("set_tenant with a member", &with_user[..]);
    let against_member = by_token
        .iter()
        .zip(tokens)
        .map(|(measured, token)| compare(&format!("authenticate_jwt, {}", token.algorithm), measured, member));
    std::iter::once(compare(member.0, member.1, ("set_tenant without a user", &without)))
        .chain(against_member)
        .collect()
}

fn compare(name: &str, measured: &[f64], theirs: (&str, &[f64])) -> Row {
    Row::new("transaction that only binds", Unit::Transactions, (name, measured), theirs, Bar::None)
}

/// The server's CPU time for asking once whether the principal may: by our function, and by settings that an application keeps.
fn condition(bench: &Bench, settings: &Settings, token: &str, [ours, theirs]: [&str; 2]) -> Row {
    let own_settings = format!("SET app.role = 'member'; SET app.scopes = '{SCOPE} users:*'");
    let side = |condition: &str| -> Side<'_> {
        let mut session = Watched::connect(&bench.database, "app", &own_settings);
        let sql = format!("SELECT count(CASE WHEN {condition} THEN 1 END) FROM generate_series(1, {TIMES})");
        let bind = format!("BEGIN; SELECT authenticate_jwt('{token}')");
        Box::new(move |_| {
            execute(&mut session.client, &bind);
            let seconds =
                session.seconds_each(TIMES, |client| assert_eq!(text(client, &sql), TIMES.to_string(), "{sql}"));
            execute(&mut session.client, "COMMIT");
            seconds
        })
    };
    let [by_us, by_them] = interleave(settings.fine_rounds, [side(ours), side(theirs)]);
    Row::new("server CPU of asking once", Unit::Seconds, (ours, &by_us), (theirs, &by_them), Bar::None)
}
