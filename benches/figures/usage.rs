//! Recording usage, against inserting such rows by hand.

use crate::pgbench::{Run, transaction};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, interleave};
use crate::settings::Settings;
use crate::tables::Bench;

/// The tables that a user would write, with as many columns and indexes as the inbox and the table of keys. The time stands where the inbox
/// has the transaction's number: eight bytes that grow, which cost the default nothing.
const BY_HAND: &str = "
CREATE TABLE own_events (
    tenant_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    occurred_at timestamptz NOT NULL DEFAULT now(),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    counted boolean NOT NULL DEFAULT false,
    metric text COLLATE \"C\" NOT NULL,
    quantity numeric NOT NULL,
    resource_id uuid,
    properties jsonb
);
CREATE INDEX ON own_events (at);
CREATE INDEX ON own_events (tenant_id, metric, at, counted);
CREATE TABLE own_keys (
    tenant_id uuid NOT NULL,
    key_hash bytea NOT NULL,
    payload_hash bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key_hash)
) PARTITION BY HASH (tenant_id, key_hash);
CREATE INDEX ON own_keys USING brin (recorded_at);
DO $$ BEGIN
    FOR i IN 0..7 LOOP
        EXECUTE format('CREATE TABLE own_keys_%s PARTITION OF own_keys FOR VALUES WITH (MODULUS 8, REMAINDER %s)', i, i);
    END LOOP;
END $$;
GRANT INSERT, SELECT ON own_events, own_keys TO app;
";
const EMPTY: &str = "TRUNCATE tenancy.usage_inbox, tenancy.usage_keys, own_events, own_keys; CHECKPOINT";

const BIND: &str = "SELECT set_tenant(:tenant)";
const SET: &str = "SELECT set_config('app.tenant', :tenant, true)";
const PICK: &str = "\\set quantity random(1, 1000)";
const PICK_KEY: &str = "\\set quantity random(1, 1000)\n\\set key random(1, 1000000000000)";

const RECORD: &str = "SELECT record_usage('api_calls', :quantity)";
const INSERT: &str = "INSERT INTO own_events (tenant_id, metric, quantity) VALUES (:tenant, 'api_calls', :quantity)";
const RECORD_ONCE: &str = "SELECT record_usage('api_calls', :quantity, 'request ' || :key)";
/// Two statements, the second of which the application sends only where the first has inserted a row, as here it always does.
const INSERT_BOTH: &str = "INSERT INTO own_keys (tenant_id, key_hash, payload_hash)
    VALUES (:tenant, sha256(convert_to('request ' || :key, 'UTF8')), sha256(convert_to('api_calls' || :quantity, 'UTF8'))) ON CONFLICT DO NOTHING;
INSERT INTO own_events (tenant_id, metric, quantity) VALUES (:tenant, 'api_calls', :quantity)";
/// The same in one statement.
const INSERT_BOTH_AT_ONCE: &str = "WITH key AS (INSERT INTO own_keys (tenant_id, key_hash, payload_hash)
    VALUES (:tenant, sha256(convert_to('request ' || :key, 'UTF8')), sha256(convert_to('api_calls' || :quantity, 'UTF8')))
    ON CONFLICT DO NOTHING RETURNING true)
INSERT INTO own_events (tenant_id, metric, quantity) SELECT :tenant, 'api_calls', :quantity FROM key";

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(settings.rounds + 1);
    bench.define(BY_HAND);
    bench.prepare("SELECT create_metric('api_calls')");
    let both = "record_usage with a key";
    vec![
        compare(
            &bench,
            settings,
            ("20 events, in a transaction", 20, PICK),
            ("record_usage", RECORD),
            ("INSERT", INSERT),
            Bar::AtLeast(0.8),
        ),
        compare(
            &bench,
            settings,
            ("one event, in a transaction", 1, PICK),
            ("record_usage", RECORD),
            ("INSERT", INSERT),
            Bar::AtLeast(0.8),
        ),
        compare(
            &bench,
            settings,
            ("20 events with keys", 20, PICK_KEY),
            (both, RECORD_ONCE),
            ("two INSERTs", INSERT_BOTH),
            Bar::AtLeast(0.85),
        ),
        compare(
            &bench,
            settings,
            ("20 events with keys", 20, PICK_KEY),
            (both, RECORD_ONCE),
            ("two INSERTs in one statement", INSERT_BOTH_AT_ONCE),
            Bar::AtLeast(0.85),
        ),
        compare(
            &bench,
            settings,
            ("one event with a key", 1, PICK_KEY),
            (both, RECORD_ONCE),
            ("two INSERTs in one statement", INSERT_BOTH_AT_ONCE),
            Bar::AtLeast(0.85),
        ),
    ]
}

/// Both sides from empty tables, for another tenant each round.
fn compare(
    bench: &Bench,
    settings: &Settings,
    (figure, times, pick): (&str, usize, &str),
    ours: (&str, &str),
    theirs: (&str, &str),
    bar: Bar,
) -> Row {
    let sides = [(BIND, ours.1), (SET, theirs.1)].map(|(first, statement)| -> Side<'_> {
        let script = transaction(first, pick, statement, times);
        Box::new(move |round| {
            bench.prepare(EMPTY);
            let variables = vec![("tenant", bench.tenant(round).to_string())];
            Run { database: &bench.database, role: "app", script: &script, variables }.tps(settings)
        })
    });
    let [our_tps, their_tps] = interleave(settings.rounds, sides);
    Row::new(figure, Unit::Transactions, (ours.0, &our_tps), (theirs.0, &their_tps), bar)
}
