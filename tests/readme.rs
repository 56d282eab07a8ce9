//! What the documentation says is so: README.md's SQL runs as written, its tables agree with the catalog, and the example in the
//! COMMENT of each function works.

use harness::postgres::error::DbError;
use harness::postgres::types::ToSql;
use harness::postgres::{NoTls, SimpleQueryMessage};
use harness::{
    Client, Cluster, Database, Options, PgBouncer, PoolOptions, ROLES, Server, Uuid, bind, fails, one, protected_table,
    rows, tenant,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

const README: &str = include_str!("../README.md");

/// The extension's functions: schema-qualified unless they are where CREATE EXTENSION says, arguments, and who may call them.
const FUNCTIONS: &str = "
SELECT CASE WHEN function.pronamespace = extension.extnamespace THEN function.proname::text
            ELSE function.pronamespace::regnamespace || '.' || function.proname END AS name,
       function.prokind = 'p' AS is_procedure, function.proretset AS returns_rows,
       format_type(function.prorettype, NULL) AS result,
       coalesce(function.proargnames[1 : function.pronargs], '{}') AS arguments, function.pronargdefaults::int AS defaults,
       obj_description(function.oid, 'pg_proc') AS comment,
       ARRAY(SELECT role FROM unnest($1::text[]) AS role
             WHERE has_function_privilege(role, function.oid, 'EXECUTE')) AS callers
FROM pg_extension AS extension
JOIN pg_depend AS member ON member.refobjid = extension.oid AND member.refclassid = 'pg_extension'::regclass
    AND member.classid = 'pg_proc'::regclass AND member.deptype = 'e'
JOIN pg_proc AS function ON function.oid = member.objid
WHERE extension.extname = 'pg_tenancy'
ORDER BY 1";

const RELATIONS: &str = "
SELECT class.relnamespace::regnamespace || '.' || class.relname AS name,
       ARRAY(SELECT role FROM unnest($1::text[]) AS role WHERE has_table_privilege(role, class.oid, 'SELECT')) AS readers
FROM pg_class AS class WHERE class.relnamespace = 'tenancy'::regnamespace AND class.relkind IN ('r', 'p', 'v') AND NOT class.relispartition
ORDER BY 1";

/// A fenced block of SQL, and the role that its first line names.
struct Block {
    role: String,
    steps: Vec<Step>,
}

/// A statement, and what the lines behind it say of its outcome.
struct Step {
    /// Of README.md, for whoever has to mend it.
    line: usize,
    sql: String,
    /// The lines of a `COPY ... FROM STDIN`.
    data: Option<String>,
    /// `-- → value | value`
    rows: Vec<String>,
    /// `-- ERROR sqlstate: message`
    error: Option<String>,
}

/// The fenced blocks of a language, each as its numbered lines without the indentation of a list.
fn fences(language: &str) -> Vec<Vec<(usize, &'static str)>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Vec<(usize, &str)>)> = None;
    for (index, line) in README.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(opened), None) => open = Some((opened, Vec::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, lines))) => lines.push((index + 1, line)),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "README.md: a block is not closed");
    blocks.into_iter().filter(|(found, _)| *found == language).map(|(_, lines)| lines).collect()
}

fn parse(lines: &[(usize, &'static str)]) -> Block {
    let (first, heading) = lines[0];
    let role = heading.trim().strip_prefix("-- as ");
    let role = role.unwrap_or_else(|| panic!("README.md:{first}: a block begins with `-- as role`")).to_owned();
    let mut steps: Vec<Step> = Vec::new();
    let mut sql = String::new();
    let mut lines = lines[1..].iter();
    while let Some(&(line, text)) = lines.next() {
        let text = text.trim();
        if let Some(row) = text.strip_prefix("-- →") {
            last(&mut steps, line).rows.push(row.trim().to_owned());
        } else if let Some(error) = text.strip_prefix("-- ERROR") {
            last(&mut steps, line).error = Some(error.trim().to_owned());
        } else {
            sql.push_str(text);
            sql.push('\n');
            if text.split(" --").next().is_some_and(|code| code.trim_end().ends_with(';')) {
                let sql = std::mem::take(&mut sql);
                let data = sql.contains("FROM STDIN").then(|| copy_data(&mut lines));
                steps.push(Step { line, sql, data, rows: Vec::new(), error: None });
            }
        }
    }
    assert!(sql.trim().is_empty(), "README.md:{first}: a statement does not end: {sql}");
    Block { role, steps }
}

fn last(steps: &mut [Step], line: usize) -> &mut Step {
    steps.last_mut().unwrap_or_else(|| panic!("README.md:{line}: an outcome without a statement"))
}

fn copy_data<'a>(lines: &mut impl Iterator<Item = &'a (usize, &'static str)>) -> String {
    lines.map(|(_, text)| text.trim()).take_while(|text| *text != "\\.").map(|text| format!("{text}\n")).collect()
}

fn blocks() -> Vec<Block> {
    fences("sql").iter().map(|lines| parse(lines)).collect()
}

/// What stands for `$1`: the last value returned in each column, and the document that an identity provider would publish.
type Known = BTreeMap<String, String>;

const JWKS: &str = r#"{"keys": [{"kty": "RSA", "use": "sig", "kid": "provider-1", "alg": "RS256", "e": "AQAB", "n": "pOKFusF83Hfwg6WCA_MdQ_AIep_zRoFByHPDHdowhOGypEwaOPRUC6m7xAH4d7eOMYK_cWd2yx60Rauj8AKP3klyjrRmP7yX_66nUZk36gh0lmDqTpIx7ztqng4ci8KO1vYMMnRO5GeOHmRMHVvKTK8_9sKD6sT3qGSgm_17H4ufdrUzhduPXLXz-eVJVo7u8LrugF3eWMnbkIX1y2SCtuXJH4wP1j8NjyALTvCPS_h2yzaCDLDdeJAh96tpwLezumwsn38MIliThnl1kgii_TrREmVzcwz2DgPmGYYr_iX0wpUp5mk0y9V1QUS3jzCqbZwFaokWglYnyHBiGOU2hw"}]}"#;

/// The statement with its parameter in place, which a comment names: `-- $1: token`.
fn with_parameter(sql: &str, known: &Known) -> String {
    let Some((code, name)) = sql.split_once("-- $1: ") else { return sql.to_owned() };
    let name = name.split_whitespace().next().unwrap_or(name);
    let value = known.get(name).unwrap_or_else(|| panic!("README.md: nothing has returned {name}: {sql}"));
    code.replace("$1", &format!("'{value}'"))
}

/// Runs a statement; its rows as README.md writes them.
fn attempt(client: &mut Client, step: &Step, known: &mut Known) -> Result<Vec<String>, harness::postgres::Error> {
    if let Some(data) = &step.data {
        let mut copy = client.copy_in(&step.sql)?;
        copy.write_all(data.as_bytes()).expect("send the lines of COPY");
        copy.finish()?;
        return Ok(Vec::new());
    }
    let sql = with_parameter(&step.sql, known);
    let as_line = |message| match message {
        SimpleQueryMessage::Row(row) => {
            let values: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or("")).collect();
            let named = row.columns().iter().zip(&values).map(|(column, value)| (column.name(), *value));
            known.extend(named.map(|(column, value)| (column.to_owned(), value.to_owned())));
            Some(values.join(" | "))
        }
        _ => None,
    };
    Ok(client.simple_query(&sql)?.into_iter().filter_map(as_line).collect())
}

fn as_readme_writes(fault: &DbError) -> String {
    format!("{}: {}", fault.code().code(), fault.message())
}

/// What is wrong with a step, if anything.
fn disagreement(client: &mut Client, step: &Step, known: &mut Known) -> Option<String> {
    let outcome = attempt(client, step, known);
    let got = outcome.as_ref().err().map(|error| match error.as_db_error() {
        Some(fault) => as_readme_writes(fault),
        None => error.to_string(),
    });
    if got != step.error {
        return Some(format!("{}error {:?}, where README.md says {:?}", step.sql, got, step.error));
    }
    match outcome {
        Ok(found) if !step.rows.is_empty() && found != step.rows => {
            Some(format!("{}rows {found:?}, where README.md says {:?}", step.sql, step.rows))
        }
        _ => None,
    }
}

fn open(server: &Server, role: &str) -> Client {
    server.config("shop", role).connect(NoTls).unwrap_or_else(|error| panic!("connect as {role}: {error}"))
}

/// A server of its own, because README.md creates roles; its blocks are run in their order in the database `shop`.
fn run_readme(cluster: &Cluster) -> Vec<String> {
    cluster.server().superuser().batch_execute("CREATE DATABASE shop").expect("create the database shop");
    let mut wrong = Vec::new();
    let mut known = Known::from([("jwks".to_owned(), JWKS.to_owned())]);
    for block in blocks() {
        let mut client = open(cluster.server(), &block.role);
        for step in &block.steps {
            let found = disagreement(&mut client, step, &mut known);
            wrong.extend(found.map(|found| format!("README.md:{}: {found}", step.line)));
        }
    }
    wrong
}

#[test]
fn the_sql_of_the_readme_does_what_the_readme_says() {
    let blocks = blocks();
    let steps = || blocks.iter().flat_map(|block| &block.steps);
    assert!(steps().count() >= 40, "README.md has lost its SQL, or this test no longer finds it");
    assert!(steps().filter(|step| step.error.is_some()).count() >= 5, "README.md shows what is refused");
    assert!(steps().filter(|step| !step.rows.is_empty()).count() >= 5, "README.md shows what is seen");
    let wrong = run_readme(&Cluster::start(Options::new()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The pooler's settings, and no comment behind a value: PgBouncer would take it for a part of it.
fn pooler_settings() -> Vec<(&'static str, &'static str)> {
    let blocks = fences("ini");
    let lines = blocks.iter().flatten().map(|(_, line)| *line);
    lines
        .skip_while(|line| !line.starts_with("pool_mode"))
        .filter(|line| !line.starts_with(';'))
        .map(|line| line.split_once(" = ").unwrap_or_else(|| panic!("README.md: not a setting of PgBouncer: {line}")))
        .collect()
}

#[test]
fn the_poolers_settings_of_the_readme_carry_a_tenant_for_one_transaction() {
    let database = Database::new("readme_pool");
    protected_table(&database);
    let tenant = tenant(&mut database.connect("operator"));
    let settings = pooler_settings();
    assert!(settings.contains(&("pool_mode", "transaction")), "{settings:?}");
    let options = settings.iter().fold(PoolOptions::new(1), |options, (name, value)| options.set(name, value));
    let bouncer = PgBouncer::start(&database, options);
    let mut client = bouncer.connect("app");
    let sql = format!("BEGIN; SELECT set_tenant('{tenant}'); INSERT INTO notes (body) VALUES ('x'); COMMIT");
    client.batch_execute(&sql).expect("write through the pooler");
    fails(bouncer.connect("app").batch_execute("SELECT * FROM notes"), "42501");
}

/// Code in backticks outside of fenced blocks, and the SQL of those.
fn code() -> Vec<String> {
    let mut fenced = false;
    let mut found: Vec<String> = fences("sql")
        .into_iter()
        .flatten()
        .map(|(_, line)| line.split(" --").next().unwrap_or("").to_owned())
        .collect();
    for line in README.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The names before an opening parenthesis: `find_tenant`, `tenancy.refused`.
fn calls(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices('(').map(|(end, _)| {
        let is_name = |character: char| character.is_ascii_lowercase() || matches!(character, '0'..='9' | '_' | '.');
        let start = code[..end].rfind(|character| !is_name(character)).map_or(0, |before| before + 1);
        &code[start..end]
    })
}

#[test]
fn the_readme_names_no_function_that_does_not_exist() {
    let cluster = Cluster::start(Options::new());
    run_readme(&cluster);
    let mut superuser = open(cluster.server(), "postgres");
    let known: BTreeSet<String> =
        rows(&mut superuser, "SELECT proname::text FROM pg_proc", &[]).iter().map(|row| row.get(0)).collect();
    let code = code();
    let unknown: BTreeSet<&str> = code
        .iter()
        .flat_map(|code| calls(code))
        .filter(|name| !name.is_empty() && !known.contains(name.rsplit('.').next().unwrap_or(name)))
        .collect();
    assert!(unknown.is_empty(), "README.md calls what does not exist: {unknown:?}");
}

/// A member function as the catalog has it.
struct Function {
    name: String,
    signature: String,
    comment: String,
    callers: BTreeSet<String>,
}

fn role_names() -> Vec<&'static str> {
    ROLES.iter().map(|(role, _)| *role).collect()
}

/// `name(required [, optional]) → result`, as README.md writes it.
fn signature(row: &harness::postgres::Row) -> String {
    let (name, arguments, defaults): (String, Vec<String>, i32) =
        (row.get("name"), row.get("arguments"), row.get("defaults"));
    let required = arguments.len() - usize::try_from(defaults).expect("a count");
    let (required, optional) = arguments.split_at(required);
    let optional = match (required.is_empty(), optional.is_empty()) {
        (_, true) => String::new(),
        (true, false) => format!("[{}]", optional.join(", ")),
        (false, false) => format!(" [, {}]", optional.join(", ")),
    };
    let call = format!("{name}({}{optional})", required.join(", "));
    if row.get("is_procedure") {
        return format!("CALL {call}");
    }
    let result: String = row.get("result");
    let result = if row.get("returns_rows") { "rows".to_owned() } else { result };
    format!("{call} → {}", result.replace("timestamp with time zone", "timestamptz"))
}

fn functions(superuser: &mut Client) -> Vec<Function> {
    let as_function = |row: &harness::postgres::Row| Function {
        name: row.get("name"),
        signature: signature(row),
        comment: row.get::<_, Option<String>>("comment").unwrap_or_default(),
        callers: row.get::<_, Vec<String>>("callers").into_iter().collect(),
    };
    rows(superuser, FUNCTIONS, &[&role_names()]).iter().map(as_function).collect()
}

/// The roles of the tests that hold one of these levels, or one that includes it. `levels`: `app`, `app, operator`, `public`.
fn holders(levels: &str) -> BTreeSet<String> {
    let of_level = |level: &str| -> Vec<&str> {
        match level {
            "public" => role_names(),
            "client" => vec!["client", "app", "admin"],
            "app" => vec!["app", "admin"],
            "monitor" => vec!["monitor", "operator", "admin"],
            "operator" => vec!["operator", "admin"],
            "admin" => vec!["admin"],
            _ => panic!("there is no level {level}"),
        }
    };
    levels
        .split([',', ' '])
        .filter(|level| !matches!(*level, "" | "and" | "or"))
        .flat_map(of_level)
        .map(str::to_owned)
        .collect()
}

/// The tables' rows whose second cell is a level: what stands in backticks in the first cell, and the level.
fn rows_with_levels() -> BTreeMap<&'static str, &'static str> {
    let mut found = BTreeMap::new();
    for line in README.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let is_level = |word: &str| matches!(word, "public" | "client" | "app" | "monitor" | "operator" | "admin");
        if cells.len() > 2 && cells[1].split(", ").all(is_level) {
            for name in cells[0].split('`').skip(1).step_by(2) {
                assert!(found.insert(name, cells[1]).is_none(), "README.md has two rows for {name}");
            }
        }
    }
    found
}

#[test]
fn the_readme_states_every_functions_arguments_result_and_level() {
    let database = Database::new("readme_functions");
    let documented = rows_with_levels();
    let mut wrong = Vec::new();
    for function in functions(&mut database.superuser()).iter().filter(|function| !function.callers.is_empty()) {
        let internal = function.name.starts_with("tenancy.");
        match documented.get(function.signature.as_str()) {
            Some(level) if holders(level) != function.callers => {
                wrong.push(format!("{}: {level}, but {:?} may call it", function.signature, function.callers));
            }
            None if !internal => wrong.push(format!("{} has no row", function.signature)),
            None if !README.contains(&format!("`{}()`", function.name)) => {
                wrong.push(format!("{} is nowhere", function.name))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "README.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_readme_states_who_reads_which_relation() {
    let database = Database::new("readme_relations");
    let documented = rows_with_levels();
    for row in rows(&mut database.superuser(), RELATIONS, &[&role_names()]) {
        let (name, readers): (String, Vec<String>) = (row.get("name"), row.get("readers"));
        if readers.is_empty() {
            assert!(README.contains(&format!("`{name}`")), "README.md does not have {name}");
            continue;
        }
        let level = documented.get(name.as_str()).unwrap_or_else(|| panic!("README.md does not have {name}"));
        assert_eq!(holders(level), readers.into_iter().collect(), "{name}: README.md says {level}");
    }
}

/// What a comment says behind `Level `.
fn stated_level(comment: &str) -> Option<&str> {
    comment.split_once("Level ")?.1.split('.').next()
}

#[test]
fn every_comment_states_who_may_call_the_function() {
    let database = Database::new("readme_levels");
    let mut wrong = Vec::new();
    for function in functions(&mut database.superuser()) {
        match stated_level(&function.comment) {
            Some(level) if holders(level) == function.callers => {}
            None if function.comment.starts_with("Internal: ") => {}
            stated => wrong.push(format!("{}: {stated:?}, but {:?} may call it", function.name, function.callers)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The tenant whose id the examples use.
const EXAMPLE_TENANT: &str = "8e3f5a60-0000-4000-8000-000000000001";

/// What the examples take for granted: Ada, no member of the tenant yet, and credentials of its owner to be passed as parameters; a
/// template with one migration, and a tenant with a schema of it, while acme and acme-test have none.
struct Granted {
    api_key: String,
    token: String,
    invitation: String,
    invited: Uuid,
}

impl Granted {
    fn prepare(database: &Database) -> Granted {
        database
            .superuser()
            .batch_execute(
                "CREATE ROLE backend;
                CREATE SCHEMA reports;
                CREATE SCHEMA shop AUTHORIZATION owner;
                CREATE SCHEMA crm_template AUTHORIZATION owner;
                CREATE TABLE export (seq bigint, kind text, name text, data text);
                ALTER TABLE export OWNER TO admin;
                CREATE FUNCTION reports.totals() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::bigint'",
            )
            .expect("create a role and a function");
        database
            .connect("owner")
            .batch_execute(
                "CREATE TABLE orders (id bigint PRIMARY KEY);
                CREATE TABLE shop.customers (id bigint PRIMARY KEY);
                GRANT USAGE ON SCHEMA shop TO admin;
                CREATE TABLE invoices (id bigint PRIMARY KEY);
                CREATE TABLE notes (body text);
                GRANT SELECT ON notes TO admin;
                CREATE TABLE organizations (id bigint PRIMARY KEY, name text);
                INSERT INTO organizations VALUES (1, 'One'), (2, 'Two');
                CREATE TABLE crm_template.deal_stages (stage text PRIMARY KEY);
                CREATE TABLE crm_template.contacts (name text PRIMARY KEY)",
            )
            .expect("create tables");
        database
            .connect("admin")
            .batch_execute(
                "SELECT add_jwt_key('2026-10', 'HS256'), register_template('crm', 'crm_template');
                SELECT set_plan_limit('free', 'agents', 10);
                SELECT add_migration('crm', '001', 'ALTER TABLE contacts ADD COLUMN email text')",
            )
            .expect("add a key and register a template");
        let mut app = database.connect("app");
        let [owner, invited, _] = ["owner", "invited", "ada"]
            .map(|name| -> Uuid { one(&mut app, "SELECT create_user($1 || '@example.com')", &[&name]) });
        let tenants = format!(
            "SELECT create_plan('pro'), create_metric('api_calls'), create_metric('agent_minutes'), set_plan_limit('free', 'api_calls', 1000, 'month'), set_plan_rate_limit('free', 'api_calls', 100),
                create_tenant('Acme', slug => 'acme'), create_tenant('Acme, for tests', slug => 'acme-test'),
                create_tenant('Globex', isolation => 'schema', metadata => '{{\"ring\": 0}}'),
                create_tenant('Example', id => '{EXAMPLE_TENANT}', external_id => '42', owner => '{owner}')"
        );
        database.connect("operator").batch_execute(&tenants).expect("create tenants");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, EXAMPLE_TENANT.parse().expect("a uuid"));
        let mut make = |sql: &str| one(&mut transaction, sql, &[]);
        let granted = Granted {
            api_key: make(&format!("SELECT api_key FROM create_api_key('all', '{{*}}', user_id => '{owner}')")),
            token: make(&format!("SELECT issue_jwt('{owner}')")),
            invitation: make("SELECT token FROM create_invitation('invited@example.com')"),
            invited,
        };
        transaction.commit().expect("commit");
        granted
    }

    /// What stands for `$1` and so on in an example.
    fn parameters(&self, function: &str) -> Vec<&(dyn ToSql + Sync)> {
        match function {
            "verify_api_key" | "authenticate_api_key" => vec![&self.api_key],
            "authenticate_jwt" => vec![&self.token],
            "accept_invitation" => vec![&self.invitation, &self.invited],
            _ => Vec::new(),
        }
    }

    /// The statements that bring about what an example of the function needs in order to do something.
    fn before(&self, function: &str) -> String {
        let bound = format!("SELECT set_tenant('{EXAMPLE_TENANT}');");
        let member = format!("{bound} SELECT add_member(find_user('ada@example.com'))");
        let schema = "SELECT create_tenant_schema(find_tenant('acme'), 'crm')";
        let migration = "SELECT add_migration('crm', '002', 'SELECT 1', down_sql => 'SELECT 1')";
        match function {
            "clone_tenant_schema" | "tenancy.differences" => schema.to_owned(),
            "delete_tenant_schema" => "SELECT create_tenant_schema(find_tenant('acme-test'), 'crm')".to_owned(),
            "disallow_schema_drift" => {
                "SELECT allow_schema_drift(find_tenant('acme'), 'deals_by_region', 'an example')".to_owned()
            }
            "unregister_template" => "SELECT delete_tenant_schema(find_tenant('globex'))".to_owned(),
            "import_tenant" => "INSERT INTO export SELECT * FROM export_tenant(find_tenant('acme-test'))".to_owned(),
            "derive_template" => "SELECT protect_table('shop.customers')".to_owned(),
            // After that of clean_move, which is done before.
            "move_tenant" => "CALL move_tenant(find_tenant('acme'), 'row')".to_owned(),
            "clean_move" => "SELECT protect_table('shop.customers'); SELECT derive_template('grown', 'shop');
                CALL move_tenant(find_tenant('acme'), 'schema', clean => false)"
                .to_owned(),
            "remove_migration" | "migrate_tenants" => migration.to_owned(),
            "rollback_tenants" => "CALL migrate_tenants('crm')".to_owned(),
            "export_billing_period" => "SELECT close_billing_period(find_tenant('acme'), '2025-10')".to_owned(),
            "resume_tenant" => "SELECT suspend_tenant(find_tenant('acme'))".to_owned(),
            "restore_tenant" => "SELECT cancel_tenant(find_tenant('acme'))".to_owned(),
            "revoke_access" => "SELECT grant_access('backend', 'app')".to_owned(),
            "unprotect_table" | "protection_advice" => "SELECT protect_table('public.orders')".to_owned(),
            "limit_table" => "SELECT protect_table('public.orders')".to_owned(),
            "unlimit_table" => {
                "SELECT protect_table('public.orders'); SELECT limit_table('public.orders', 'orders')".to_owned()
            }
            "disallow_definer" => "SELECT allow_definer('reports.totals()', 'an example')".to_owned(),
            "purge_tenant" => format!("SELECT delete_tenant('{EXAMPLE_TENANT}')"),
            "purge_expired_tenants" => "SELECT delete_tenant(find_tenant('acme'), '0')".to_owned(),
            "remove_role" => "SELECT add_role('manager', 70)".to_owned(),
            "remove_jwt_key" => "SELECT add_jwt_key('2026-11', 'HS256')".to_owned(),
            "create_user" => {
                "SELECT update_user(find_user('ada@example.com'), email => 'other@example.com')".to_owned()
            }
            "add_member" | "create_invitation" | "create_api_key" | "record_usage" | "record_usage_batch"
            | "record_duration" | "consume_quota" | "usage_total" | "usage_series" | "usage_period"
            | "monthly_usage" => bound,
            "change_role" | "remove_member" | "issue_jwt" => member,
            "revoke_invitation" => format!("{bound} SELECT create_invitation('bob@example.com')"),
            "rotate_api_key" | "revoke_api_key" => format!("{bound} SELECT create_api_key('ci')"),
            "has_role" | "require_role" | "has_scope" | "require_scope" | "check_rate_limit" | "enforce_rate_limit"
            | "has_feature" | "check_limit" | "enforce_limit" => {
                format!("SELECT authenticate_api_key('{}')", self.api_key)
            }
            _ => String::new(),
        }
    }

    /// Runs an example as a role of its level: in a transaction that is rolled back, bound to a tenant where everyone may call the
    /// function; but by itself when it is a CALL or has a transaction of its own.
    fn run_example(
        &self,
        database: &Database,
        function: &str,
        level: &str,
        example: &str,
    ) -> Result<(), harness::postgres::Error> {
        let level = level.split([',', ' ']).next().unwrap_or(level);
        let mut client = database.connect(if level == "public" { "app" } else { level });
        if example.starts_with("CALL") || example.starts_with("BEGIN") {
            self.before(function).split(';').try_for_each(|statement| client.batch_execute(statement))?;
            // The comment leaves out what the transaction is for.
            return client.batch_execute(&example.replace("...", "SELECT current_tenant();"));
        }
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&self.before(function))?;
        if level == "public" {
            transaction.batch_execute(&format!("SELECT set_tenant('{EXAMPLE_TENANT}')"))?;
        }
        transaction.query(example, &self.parameters(function))?;
        transaction.rollback()
    }
}

#[test]
fn the_example_in_every_comment_runs() {
    // A server of its own, because the examples name a role.
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("examples");
    let granted = Granted::prepare(&database);
    let mut functions = functions(&mut database.superuser());
    // Those that end transactions, and so leave something behind, come last.
    functions.sort_by_key(|function| function.comment.contains("Example: CALL"));
    let mut wrong = Vec::new();
    for Function { name, comment, .. } in &functions {
        match (comment.split_once("Example: "), stated_level(comment)) {
            (Some((_, example)), Some(level)) => {
                let outcome = granted.run_example(&database, name, level, example);
                wrong.extend(outcome.err().map(|error| format!("{name}: {example}: {error:?}")));
            }
            // Called by policies, triggers and views only.
            _ if name.starts_with("tenancy.") || name == "tenancy_guard" => {}
            _ => wrong.push(format!("{name}: no example in its comment: {comment}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// README.md: "Nothing fails open": a back door that was refused before stays shut.
#[test]
fn dropping_the_extension_opens_no_back_door() {
    let database = Database::new("readme_dropped");
    protected_table(&database);
    let tenant = tenant(&mut database.connect("operator"));
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE VIEW everything AS SELECT * FROM notes;
            GRANT SELECT ON everything TO app;
            INSERT INTO notes (tenant_id, body) VALUES ('{tenant}', 'secret')"
        ))
        .expect("create a view of the superuser's");
    let mut app = database.connect("app");
    fails(app.batch_execute("SELECT * FROM everything"), "42501");
    superuser.batch_execute("DROP EXTENSION pg_tenancy CASCADE").expect("drop the extension");
    let seen = app.simple_query("SELECT body FROM everything").unwrap_or_default();
    assert!(
        !seen.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))),
        "the app reads every tenant's rows"
    );
    let rest = app.simple_query("SELECT body FROM notes").unwrap_or_default();
    assert!(!rest.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))), "the table is open");
}
