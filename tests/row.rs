//! Rows of tenants in shared tables: what protect_table takes and refuses, what it leaves behind, and that one
//! tenant's transaction neither reads nor writes another tenant's rows.

use crate::advice::follow;
use harness::{
    Client, Database, Uuid, as_tenant, bind, count, fails, one, protected_table, rows, run, simple, tenant, tenants,
    text,
};
use harness::{DbError, Notices};
use std::io::Read;

/// What the tenant's transaction reads, as text; the transaction commits.
#[track_caller]
pub(crate) fn read_as(client: &mut Client, tenant: Uuid, sql: &str) -> Vec<Vec<Option<String>>> {
    as_tenant(client, tenant, |transaction| simple(transaction, sql))
}

/// The first column of what the tenant's transaction reads.
#[track_caller]
pub(crate) fn column_as(client: &mut Client, tenant: Uuid, sql: &str) -> Vec<String> {
    read_as(client, tenant, sql).into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
}

/// How many rows a statement of the tenant touches; the transaction commits.
#[track_caller]
pub(crate) fn touched_as(client: &mut Client, tenant: Uuid, sql: &str) -> u64 {
    as_tenant(client, tenant, |transaction| transaction.execute(sql, &[]).expect(sql))
}

/// The error of a statement of the tenant; the transaction is rolled back and the session lives on.
#[track_caller]
pub(crate) fn refused_as(client: &mut Client, tenant: Uuid, sql: &str, sqlstate: &str) -> DbError {
    let mut transaction = client.transaction().expect("begin");
    bind(&mut transaction, tenant);
    let outcome = transaction.batch_execute(sql);
    assert!(outcome.is_err(), "succeeded: {sql}");
    let fault = fails(outcome, sqlstate);
    transaction.rollback().expect("roll back");
    fault
}

/// The whole schema as pg_dump writes it, without the random line of its newer versions.
pub(crate) fn schema(database: &Database) -> String {
    without_restrict(&run(database.tool("pg_dump", "postgres").arg("--schema-only")))
}

/// A dump without the lines that are random in pg_dump's newer versions.
pub(crate) fn without_restrict(dump: &str) -> String {
    let lines = dump.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn as_owner(database: &Database, sql: &str) {
    let done = database.connect("owner").batch_execute(sql);
    if let Err(error) = done {
        panic!("{sql}: {:?}", error.as_db_error());
    }
}

#[track_caller]
fn as_superuser(database: &Database, sql: &str) {
    let done = database.superuser().batch_execute(sql);
    if let Err(error) = done {
        panic!("{sql}: {:?}", error.as_db_error());
    }
}

/// `SELECT protect_table(arguments)` as admin.
#[track_caller]
fn protect(database: &Database, arguments: &str) -> bool {
    one(&mut database.connect("admin"), &format!("SELECT protect_table({arguments})"), &[])
}

/// Which versions of the catalogs' rows are there: the same text means that no DDL was done in between.
pub(crate) fn catalogs(database: &Database) -> String {
    const VERSIONS: &str = "
        SELECT md5(string_agg(version, ',' ORDER BY version)) FROM (
            SELECT 'c' || oid || ' ' || xmin AS version FROM pg_class
            UNION ALL SELECT 'a' || attrelid || ' ' || attnum || ' ' || xmin FROM pg_attribute
            UNION ALL SELECT 'd' || oid || ' ' || xmin FROM pg_attrdef
            UNION ALL SELECT 'k' || oid || ' ' || xmin FROM pg_constraint
            UNION ALL SELECT 'p' || oid || ' ' || xmin FROM pg_policy
            UNION ALL SELECT 'i' || inhrelid || ' ' || inhparent || ' ' || xmin FROM pg_inherits
            UNION ALL SELECT 'l' || objoid || ' ' || label FROM pg_seclabel
            UNION ALL SELECT 'r' || table_name::oid || ' ' || xmin FROM tenancy.protected_tables) AS versions";
    text(&mut database.superuser(), VERSIONS)
}

/// Calls protect_table as admin, which must fail and change nothing.
#[track_caller]
fn protect_fails(database: &Database, arguments: &str, sqlstate: &str) -> DbError {
    let before = catalogs(database);
    let call = format!("SELECT protect_table({arguments})");
    let mut admin = database.connect("admin");
    let outcome = admin.batch_execute(&call);
    assert!(outcome.is_err(), "succeeded: {call}");
    let fault = fails(outcome, sqlstate);
    assert_eq!(text(&mut admin, "SELECT 1"), "1", "the session lives");
    assert_eq!(catalogs(database), before, "{call} changed something");
    fault
}

/// Protects as admin and gives what was noticed.
#[track_caller]
fn protect_noticing(database: &Database, arguments: &str) -> Vec<DbError> {
    let (mut admin, notices): (Client, Notices) = database.connect_with_notices("admin");
    one::<bool>(&mut admin, &format!("SELECT protect_table({arguments})"), &[]);
    notices.take()
}

/// Follows the advice that notices about keys point to; how many of them there were.
#[track_caller]
fn follow_key_hints(database: &Database, notices: &[DbError]) -> usize {
    let about_keys: Vec<&DbError> = notices.iter().filter(|notice| notice.message().contains(" key ")).collect();
    for notice in &about_keys {
        let hint = notice.hint().expect("a notice about a key has a hint");
        assert!(hint.starts_with("SELECT * FROM protection_advice("), "{hint}");
    }
    if !about_keys.is_empty() {
        follow(database);
    }
    about_keys.len()
}

/// Whether every protected table of the hierarchy is intact, and how many there are.
#[track_caller]
fn intact(database: &Database, root: &str) -> (i64, i64) {
    let sql = "SELECT count(*), count(*) FILTER (WHERE intact) FROM tenancy.protection_status \
               WHERE root = $1::text::regclass";
    let found = rows(&mut database.superuser(), sql, &[&root]);
    (found[0].get(0), found[0].get(1))
}

/// Two tenants, and a session that serves both in turn.
struct Pair {
    database: Database,
    a: Uuid,
    b: Uuid,
    app: Client,
}

impl Pair {
    fn new(label: &str) -> Pair {
        let database = Database::new(label);
        let created = tenants(&mut database.connect("operator"), 2);
        let app = database.connect("app");
        Pair { database, a: created[0], b: created[1], app }
    }

    /// With the protected table notes, in which each tenant has one row.
    fn with_notes(label: &str) -> Pair {
        let mut pair = Pair::new(label);
        protected_table(&pair.database);
        pair.write("INSERT INTO notes (body) VALUES ('secret of ' || current_tenant())");
        pair
    }

    /// Runs a statement once for each tenant.
    #[track_caller]
    fn write(&mut self, sql: &str) {
        for tenant in [self.a, self.b] {
            as_tenant(&mut self.app, tenant, |transaction| {
                if let Err(error) = transaction.batch_execute(sql) {
                    panic!("{sql}: {:?}", error.as_db_error());
                }
            });
        }
    }

    /// A's key in notes.
    fn key_of_a(&self) -> i64 {
        one(&mut self.database.superuser(), "SELECT id FROM notes WHERE tenant_id = $1", &[&self.a])
    }

    /// What A has in notes now, whatever the guard says.
    fn notes_of_a(&self) -> Vec<String> {
        let sql = "SELECT id || body || xmin FROM notes WHERE tenant_id = $1 ORDER BY id";
        rows(&mut self.database.superuser(), sql, &[&self.a]).iter().map(|row| row.get(0)).collect()
    }

    /// Whether each tenant sees its own rows of `table` and nothing else, and cannot write for the other one.
    #[track_caller]
    fn isolates(&mut self, table: &str, column: &str) {
        fails(self.app.batch_execute(&format!("TABLE {table}")), "42501");
        for (own, other) in [(self.a, self.b), (self.b, self.a)] {
            let seen = column_as(&mut self.app, own, &format!("SELECT DISTINCT {column} FROM {table}"));
            assert_eq!(seen, [own.to_string()], "{table}");
            let other_rows = format!("SELECT 1 FROM {table} WHERE {column} = '{other}'");
            assert_eq!(column_as(&mut self.app, own, &other_rows), Vec::<String>::new(), "{table}");
            let steal = format!("UPDATE {table} SET {column} = '{own}' WHERE {column} = '{other}'");
            assert_eq!(touched_as(&mut self.app, own, &steal), 0, "{table}");
            let give = format!("UPDATE {table} SET {column} = '{other}'");
            refused_as(&mut self.app, own, &give, "42501");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------
// What protect_table makes of a table
// ---------------------------------------------------------------------------------------------------------

#[test]
fn an_empty_table_without_the_column_gets_it() {
    let mut pair = Pair::new("row_added");
    as_owner(&pair.database, "CREATE TABLE t (id int); GRANT ALL ON t TO app");
    assert!(protect(&pair.database, "'t'"));
    pair.write("INSERT INTO t VALUES (1)");
    pair.isolates("t", "tenant_id");
    let column = "SELECT format_type(atttypid, atttypmod) || ' ' || attnotnull FROM pg_attribute \
                  WHERE attrelid = 't'::regclass AND attname = 'tenant_id'";
    assert_eq!(text(&mut pair.database.superuser(), column), "uuid true");
    let index = "pg_index WHERE indrelid = 't'::regclass AND indkey[0] = \
                 (SELECT attnum FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'tenant_id')";
    assert_eq!(count(&mut pair.database.superuser(), index), 1, "an index led by the tenant column");
    assert_eq!(intact(&pair.database, "t"), (1, 1));
}

#[test]
fn a_table_with_rows_and_no_column_is_refused_and_told_what_to_do() {
    let pair = Pair::new("row_missing");
    as_owner(&pair.database, "CREATE TABLE \"T x\" (id int); INSERT INTO \"T x\" VALUES (1), (2)");
    let fault = protect_fails(&pair.database, "'\"T x\"', 'Tenant'", "55000");
    assert!(fault.message().contains("\"T x\"") && fault.message().contains("\"Tenant\""), "{fault}");
    let hint = fault.hint().expect("a hint");
    let (statement, _) = hint.split_once(';').expect("a statement");
    as_owner(&pair.database, statement);
    as_owner(&pair.database, &format!("UPDATE \"T x\" SET \"Tenant\" = '{}'", pair.a));
    assert!(protect(&pair.database, "'\"T x\"', 'Tenant'"));
}

#[test]
fn any_type_column_and_table_name_isolates() {
    let long = "x".repeat(63);
    let mut pair = Pair::new("row_names");
    as_superuser(
        &pair.database,
        "CREATE SCHEMA \"Sch ema.'\"\"x\" AUTHORIZATION owner; GRANT USAGE ON SCHEMA \"Sch ema.'\"\"x\" TO app, admin",
    );
    for (number, (schema, column, column_type)) in [
        ("public", "tenant_id", "uuid"),
        ("public", "tenant_id", "text"),
        ("public", "TenantId", "character varying"),
        ("public", "select", "varchar(36)"),
        ("Sch ema.'\"x", "Mandant's \"Kürzel\" %I $1 \\", "uuid"),
        ("Sch ema.'\"x", "Mandant's \"Kürzel\" %I $1 \\", "text"),
        ("Sch ema.'\"x", long.as_str(), "uuid"),
        ("public", "tenant_id", "text COLLATE \"C\""),
    ]
    .into_iter()
    .enumerate()
    {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let table = format!("{}.{}", quote(schema), quote(&format!("Table '{number}' \"T\"")));
        let quoted = quote(column);
        let create = format!("CREATE TABLE {table} (id serial PRIMARY KEY, {quoted} {column_type}, body text)");
        as_owner(&pair.database, &format!("{create}; GRANT ALL ON {table} TO app"));
        as_owner(&pair.database, &format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {} TO app", quote(schema)));
        let protect = "SELECT protect_table($1::text::regclass, $2::text::name)";
        let mut admin = pair.database.connect("admin");
        assert!(one::<bool>(&mut admin, protect, &[&table, &column]), "{table}");
        pair.write(&format!("INSERT INTO {table} (body) VALUES ('x')"));
        pair.isolates(&table, &quoted);
        assert!(!one::<bool>(&mut admin, protect, &[&table, &column]), "{table} again");
        assert!(one::<bool>(&mut admin, "SELECT unprotect_table($1::text::regclass)", &[&table]), "{table}");
    }
}

#[test]
fn a_column_that_cannot_hold_a_tenant_is_refused() {
    let database = Database::new("row_types");
    as_owner(&database, "CREATE DOMAIN tenant_domain AS uuid CHECK (VALUE IS NOT NULL)");
    for (number, column) in [
        "tenant_id int",
        "tenant_id bigint GENERATED ALWAYS AS IDENTITY",
        "tenant_id char(36)",
        "tenant_id uuid[]",
        "tenant_id jsonb",
        "tenant_id bytea",
        "tenant_id tenant_domain",
        "body text, tenant_id text GENERATED ALWAYS AS (body) STORED",
    ]
    .into_iter()
    .enumerate()
    {
        as_owner(&database, &format!("CREATE TABLE t{number} ({column})"));
        let fault = protect_fails(&database, &format!("'t{number}'"), "22023");
        assert!(fault.message().contains("tenant_id"), "{fault}");
    }
}

/// Such a column could hold no tenant's id, so that nobody could ever write to the table.
#[test]
fn a_column_too_short_for_an_id_is_refused() {
    let database = Database::new("row_short");
    as_owner(&database, "CREATE TABLE t (tenant_id varchar(10))");
    protect_fails(&database, "'t'", "22023");
}

#[test]
fn rows_of_no_known_tenant_are_refused_and_nothing_changes() {
    let pair = Pair::new("row_unknown");
    let unknown = Uuid::new_v4();
    as_owner(&pair.database, "CREATE TABLE t (tenant_id uuid, body text); CREATE TABLE s (tenant_id text)");
    as_owner(&pair.database, &format!("INSERT INTO t VALUES ('{}'), ('{unknown}')", pair.a));
    let fault = protect_fails(&pair.database, "'t'", "55000");
    assert!(fault.message().contains(&unknown.to_string()), "{fault}");
    assert!(fault.hint().is_some_and(|hint| hint.contains("create_tenant")), "{fault:?}");

    as_owner(&pair.database, "UPDATE t SET tenant_id = NULL WHERE body IS NULL");
    let fault = protect_fails(&pair.database, "'t'", "55000");
    assert!(fault.message().contains("NULL"), "{fault}");

    for wrong in [pair.a.to_string().to_uppercase(), pair.a.simple().to_string(), String::new(), "x' OR 1".to_owned()] {
        let insert = "INSERT INTO s VALUES ($1)";
        pair.database.connect("owner").execute(insert, &[&wrong]).expect("insert");
        protect_fails(&pair.database, "'s'", "55000");
        as_owner(&pair.database, "TRUNCATE s");
    }

    let insert = format!("TRUNCATE t; INSERT INTO t VALUES ('{0}'), ('{1}'); INSERT INTO s TABLE t", pair.a, pair.b);
    as_owner(&pair.database, &insert.replace("INSERT INTO s TABLE t", "INSERT INTO s SELECT tenant_id::text FROM t"));
    assert!(protect(&pair.database, "'t'"));
    assert!(protect(&pair.database, "'s'"));
    let mut pair = pair;
    as_owner(&pair.database, "GRANT ALL ON t, s TO app");
    pair.isolates("t", "tenant_id");
    pair.isolates("s", "tenant_id");
}

#[test]
fn identity_serial_and_generated_columns_go_on_working() {
    let mut pair = Pair::new("row_generated");
    as_owner(
        &pair.database,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number serial, price numeric DEFAULT 2,
                         tax numeric GENERATED ALWAYS AS (price * 0.2) STORED);
         GRANT ALL ON t TO app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app",
    );
    assert!(protect(&pair.database, "'t'"));
    pair.write("INSERT INTO t (price) VALUES (10), (20)");
    pair.isolates("t", "tenant_id");
    let own = read_as(&mut pair.app, pair.b, "SELECT id, number, tax FROM t ORDER BY id");
    let expected = [["3", "3", "2.0"], ["4", "4", "4.0"]].map(|row| row.map(|value| Some(value.to_owned())));
    assert_eq!(own, expected);
}

#[test]
fn protecting_again_changes_nothing() {
    let pair = Pair::with_notes("row_again");
    as_owner(&pair.database, "CREATE POLICY mine ON notes AS RESTRICTIVE USING (body <> 'hidden')");
    let before = schema(&pair.database);
    let registry = "SELECT t::text FROM tenancy.protected_tables t";
    let registered = text(&mut pair.database.superuser(), registry);
    assert!(!protect(&pair.database, "'notes'"));
    assert!(!protect(&pair.database, "'public.notes'"));
    assert_eq!(schema(&pair.database), before);
    assert_eq!(text(&mut pair.database.superuser(), registry), registered);
    let entries = "tenancy.audit_log WHERE action = 'table.protect'";
    assert_eq!(count(&mut pair.database.superuser(), entries), 1);
}

#[test]
fn protecting_by_another_column_is_refused() {
    let pair = Pair::with_notes("row_column");
    let fault = protect_fails(&pair.database, "'notes', 'other'", "55000");
    assert!(fault.hint().is_some_and(|hint| hint.contains("unprotect_table")), "{fault:?}");
}

const TAMPERING: [&str; 11] = [
    "DROP POLICY tenancy_isolation ON notes",
    "DROP POLICY tenancy_guard ON notes",
    "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE notes ALTER tenant_id DROP NOT NULL",
    "ALTER POLICY tenancy_isolation ON notes USING (true)",
    "ALTER POLICY tenancy_isolation ON notes WITH CHECK (true)",
    "ALTER POLICY tenancy_isolation ON notes TO stranger",
    "ALTER POLICY tenancy_guard ON notes TO stranger",
    "DROP POLICY tenancy_isolation ON notes; CREATE POLICY tenancy_isolation ON notes AS PERMISSIVE USING (true)",
    "DROP POLICY tenancy_isolation ON notes; \
     CREATE POLICY tenancy_isolation ON notes AS RESTRICTIVE FOR UPDATE USING (tenant_id = current_tenant())",
];

#[test]
fn tampering_is_seen_and_repaired() {
    let mut pair = Pair::with_notes("row_tampered");
    let whole = schema(&pair.database);
    for tampering in TAMPERING {
        assert_eq!(intact(&pair.database, "notes"), (1, 1));
        as_superuser(&pair.database, tampering);
        assert_eq!(intact(&pair.database, "notes"), (1, 0), "not noticed: {tampering}");
        assert!(!protect(&pair.database, "'notes'"), "was protected before");
        assert_eq!(schema(&pair.database), whole, "not repaired: {tampering}");
        pair.isolates("notes", "tenant_id");
    }
}

/// Not by intent, nor by a tool that makes the database like its models; nor by a role that bypasses row security, which migrations have.
#[test]
fn nobody_but_an_admin_opens_a_protected_table() {
    let mut pair = Pair::with_notes("row_opened");
    let migrator = format!("migrator_{}", pair.database.name());
    as_superuser(&pair.database, &format!("CREATE ROLE {migrator} BYPASSRLS IN ROLE owner"));
    let whole = schema(&pair.database);
    for role in ["owner", &migrator] {
        let mut session = pair.database.superuser();
        session.batch_execute(&format!("SET ROLE {role}")).expect("set role");
        for tampering in TAMPERING.iter().filter(|tampering| !tampering.contains("NOT NULL")) {
            let fault = fails(session.batch_execute(tampering), "42501");
            assert!(fault.hint().is_some_and(|hint| hint.contains("unprotect_table()")), "{tampering}: {fault:?}");
            assert_eq!(schema(&pair.database), whole, "{role}: {tampering}");
        }
        for harmless in [
            "CREATE POLICY more ON notes USING (true); ALTER POLICY more ON notes USING (false); DROP POLICY more ON notes",
            "ALTER TABLE notes ADD COLUMN more int; ALTER TABLE notes DROP COLUMN more",
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE TABLE other (id int); ALTER TABLE other ENABLE ROW LEVEL SECURITY; CREATE POLICY tenancy_isolation ON other USING (true);
             DROP POLICY tenancy_isolation ON other; ALTER TABLE other DISABLE ROW LEVEL SECURITY; DROP TABLE other",
        ] {
            session.batch_execute(harmless).unwrap_or_else(|error| panic!("{role}: {harmless}: {error:?}"));
        }
        pair.isolates("notes", "tenant_id");
    }
    as_superuser(&pair.database, &format!("DROP ROLE {migrator}"));
    assert!(one::<bool>(&mut pair.database.connect("admin"), "SELECT unprotect_table('notes')", &[]));
    as_owner(&pair.database, "DROP TABLE notes");
}

#[test]
fn a_tenant_column_that_is_renamed_stays_the_tenant_column() {
    let mut pair = Pair::with_notes("row_renamed");
    as_owner(&pair.database, "ALTER TABLE notes RENAME tenant_id TO renamed");
    assert_eq!(intact(&pair.database, "notes"), (1, 1));
    pair.isolates("notes", "renamed");
    as_owner(&pair.database, "ALTER VIEW notes RENAME COLUMN renamed TO again");
    assert_eq!(intact(&pair.database, "notes"), (1, 1));
    pair.isolates("notes", "again");
}

#[test]
fn what_is_not_an_ordinary_table_is_refused() {
    let database = Database::new("row_kinds");
    as_superuser(
        &database,
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
         CREATE TABLE t (tenant_id uuid, id int); CREATE INDEX t_index ON t (id);
         CREATE VIEW a_view AS TABLE t; CREATE MATERIALIZED VIEW a_copy AS TABLE t; CREATE SEQUENCE a_sequence;
         CREATE FOREIGN TABLE a_foreign (tenant_id uuid) SERVER nowhere; CREATE TYPE a_type AS (tenant_id uuid)",
    );
    for name in [
        "a_view",
        "a_copy",
        "a_sequence",
        "a_foreign",
        "a_type",
        "t_index",
        "pg_catalog.pg_class",
        "pg_catalog.pg_stat_activity",
        "information_schema.sql_features",
        "tenancy.tenants",
        "tenancy.audit_log",
        "tenancy.protected_tables",
    ] {
        protect_fails(&database, &format!("'{name}'"), "22023");
        let unprotect = format!("SELECT unprotect_table('{name}')");
        fails(database.connect("admin").batch_execute(&unprotect), "22023");
    }
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE TEMPORARY TABLE passing (tenant_id uuid)").expect("create");
    fails(superuser.batch_execute("SELECT protect_table('passing')"), "22023");
}

/// A mistyped name must not stop every session of the server while the call waits for its lock.
#[test]
fn a_catalog_is_refused_without_waiting_for_a_lock() {
    let database = Database::new("row_lock");
    as_owner(&database, "CREATE TABLE t (id int); CREATE VIEW v AS TABLE t");
    let mut reader = database.superuser();
    reader.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_class, v IN ACCESS SHARE MODE").expect("lock");
    let mut admin = database.connect("admin");
    admin.batch_execute("SET lock_timeout = '1s'").expect("set");
    for call in ["protect_table('pg_catalog.pg_class')", "protect_table('v')", "unprotect_table('v')"] {
        fails(admin.batch_execute(&format!("SELECT {call}")), "22023");
    }
    reader.batch_execute("COMMIT").expect("commit");
}

#[test]
fn bad_arguments_are_refused() {
    let database = Database::new("row_bad");
    as_owner(&database, "CREATE TABLE t (tenant_id uuid); CREATE TABLE filled (id int); INSERT INTO filled VALUES (1)");
    for (arguments, sqlstate) in [
        ("NULL", "22023"),
        ("'t', NULL", "22023"),
        ("'t', 'tenant_id', NULL", "22023"),
        ("'t', ''", "22023"),
        ("'nowhere'", "42P01"),
        ("''", "42602"),
        ("'t; DROP TABLE t'", "42602"),
        ("0::regclass", "P0002"),
        ("4000000000::oid::regclass", "P0002"),
        ("'filled', 'x\" uuid; DROP TABLE t; --'", "55000"),
        ("'filled', '💣 ''\\ %s %I'", "55000"),
        ("'filled', 'ctid'", "22023"),
        ("'t', 'xmin'", "22023"),
        ("'t', 'TENANT_ID', true, true, 'surplus'", "42883"),
    ] {
        protect_fails(&database, arguments, sqlstate);
    }
    let mut admin = database.connect("admin");
    for (argument, sqlstate) in
        [("NULL", "22023"), ("'nowhere'", "42P01"), ("0::regclass", "P0002"), ("4000000000::oid::regclass", "P0002")]
    {
        fails(admin.batch_execute(&format!("SELECT unprotect_table({argument})")), sqlstate);
    }
    assert!(!one::<bool>(&mut admin, "SELECT unprotect_table('t')", &[]));
    assert_eq!(count(&mut database.superuser(), "tenancy.audit_log WHERE action LIKE 'table.%'"), 0);
}

#[test]
fn a_column_name_full_of_sql_is_only_a_name() {
    let mut pair = Pair::new("row_inject");
    as_owner(&pair.database, "CREATE TABLE t (id int); CREATE TABLE canary (id int); GRANT ALL ON t TO app");
    let column = "x\" uuid; DROP TABLE canary; --";
    let mut admin = pair.database.connect("admin");
    assert!(one::<bool>(&mut admin, "SELECT protect_table('t', $1::text::name)", &[&column]));
    pair.write("INSERT INTO t (id) VALUES (1)");
    pair.isolates("t", "\"x\"\" uuid; DROP TABLE canary; --\"");
    assert_eq!(count(&mut pair.database.superuser(), "canary"), 0);
}

#[test]
fn only_an_admin_protects() {
    let pair = Pair::with_notes("row_level");
    as_owner(&pair.database, "CREATE TABLE t (tenant_id uuid)");
    for role in ["app", "client", "monitor", "operator", "owner", "stranger"] {
        let mut client = pair.database.connect(role);
        for call in ["protect_table('t')", "unprotect_table('notes')"] {
            fails(client.batch_execute(&format!("SELECT {call}")), "42501");
        }
    }
    assert_eq!(intact(&pair.database, "notes"), (1, 1));
    assert_eq!(intact(&pair.database, "t"), (0, 0));
}

#[test]
fn a_table_of_a_role_with_level_app_is_refused() {
    let database = Database::new("row_app");
    as_superuser(&database, "CREATE TABLE t (tenant_id uuid); ALTER TABLE t OWNER TO app");
    let fault = protect_fails(&database, "'t'", "42501");
    assert!(fault.hint().is_some_and(|hint| hint.contains("OWNER TO")), "{fault:?}");
}

#[test]
fn an_owner_who_bypasses_row_security_is_noticed() {
    let database = Database::new("row_super");
    as_superuser(&database, "CREATE TABLE t (tenant_id uuid)");
    let notices = protect_noticing(&database, "'t'");
    assert!(notices.iter().any(|notice| notice.message().contains("bypasses row security")), "{notices:?}");
}

#[test]
fn policies_of_the_tables_own_are_noticed() {
    let mut pair = Pair::new("row_policies");
    as_owner(
        &pair.database,
        "CREATE TABLE t (tenant_id uuid, hidden bool DEFAULT false); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY \"My Policy\" ON t USING (true); CREATE POLICY strict ON t AS RESTRICTIVE USING (NOT hidden);
         GRANT ALL ON t TO app",
    );
    let notices = protect_noticing(&pair.database, "'t'");
    let about: Vec<&DbError> = notices.iter().filter(|notice| notice.message().contains("permissive")).collect();
    assert_eq!(about.len(), 1, "{notices:?}");
    let message = about[0].message();
    assert!(message.contains("\"My Policy\"") && !message.contains("strict,") && !message.contains("tenancy_guard"));
    pair.write("INSERT INTO t DEFAULT VALUES");
    pair.isolates("t", "tenant_id");
    refused_as(&mut pair.app, pair.a, "UPDATE t SET hidden = true", "42501");
}

/// A plain table says nothing: a notice that always comes is a notice that nobody reads.
#[test]
fn an_ordinary_table_is_protected_without_a_notice() {
    let database = Database::new("row_quiet");
    as_owner(&database, "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid)");
    let notices = protect_noticing(&database, "'t'");
    assert!(notices.is_empty(), "{notices:?}");
}

#[test]
fn unprotecting_restores_exactly() {
    let database = Database::new("row_restore");
    as_owner(
        &database,
        "CREATE TABLE plain (id int PRIMARY KEY, tenant_id uuid NOT NULL); CREATE INDEX ON plain (tenant_id);
         CREATE TABLE \"Own RLS\" (id int, tenant_id text NOT NULL); CREATE INDEX ON \"Own RLS\" (tenant_id);
         ALTER TABLE \"Own RLS\" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY mine ON \"Own RLS\" USING (id > 0);
         CREATE TABLE enabled (tenant_id uuid NOT NULL); CREATE INDEX ON enabled (tenant_id);
         ALTER TABLE enabled ENABLE ROW LEVEL SECURITY;
         CREATE TABLE parted (id int, tenant_id uuid NOT NULL) PARTITION BY RANGE (id);
         CREATE INDEX ON parted (tenant_id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (9) PARTITION BY LIST (id);
         CREATE TABLE parted_1_1 PARTITION OF parted_1 FOR VALUES IN (1);
         ALTER TABLE parted_1_1 ENABLE ROW LEVEL SECURITY",
    );
    let before = schema(&database);
    let tables = ["plain", "\"Own RLS\"", "enabled", "parted"];
    for table in tables {
        assert!(protect(&database, &format!("'{table}'")), "{table}");
    }
    assert_ne!(schema(&database), before);
    let mut admin = database.connect("admin");
    for table in tables {
        assert!(!protect(&database, &format!("'{table}'")), "{table} again");
        let unprotect = format!("SELECT unprotect_table('{table}')");
        assert!(one::<bool>(&mut admin, &unprotect, &[]), "{table}");
        assert!(!one::<bool>(&mut admin, &unprotect, &[]), "{table} again");
    }
    assert_eq!(schema(&database), before);
    assert_eq!(count(&mut database.superuser(), "tenancy.protected_tables"), 0);
    let entries = "tenancy.audit_log WHERE action = 'table.unprotect'";
    assert_eq!(count(&mut database.superuser(), entries), 4);
}

#[test]
fn unprotecting_leaves_column_index_and_rows() {
    let mut pair = Pair::with_notes("row_leave");
    assert!(one::<bool>(&mut pair.database.connect("admin"), "SELECT unprotect_table('notes')", &[]));
    assert_eq!(count(&mut pair.app, "notes"), 2);
    assert_eq!(count(&mut pair.app, "notes WHERE tenant_id IS NOT NULL"), 2);
    assert_eq!(count(&mut pair.app, "pg_policy WHERE polrelid = 'notes'::regclass"), 0);
}

#[test]
fn a_dropped_table_is_forgotten() {
    let pair = Pair::with_notes("row_dropped");
    as_owner(&pair.database, "DROP TABLE notes");
    assert_eq!(count(&mut pair.database.superuser(), "tenancy.protected_tables"), 0);
    protected_table(&pair.database);
}

#[test]
fn a_renamed_and_moved_table_stays_protected() {
    let mut pair = Pair::with_notes("row_moved");
    as_superuser(
        &pair.database,
        "CREATE SCHEMA \"Else where\" AUTHORIZATION owner; GRANT USAGE ON SCHEMA \"Else where\" TO app, admin",
    );
    as_owner(
        &pair.database,
        "ALTER TABLE notes RENAME TO \"No tes\"; ALTER TABLE \"No tes\" SET SCHEMA \"Else where\"",
    );
    pair.isolates("\"Else where\".\"No tes\"", "tenant_id");
    assert!(!protect(&pair.database, "'\"Else where\".\"No tes\"'"));
}

/// The owner of a table needs no right on the schema that the extension's functions live in.
#[test]
fn an_extension_in_a_schema_of_its_own_serves_owners_without_a_right_there() {
    let database = harness::cluster().empty_database("row_ext");
    as_superuser(
        &database,
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT CREATE ON SCHEMA public TO owner;
         CREATE SCHEMA \"Ext x\"; CREATE EXTENSION pg_tenancy SCHEMA \"Ext x\";
         SET search_path = \"Ext x\"; SELECT grant_access('app', 'app'), grant_access('operator', 'operator');
         SELECT grant_access('admin', 'admin')",
    );
    let mut superuser = database.superuser();
    assert!(!one::<bool>(&mut superuser, "SELECT has_schema_privilege('owner', 'Ext x', 'USAGE')", &[]));
    as_owner(
        &database,
        "CREATE TABLE t (id int); CREATE TABLE s (tenant_id text, id int) PARTITION BY RANGE (id);
         CREATE TABLE s1 PARTITION OF s FOR VALUES FROM (1) TO (5); GRANT ALL ON t, s, s1 TO app",
    );
    let mut admin = database.connect("admin");
    for table in ["t", "s"] {
        let protect = format!("SELECT \"Ext x\".protect_table('{table}')");
        assert!(one::<bool>(&mut admin, &protect, &[]));
    }
    as_owner(&database, "CREATE TABLE s2 PARTITION OF s FOR VALUES FROM (5) TO (9); GRANT ALL ON s2 TO app");
    let mut operator = database.connect("operator");
    let created =
        ["Acme", "Globex"].map(|name| one::<Uuid>(&mut operator, "SELECT \"Ext x\".create_tenant($1)", &[&name]));
    let mut app = database.connect("app");
    for table in ["t", "s", "s1", "s2"] {
        for tenant in created {
            let mut transaction = app.transaction().expect("begin");
            let _: Uuid = one(&mut transaction, "SELECT \"Ext x\".set_tenant($1)", &[&tenant]);
            let id = if table == "s2" { 6 } else { 1 };
            let insert = format!("INSERT INTO {table} (id) VALUES ({id})");
            transaction.batch_execute(&insert).expect("insert");
            let seen = simple(&mut transaction, &format!("SELECT DISTINCT tenant_id FROM {table}"));
            assert_eq!(seen, [[Some(tenant.to_string())]], "{table}");
            transaction.commit().expect("commit");
        }
        fails(app.batch_execute(&format!("TABLE {table}")), "42501");
    }
    assert!(one::<bool>(&mut admin, "SELECT \"Ext x\".unprotect_table('s')", &[]));
}

/// A DBA may keep schemas to herself and give the tables in them away.
#[test]
fn an_owner_without_a_right_on_the_tables_schema_is_told_the_grant() {
    let mut pair = Pair::new("row_closed");
    as_superuser(
        &pair.database,
        "CREATE SCHEMA closed; CREATE TABLE closed.t (id int, tenant_id uuid); CREATE TABLE closed.bare (id int);
         GRANT ALL ON closed.t, closed.bare TO app; GRANT USAGE ON SCHEMA closed TO app, admin;
         ALTER TABLE closed.t OWNER TO owner; ALTER TABLE closed.bare OWNER TO owner",
    );
    let fault = protect_fails(&pair.database, "'closed.t'", "55000");
    let hint = fault.hint().expect("a hint");
    as_superuser(&pair.database, hint);
    for table in ["closed.t", "closed.bare"] {
        assert!(protect(&pair.database, &format!("'{table}'")));
        pair.write(&format!("INSERT INTO {table} (id) VALUES (1)"));
        pair.isolates(table, "tenant_id");
    }
}

// ---------------------------------------------------------------------------------------------------------
// Partitions and children
// ---------------------------------------------------------------------------------------------------------

const PARTITIONED: &str = "
CREATE TABLE events (id int, tenant_id uuid, kind text, at date) PARTITION BY RANGE (at);
CREATE TABLE \"Events 2025\" PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (kind);
CREATE TABLE events_a PARTITION OF \"Events 2025\" FOR VALUES IN ('a') PARTITION BY HASH (id);
CREATE TABLE events_a0 PARTITION OF events_a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE events_a1 PARTITION OF events_a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE events_b PARTITION OF \"Events 2025\" DEFAULT;
CREATE TABLE events_rest PARTITION OF events DEFAULT;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
";

const EVENTS: &str = "INSERT INTO events (id, kind, at)
    SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, DATE '2025-06-01' + 200 * (i % 3) FROM generate_series(1, 40) i";

#[test]
fn a_partitioned_table_is_protected_on_all_levels() {
    let mut pair = Pair::new("row_parted");
    as_owner(&pair.database, PARTITIONED);
    assert!(protect(&pair.database, "'events'"));
    assert_eq!(intact(&pair.database, "events"), (7, 7));
    pair.write(EVENTS);
    for table in ["events", "\"Events 2025\"", "events_a", "events_a0", "events_a1", "events_b", "events_rest"] {
        pair.isolates(table, "tenant_id");
        let foreign = format!("INSERT INTO {table} SELECT id, '{}', kind, at FROM {table} ORDER BY id LIMIT 1", pair.a);
        refused_as(&mut pair.app, pair.b, &foreign, "42501");
        assert_eq!(
            touched_as(&mut pair.app, pair.b, &format!("DELETE FROM {table} WHERE tenant_id = '{}'", pair.a)),
            0
        );
    }
    let all = count(&mut pair.database.superuser(), "events");
    assert_eq!(all, 80);
    let moved = "UPDATE events SET at = '2030-01-01', kind = 'a'";
    assert_eq!(touched_as(&mut pair.app, pair.b, moved), 40);
    let rest = format!("events_rest WHERE tenant_id = '{}' AND at = '2030-01-01'", pair.a);
    assert_eq!(count(&mut pair.database.superuser(), &rest), 0);
}

#[test]
fn a_partitioned_table_without_the_column_gets_it_everywhere() {
    let mut pair = Pair::new("row_parted_bare");
    as_owner(&pair.database, &PARTITIONED.replace("tenant_id uuid, ", ""));
    assert!(protect(&pair.database, "'events', 'Tenant'"));
    assert_eq!(intact(&pair.database, "events"), (7, 7));
    pair.write(EVENTS);
    pair.isolates("events_a0", "\"Tenant\"");
}

#[test]
fn a_row_of_no_tenant_in_any_partition_stops_all() {
    let database = Database::new("row_parted_rows");
    as_owner(&database, PARTITIONED);
    as_owner(&database, "INSERT INTO events VALUES (2, gen_random_uuid(), 'a', '2025-05-05')");
    let fault = protect_fails(&database, "'events'", "55000");
    assert!(fault.message().contains("events_a"), "{fault}");
    as_owner(&database, "TRUNCATE events; ALTER TABLE events DROP COLUMN tenant_id");
    as_owner(&database, "INSERT INTO events VALUES (2, 'b', '2025-05-05')");
    protect_fails(&database, "'events'", "55000");
}

#[test]
fn later_partitions_are_protected_however_they_come() {
    let mut pair = Pair::new("row_later");
    as_owner(
        &pair.database,
        "CREATE TABLE events (id int, tenant_id uuid, at int) PARTITION BY RANGE (at);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)",
    );
    assert!(protect(&pair.database, "'events'"));
    as_owner(
        &pair.database,
        &format!(
            "CREATE TABLE created PARTITION OF events FOR VALUES FROM (10) TO (20);
             CREATE TABLE attached (extra int, at int, tenant_id uuid NOT NULL, id int);
             ALTER TABLE attached DROP COLUMN extra;
             INSERT INTO attached VALUES (20, '{0}', 1), (20, '{1}', 2);
             ALTER TABLE events ATTACH PARTITION attached FOR VALUES FROM (20) TO (30);
             CREATE TABLE tree (id int, tenant_id uuid NOT NULL, at int) PARTITION BY RANGE (at);
             CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM (30) TO (35) PARTITION BY LIST (at);
             CREATE TABLE tree_1_1 PARTITION OF tree_1 DEFAULT;
             ALTER TABLE events ATTACH PARTITION tree FOR VALUES FROM (30) TO (40);
             CREATE TABLE tree_2 PARTITION OF tree FOR VALUES FROM (35) TO (40);
             DO $$ BEGIN EXECUTE 'CREATE TABLE by_function PARTITION OF events FOR VALUES FROM (40) TO (50)'; END $$;
             CREATE TABLE IF NOT EXISTS maybe PARTITION OF events FOR VALUES FROM (50) TO (60);
             GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
            pair.a, pair.b
        ),
    );
    as_superuser(
        &pair.database,
        "CREATE TABLE by_superuser PARTITION OF events FOR VALUES FROM (60) TO (70); \
                                  GRANT ALL ON by_superuser TO app",
    );
    pair.write("INSERT INTO events (id, at) SELECT i, i FROM generate_series(0, 69) i");
    let partitions = [
        "created",
        "attached",
        "tree",
        "tree_1",
        "tree_1_1",
        "tree_2",
        "by_function",
        "maybe",
        "by_superuser",
        "events",
    ];
    for table in partitions {
        pair.isolates(table, "tenant_id");
        // A statement that leaves the column out finds the bound tenant in a partition, too.
        let at = format!("INSERT INTO {table} (id, at) SELECT 99, at FROM {table} LIMIT 1");
        assert_eq!(touched_as(&mut pair.app, pair.b, &at), 1, "{table}");
    }
    assert_eq!(intact(&pair.database, "events"), (11, 11));
}

/// CREATE SCHEMA runs the statements that it contains without an event trigger of their own.
#[test]
fn a_partition_created_inside_create_schema_is_protected() {
    let mut pair = Pair::with_notes("row_inside");
    as_owner(
        &pair.database,
        "CREATE TABLE events (id int, tenant_id uuid) PARTITION BY RANGE (id); GRANT ALL ON events TO app",
    );
    assert!(protect(&pair.database, "'events'"));
    as_superuser(
        &pair.database,
        "CREATE SCHEMA inside CREATE TABLE child () INHERITS (public.notes)
                              CREATE TABLE part PARTITION OF public.events FOR VALUES FROM (1) TO (9);
         GRANT USAGE ON SCHEMA inside TO app; GRANT ALL ON ALL TABLES IN SCHEMA inside TO app",
    );
    pair.write("INSERT INTO events (id) VALUES (1)");
    pair.isolates("inside.part", "tenant_id");
    let insert = format!("INSERT INTO inside.child (id, tenant_id, body) VALUES (5, '{}', 'secret')", pair.a);
    refused_as(&mut pair.app, pair.b, &insert, "42501");
}

#[test]
fn attaching_rows_of_no_known_tenant_is_refused() {
    let pair = Pair::new("row_attach");
    as_owner(
        &pair.database,
        "CREATE TABLE events (id int, tenant_id uuid) PARTITION BY RANGE (id);
         CREATE TABLE unknown (id int, tenant_id uuid NOT NULL); INSERT INTO unknown VALUES (1, gen_random_uuid());
         CREATE TABLE nobody (id int, tenant_id uuid); INSERT INTO nobody VALUES (1, NULL)",
    );
    assert!(protect(&pair.database, "'events'"));
    let before = catalogs(&pair.database);
    // PostgreSQL itself refuses a column that may be NULL.
    for (table, sqlstate) in [("unknown", "55000"), ("nobody", "42804")] {
        let attach = format!("ALTER TABLE events ATTACH PARTITION {table} FOR VALUES FROM (1) TO (9)");
        fails(pair.database.connect("owner").batch_execute(&attach), sqlstate);
    }
    assert_eq!(catalogs(&pair.database), before);
}

#[test]
fn a_detached_partition_stays_guarded() {
    let mut pair = Pair::new("row_detach");
    as_owner(
        &pair.database,
        "CREATE TABLE events (id int, tenant_id uuid) PARTITION BY RANGE (id);
         CREATE TABLE one PARTITION OF events FOR VALUES FROM (1) TO (5);
         CREATE TABLE two PARTITION OF events FOR VALUES FROM (5) TO (9);
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
    );
    assert!(protect(&pair.database, "'events'"));
    pair.write("INSERT INTO events (id) SELECT generate_series(1, 8)");
    as_owner(&pair.database, "ALTER TABLE events DETACH PARTITION one");
    as_owner(&pair.database, "ALTER TABLE events DETACH PARTITION two CONCURRENTLY");
    for table in ["one", "two"] {
        pair.isolates(table, "tenant_id");
        pair.write(&format!("INSERT INTO {table} (id) VALUES (4 + 4 * ('{table}' = 'two')::int)"));
    }
    let status =
        "SELECT count(*) FILTER (WHERE intact) FROM tenancy.protection_status WHERE table_name::text IN ('one', 'two')";
    assert_eq!(text(&mut pair.database.superuser(), status), "2");

    let mut admin = pair.database.connect("admin");
    assert!(one::<bool>(&mut admin, "SELECT unprotect_table('events')", &[]));
    pair.isolates("two", "tenant_id");
    as_owner(&pair.database, "DROP TABLE events");
    pair.isolates("two", "tenant_id");
    assert!(!protect(&pair.database, "'two'"), "was protected all the time");
    assert!(one::<bool>(&mut admin, "SELECT unprotect_table('two')", &[]), "by itself, now");
    assert_eq!(count(&mut pair.app, "two"), 10);
}

#[test]
fn inheritance_children_are_protected_now_and_later() {
    let mut pair = Pair::new("row_inherit");
    as_owner(
        &pair.database,
        "CREATE TABLE animals (id int, tenant_id uuid); CREATE TABLE dogs (breed text) INHERITS (animals);
         CREATE TABLE puppies (age int) INHERITS (dogs); GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
    );
    assert!(protect(&pair.database, "'animals'"));
    as_owner(
        &pair.database,
        "CREATE TABLE cats () INHERITS (animals); CREATE TABLE birds (id int, tenant_id uuid NOT NULL);
         ALTER TABLE birds INHERIT animals; CREATE TABLE owls (wise bool) INHERITS (birds);
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
    );
    assert_eq!(intact(&pair.database, "animals"), (6, 6));
    let tables = ["animals", "dogs", "puppies", "cats", "birds", "owls"];
    for table in tables {
        pair.write(&format!("INSERT INTO {table} (id) VALUES (1)"));
    }
    for table in tables {
        pair.isolates(table, "tenant_id");
        pair.isolates(&format!("ONLY {table}"), "tenant_id");
    }
    assert_eq!(column_as(&mut pair.app, pair.b, "SELECT id FROM animals").len(), 6);
    assert_eq!(column_as(&mut pair.app, pair.b, "SELECT id FROM ONLY animals").len(), 1);
    as_owner(&pair.database, "ALTER TABLE birds NO INHERIT animals");
    pair.isolates("birds", "tenant_id");
}

/// The policies of the table that a statement names are those that hold: through an open parent the rows would be everybody's.
#[test]
fn no_parent_opens_a_protected_table() {
    let mut pair = Pair::with_notes("row_open_parent");
    pair.write("INSERT INTO notes (body) VALUES ('mine')");
    as_owner(
        &pair.database,
        "CREATE TABLE several (LIKE notes) PARTITION BY RANGE (id); CREATE TABLE parent (tenant_id uuid); \
         GRANT ALL ON several, parent TO app",
    );
    let before = catalogs(&pair.database);
    for role in ["owner", "postgres"] {
        for statement in [
            "ALTER TABLE several ATTACH PARTITION notes DEFAULT",
            "ALTER TABLE notes INHERIT parent",
            "CREATE TABLE child () INHERITS (notes, parent)",
            "DO $$ BEGIN ALTER TABLE notes INHERIT parent; END $$",
        ] {
            let fault = fails(pair.database.connect(role).batch_execute(statement), "55000");
            assert!(fault.message().contains("which is not protected"), "{role}: {statement}: {fault:?}");
        }
    }
    assert_eq!(catalogs(&pair.database), before);
    for table in ["several", "parent"] {
        assert_eq!(count(&mut pair.app, table), 0);
    }
    // The hint is the way: the parent first.
    assert!(protect(&pair.database, "'several'"));
    as_owner(&pair.database, "ALTER TABLE several ATTACH PARTITION notes DEFAULT");
    pair.isolates("several", "tenant_id");
    pair.isolates("notes", "tenant_id");
    // Of two parents neither can be protected while the other is open.
    as_owner(
        &pair.database,
        "CREATE TABLE one (tenant_id uuid); CREATE TABLE two (tenant_id uuid); CREATE TABLE heir () INHERITS (one, two)",
    );
    for parent in ["one", "two"] {
        let fault = protect_fails(&pair.database, &format!("'{parent}'"), "55000");
        assert!(
            fault.hint().is_some_and(|hint| hint.contains("ALTER TABLE public.heir NO INHERIT public.")),
            "{fault:?}"
        );
    }
    as_owner(&pair.database, "ALTER TABLE heir NO INHERIT two");
    assert!(protect(&pair.database, "'one'"));
    fails(pair.database.connect("owner").batch_execute("ALTER TABLE heir INHERIT two"), "55000");
}

#[test]
fn inheriting_rows_of_no_known_tenant_is_refused() {
    let pair = Pair::with_notes("row_inherit_rows");
    as_owner(
        &pair.database,
        "CREATE TABLE strange (id bigint NOT NULL, tenant_id uuid NOT NULL, body text); \
         INSERT INTO strange VALUES (1, gen_random_uuid())",
    );
    let before = catalogs(&pair.database);
    fails(pair.database.connect("owner").batch_execute("ALTER TABLE strange INHERIT notes"), "55000");
    assert_eq!(catalogs(&pair.database), before);
}

#[test]
fn a_foreign_table_never_joins_a_protected_one() {
    let pair = Pair::with_notes("row_foreign");
    as_superuser(
        &pair.database,
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
         GRANT USAGE ON FOREIGN SERVER nowhere TO owner",
    );
    as_owner(
        &pair.database,
        "CREATE TABLE events (id int, tenant_id uuid) PARTITION BY RANGE (id);
         CREATE FOREIGN TABLE far PARTITION OF events FOR VALUES FROM (1) TO (5) SERVER nowhere;
         CREATE FOREIGN TABLE apart (id int, tenant_id uuid NOT NULL) SERVER nowhere;
         CREATE FOREIGN TABLE heir (id bigint NOT NULL, tenant_id uuid NOT NULL, body text) SERVER nowhere",
    );
    protect_fails(&pair.database, "'events'", "22023");
    as_owner(&pair.database, "DROP FOREIGN TABLE far");
    assert!(protect(&pair.database, "'events'"));
    let before = catalogs(&pair.database);
    for statement in [
        "CREATE FOREIGN TABLE far PARTITION OF events FOR VALUES FROM (1) TO (5) SERVER nowhere",
        "ALTER TABLE events ATTACH PARTITION apart FOR VALUES FROM (1) TO (5)",
        "CREATE FOREIGN TABLE child () INHERITS (notes) SERVER nowhere",
        "ALTER TABLE heir INHERIT notes",
        "ALTER FOREIGN TABLE heir INHERIT notes",
    ] {
        let mut owner = pair.database.connect("owner");
        assert!(owner.batch_execute(statement).is_err(), "succeeded: {statement}");
        assert_eq!(catalogs(&pair.database), before, "{statement}");
    }
}

#[test]
fn a_part_of_an_unprotected_table_is_refused() {
    let database = Database::new("row_part");
    as_owner(&database, PARTITIONED);
    let fault = protect_fails(&database, "'events_a0'", "55000");
    assert!(fault.message().contains("events_a"), "{fault}");
    assert!(fault.hint().is_some_and(|hint| hint.contains("protect_table")), "{fault:?}");
    as_owner(&database, "CREATE TABLE animals (tenant_id uuid); CREATE TABLE dogs () INHERITS (animals)");
    protect_fails(&database, "'dogs'", "55000");
}

#[test]
fn a_part_of_a_protected_table_is_not_unprotected_alone() {
    let database = Database::new("row_part_of");
    as_owner(&database, PARTITIONED);
    assert!(protect(&database, "'events'"));
    let mut admin = database.connect("admin");
    fails(admin.batch_execute("SELECT unprotect_table('events_a0')"), "55000");
    assert!(!protect(&database, "'events_a0'"));
    assert_eq!(intact(&database, "events"), (7, 7));
}

// ---------------------------------------------------------------------------------------------------------
// Keys that reach across tenants
// ---------------------------------------------------------------------------------------------------------

/// Tables whose keys leave the tenant out, in every manner: generated and natural keys, quoted names, several
/// columns, to itself, with actions, deferrable, and unique by constraint and by index.
const KEYS: &str = "
CREATE TABLE authors (id serial PRIMARY KEY, email text UNIQUE);
CREATE TABLE books (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author_id int REFERENCES authors ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    sequel_of bigint REFERENCES books ON DELETE SET NULL);
CREATE TABLE \"Line Items\" (\"Order\" int GENERATED BY DEFAULT AS IDENTITY, \"No\" int,
    CONSTRAINT \"My Key\" PRIMARY KEY (\"Order\", \"No\"));
CREATE TABLE parcels (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, o int, n int,
    CONSTRAINT \"My Reference\" FOREIGN KEY (o, n) REFERENCES \"Line Items\" ON UPDATE CASCADE);
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;
";

const KEY_TABLES: [&str; 4] = ["authors", "books", "\"Line Items\"", "parcels"];

/// Protects the tables of [`KEYS`], runs every hint, then protects again, which must have nothing left to say.
fn close_keys(database: &Database) {
    as_owner(database, KEYS);
    for table in KEY_TABLES {
        assert!(protect(database, &format!("'{table}'")));
    }
    for round in 1.. {
        assert!(round < 4, "hints do not end");
        let mut followed = 0;
        for table in KEY_TABLES {
            followed += follow_key_hints(database, &protect_noticing(database, &format!("'{table}'")));
        }
        if followed == 0 {
            assert!(round > 1, "no key was noticed");
            return;
        }
    }
}

#[test]
fn the_hints_about_keys_work_as_given_and_close_them() {
    let mut pair = Pair::new("row_hints");
    close_keys(&pair.database);
    as_tenant(&mut pair.app, pair.a, |transaction| {
        transaction
            .batch_execute(
                "INSERT INTO authors (id, email) VALUES (1, 'ann@example.com'); INSERT INTO books (author_id) VALUES (1);
                 INSERT INTO \"Line Items\" VALUES (7, 1); INSERT INTO parcels (o, n) VALUES (7, 1)",
            )
            .expect("A's own rows");
    });
    for (foreign, sqlstate) in [
        ("INSERT INTO books (author_id) VALUES (1); SET CONSTRAINTS ALL IMMEDIATE", "23503"),
        ("INSERT INTO books (sequel_of) VALUES (1)", "23503"),
        ("INSERT INTO parcels (o, n) VALUES (7, 1)", "23503"),
    ] {
        refused_as(&mut pair.app, pair.b, foreign, sqlstate);
    }
    // B may hold what A holds, and learns nothing of A.
    let same = "INSERT INTO authors (id, email) VALUES (2, 'ann@example.com')";
    assert_eq!(touched_as(&mut pair.app, pair.b, same), 1);
    refused_as(&mut pair.app, pair.b, "INSERT INTO authors (id, email) VALUES (3, 'ann@example.com')", "23505");
    assert_eq!(touched_as(&mut pair.app, pair.b, "INSERT INTO \"Line Items\" VALUES (7, 1)"), 1);
}

#[test]
fn a_key_closed_by_its_hint_keeps_its_actions() {
    let mut pair = Pair::new("row_actions");
    close_keys(&pair.database);
    let actions = "SELECT format('%s %s%s %s %s', conrelid::regclass, confdeltype, confupdtype, condeferrable, condeferred) \
                   FROM pg_constraint WHERE contype = 'f' ORDER BY conrelid::regclass::text, conname";
    let found: Vec<String> = simple(&mut pair.database.superuser(), actions)
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect();
    let expected = ["books ca t t", "books na f f", "parcels ac f f"];
    assert_eq!(found, expected);
    pair.write("INSERT INTO books DEFAULT VALUES; INSERT INTO books (sequel_of) SELECT id FROM books");
    assert_eq!(touched_as(&mut pair.app, pair.b, "DELETE FROM books WHERE id = (SELECT min(id) FROM books)"), 1);
    let orphaned = "SELECT (sequel_of IS NULL)::text FROM books ORDER BY id DESC LIMIT 1";
    assert_eq!(column_as(&mut pair.app, pair.b, orphaned), ["true"]);
    assert_eq!(column_as(&mut pair.app, pair.a, orphaned), ["false"]);
}

#[test]
fn hints_about_unique_indexes_work_as_given() {
    let mut pair = Pair::new("row_unique");
    as_owner(
        &pair.database,
        "CREATE TABLE t (tenant_id uuid, email text, gone bool DEFAULT false, code text);
         CREATE UNIQUE INDEX \"By code\" ON t (code DESC NULLS LAST) INCLUDE (gone);
         CREATE UNIQUE INDEX by_email ON t (lower(email)) WHERE NOT gone; GRANT ALL ON t TO app",
    );
    let notices = protect_noticing(&pair.database, "'t'");
    assert_eq!(follow_key_hints(&pair.database, &notices), 2, "{notices:?}");
    pair.write("INSERT INTO t (email, code) VALUES ('x@example.com', 'x')");
    refused_as(&mut pair.app, pair.b, "INSERT INTO t (email) VALUES ('X@example.com')", "23505");
    refused_as(&mut pair.app, pair.b, "INSERT INTO t (code) VALUES ('x')", "23505");
    assert_eq!(touched_as(&mut pair.app, pair.b, "INSERT INTO t (email, gone) VALUES ('x@example.com', true)"), 1);
    assert_eq!(follow_key_hints(&pair.database, &protect_noticing(&pair.database, "'t'")), 0);
}

#[test]
fn hints_about_a_partitioned_tables_keys_work_as_given() {
    let mut pair = Pair::new("row_unique_parted");
    as_owner(
        &pair.database,
        "CREATE TABLE t (tenant_id uuid, code text, at int, PRIMARY KEY (code, at)) PARTITION BY RANGE (at);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (1) TO (9); GRANT ALL ON t, t1 TO app",
    );
    let notices = protect_noticing(&pair.database, "'t'");
    assert!(follow_key_hints(&pair.database, &notices) > 0, "{notices:?}");
    pair.write("INSERT INTO t (code, at) VALUES ('x', 1)");
    refused_as(&mut pair.app, pair.b, "INSERT INTO t1 (code, at) VALUES ('x', 1)", "23505");
}

/// Its primary key cannot be replaced before the reference to it is: the hints must take that into account.
#[test]
fn hints_about_a_natural_key_that_others_refer_to_work_as_given() {
    let mut pair = Pair::new("row_natural");
    as_owner(
        &pair.database,
        "CREATE TABLE orders (code text PRIMARY KEY, tenant_id uuid);
         CREATE TABLE lines (id int GENERATED ALWAYS AS IDENTITY, tenant_id uuid, code text REFERENCES orders);
         GRANT ALL ON orders, lines TO app",
    );
    assert!(protect(&pair.database, "'lines'"));
    let notices = protect_noticing(&pair.database, "'orders'");
    assert!(follow_key_hints(&pair.database, &notices) >= 2, "{notices:?}");
    pair.write("INSERT INTO orders (code) VALUES ('x'); INSERT INTO lines (code) VALUES ('x')");
    as_tenant(&mut pair.app, pair.a, |transaction| {
        transaction.batch_execute("INSERT INTO orders (code) VALUES ('only A')").expect("insert");
    });
    refused_as(&mut pair.app, pair.b, "INSERT INTO lines (code) VALUES ('only A')", "23503");
}

#[test]
fn a_generated_key_and_a_composite_one_are_not_reported() {
    let database = Database::new("row_no_hints");
    as_owner(
        &database,
        "CREATE TABLE a (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, tenant_id uuid, code text,
                         UNIQUE (tenant_id, id), UNIQUE (code, tenant_id));
         CREATE TABLE b (id bigserial PRIMARY KEY, tenant_id uuid, a_id uuid,
                         FOREIGN KEY (tenant_id, a_id) REFERENCES a (tenant_id, id))",
    );
    for table in ["a", "b"] {
        let notices = protect_noticing(&database, &format!("'{table}'"));
        assert!(notices.is_empty(), "{notices:?}");
    }
}

#[test]
fn a_foreign_key_to_the_registry_is_added_on_demand() {
    let mut pair = Pair::new("row_registry");
    as_owner(
        &pair.database,
        &format!(
            "CREATE TABLE filled (id int, tenant_id uuid); INSERT INTO filled VALUES (1, '{}'), (2, '{}');
             CREATE TABLE bare (id int); CREATE TABLE texts (tenant_id text);
             CREATE TABLE parted (id int, tenant_id uuid) PARTITION BY RANGE (id);
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (9);
             GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
            pair.a, pair.b
        ),
    );
    protect_fails(&pair.database, "'texts', foreign_key => true", "22023");
    for table in ["filled", "bare", "parted"] {
        assert!(protect(&pair.database, &format!("'{table}', foreign_key => true")), "{table}");
        assert!(!protect(&pair.database, &format!("'{table}', foreign_key => true")), "{table}");
        let keys = format!("pg_constraint WHERE contype = 'f' AND conrelid = '{table}'::regclass");
        assert_eq!(count(&mut pair.database.superuser(), &keys), 1, "{table}");
        pair.write(&format!("INSERT INTO {table} (id) VALUES (1)"));
        pair.isolates(table, "tenant_id");
    }
    let mut superuser = pair.database.superuser();
    let fault = fails(superuser.execute("INSERT INTO filled VALUES (9, gen_random_uuid())", &[]), "23503");
    assert!(fault.constraint().is_some(), "{fault:?}");
}

// ---------------------------------------------------------------------------------------------------------
// Tenant B bound
// ---------------------------------------------------------------------------------------------------------

#[test]
fn no_query_reads_another_tenants_row() {
    let mut pair = Pair::with_notes("row_read");
    as_superuser(&pair.database, "ANALYZE notes");
    let key = pair.key_of_a();
    for query in [
        "TABLE notes".to_owned(),
        "SELECT * FROM ONLY notes".to_owned(),
        "SELECT notes FROM notes".to_owned(),
        "SELECT to_jsonb(n) FROM notes n".to_owned(),
        format!("SELECT * FROM notes WHERE id = {key}"),
        format!("SELECT * FROM notes WHERE id = {key} OR true"),
        format!("SELECT * FROM notes WHERE tenant_id = '{}'", pair.a),
        format!("SELECT * FROM notes WHERE tenant_id = '{}' UNION ALL TABLE notes", pair.a),
        "SELECT * FROM notes WHERE ctid = ANY (ARRAY(SELECT format('(0,%s)', i)::tid FROM generate_series(1, 9) i))"
            .to_owned(),
        "SELECT * FROM notes WHERE ctid >= '(0,0)'".to_owned(),
        "SELECT xmin, xmax, cmin, ctid, tableoid, * FROM notes".to_owned(),
        "SELECT x.* FROM notes n JOIN notes x ON true".to_owned(),
        "SELECT x.* FROM generate_series(1, 3) LEFT JOIN notes x ON true".to_owned(),
        "SELECT x.* FROM notes n LEFT JOIN LATERAL (SELECT * FROM notes WHERE id <= n.id) x ON true".to_owned(),
        "WITH x AS MATERIALIZED (TABLE notes) TABLE x".to_owned(),
        "WITH RECURSIVE x AS (TABLE notes UNION SELECT n.* FROM notes n, x WHERE n.id <> x.id) TABLE x".to_owned(),
        "SELECT (SELECT string_agg(body, ',') FROM notes)".to_owned(),
        "SELECT array_agg(body) OVER () FROM notes".to_owned(),
        "SELECT max(body), min(body) FROM notes".to_owned(),
        "SELECT * FROM notes TABLESAMPLE SYSTEM (100)".to_owned(),
        "SELECT * FROM notes FOR UPDATE".to_owned(),
        "SELECT * FROM notes FOR KEY SHARE".to_owned(),
        "SELECT query_to_xml('TABLE notes', true, true, '')".to_owned(),
        "SELECT table_to_xml('notes', true, true, '')".to_owned(),
        "SELECT database_to_xml(true, true, '')".to_owned(),
        "UPDATE notes SET body = body RETURNING *".to_owned(),
        "INSERT INTO notes (body) SELECT body FROM notes RETURNING *".to_owned(),
        "WITH x AS (DELETE FROM notes RETURNING *) TABLE x".to_owned(),
        "EXPLAIN (ANALYZE, VERBOSE, COSTS) SELECT * FROM notes WHERE body LIKE 'secret%'".to_owned(),
        "SELECT * FROM ts_stat('SELECT to_tsvector(body) FROM notes')".to_owned(),
    ] {
        let (a, b) = (pair.a.to_string(), pair.b);
        let shown = format!("{:?}", read_as(&mut pair.app, b, &query));
        let leaked = shown.contains(&format!("secret of {a}")) || shown.contains(&format!("Some(\"{a}\")"));
        assert!(!leaked, "{query}: {shown}");
    }
}

/// Prepared, bound and cursor reads go another way through the server than plain text.
#[test]
fn no_protocol_reads_another_tenants_row() {
    let mut pair = Pair::with_notes("row_protocol");
    let (a, b, key) = (pair.a, pair.b, pair.key_of_a());
    as_tenant(&mut pair.app, b, |transaction| {
        assert_eq!(rows(transaction, "SELECT id FROM notes WHERE id = $1", &[&key]).len(), 0);
        assert_eq!(rows(transaction, "SELECT id FROM notes WHERE tenant_id = $1", &[&a]).len(), 0);
        transaction.batch_execute("DECLARE c SCROLL CURSOR FOR TABLE notes").expect("declare");
        let fetched = simple(transaction, "FETCH ALL c; FETCH BACKWARD ALL c; CLOSE c");
        assert_eq!(fetched.len(), 2);
        for copy in
            ["COPY notes TO STDOUT", "COPY (TABLE notes) TO STDOUT", "COPY notes (body) TO STDOUT (FORMAT binary)"]
        {
            let mut copied = Vec::new();
            transaction.copy_out(copy).expect("copy").read_to_end(&mut copied).expect("read");
            let copied = String::from_utf8_lossy(&copied).into_owned();
            assert!(copied.contains(&b.to_string()) && !copied.contains(&a.to_string()), "{copy}: {copied}");
        }
    });
}

/// Where PostgreSQL has its compiler. The other tests do without: it takes longer than what they do.
#[test]
fn no_compiled_query_reads_another_tenants_row() {
    const READ: &str = "SELECT body FROM notes WHERE id + 0 > 0";
    let database = Database::new("compiled");
    protected_table(&database);
    let ids = tenants(&mut database.connect("operator"), 2);
    let mut app = database.connect("app");
    app.batch_execute(
        "SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0",
    )
    .expect("compile everything");
    for (id, body) in ids.iter().zip(["one's", "other's"]) {
        touched_as(&mut app, *id, &format!("INSERT INTO notes (body) VALUES ($${body}$$)"));
    }
    let read = app.prepare(READ).expect("prepare");
    for (id, body) in ids.iter().zip(["one's", "other's"]).cycle().take(12) {
        let seen: Vec<String> = as_tenant(&mut app, *id, |transaction| {
            transaction.query(&read, &[]).expect("read").iter().map(|row| row.get(0)).collect()
        });
        assert_eq!(seen, [body]);
    }
    fails(app.query(&read, &[]), "42501");
    let plan = column_as(&mut app, ids[0], &format!("EXPLAIN (ANALYZE) {READ}")).join("\n");
    assert_eq!(plan.contains("JIT:"), one::<bool>(&mut app, "SELECT pg_jit_available()", &[]), "{plan}");
}

#[test]
fn no_statement_changes_another_tenants_row() {
    let mut pair = Pair::with_notes("row_write");
    let (a, b, key, before) = (pair.a, pair.b, pair.key_of_a(), pair.notes_of_a());
    for statement in [
        format!("UPDATE notes SET body = 'x' WHERE id = {key}"),
        format!("UPDATE notes SET tenant_id = '{b}' WHERE tenant_id = '{a}'"),
        format!("DELETE FROM notes WHERE id = {key}"),
        "DELETE FROM notes WHERE ctid = '(0,1)'".to_owned(),
        format!("DELETE FROM notes USING (SELECT {key} AS id) x WHERE notes.id = x.id"),
        format!("MERGE INTO notes USING (SELECT {key} AS id) x ON notes.id = x.id WHEN MATCHED THEN DELETE"),
        format!(
            "MERGE INTO notes USING (SELECT {key} AS id) x ON notes.id = x.id WHEN MATCHED THEN UPDATE SET body = 'x'"
        ),
        format!("INSERT INTO notes (id, body) OVERRIDING SYSTEM VALUE VALUES ({key}, 'x') ON CONFLICT DO NOTHING"),
    ] {
        assert_eq!(touched_as(&mut pair.app, b, &statement), 0, "{statement}");
    }
    for (statement, sqlstate) in [
        (format!("INSERT INTO notes (tenant_id, body) VALUES ('{a}', 'x')"), "42501"),
        (format!("INSERT INTO notes (tenant_id, body) SELECT '{a}', body FROM notes"), "42501"),
        (format!("UPDATE notes SET tenant_id = '{a}'"), "42501"),
        ("UPDATE notes SET tenant_id = NULL".to_owned(), "42501"),
        ("INSERT INTO notes (tenant_id) VALUES (NULL)".to_owned(), "42501"),
        ("UPDATE notes SET tenant_id = gen_random_uuid()".to_owned(), "42501"),
        (
            format!(
                "INSERT INTO notes (id, body) OVERRIDING SYSTEM VALUE VALUES ({key}, 'x') \
                 ON CONFLICT (id) DO UPDATE SET body = 'x'"
            ),
            "42501",
        ),
        (
            format!(
                "INSERT INTO notes (id, tenant_id) OVERRIDING SYSTEM VALUE VALUES ({key}, '{a}') \
                 ON CONFLICT (id) DO UPDATE SET body = 'x'"
            ),
            "42501",
        ),
        (
            format!(
                "MERGE INTO notes USING (SELECT 0 AS id) x ON notes.id = x.id \
                 WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES ('{a}')"
            ),
            "42501",
        ),
        (
            format!("MERGE INTO notes USING (SELECT 1) x ON true WHEN MATCHED THEN UPDATE SET tenant_id = '{a}'"),
            "42501",
        ),
        (format!("WITH x AS (INSERT INTO notes (tenant_id) VALUES ('{a}') RETURNING 1) TABLE x"), "42501"),
        (format!("INSERT INTO notes (id) OVERRIDING SYSTEM VALUE VALUES ({key})"), "23505"),
    ] {
        let fault = refused_as(&mut pair.app, b, &statement, sqlstate);
        let told = format!("{:?} {:?}", fault.message(), fault.detail());
        assert!(!told.contains("secret"), "{statement}: {told}");
        assert_eq!(pair.notes_of_a(), before, "{statement}");
    }
    assert_eq!(pair.notes_of_a(), before);
}

#[test]
fn a_mismatch_names_itself_and_says_what_to_do() {
    let mut pair = Pair::with_notes("row_mismatch");
    let insert = format!("INSERT INTO notes (tenant_id) VALUES ('{}')", pair.a);
    let fault = refused_as(&mut pair.app, pair.b, &insert, "42501");
    assert!(fault.message().starts_with("tenant mismatch"), "{fault}");
    assert!(fault.hint().is_some(), "{fault:?}");
}

#[test]
fn a_trigger_cannot_move_a_row_to_another_tenant() {
    let mut pair = Pair::with_notes("row_trigger");
    as_owner(
        &pair.database,
        &format!(
            "CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ \
             BEGIN NEW.tenant_id := '{}'; RETURN NEW; END $$;
             CREATE TRIGGER move BEFORE INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION move()",
            pair.a
        ),
    );
    let before = pair.notes_of_a();
    for statement in ["INSERT INTO notes (body) VALUES ('x')", "UPDATE notes SET body = 'x'"] {
        refused_as(&mut pair.app, pair.b, statement, "42501");
    }
    assert_eq!(pair.notes_of_a(), before);
}

#[test]
fn a_composite_foreign_key_reaches_no_other_tenant() {
    let mut pair = Pair::new("row_composite");
    as_owner(
        &pair.database,
        "CREATE TABLE orders (id int, tenant_id uuid, UNIQUE (tenant_id, id));
         CREATE TABLE lines (order_id int, tenant_id uuid, FOREIGN KEY (tenant_id, order_id)
             REFERENCES orders (tenant_id, id) ON DELETE CASCADE ON UPDATE CASCADE);
         GRANT ALL ON orders, lines TO app",
    );
    for table in ["orders", "lines"] {
        assert!(protect(&pair.database, &format!("'{table}'")));
    }
    let own = "INSERT INTO orders (id) VALUES (1), (2); INSERT INTO lines (order_id) VALUES (1), (2)";
    as_tenant(&mut pair.app, pair.a, |transaction| transaction.batch_execute(own).expect("A's rows"));
    refused_as(&mut pair.app, pair.b, "INSERT INTO lines (order_id) VALUES (1)", "23503");
    let as_a = format!("INSERT INTO lines (order_id, tenant_id) VALUES (1, '{}')", pair.a);
    refused_as(&mut pair.app, pair.b, &as_a, "42501");
    as_tenant(&mut pair.app, pair.b, |transaction| transaction.batch_execute(own).expect("B's rows"));
    assert_eq!(touched_as(&mut pair.app, pair.b, "DELETE FROM orders WHERE id = 1"), 1);
    assert_eq!(touched_as(&mut pair.app, pair.b, "UPDATE orders SET id = 9 WHERE id = 2"), 1);
    assert_eq!(column_as(&mut pair.app, pair.b, "SELECT order_id FROM lines"), ["9"]);
    assert_eq!(column_as(&mut pair.app, pair.a, "SELECT order_id FROM lines ORDER BY 1"), ["1", "2"]);
}

/// PostgreSQL suspends FORCE while a foreign key's action runs, and what the owner's triggers, defaults and
/// constraints do runs inside.
#[test]
fn what_a_foreign_keys_action_sets_off_sees_its_tenant_only() {
    let mut pair = Pair::with_notes("row_cascade");
    as_owner(
        &pair.database,
        "CREATE FUNCTION mark(what text) RETURNS int LANGUAGE plpgsql AS $$
         BEGIN UPDATE notes SET body = body || what; RETURN 0; END $$;
         CREATE FUNCTION pure(what text, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN PERFORM mark(what); RETURN true; END $$;
         CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM mark(' by ' || TG_WHEN || TG_OP); RETURN coalesce(NEW, OLD); END $$;
         CREATE TABLE orders (id int, tenant_id uuid, UNIQUE (tenant_id, id));
         CREATE TABLE cascading (id int, tenant_id uuid, CHECK (pure(' by check', id)),
             FOREIGN KEY (tenant_id, id) REFERENCES orders (tenant_id, id) ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE nulled (id int, tenant_id uuid,
             FOREIGN KEY (tenant_id, id) REFERENCES orders (tenant_id, id) ON DELETE SET NULL (id));
         CREATE TABLE defaulted (id int DEFAULT mark(' by default'), tenant_id uuid,
             FOREIGN KEY (tenant_id, id) REFERENCES orders (tenant_id, id) ON DELETE SET DEFAULT (id));
         CREATE TRIGGER b BEFORE UPDATE OR DELETE ON cascading FOR EACH ROW EXECUTE FUNCTION on_row();
         CREATE TRIGGER a AFTER UPDATE OR DELETE ON cascading FOR EACH ROW EXECUTE FUNCTION on_row();
         CREATE TRIGGER b BEFORE UPDATE OR DELETE ON nulled FOR EACH STATEMENT EXECUTE FUNCTION on_row();
         CREATE INDEX ON nulled (id) WHERE pure(' by predicate', id);
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
    );
    for table in ["orders", "cascading", "nulled", "defaulted"] {
        assert!(protect(&pair.database, &format!("'{table}'")));
    }
    pair.write("INSERT INTO orders (id) VALUES (0), (1), (2), (3), (4)");
    pair.write("INSERT INTO cascading (id) VALUES (1), (2); INSERT INTO nulled (id) VALUES (3)");
    pair.write("INSERT INTO defaulted (id) VALUES (4)");
    let before = pair.notes_of_a();
    for (action, marks) in [
        ("DELETE FROM orders WHERE id = 1", vec![" by BEFOREDELETE", " by AFTERDELETE"]),
        ("UPDATE orders SET id = 20 WHERE id = 2", vec![" by BEFOREUPDATE", " by AFTERUPDATE", " by check"]),
        ("DELETE FROM orders WHERE id = 3", vec![" by BEFOREUPDATE"]),
        ("DELETE FROM orders WHERE id = 4", vec![" by default"]),
    ] {
        touched_as(&mut pair.app, pair.b, "UPDATE notes SET body = 'own'");
        assert_eq!(touched_as(&mut pair.app, pair.b, action), 1, "{action}");
        assert_eq!(pair.notes_of_a(), before, "{action} reached A's rows");
        let own = column_as(&mut pair.app, pair.b, "SELECT body FROM notes").concat();
        for mark in marks {
            assert!(own.contains(mark), "{action} did not do its own work: {own}");
        }
    }
}

#[test]
fn what_a_superusers_foreign_key_sets_off_is_a_back_door() {
    let mut pair = Pair::with_notes("row_cascade_super");
    as_superuser(
        &pair.database,
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN UPDATE notes SET body = 'touched'; RETURN OLD; END $$;
         CREATE TABLE orders (id int, tenant_id uuid, UNIQUE (tenant_id, id));
         CREATE TABLE lines (id int, tenant_id uuid,
             FOREIGN KEY (tenant_id, id) REFERENCES orders (tenant_id, id) ON DELETE CASCADE);
         CREATE TRIGGER b BEFORE DELETE ON lines FOR EACH ROW EXECUTE FUNCTION touch();
         GRANT ALL ON orders, lines TO app; SELECT protect_table('orders'), protect_table('lines')",
    );
    pair.write("INSERT INTO orders (id) VALUES (1); INSERT INTO lines (id) VALUES (1)");
    let before = pair.notes_of_a();
    refused_as(&mut pair.app, pair.b, "DELETE FROM orders", "42501");
    assert_eq!(pair.notes_of_a(), before);
}

#[test]
fn row_security_off_is_an_error() {
    let mut pair = Pair::with_notes("row_off");
    for role in ["app", "client", "owner"] {
        let mut client = pair.database.connect(role);
        client.batch_execute("SET row_security = off").expect("set");
        fails(client.batch_execute("TABLE notes"), "42501");
        fails(client.batch_execute("COPY notes TO STDOUT"), "42501");
    }
    refused_as(&mut pair.app, pair.b, "SET LOCAL row_security = off; TABLE notes", "42501");
}

/// What an application's role can use to look into the conditions of a query: cheap functions and operators
/// that tell what they are given, with a selectivity estimator that shows them the statistics too.
const LEAKS: &str = "
CREATE FUNCTION leaks.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
    BEGIN RAISE NOTICE 'told %', $1; RETURN true; END $$;
CREATE FUNCTION leaks.tell(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
    BEGIN RAISE NOTICE 'told %', $1; RETURN true; END $$;
CREATE OPERATOR leaks.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = leaks.tell, RESTRICT = scalarltsel);
CREATE OPERATOR leaks.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = leaks.tell, RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR leaks.~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = leaks.tell, RESTRICT = matchingsel);
";

/// Gives `app` a schema with [`LEAKS`], and the statistics of notes something to tell.
fn leaky(pair: &mut Pair) -> (Client, Notices) {
    as_superuser(&pair.database, "CREATE SCHEMA leaks AUTHORIZATION app; GRANT USAGE ON SCHEMA leaks TO PUBLIC");
    let (mut app, notices) = pair.database.connect_with_notices("app");
    app.batch_execute(LEAKS).expect("create the leaks");
    for _ in 0..4 {
        pair.write("INSERT INTO notes (body) SELECT body FROM notes");
    }
    as_superuser(&pair.database, "ANALYZE notes");
    notices.take();
    (app, notices)
}

#[test]
fn leaky_functions_and_operators_see_no_other_tenants_row() {
    let mut pair = Pair::with_notes("row_leak");
    let (mut app, notices) = leaky(&mut pair);
    for query in [
        "SELECT * FROM notes WHERE leaks.tell(body)",
        "SELECT * FROM notes WHERE body OPERATOR(leaks.<<<) 'x'",
        "SELECT * FROM notes WHERE body OPERATOR(leaks.===) 'x'",
        "SELECT * FROM notes WHERE body OPERATOR(leaks.~~~) 'x'",
        "SELECT * FROM notes n JOIN notes m ON n.body OPERATOR(leaks.===) m.body",
        "SELECT * FROM notes n WHERE EXISTS (SELECT FROM notes m WHERE leaks.tell(m.body) AND m.id = n.id)",
        "SELECT count(*) FILTER (WHERE leaks.tell(body)) FROM notes",
        "SELECT * FROM notes ORDER BY leaks.tell(body)",
        "UPDATE notes SET body = body WHERE leaks.tell(body)",
        "DELETE FROM notes WHERE leaks.tell(body) AND false",
        "EXPLAIN SELECT * FROM notes WHERE body OPERATOR(leaks.===) 'x' AND body OPERATOR(leaks.<<<) 'y'",
        "SELECT * FROM notes WHERE body::int > 0 OR leaks.tell(body)",
    ] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, pair.b);
        let failed = transaction.simple_query(query).err();
        transaction.rollback().expect("roll back");
        let mut told = notices.messages();
        told.extend(failed.and_then(|error| error.as_db_error().map(|fault| fault.message().to_owned())));
        let secret = format!("secret of {}", pair.a);
        assert!(!told.iter().any(|message| message.contains(&secret)), "{query}: {told:?}");
        notices.take();
    }
    // The notices work: A's own transaction is told A's rows.
    as_tenant(&mut app, pair.a, |transaction| {
        transaction.batch_execute("SELECT * FROM notes WHERE leaks.tell(body)").expect("select");
    });
    assert!(notices.contains(&format!("secret of {}", pair.a)));
}

/// A statement is planned before its permissions are checked, and planning looks at the most common values.
#[test]
fn planning_through_a_bypassing_owners_view_tells_nothing() {
    let mut pair = Pair::with_notes("row_plan");
    let (mut app, notices) = leaky(&mut pair);
    as_superuser(
        &pair.database,
        "CREATE VIEW everything AS SELECT *, lower(body) AS low FROM notes; GRANT SELECT ON everything TO app;
         CREATE INDEX ON notes (lower(body)); CREATE STATISTICS pairs (mcv) ON tenant_id, body FROM notes;
         CREATE STATISTICS expressions (mcv) ON lower(body), (id % 2) FROM notes; ANALYZE notes",
    );
    let leaks =
        "NAME OPERATOR(leaks.<<<) 'x'|NAME OPERATOR(leaks.===) 'x'|NAME OPERATOR(leaks.~~~) 'x'|leaks.tell(NAME)";
    let joins = " OR n.NAME OPERATOR(leaks.===) 'x'";
    for column in ["body", "low", "tenant_id::text"] {
        for leak in leaks.split('|') {
            let leak = leak.replace("NAME", column);
            for query in [
                format!("SELECT * FROM everything WHERE {leak}"),
                format!("SELECT * FROM everything WHERE {leak} AND tenant_id = '{}'", pair.a),
                format!("SELECT * FROM everything WHERE {leak} AND id % 2 = 0"),
                format!(
                    "SELECT * FROM everything n WHERE tenant_id = '{}' AND (id = 0{})",
                    pair.a,
                    joins.replace("NAME", column)
                ),
                format!("SELECT * FROM everything n JOIN everything m ON n.{column} OPERATOR(leaks.===) m.{column}"),
                format!("SELECT {column}, count(*) FROM everything WHERE {leak} GROUP BY 1"),
            ] {
                for statement in [format!("EXPLAIN {query}"), query] {
                    refused_as(&mut app, pair.b, &statement, "42501");
                    let told = notices.messages();
                    let leaked = told.iter().any(|message| message.contains(&pair.a.to_string()));
                    assert!(!leaked, "{statement}: {told:?}");
                }
            }
        }
    }
}

#[test]
fn statistics_are_hidden() {
    let pair = Pair::with_notes("row_stats");
    as_owner(&pair.database, "CREATE STATISTICS notes_statistics (mcv) ON tenant_id, body FROM notes");
    as_superuser(&pair.database, "ANALYZE notes");
    assert!(count(&mut pair.database.superuser(), "pg_stats WHERE tablename = 'notes'") > 0);
    for role in ["app", "client", "owner", "stranger"] {
        let mut client = pair.database.connect(role);
        for view in ["pg_stats", "pg_stats_ext", "pg_stats_ext_exprs"] {
            assert_eq!(count(&mut client, &format!("{view} WHERE tablename = 'notes'")), 0, "{role} {view}");
        }
        for table in ["pg_statistic", "pg_statistic_ext_data"] {
            fails(client.batch_execute(&format!("TABLE {table}")), "42501");
        }
    }
}

#[test]
fn the_owner_is_guarded_too() {
    let mut pair = Pair::with_notes("row_owner");
    let mut owner = pair.database.connect("owner");
    for statement in [
        "TABLE notes",
        "UPDATE notes SET body = 'x'",
        "DELETE FROM notes",
        "INSERT INTO notes (body) VALUES ('x')",
        "COPY notes TO STDOUT",
        "SELECT * FROM notes FOR UPDATE",
    ] {
        fails(owner.batch_execute(statement), "42501");
    }
    as_superuser(&pair.database, "SELECT grant_access('stranger', 'app'); GRANT ALL ON notes TO stranger");
    as_owner(
        &pair.database,
        "CREATE VIEW through AS TABLE notes; GRANT ALL ON through TO app;
         CREATE FUNCTION of_owner() RETURNS SETOF notes LANGUAGE sql SECURITY DEFINER AS 'TABLE notes'",
    );
    pair.isolates("through", "tenant_id");
    let seen = column_as(&mut pair.app, pair.b, "SELECT DISTINCT tenant_id FROM of_owner()");
    assert_eq!(seen, [pair.b.to_string()]);
    fails(pair.app.batch_execute("SELECT of_owner()"), "42501");
}

#[test]
fn what_is_not_granted_stays_closed() {
    let pair = Pair::with_notes("row_grants");
    let mut stranger = pair.database.connect("stranger");
    for statement in ["TABLE notes", "INSERT INTO notes (body) VALUES ('x')", "DELETE FROM notes"] {
        fails(stranger.batch_execute(statement), "42501");
    }
}

// ---------------------------------------------------------------------------------------------------------
// Hostile owners
// ---------------------------------------------------------------------------------------------------------

/// A role of its own, since an attack that succeeded would change it for every test.
fn hostile_role(database: &Database) -> String {
    let role = format!("hostile_{}", database.name());
    as_superuser(database, &format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}"));
    role
}

/// Functions that write down as whom they run and try to become superuser: at execution, and where the planner
/// computes constants ahead.
fn spies(role: &str) -> String {
    format!(
        "CREATE TABLE spied (who text, what text);
         CREATE FUNCTION spy(what text) RETURNS int LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN INSERT INTO public.spied VALUES (current_user, what); EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE {role} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'SET SESSION AUTHORIZATION postgres'; EXCEPTION WHEN OTHERS THEN NULL; END;
             RETURN 1;
         END $$;
         CREATE FUNCTION fold(what text) RETURNS int LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
         BEGIN RETURN public.spy(what); END $$;
         CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM public.spy('trigger'); RETURN coalesce(NEW, OLD); END $$;
         CREATE DOMAIN spying AS int CHECK (public.fold('domain') + VALUE > 0);"
    )
}

/// A table that runs its owner's functions wherever PostgreSQL lets it.
const TRAP: &str = "
CREATE TABLE NAME (id int DEFAULT fold('default'), watched spying DEFAULT 1, tenant_id uuid,
    made int GENERATED ALWAYS AS (id + fold('generated')) STORED,
    CONSTRAINT checked CHECK (fold('check') > 0), CONSTRAINT later CHECK (tenant_id IS NULL OR fold('later') > 0)) STORAGE;
CREATE INDEX ON NAME ((id + fold('index expression')));
CREATE INDEX ON NAME ((fold('constant index')));
CREATE INDEX ON NAME (id) WHERE fold('index predicate') > 0;
CREATE INDEX ON NAME (tenant_id) WHERE tenant_id IS NOT NULL AND fold('tenant index') > 0;
CREATE TRIGGER rows_before BEFORE INSERT OR UPDATE OR DELETE ON NAME FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER rows_after AFTER INSERT OR UPDATE OR DELETE ON NAME FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER statement BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON NAME EXECUTE FUNCTION fire();
ALTER TABLE NAME ENABLE ALWAYS TRIGGER statement;
CREATE POLICY mine ON NAME USING (spy('policy') > 0);
ALTER TABLE NAME ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE RULE inserting AS ON INSERT TO NAME DO ALSO SELECT spy('rule');
CREATE RULE updating AS ON UPDATE TO NAME DO ALSO SELECT spy('rule');
CREATE RULE deleting AS ON DELETE TO NAME DO ALSO SELECT spy('rule');
CREATE STATISTICS NAME_statistics ON (id + fold('statistics')), watched FROM NAME;
";

/// A trap of this name, with one row of the tenant.
fn trap(name: &str, storage: &str, tenant: Uuid) -> String {
    let filled = format!(
        "ALTER TABLE NAME DISABLE ROW LEVEL SECURITY; INSERT INTO NAME (id, tenant_id) VALUES (1, '{tenant}');
         ALTER TABLE NAME ENABLE ROW LEVEL SECURITY"
    );
    format!("{TRAP};{}", if storage.is_empty() { filled } else { String::new() })
        .replace("NAME", name)
        .replace("STORAGE", storage)
}

#[track_caller]
fn nothing_was_gained(database: &Database, role: &str, by: &str) {
    let mut superuser = database.superuser();
    let is_super = format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'");
    let others = format!("SELECT DISTINCT who || ' in ' || what FROM spied WHERE who <> '{role}'");
    let strangers = simple(&mut superuser, &others);
    assert!(!one::<bool>(&mut superuser, &is_super, &[]), "{role} became superuser through {by}: {strangers:?}");
    assert!(strangers.is_empty(), "{by}: ran as {strangers:?}");
}

/// Whoever calls: a plain role of level admin, or a superuser, whom PostgreSQL would ask nothing.
fn hostile_owner(label: &str, caller: &str) {
    let pair = Pair::new(label);
    let database = &pair.database;
    let role = hostile_role(database);
    let mut owner = database.connect(&role);
    owner.batch_execute(&spies(&role)).expect("create the spies");
    for (name, storage) in [("trap", ""), ("parted", "PARTITION BY RANGE (id)")] {
        owner.batch_execute(&trap(name, storage, pair.a)).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    }
    // What of a spy's own doings counts is what happens from here on.
    assert!(count(&mut owner, "spied") > 0, "the spies work");
    let mut caller = database.connect(caller);
    // Kept plans, and a session that lets constraints exclude tables, make the planner look at more.
    caller.batch_execute("SET constraint_exclusion = on").expect("set");
    for call in [
        "protect_table('trap')",
        "protect_table('trap')",
        "protect_table('trap', foreign_key => true)",
        "protect_table('parted', foreign_key => true)",
        "unprotect_table('trap')",
        "protect_table('trap')",
    ] {
        let outcome = caller.simple_query(&format!("SELECT {call}"));
        nothing_was_gained(database, &role, call);
        if let Err(error) = outcome {
            panic!("{call}: {:?}", error.as_db_error());
        }
    }
    let attach = "CREATE TABLE child PARTITION OF parted FOR VALUES FROM (1) TO (9); \
                  CREATE TABLE heir () INHERITS (trap); CREATE INDEX ON heir ((fold('heir index')))";
    owner.batch_execute(attach).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    owner.batch_execute(&trap("attached", "", pair.b)).expect("another trap");
    owner.batch_execute("ALTER TABLE attached ALTER tenant_id SET NOT NULL").expect("PostgreSQL asks for it");
    owner
        .batch_execute("ALTER TABLE attached INHERIT trap")
        .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    nothing_was_gained(database, &role, "the event trigger");
    drop(owner);
    drop(pair);
    let clean = format!("DROP ROLE {role}");
    harness::cluster().server().superuser().batch_execute(&clean).expect("drop the role");
}

#[test]
fn a_hostile_owner_gains_nothing_from_an_admin_who_protects() {
    hostile_owner("row_hostile", "admin");
}

#[test]
fn a_hostile_owner_gains_nothing_from_a_superuser_who_protects() {
    hostile_owner("row_hostile_super", "postgres");
}

/// Event triggers fire for everyone, so that a stranger's DDL must not reach further than the stranger.
#[test]
fn ddl_of_others_is_left_alone() {
    let pair = Pair::with_notes("row_others");
    as_superuser(&pair.database, "CREATE SCHEMA strange AUTHORIZATION stranger");
    let mut stranger = pair.database.connect("stranger");
    stranger
        .batch_execute(
            "CREATE TABLE strange.t (id int PRIMARY KEY); ALTER TABLE strange.t ADD x int; CREATE TABLE strange.u () INHERITS (strange.t);
             CREATE MATERIALIZED VIEW strange.m AS TABLE strange.t; REFRESH MATERIALIZED VIEW strange.m; DROP TABLE strange.t CASCADE",
        )
        .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    assert_eq!(intact(&pair.database, "notes"), (1, 1));
}

#[test]
fn two_who_protect_at_once_agree() {
    let database = Database::new("row_twice");
    as_owner(
        &database,
        "CREATE TABLE t (id int, tenant_id uuid) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT",
    );
    let mut firsts = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| protect(&database, "'t'"))).collect();
        calls.into_iter().map(|call| call.join().expect("protect")).collect::<Vec<bool>>()
    });
    firsts.sort_unstable();
    assert_eq!(firsts, [false, false, false, true]);
    assert_eq!(intact(&database, "t"), (2, 2));
}

/// A row that was written before the call, and committed while it waits, counts.
#[test]
fn a_writer_that_commits_first_is_looked_at() {
    let database = Database::new("row_writer");
    as_owner(&database, "CREATE TABLE t (id int, tenant_id uuid)");
    let mut owner = database.connect("owner");
    let mut writing = owner.transaction().expect("begin");
    writing.batch_execute("INSERT INTO t VALUES (1, NULL)").expect("insert");
    let mut admin = database.connect("admin");
    let pid = harness::backend_pid(&mut admin);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            fails(admin.batch_execute("SELECT protect_table('t')"), "55000");
        });
        harness::wait_for_lock(&mut database.superuser(), pid);
        writing.commit().expect("commit");
        waiting.join().expect("protect_table");
    });
    assert_eq!(intact(&database, "t"), (0, 0));
}

/// Interleaved on one connection, each tenant's count is its own.
#[test]
fn a_tenants_row_survives_what_another_does() {
    let database = Database::new("row_mix");
    protected_table(&database);
    let mut operator = database.connect("operator");
    let all: Vec<Uuid> = (0..5).map(|_| tenant(&mut operator)).collect();
    let mut app = database.connect("app");
    for round in 1..=20_u64 {
        for &tenant in &all {
            assert_eq!(touched_as(&mut app, tenant, "INSERT INTO notes (body) VALUES ('x')"), 1);
            assert_eq!(touched_as(&mut app, tenant, "UPDATE notes SET body = body || 'y'"), round);
        }
    }
    for &tenant in &all {
        assert_eq!(touched_as(&mut app, tenant, "DELETE FROM notes"), 20);
    }
}
