//! Authority: every level gives exactly its functions and relations; a role that could step around a level does not get it, and is
//! told the statements that make it fit; and each level sees what is its own in the product's tables.

use crate::access::fixtures;
use harness::{
    Client, Database, DbError, GenericClient, ROLES, Uuid, as_tenant, backend_pid, count, fails, one, protected_table,
    rows, simple, tenant, tenants, text,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// Everyone, `stranger` and `owner` included.
const ALL: &str = "app client operator monitor admin owner stranger";

/// Which roles of the tests may execute each function of the extension: every role is named for its level.
const FUNCTIONS: &[(&str, &str)] = &[
    ("public.set_tenant", "app admin"),
    ("public.set_tenant_by_slug", "app admin"),
    ("public.rebind_tenant", "admin"),
    ("public.clear_tenant", "app client admin"),
    ("public.current_tenant", ALL),
    ("public.current_tenant_text", ALL),
    ("public.current_tenant_key_text", ALL),
    ("public.current_tenant_key_bigint", ALL),
    ("public.current_tenant_or_null", ALL),
    ("public.current_user_id", ALL),
    ("public.current_principal", ALL),
    ("public.current_member_role", ALL),
    ("public.assert_tenant", ALL),
    ("public.tenancy_guard", ALL),
    ("tenancy.refuse_row", ALL),
    ("tenancy.nextval", ALL),
    ("tenancy.setval", ALL),
    ("tenancy.sees_all_tenants", ALL),
    ("tenancy.first_visible_tenant", ALL),
    ("tenancy.last_visible_tenant", ALL),
    ("public.grant_access", "admin"),
    ("public.revoke_access", "admin"),
    ("public.create_plan", "operator admin"),
    ("public.create_tenant", "operator admin"),
    ("public.update_tenant", "operator admin"),
    ("public.find_tenant", "app operator admin"),
    ("public.slug_available", "app operator admin"),
    ("public.suspend_tenant", "operator admin"),
    ("public.resume_tenant", "operator admin"),
    ("public.cancel_tenant", "operator admin"),
    ("public.delete_tenant", "operator admin"),
    ("public.restore_tenant", "operator admin"),
    ("public.change_plan", "operator admin"),
    ("public.purge_tenant", "admin"),
    ("public.purge_expired_tenants", "admin"),
    ("public.export_tenant", "admin"),
    ("public.import_tenant", "admin"),
    ("public.move_tenant", "admin"),
    ("public.clean_move", "admin"),
    ("public.resume_moves", "admin"),
    ("tenancy.forget_moves", ""),
    ("public.provision_tenants", "admin"),
    ("public.sync_tenant_databases", "admin"),
    ("tenancy.note_change", ""),
    ("public.wait_for_tenant", "operator admin"),
    ("public.tenant_location", "app operator admin"),
    ("public.pgbouncer_databases", "monitor operator admin"),
    ("public.register_template", "admin"),
    ("public.derive_template", "admin"),
    ("public.unregister_template", "admin"),
    ("public.create_tenant_schema", "operator admin"),
    ("public.clone_tenant_schema", "admin"),
    ("public.delete_tenant_schema", "admin"),
    ("public.tenant_statistics", "monitor operator admin"),
    ("public.maintenance_commands", "monitor operator admin"),
    ("public.allow_schema_drift", "admin"),
    ("public.disallow_schema_drift", "admin"),
    ("tenancy.differences", "operator admin"),
    ("public.add_migration", "admin"),
    ("public.remove_migration", "admin"),
    ("public.migrate_tenants", "admin"),
    ("public.rollback_tenants", "admin"),
    ("public.protect_table", "admin"),
    ("public.unprotect_table", "admin"),
    ("public.protection_advice", "admin"),
    ("public.adoption_plan", "admin"),
    ("public.adopt_table", "admin"),
    ("public.adopt_schema", "admin"),
    ("public.adopt_tenants", "admin"),
    ("public.for_each_tenant", "admin"),
    ("public.allow_definer", "admin"),
    ("public.disallow_definer", "admin"),
    ("public.trim_audit_log", "admin"),
    ("public.create_user", "app admin"),
    ("public.find_user", "app admin"),
    ("public.update_user", "app admin"),
    ("public.delete_user", "operator admin"),
    ("public.user_tenants", "app admin"),
    ("public.record_login", "app admin"),
    ("public.add_member", "app admin"),
    ("public.change_role", "app admin"),
    ("public.remove_member", "app admin"),
    ("public.add_role", "admin"),
    ("public.remove_role", "admin"),
    ("public.has_role", "app client admin"),
    ("public.require_role", "app client admin"),
    ("public.has_scope", "app client admin"),
    ("public.require_scope", "app client admin"),
    ("public.create_invitation", "app admin"),
    ("public.accept_invitation", "app client admin"),
    ("public.revoke_invitation", "app admin"),
    ("public.trim_invitations", "admin"),
    ("public.create_api_key", "app admin"),
    ("public.rotate_api_key", "app admin"),
    ("public.revoke_api_key", "app admin"),
    ("public.verify_api_key", "app client admin"),
    ("public.authenticate_api_key", "app client admin"),
    ("public.add_jwt_key", "admin"),
    ("public.remove_jwt_key", "admin"),
    ("public.authenticate_jwt", "app client admin"),
    ("public.issue_jwt", "app admin"),
    ("public.revoke_tokens", "app admin"),
    ("public.has_feature", "app client admin"),
    ("public.check_limit", "app client admin"),
    ("public.enforce_limit", "app client admin"),
    ("public.limit_table", "admin"),
    ("public.unlimit_table", "admin"),
    ("public.load_plans", "operator admin"),
    ("public.recount_limits", "operator admin"),
    ("public.verify_limits", "admin"),
    ("tenancy.count_rows", ""),
    ("tenancy.forget_counts", ""),
    ("tenancy.on_limited_change", ""),
    ("tenancy.on_limited_drop", ""),
    ("tenancy.backends", "monitor operator admin"),
    ("tenancy.refused", "monitor operator admin"),
    ("tenancy.failed", "monitor operator admin"),
    ("public.set_subscription", "operator admin"),
    ("public.apply_subscription_grace", "operator admin"),
    ("public.close_billing_period", "operator admin"),
    ("public.pending_adjustments", "operator admin"),
    ("public.export_billing_period", "operator admin"),
    ("tenancy.worker_tasks", "monitor operator admin"),
    ("tenancy.is_intact", "monitor operator admin"),
    ("public.set_plan_rate_limit", "operator admin"),
    ("public.unset_plan_rate_limit", "operator admin"),
    ("public.set_tenant_rate_limit", "operator admin"),
    ("public.unset_tenant_rate_limit", "operator admin"),
    ("public.check_rate_limit", "app client admin"),
    ("public.enforce_rate_limit", "app client admin"),
    ("tenancy.rate_limit_buckets", "monitor operator admin"),
    ("public.set_plan_limit", "operator admin"),
    ("public.unset_plan_limit", "operator admin"),
    ("public.set_tenant_limit", "operator admin"),
    ("public.unset_tenant_limit", "operator admin"),
    ("public.create_metric", "operator admin"),
    ("public.record_usage", "app admin"),
    ("public.record_usage_batch", "app admin"),
    ("public.record_duration", "app admin"),
    ("public.consume_quota", "app admin"),
    ("public.usage_total", "app admin"),
    ("public.usage_series", "app admin"),
    ("public.usage_period", "app admin"),
    ("public.monthly_usage", "app admin"),
    ("public.tenant_usage", "operator admin"),
    ("public.maintain_usage", "admin"),
    ("public.rollup_usage", "admin"),
    ("public.trim_usage_archive", "admin"),
    ("public.trim_usage_keys", "admin"),
    ("tenancy.stamp_usage", ""),
    ("tenancy.keep_resource", ""),
    ("tenancy.seal", ""),
    ("tenancy.announce_change", ""),
    ("tenancy.on_ddl_command_end", ""),
    ("tenancy.on_sql_drop", ""),
    ("tenancy.on_schema_change", ""),
    ("tenancy.on_schema_drop", ""),
];

/// Which roles may read each relation of the extension; nobody may write any.
const RELATIONS: &[(&str, &str)] = &[
    ("tenants", "app client operator admin"),
    ("plans", "app client monitor operator admin"),
    ("limited_tables", "monitor operator admin"),
    ("limited_resources", ""),
    ("limited_memberships", ""),
    ("row_counters", ""),
    ("tenant_overview", "operator admin"),
    ("audit_log", "app operator admin"),
    ("adoptions", "monitor operator admin"),
    ("protected_tables", "monitor operator admin"),
    ("protection_status", "monitor operator admin"),
    ("activity", "monitor operator admin"),
    ("refusals", "monitor operator admin"),
    ("failed_attempts", "monitor operator admin"),
    ("installation", ""),
    ("subscriptions", "app operator admin"),
    ("billing_periods", "app operator admin"),
    ("billing_lines", "app operator admin"),
    ("billing_adjustments", "operator admin"),
    ("worker_runs", "monitor operator admin"),
    ("worker_status", "monitor operator admin"),
    ("roles", "app client monitor operator admin"),
    ("members", "app client operator admin"),
    ("invitations", "app client operator admin"),
    ("api_keys", "app client operator admin"),
    ("users", "operator admin"),
    ("memberships", "operator admin"),
    ("jwt_keys", "admin"),
    ("added_roles", ""),
    ("api_key_usage", ""),
    ("stored_invitations", ""),
    ("stored_api_keys", ""),
    ("stored_jwt_keys", ""),
    ("access", "admin"),
    ("definer_exemptions", "admin"),
    ("tenant_databases", ""),
    ("moves", "operator admin"),
    ("provisioning", "operator admin"),
    ("database_state", "operator admin"),
    ("database_limits", "operator admin"),
    ("database_changes", ""),
    ("told_states", ""),
    ("received_state", ""),
    ("sent_reports", ""),
    ("database_reports", ""),
    ("unreported_usage", ""),
    ("templates", "operator admin"),
    ("applied_migrations", "operator admin"),
    ("allowed_drift", "operator admin"),
    ("schema_drift", "operator admin"),
    ("migrations", "operator admin"),
    ("migration_runs", "operator admin"),
    ("failed_migrations", "operator admin"),
    ("migration_status", "operator admin"),
    ("plan_rate_limits", "app client monitor operator admin"),
    ("tenant_rate_limits", "app client operator admin"),
    ("rate_limit_status", "monitor operator admin"),
    ("plan_limits", "app client monitor operator admin"),
    ("tenant_limits", "app client operator admin"),
    ("metrics", "app client monitor operator admin"),
    ("usage_inbox", ""),
    ("usage_pending", ""),
    ("usage_progress", ""),
    ("usage_buckets", ""),
    ("usage_uniques", ""),
    ("usage_keys", ""),
    ("usage_keys_0", ""),
    ("usage_keys_1", ""),
    ("usage_keys_2", ""),
    ("usage_keys_3", ""),
    ("usage_keys_4", ""),
    ("usage_keys_5", ""),
    ("usage_keys_6", ""),
    ("usage_keys_7", ""),
    ("quota_counters", ""),
];

const MEMBERS: &str = "
SELECT function.oid::regprocedure::text, namespace.nspname || '.' || function.proname, function.prokind::text,
       function.prorettype IN ('event_trigger'::regtype, 'trigger'::regtype),
       ARRAY(SELECT format_type(argument, NULL) FROM unnest(function.proargtypes) argument)
FROM pg_depend
JOIN pg_proc function ON function.oid = pg_depend.objid
JOIN pg_namespace namespace ON namespace.oid = function.pronamespace
WHERE pg_depend.classid = 'pg_proc'::regclass AND pg_depend.refclassid = 'pg_extension'::regclass AND pg_depend.deptype = 'e'
  AND pg_depend.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_tenancy')
ORDER BY 1";

/// A function of the extension.
struct Member {
    signature: String,
    name: String,
    /// A call with NULL for every argument; None for what SQL cannot call.
    call: Option<String>,
}

fn members(superuser: &mut Client) -> Vec<Member> {
    let read = |row: &harness::postgres::Row| {
        let (name, kind, is_trigger): (String, String, bool) = (row.get(1), row.get(2), row.get(3));
        let types: Vec<String> = row.get(4);
        let nulls: Vec<String> = types.iter().map(|kind| format!("NULL::{kind}")).collect();
        let verb = if kind == "p" { "CALL" } else { "SELECT" };
        let call = (!is_trigger).then(|| format!("{verb} {name}({})", nulls.join(", ")));
        Member { signature: row.get(0), name, call }
    };
    rows(superuser, MEMBERS, &[]).iter().map(read).collect()
}

/// The roles that a row of [`FUNCTIONS`] or [`RELATIONS`] names.
fn names(roles: &str) -> BTreeSet<&str> {
    roles.split_whitespace().collect()
}

#[track_caller]
fn allowed(table: &'static [(&str, &str)], name: &str) -> BTreeSet<&'static str> {
    let row = table.iter().find(|(known, _)| *known == name);
    names(row.unwrap_or_else(|| panic!("{name} has no row in this test: which levels may use it?")).1)
}

#[test]
fn every_level_grants_exactly_its_functions() {
    let database = Database::new("levels");
    let mut superuser = database.superuser();
    let members = members(&mut superuser);
    for (name, _) in FUNCTIONS {
        assert!(members.iter().any(|member| member.name == *name), "{name} does not exist");
    }
    for member in &members {
        let may: BTreeSet<&str> = ROLES
            .iter()
            .map(|(role, _)| *role)
            .filter(|role| {
                one(
                    &mut superuser,
                    "SELECT has_function_privilege($1, $2::text, 'EXECUTE')",
                    &[role, &member.signature],
                )
            })
            .collect();
        assert_eq!(may, allowed(FUNCTIONS, &member.name), "who may execute {}", member.signature);
    }
}

/// Functions for which NULL stands for all tenants: they do what they are called for, which is taken back.
const NULL_IS_ALL: &[&str] = &["public.recount_limits"];

/// The same by calling: a role without the level is told so; one with it gets through to the function, which refuses the NULLs.
#[test]
fn every_function_answers_a_call_with_nulls_by_level() {
    let database = Database::new("calls");
    let members = members(&mut database.superuser());
    let before = registry(&database);
    for (role, _) in ROLES {
        let mut session = database.connect(role);
        let pid = backend_pid(&mut session);
        for member in &members {
            let Some(call) = &member.call else { continue };
            let denied = !allowed(FUNCTIONS, &member.name).contains(role);
            let is_taken_back = NULL_IS_ALL.contains(&member.name.as_str());
            if is_taken_back {
                session.batch_execute("BEGIN").expect("begin");
            }
            let outcome = session.batch_execute(call);
            if is_taken_back {
                session.batch_execute("ROLLBACK").expect("roll back");
            }
            match outcome {
                Ok(()) => assert!(!denied, "{role} may {call}"),
                Err(error) => {
                    let fault = error.as_db_error().unwrap_or_else(|| panic!("{role}: {call}: {error:?}"));
                    let (code, message) = (fault.code().code(), fault.message());
                    let refused = code == "42501" && message.starts_with("permission denied for");
                    // Public functions of schema tenancy are called by policies, not by name.
                    let hidden = refused && message == "permission denied for schema tenancy";
                    assert!(refused == denied || hidden, "{role}: {call}: {code} {message}");
                    let due: &[&str] =
                        if member.name.contains("authenticate") { &["28000"] } else { &["22023", "42501"] };
                    assert!(denied || hidden || due.contains(&code), "{role}: {call}: {code} {message}");
                }
            }
        }
        assert_eq!(backend_pid(&mut session), pid, "the backend of {role} survived");
    }
    assert_eq!(registry(&database), before);
}

/// All that the product keeps but the audit log, in one line.
fn registry(database: &Database) -> String {
    let sql = "SELECT (SELECT string_agg(t::text, ',' ORDER BY id) FROM tenancy.tenants t) IS NULL, \
               (SELECT string_agg(p::text, ',' ORDER BY plan) FROM tenancy.plans p), \
               (SELECT string_agg(a::text, ',' ORDER BY role, level) FROM tenancy.access a), \
               (SELECT count(*) FROM tenancy.protected_tables), (SELECT count(*) FROM tenancy.definer_exemptions)";
    let mut superuser = database.superuser();
    format!("{:?} {:?}", simple(&mut superuser, sql), fixtures::stored(&mut superuser))
}

#[test]
fn every_level_reads_exactly_its_relations_and_writes_none() {
    const RELATION_NAMES: &str = "SELECT relname::text FROM pg_class
        WHERE relnamespace = 'tenancy'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')";
    let database = Database::new("relations");
    let found = rows(&mut database.superuser(), RELATION_NAMES, &[]);
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    for (name, _) in RELATIONS {
        assert!(found.iter().any(|relation| relation == name), "{name} does not exist");
    }
    for (role, _) in ROLES {
        let mut session = database.connect(role);
        for relation in &found {
            let readable = allowed(RELATIONS, relation).contains(role);
            let read = session.batch_execute(&format!("SELECT * FROM tenancy.{relation}"));
            if readable {
                read.unwrap_or_else(|error| panic!("{role} reads {relation}: {error}"));
            } else {
                assert!(read.is_err(), "{role} reads {relation}");
                assert!(fails(read, "42501").message().starts_with("permission denied"), "{role}: {relation}");
            }
            for write in [
                format!("INSERT INTO tenancy.{relation} DEFAULT VALUES"),
                format!("DELETE FROM tenancy.{relation}"),
                format!("TRUNCATE tenancy.{relation}"),
                format!("LOCK TABLE tenancy.{relation} IN ACCESS EXCLUSIVE MODE"),
                format!("DROP TABLE IF EXISTS tenancy.{relation}"),
            ] {
                let fault = session.batch_execute(&format!("BEGIN; {write}")).expect_err(&write);
                let fault = fault.as_db_error().expect("an error of the server").clone();
                // Views are not even things to be truncated or written.
                assert!(["42501", "42809", "55000"].contains(&fault.code().code()), "{role}: {write}: {fault}");
                session.batch_execute("ROLLBACK").expect("roll back");
            }
        }
        for sequence in ["SELECT nextval('tenancy.audit_log_id_seq')", "CREATE TABLE tenancy.mine ()"] {
            fails(session.batch_execute(sequence), "42501");
        }
    }
}

#[test]
fn tenancy_access_names_each_role_with_its_level() {
    let database = Database::new("access_view");
    let mut admin = database.connect("admin");
    let listed = simple(&mut admin, "SELECT role, level FROM tenancy.access ORDER BY role, level");
    let listed: Vec<(String, String)> =
        listed.into_iter().map(|row| (row[0].clone().expect("role"), row[1].clone().expect("level"))).collect();
    let mut expected: Vec<(String, String)> =
        ROLES.iter().filter_map(|(role, level)| level.map(|level| ((*role).to_owned(), level.to_owned()))).collect();
    expected.sort();
    assert_eq!(listed, expected);
}

// ---- giving and taking --------------------------------------------------------------------------------------------------------

/// Creates a role that no other test uses, with these attributes.
fn new_role(superuser: &mut Client, attributes: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let role = format!("access_role_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    superuser.batch_execute(&format!("CREATE ROLE {role} LOGIN {attributes}")).expect("create a role");
    role
}

#[track_caller]
fn grant(session: &mut Client, role: &str, level: &str) {
    assert!(one::<bool>(session, "SELECT grant_access($1::text::regrole, $2)", &[&role, &level]));
}

/// Everything that a role may do with the extension's functions, relations and schemas.
fn rights(superuser: &mut Client, role: &str) -> Vec<String> {
    const RIGHTS: &str = "
        SELECT 'function ' || function.oid::regprocedure FROM pg_depend
        JOIN pg_proc function ON function.oid = pg_depend.objid AND pg_depend.classid = 'pg_proc'::regclass
        WHERE pg_depend.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_tenancy') AND deptype = 'e'
          AND has_function_privilege($1, function.oid, 'EXECUTE')
        UNION ALL
        SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace AND relkind IN ('r', 'v')
          AND has_table_privilege($1, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        UNION ALL
        SELECT 'schema tenancy' WHERE has_schema_privilege($1, 'tenancy', 'USAGE, CREATE')
        ORDER BY 1";
    rows(superuser, RIGHTS, &[&role]).iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_level_that_is_given_is_taken_whole() {
    let database = Database::new("taken");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let nothing = rights(&mut superuser, "stranger");
    for (model, level) in ROLES.iter().filter_map(|(role, level)| level.map(|level| (role, level))) {
        let role = new_role(&mut superuser, "");
        assert_eq!(rights(&mut superuser, &role), nothing);
        grant(&mut admin, &role, level);
        grant(&mut admin, &role, level);
        assert_eq!(rights(&mut superuser, &role), rights(&mut superuser, model), "{level}");
        assert!(one::<bool>(&mut admin, "SELECT revoke_access($1::text::regrole)", &[&role]), "{level}");
        assert_eq!(rights(&mut superuser, &role), nothing, "{level}");
        assert!(
            !one::<bool>(&mut admin, "SELECT revoke_access($1::text::regrole)", &[&role]),
            "nothing is left to take"
        );
    }
}

#[test]
fn a_role_may_hold_several_levels_and_loses_all_at_once() {
    let database = Database::new("several");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let role = new_role(&mut superuser, "");
    for level in ["app", "monitor", "operator"] {
        grant(&mut admin, &role, level);
    }
    let all = rights(&mut superuser, &role);
    for model in ["app", "monitor", "operator"] {
        for right in rights(&mut superuser, model) {
            assert!(all.contains(&right), "{right}");
        }
    }
    let mut session = database.connect(&role);
    let id = tenant(&mut session);
    as_tenant(&mut session, id, |transaction| assert_eq!(count(transaction, "tenancy.tenants"), 1));
    assert!(one::<bool>(&mut admin, "SELECT revoke_access($1::text::regrole)", &[&role]));
    assert_eq!(rights(&mut superuser, &role), rights(&mut superuser, "stranger"));
    fails(session.batch_execute(&format!("SELECT set_tenant('{id}')")), "42501");
    fails(session.batch_execute("SELECT * FROM tenancy.tenants"), "42501");
}

#[test]
fn levels_given_and_taken_are_written_down() {
    let database = Database::new("access_audit");
    let mut superuser = database.superuser();
    let role = new_role(&mut superuser, "");
    let mut admin = database.connect("admin");
    grant(&mut admin, &role, "app");
    one::<bool>(&mut admin, "SELECT revoke_access($1::text::regrole)", &[&role]);
    let log = simple(
        &mut admin,
        &format!(
            "SELECT action, session_user_name, outer_user_name, after ->> 'level', before -> 'levels' ->> 0 \
             FROM tenancy.audit_log WHERE target = '{role}' ORDER BY id"
        ),
    );
    let log: Vec<Vec<&str>> =
        log.iter().map(|row| row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect()).collect();
    assert_eq!(
        log,
        [["access.grant", "admin", "admin", "app", "NULL"], ["access.revoke", "admin", "admin", "NULL", "app"]]
    );
    // What is refused or rolled back is not.
    let before = count(&mut superuser, "tenancy.audit_log");
    fails(admin.batch_execute("SELECT grant_access('postgres', 'app')"), "42501");
    admin.batch_execute("BEGIN; SELECT grant_access('stranger', 'app'); ROLLBACK").expect("roll back");
    assert_eq!(count(&mut superuser, "tenancy.audit_log"), before);
}

#[test]
fn nobody_below_admin_gives_or_takes_a_level() {
    let database = Database::new("escalate");
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        let mut session = database.connect(role);
        for statement in [
            format!("SELECT grant_access('{role}', 'admin')"),
            "SELECT revoke_access('admin')".to_owned(),
            format!("GRANT EXECUTE ON FUNCTION rebind_tenant(uuid) TO {role}"),
            format!("GRANT admin TO {role}"),
            format!("ALTER FUNCTION set_tenant(uuid, uuid) OWNER TO {role}"),
            "ALTER FUNCTION current_tenant() SET search_path = public".to_owned(),
            "CREATE OR REPLACE FUNCTION tenancy_guard() RETURNS boolean LANGUAGE sql AS 'SELECT true'".to_owned(),
            "DROP FUNCTION current_tenant() CASCADE".to_owned(),
            "DROP EXTENSION pg_tenancy CASCADE".to_owned(),
            "DROP SCHEMA tenancy CASCADE".to_owned(),
            "ALTER EXTENSION pg_tenancy SET SCHEMA pg_temp".to_owned(),
            "ALTER EVENT TRIGGER tenancy_sql_drop DISABLE".to_owned(),
            "ALTER TABLE tenancy.tenants DISABLE ROW LEVEL SECURITY".to_owned(),
            "DROP POLICY visible_tenants ON tenancy.tenants".to_owned(),
        ] {
            let error = session.batch_execute(&statement).expect_err(&statement);
            let fault = error.as_db_error().expect("an error of the server").clone();
            assert_eq!(fault.code().code(), "42501", "{role}: {statement}: {fault}");
        }
    }
}

#[test]
fn bad_arguments_of_grant_and_revoke_are_refused() {
    let database = Database::new("bad_grants");
    let mut admin = database.connect("admin");
    let pid = backend_pid(&mut admin);
    let before = registry(&database);
    for level in [
        "",
        " ",
        "App",
        "app ",
        "public",
        "internal",
        "superuser",
        "app; DROP TABLE x",
        "app' --",
        "%s%n",
        "\\",
        "日本語🦀",
        "$1",
        &"x".repeat(1 << 20),
    ] {
        let fault = fails(admin.query("SELECT grant_access('stranger', $1)", &[&level]), "22023");
        assert!(fault.hint().is_some_and(|hint| hint.contains("monitor")), "{fault}");
    }
    for call in [
        "grant_access('stranger', NULL)",
        "grant_access(NULL, 'app')",
        "grant_access(NULL, NULL)",
        "revoke_access(NULL)",
    ] {
        assert!(fails(admin.batch_execute(&format!("SELECT {call}")), "22023").message().contains("must not be null"));
    }
    for role in ["4294967295", "999999999", "0", "-"] {
        fails(admin.batch_execute(&format!("SELECT grant_access('{role}'::regrole, 'app')")), "P0002");
        fails(admin.batch_execute(&format!("SELECT revoke_access('{role}'::regrole)")), "P0002");
    }
    for role in ["nobody_of_this_name", "public", "\"; DROP ROLE app; --\"", "日本語"] {
        fails(admin.batch_execute(&format!("SELECT grant_access('{role}', 'app')")), "42704");
        fails(admin.batch_execute(&format!("SELECT revoke_access('{role}')")), "42704");
    }
    fails(admin.batch_execute("SELECT grant_access('', 'app')"), "42602");
    fails(admin.batch_execute("SELECT grant_access('a.b', 'app')"), "42602");
    assert_eq!(backend_pid(&mut admin), pid);
    assert_eq!(registry(&database), before);
}

#[test]
fn a_role_of_any_name_gets_and_loses_a_level() {
    let database = Database::new("odd_names");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    for (number, odd) in
        ["Mixed Case", "semi;colon", "qu\"ote", "apo'strophe", "per%cent", "back\\slash", "日本語🦀", "select"]
            .iter()
            .enumerate()
    {
        let name = format!("{odd} {number}");
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        superuser
            .batch_execute(&format!("DROP ROLE IF EXISTS {quoted}; CREATE ROLE {quoted} LOGIN"))
            .expect("create a role");
        grant(&mut admin, &quoted, "app");
        let mut session = database.connect(&name);
        assert_eq!(one::<Option<Uuid>>(&mut session, "SELECT find_tenant('nobody')", &[]), None);
        assert!(one::<bool>(&mut admin, "SELECT revoke_access($1::text::regrole)", &[&quoted]));
        fails(session.batch_execute("SELECT find_tenant('nobody')"), "42501");
        // Refused, with a remedy that names it rightly.
        superuser.batch_execute(&format!("ALTER ROLE {quoted} BYPASSRLS")).expect("alter");
        let fault = refused(&mut admin, &quoted, "app");
        superuser.batch_execute(fault.hint().expect("a hint")).expect("the remedy");
        grant(&mut admin, &quoted, "app");
        one::<bool>(&mut admin, "SELECT revoke_access($1::text::regrole)", &[&quoted]);
        superuser.batch_execute(&format!("DROP ROLE {quoted}")).expect("a role without rights can be dropped");
    }
}

// ---- roles that could step around a level -------------------------------------------------------------------------------------

/// The refusal of a level.
#[track_caller]
fn refused(admin: &mut Client, role: &str, level: &str) -> DbError {
    let fault = fails(admin.query("SELECT grant_access($1::text::regrole, $2)", &[&role, &level]), "42501");
    assert!(fault.message().ends_with(&format!("could step around level {level}")), "{fault}");
    fault
}

/// The level is refused for a reason that contains `reason`; after the statements of the hint it is given.
#[track_caller]
fn refused_until_remedied(database: &Database, role: &str, level: &str, reason: &str) {
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let before = rights(&mut superuser, role);
    let fault = refused(&mut admin, role, level);
    let detail = fault.detail().unwrap_or_default();
    assert!(detail.contains(reason), "{level}: {detail}");
    if !one::<bool>(&mut superuser, "SELECT rolsuper FROM pg_roles WHERE rolname = $1", &[&role]) {
        assert_eq!(rights(&mut superuser, role), before, "a refusal gives nothing");
    }
    let hint = fault.hint().expect("a hint").replace("another_role", "postgres");
    superuser.batch_execute(&hint).unwrap_or_else(|error| panic!("{level}: the remedy {hint}: {error}"));
    match admin.query("SELECT grant_access($1::text::regrole, $2)", &[&role, &level]) {
        Ok(_) => {}
        Err(error) => panic!(
            "{level}: still refused after the remedy {hint}: {}",
            error.as_db_error().expect("an error of the server").detail().unwrap_or_default()
        ),
    }
}

#[test]
fn a_role_with_a_dangerous_attribute_is_refused() {
    let database = Database::new("attributes");
    let mut superuser = database.superuser();
    for level in ["client", "app"] {
        for (attribute, reason) in [
            ("SUPERUSER", "it is a superuser"),
            ("BYPASSRLS", "it has BYPASSRLS"),
            ("CREATEROLE", "it has CREATEROLE"),
            ("REPLICATION", "it has REPLICATION"),
            ("BYPASSRLS CREATEROLE REPLICATION", "it has CREATEROLE"),
        ] {
            let role = new_role(&mut superuser, attribute);
            refused_until_remedied(&database, &role, level, reason);
        }
    }
}

#[test]
fn every_reason_is_named_at_once() {
    let database = Database::new("reasons");
    let mut superuser = database.superuser();
    let role = new_role(&mut superuser, "BYPASSRLS CREATEROLE REPLICATION");
    let file_role = "pg_write_server_files";
    superuser
        .batch_execute(&format!(
            "GRANT {file_role} TO {role}; GRANT TEMPORARY ON DATABASE {} TO {role}",
            database.name()
        ))
        .expect("grant");
    let fault = refused(&mut database.connect("admin"), &role, "client");
    let (detail, hint) = (fault.detail().expect("reasons"), fault.hint().expect("remedies"));
    for reason in ["BYPASSRLS", "CREATEROLE", "REPLICATION", file_role, "temporary tables"] {
        assert!(detail.contains(reason), "{reason}: {detail}");
    }
    assert!(hint.lines().count() >= 5 && hint.lines().all(|line| line.ends_with(';')), "{hint}");
}

#[test]
fn a_role_that_reaches_the_servers_files_is_refused() {
    let database = Database::new("files");
    let mut superuser = database.superuser();
    for level in ["client", "app"] {
        for power in ["pg_read_server_files", "pg_write_server_files", "pg_execute_server_program"] {
            let role = new_role(&mut superuser, "");
            superuser.batch_execute(&format!("GRANT {power} TO {role}")).expect("grant");
            refused_until_remedied(&database, &role, level, "files");
        }
    }
}

#[test]
fn a_member_of_a_dangerous_role_is_refused_however_far_and_whatever_it_inherits() {
    let database = Database::new("nested");
    let mut superuser = database.superuser();
    for level in ["client", "app"] {
        for attribute in ["SUPERUSER", "BYPASSRLS", "CREATEROLE", "REPLICATION"] {
            let dangerous = new_role(&mut superuser, attribute);
            let direct = new_role(&mut superuser, "NOINHERIT");
            superuser.batch_execute(&format!("GRANT {dangerous} TO {direct}")).expect("grant");
            refused_until_remedied(&database, &direct, level, &format!("member of {dangerous}"));
            // Through two roles between, none of which inherits.
            let middle = new_role(&mut superuser, "NOINHERIT");
            let inner = new_role(&mut superuser, "NOINHERIT");
            let far = new_role(&mut superuser, "NOINHERIT");
            superuser
                .batch_execute(&format!(
                    "GRANT {dangerous} TO {middle}; GRANT {middle} TO {inner}; GRANT {inner} TO {far}"
                ))
                .expect("grant");
            refused_until_remedied(&database, &far, level, &format!("member of {dangerous}"));
        }
    }
}

#[test]
fn the_owner_of_a_protected_table_and_its_members_are_refused() {
    let database = Database::new("owners");
    protected_table(&database);
    let mut superuser = database.superuser();
    for level in ["client", "app"] {
        // Owning.
        let role = new_role(&mut superuser, "");
        superuser.batch_execute(&format!("ALTER TABLE notes OWNER TO {role}")).expect("alter");
        refused_until_remedied(&database, &role, level, "it owns protected table");
        // Being a member of the owner, with and without inheriting, near and far.
        let owner = new_role(&mut superuser, "");
        superuser.batch_execute(&format!("ALTER TABLE notes OWNER TO {owner}")).expect("alter");
        for inherits in ["INHERIT", "NOINHERIT"] {
            let member = new_role(&mut superuser, inherits);
            superuser.batch_execute(&format!("GRANT {owner} TO {member}")).expect("grant");
            refused_until_remedied(&database, &member, level, &format!("member of {owner}"));
            let middle = new_role(&mut superuser, inherits);
            let far = new_role(&mut superuser, inherits);
            superuser.batch_execute(&format!("GRANT {owner} TO {middle}; GRANT {middle} TO {far}")).expect("grant");
            refused_until_remedied(&database, &far, level, &format!("member of {owner}"));
        }
    }
}

#[test]
fn the_owner_of_a_partition_is_refused() {
    let database = Database::new("partition_owner");
    let mut superuser = database.superuser();
    let role = new_role(&mut superuser, "");
    superuser
        .batch_execute(&format!(
            "CREATE TABLE parted (tenant_id uuid) PARTITION BY HASH (tenant_id);
             CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             ALTER TABLE part OWNER TO {role}"
        ))
        .expect("create");
    text(&mut database.connect("admin"), "SELECT protect_table('parted')");
    refused_until_remedied(&database, &role, "app", "it owns protected table");
}

/// The owner of the database is a member of pg_database_owner, which no membership shows.
#[test]
fn the_database_owner_is_refused_where_pg_database_owner_owns_a_protected_table() {
    for level in ["client", "app"] {
        let database = Database::new("database_owner");
        protected_table(&database);
        let mut superuser = database.superuser();
        let role = new_role(&mut superuser, "");
        superuser
            .batch_execute(&format!(
                "ALTER TABLE notes OWNER TO pg_database_owner; ALTER DATABASE {} OWNER TO {role}",
                database.name()
            ))
            .expect("alter");
        refused_until_remedied(&database, &role, level, "pg_database_owner");
    }
}

#[test]
fn a_member_of_the_database_owner_is_refused_where_pg_database_owner_owns_a_protected_table() {
    let database = Database::new("database_owner");
    protected_table(&database);
    let mut superuser = database.superuser();
    let dba = new_role(&mut superuser, "");
    let role = new_role(&mut superuser, "NOINHERIT");
    superuser
        .batch_execute(&format!(
            "ALTER TABLE notes OWNER TO pg_database_owner; ALTER DATABASE {} OWNER TO {dba}; GRANT {dba} TO {role}",
            database.name()
        ))
        .expect("alter");
    refused_until_remedied(&database, &role, "app", "pg_database_owner");
}

/// A new database and a role that gets a power there in some way: `{role}`, `{database}` and `{group}`, a role without rights,
/// stand for their names in `sql`.
fn empowered(label: &str, sql: &str) -> (Database, String) {
    let database = Database::new(label);
    let mut superuser = database.superuser();
    let role = new_role(&mut superuser, "");
    let group = new_role(&mut superuser, "");
    let sql = sql.replace("{database}", database.name()).replace("{role}", &role).replace("{group}", &group);
    superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    (database, role)
}

/// A temporary table left in a pooled session would shadow the next tenant's table.
#[test]
fn a_client_that_may_create_temporary_tables_is_refused() {
    for way in [
        "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
        "GRANT TEMPORARY ON DATABASE {database} TO {role}",
        "GRANT TEMPORARY ON DATABASE {database} TO {group}; GRANT {group} TO {role}",
        "GRANT TEMPORARY ON DATABASE {database} TO {group}; GRANT {group} TO {role}; ALTER ROLE {role} NOINHERIT",
        "ALTER DATABASE {database} OWNER TO {role}",
        "ALTER DATABASE {database} OWNER TO {group}; GRANT {group} TO {role}; ALTER ROLE {role} NOINHERIT",
    ] {
        println!("{way}");
        let (database, role) = empowered("temporary", way);
        refused_until_remedied(&database, &role, "client", "temporary tables");
        let mut session = database.connect(&role);
        fails(session.batch_execute("CREATE TEMP TABLE notes ()"), "42501");
    }
}

/// An object in a schema of the client's stays for the next tenant of its session, and may shadow what that one calls.
#[test]
fn a_client_that_may_create_in_a_schema_is_refused() {
    for way in [
        "CREATE SCHEMA \"Odd s\"; GRANT CREATE ON SCHEMA \"Odd s\" TO PUBLIC",
        "GRANT CREATE ON SCHEMA public TO {role}",
        "GRANT CREATE ON SCHEMA public TO {group}; GRANT {group} TO {role}",
        "GRANT CREATE ON SCHEMA public TO {group}; GRANT {group} TO {role}; ALTER ROLE {role} NOINHERIT",
        "CREATE SCHEMA own AUTHORIZATION {role}",
        "CREATE SCHEMA own AUTHORIZATION {group}; GRANT {group} TO {role}; ALTER ROLE {role} NOINHERIT",
        "GRANT CREATE ON DATABASE {database} TO {role}",
        "GRANT CREATE ON DATABASE {database} TO {group}; GRANT {group} TO {role}; ALTER ROLE {role} NOINHERIT",
    ] {
        println!("{way}");
        let (database, role) = empowered("creating", way);
        refused_until_remedied(&database, &role, "client", "may create");
        let mut session = database.connect(&role);
        for schema in ["public", "\"Odd s\"", "own"] {
            assert!(session.batch_execute(&format!("CREATE TABLE {schema}.shadow ()")).is_err(), "{schema}");
        }
        fails(session.batch_execute("CREATE SCHEMA another"), "42501");
    }
}

/// An owner gives itself back what was revoked from it.
#[test]
fn a_client_that_owns_a_schema_or_the_database_is_refused_whatever_was_revoked_from_it() {
    for way in [
        "CREATE SCHEMA own AUTHORIZATION {role}; REVOKE ALL ON SCHEMA own FROM {role}",
        "CREATE SCHEMA own AUTHORIZATION {group}; REVOKE ALL ON SCHEMA own FROM {group}; GRANT {group} TO {role}",
        "ALTER DATABASE {database} OWNER TO {role}; REVOKE ALL ON DATABASE {database} FROM {role}; REVOKE ALL ON SCHEMA public FROM pg_database_owner;
         GRANT CONNECT ON DATABASE {database} TO PUBLIC",
    ] {
        println!("{way}");
        let (database, role) = empowered("owning", way);
        refused_until_remedied(&database, &role, "client", "own");
        let mut session = database.connect(&role);
        for give_back in ["GRANT CREATE ON SCHEMA own TO CURRENT_USER", "CREATE TABLE own.shadow ()"] {
            assert!(session.batch_execute(give_back).is_err(), "{give_back}");
        }
        let temporary = format!("GRANT TEMPORARY ON DATABASE {} TO CURRENT_USER; CREATE TEMP TABLE notes ()", database.name());
        fails(session.batch_execute(&temporary), "42501");
    }
}

/// A backend chooses its tenant anyway, so that its own objects are its own business.
#[test]
fn an_app_may_create_objects() {
    let way = "GRANT TEMPORARY, CREATE ON DATABASE {database} TO {role}; GRANT CREATE ON SCHEMA public TO {role}";
    let (database, role) = empowered("creating", way);
    grant(&mut database.connect("admin"), &role, "app");
    protected_table(&database);
}

/// A client that could become an app by SET ROLE could choose its tenant.
#[test]
fn a_client_that_may_become_an_app_is_refused() {
    let database = Database::new("becoming");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    for level in ["app", "admin"] {
        let powerful = new_role(&mut superuser, "");
        grant(&mut admin, &powerful, level);
        let role = new_role(&mut superuser, "NOINHERIT");
        superuser.batch_execute(&format!("GRANT {powerful} TO {role}")).expect("grant");
        refused_until_remedied(&database, &role, "client", &format!("member of {powerful}"));
    }
}

#[test]
fn monitor_operator_and_admin_are_trusted_roles() {
    let database = Database::new("trusted");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    for level in ["monitor", "operator", "admin"] {
        let role = new_role(&mut superuser, "BYPASSRLS CREATEROLE");
        grant(&mut admin, &role, level);
    }
}

#[test]
fn protect_table_checks_the_holders_again() {
    let database = Database::new("check_again");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let owning = new_role(&mut superuser, "");
    let owner = new_role(&mut superuser, "");
    let member = new_role(&mut superuser, "NOINHERIT");
    superuser
        .batch_execute(&format!(
            "CREATE TABLE owned (tenant_id uuid); ALTER TABLE owned OWNER TO {owning};
             CREATE TABLE shared (tenant_id uuid); ALTER TABLE shared OWNER TO {owner}; GRANT {owner} TO {member}"
        ))
        .expect("create");
    grant(&mut admin, &owning, "app");
    grant(&mut admin, &member, "client");
    for (table, role) in [("owned", &owning), ("shared", &member)] {
        let protect = format!("SELECT protect_table('{table}')");
        let fault = fails(admin.batch_execute(&protect), "42501");
        assert!(fault.message().contains(role.as_str()), "{fault}");
        let intact = "SELECT relrowsecurity FROM pg_class WHERE relname = $1";
        assert!(!one::<bool>(&mut superuser, intact, &[&table]), "a refused table is left as it was");
        assert_eq!(count(&mut superuser, "tenancy.protected_tables"), if table == "owned" { 0 } else { 1 });
        let remedy = fault.hint().expect("a hint").replace("another_role", "postgres");
        superuser.batch_execute(&remedy).unwrap_or_else(|error| panic!("{remedy}: {error}"));
        assert!(one::<bool>(&mut admin, &protect, &[]), "{remedy}");
    }
    // What a holder became meanwhile counts too.
    let changed = new_role(&mut superuser, "");
    grant(&mut admin, &changed, "app");
    superuser
        .batch_execute(&format!("ALTER ROLE {changed} BYPASSRLS; CREATE TABLE late (tenant_id uuid)"))
        .expect("change the role");
    let fault = fails(admin.batch_execute("SELECT protect_table('late')"), "42501");
    superuser.batch_execute(fault.hint().expect("a hint")).expect("the remedy");
    assert!(one::<bool>(&mut admin, "SELECT protect_table('late')", &[]));
}

#[test]
fn protecting_asks_of_each_holder_what_its_level_asks() {
    let database = Database::new("holders");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let name = database.name();
    let backend = new_role(&mut superuser, "");
    let dba = new_role(&mut superuser, "BYPASSRLS");
    superuser
        .batch_execute(&format!(
            "GRANT TEMPORARY ON DATABASE {name} TO {backend}; GRANT CREATE ON SCHEMA public TO {backend}"
        ))
        .expect("grant");
    grant(&mut admin, &backend, "app");
    grant(&mut admin, &dba, "admin");
    protected_table(&database);
}

// ---- the product's own tables -------------------------------------------------------------------------------------------------

/// A tenant with people and credentials, so that each of the product's views has rows of it.
struct Populated {
    id: Uuid,
    user: Uuid,
    key: fixtures::ApiKey,
}

fn populated(database: &Database) -> Populated {
    let mut app = database.connect("app");
    let id = tenant(&mut database.connect("operator"));
    let user = fixtures::member(&mut app, id, "owner");
    let key = fixtures::api_key(&mut app, id, Some(user), &["*"]);
    fixtures::api_key(&mut app, id, None, &[]);
    fixtures::invitation(&mut app, id, &fixtures::email(), "viewer");
    Populated { id, user, key }
}

/// What client and app see of the product, with the column that names the tenant, one whose values no two tenants share, and how many
/// rows a [`Populated`] tenant has.
const OF_A_TENANT: [(&str, &str, &str, i64); 4] = [
    ("tenancy.tenants", "id", "slug", 1),
    ("tenancy.members", "tenant_id", "email", 1),
    ("tenancy.api_keys", "tenant_id", "key_prefix", 2),
    ("tenancy.invitations", "tenant_id", "email", 1),
];

/// Binds as a role can: app chooses, client brings a key.
fn enter(transaction: &mut harness::Transaction<'_>, role: &str, tenant: &Populated) {
    match role {
        "client" => drop(fixtures::bind_by_key(transaction, &tenant.key.text)),
        _ => harness::bind(transaction, tenant.id),
    }
}

#[test]
fn client_and_app_see_people_and_credentials_of_their_own_tenant_only() {
    let database = Database::new("own_people");
    let both = [populated(&database), populated(&database)];
    for role in ["client", "app"] {
        let mut session = database.connect(role);
        for (own, other) in [(&both[0], &both[1]), (&both[1], &both[0])] {
            for (relation, column, _, expected) in OF_A_TENANT {
                assert_eq!(count(&mut session, relation), 0, "{role}: {relation} with nothing bound");
                let mut transaction = session.transaction().expect("begin");
                enter(&mut transaction, role, own);
                let seen = rows(&mut transaction, &format!("SELECT {column} FROM {relation}"), &[]);
                let seen: Vec<Uuid> = seen.iter().map(|row| row.get(0)).collect();
                assert_eq!(seen, vec![own.id; usize::try_from(expected).expect("few")], "{role}: {relation}");
                for guess in [
                    format!("{relation} WHERE {column} = '{}'", other.id),
                    format!("{relation} WHERE {column} IS DISTINCT FROM current_tenant()"),
                    format!("{relation} WHERE {column} <> '{}' OR true AND {column} <> current_tenant()", own.id),
                ] {
                    assert_eq!(count(&mut transaction, &guess), 0, "{role}: {guess}");
                }
                let joined = format!("{relation} a FULL JOIN tenancy.tenants t ON t.id = a.{column}");
                assert_eq!(count(&mut transaction, &joined), expected, "{role}: {joined}");
                transaction.batch_execute("SELECT clear_tenant()").expect("unbind");
                assert_eq!(count(&mut transaction, relation), 0, "{role}: {relation} after clear_tenant()");
                transaction.rollback().expect("roll back");
            }
        }
    }
    // A key of the other tenant is not seen by its id, prefix or user either.
    let mut app = database.connect("app");
    as_tenant(&mut app, both[0].id, |tx| {
        let foreign = &both[1];
        let guess = format!(
            "tenancy.api_keys WHERE id = '{}' OR key_prefix = '{}' OR user_id = '{}'",
            foreign.key.id, foreign.key.prefix, foreign.user
        );
        assert_eq!(count(tx, &guess), 0);
        assert_eq!(count(tx, &format!("tenancy.members WHERE user_id = '{}'", foreign.user)), 0);
    });
}

#[test]
fn operator_and_admin_see_the_people_and_credentials_of_every_tenant() {
    let database = Database::new("all_people");
    let both = [populated(&database), populated(&database)];
    for role in ["operator", "admin"] {
        let mut session = database.connect(role);
        for (relation, _, _, expected) in OF_A_TENANT {
            assert_eq!(count(&mut session, relation), 2 * expected, "{role}: {relation}");
        }
    }
    // Each row once, also where the admin has bound one of them.
    as_tenant(&mut database.connect("admin"), both[0].id, |tx| {
        for (relation, _, _, expected) in OF_A_TENANT {
            assert_eq!(count(tx, relation), 2 * expected, "{relation}");
        }
    });
    // Who holds app as well as operator is an operator.
    let mut superuser = database.superuser();
    let role = new_role(&mut superuser, "");
    let mut admin = database.connect("admin");
    grant(&mut admin, &role, "app");
    grant(&mut admin, &role, "operator");
    as_tenant(&mut database.connect(&role), both[0].id, |tx| assert_eq!(count(tx, "tenancy.members"), 2));
}

/// Functions and operators that tell what they are shown, for everyone.
const LEAKS: &str = "
CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
    $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$;
CREATE FUNCTION leaking_equal(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
    $$ BEGIN RAISE NOTICE 'leaked % %', $1, $2; RETURN $1 IS NOT DISTINCT FROM $2; END $$;
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = leaking_equal, COMMUTATOR = ===, RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR <<< (LEFTARG = text, RIGHTARG = text, FUNCTION = leaking_equal, RESTRICT = scalarltsel)";

/// Ends of a query on `relation AS v` that tell, by a notice or an error, what they are shown of a row. `shown` is a column that tells
/// one tenant's rows from another's.
fn leaking_ends(relation: &str, column: &str, shown: &str) -> Vec<String> {
    vec![
        format!("WHERE leak(v.{column}::text)"),
        format!("WHERE leak(v.{shown})"),
        "WHERE leak(v::text)".to_owned(),
        "WHERE leak(to_jsonb(v)::text) AND true".to_owned(),
        format!("WHERE v.{column}::text === 'x'"),
        format!("WHERE v.{shown} <<< 'x'"),
        format!("WHERE v.{shown} === ''"),
        format!("WHERE v.{shown}::int = 0"),
        format!("WHERE CASE WHEN v.{shown} <> '' THEN v.{shown}::date IS NULL END"),
        "ORDER BY leak(v::text)".to_owned(),
        format!("GROUP BY v.{shown} HAVING leak(v.{shown})"),
        format!("JOIN (VALUES ('x')) AS x (x) ON x.x === v.{shown}"),
        format!("RIGHT JOIN (VALUES ('x')) AS x (x) ON leak(v.{shown})"),
        format!("JOIN LATERAL (SELECT 1 WHERE leak(v.{shown})) AS l ON true"),
        format!("WHERE EXISTS (SELECT FROM {relation} w WHERE leak(w.{shown}) AND w.{shown} === v.{shown})"),
    ]
}

/// The values of a tenant's rows in what client and app see, but for those that are everyone's.
fn values_of(superuser: &mut Client, tenant: Uuid) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for (relation, column, shown, _) in OF_A_TENANT {
        let columns = format!("SELECT {column}::text, {shown} FROM {relation} WHERE {column} = '{tenant}'");
        values.extend(simple(superuser, &columns).into_iter().flatten().flatten());
    }
    values
}

/// What the caller's conditions are shown is the caller's own: by no function, operator, cast or error does one learn of another tenant.
#[test]
fn a_leaking_condition_learns_of_nobody_elses_people() {
    let database = Database::new("leaking_people");
    let both = [populated(&database), populated(&database)];
    let mut superuser = database.superuser();
    superuser.batch_execute(LEAKS).expect("create functions that leak");
    let foreign = values_of(&mut superuser, both[1].id);
    assert!(foreign.contains(&both[1].key.prefix) && foreign.len() >= 5, "{foreign:?}");
    for settings in ["", "SET enable_indexscan = off; SET enable_bitmapscan = off", "SET enable_seqscan = off"] {
        superuser.batch_execute("ANALYZE").expect("analyze");
        for role in ["client", "app"] {
            let (mut session, notices) = database.connect_with_notices(role);
            session.batch_execute(settings).expect("settings");
            for (relation, column, shown, _) in OF_A_TENANT {
                for end in leaking_ends(relation, column, shown) {
                    let query = format!("SELECT FROM {relation} AS v {end}");
                    let unbound = session.batch_execute(&query).err().map(|error| format!("{error:?}"));
                    assert_eq!(unbound, None, "{role}: {query} with nothing bound");
                    let told = notices.take();
                    assert!(
                        !told.iter().any(|notice| notice.message() != "leaked <NULL>"),
                        "{role}: {query}: {told:?}"
                    );
                    let mut transaction = session.transaction().expect("begin");
                    enter(&mut transaction, role, &both[0]);
                    let error = transaction.batch_execute(&query).err();
                    transaction.rollback().expect("roll back");
                    let told = format!("{error:?} {:?}", notices.messages());
                    notices.take();
                    let leaked: Vec<&String> = foreign.iter().filter(|value| told.contains(value.as_str())).collect();
                    assert!(leaked.is_empty(), "{role}: {query} with \"{settings}\": {told}");
                    assert!(told.contains("leaked") || error.is_some(), "{role}: {query} shows nothing at all: {told}");
                }
            }
        }
    }
}

/// Rows of five thousand other tenants in everything that a view of a tenant reads.
const CROWD: &str = "
INSERT INTO tenancy.users (id, email) SELECT gen_random_uuid(), i || '@many.example' FROM generate_series(1, 5000) i;
INSERT INTO tenancy.memberships (tenant_id, user_id, role)
    SELECT gen_random_uuid(), id, 'member' FROM tenancy.users WHERE email LIKE '%@many.example';
INSERT INTO tenancy.stored_invitations (token_hash, tenant_id, email, role, metadata, expires_at)
    SELECT sha256(user_id::text::bytea), tenant_id, 'x@y.example', 'member', '{}', now() FROM tenancy.memberships;
INSERT INTO tenancy.stored_api_keys (key_hash, tenant_id, scopes, name, key_prefix)
    SELECT sha256(user_id::text::bytea), tenant_id, '{}', 'many', 'ptk_' FROM tenancy.memberships;
INSERT INTO tenancy.api_key_usage SELECT id FROM tenancy.stored_api_keys ON CONFLICT DO NOTHING;
INSERT INTO tenancy.audit_log (session_user_name, action, tenant_id) SELECT 'x', 'tenant.create', tenant_id FROM tenancy.memberships;
INSERT INTO tenancy.tenants (id, slug, name, plan, isolation)
    SELECT tenant_id, tenant_id::text, 'x', 'free', 'row' FROM tenancy.memberships WHERE role = 'member';
ANALYZE";

/// A relation read by client and app, each bound to one of many tenants, finds its rows by index and reads no table whole.
fn is_found_by_index(label: &str, relations: &[(&str, &str)]) {
    let database = Database::new(label);
    let own = populated(&database);
    let mut superuser = database.superuser();
    superuser.batch_execute(CROWD).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    for (relation, roles) in relations {
        for role in roles.split_whitespace() {
            let mut session = database.connect(role);
            let mut transaction = session.transaction().expect("begin");
            enter(&mut transaction, role, &own);
            let explain = format!("EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT * FROM {relation}");
            let plan: Vec<String> =
                simple(&mut transaction, &explain).into_iter().filter_map(|row| row[0].clone()).collect();
            assert!(plan.iter().any(|line| line.contains("Index")), "{role}: {relation}: {plan:#?}");
            for line in plan.iter().filter(|line| line.contains("Seq Scan")) {
                assert!(line.contains("never executed"), "{role}: {relation}: {plan:#?}");
            }
        }
    }
}

#[test]
fn the_views_of_a_tenant_use_the_index_of_it() {
    let views = ["tenancy.members", "tenancy.api_keys", "tenancy.invitations"];
    is_found_by_index("view_plans", &views.map(|view| (view, "client app")));
}

#[test]
fn the_registry_row_and_the_audit_log_of_a_tenant_are_found_by_index() {
    is_found_by_index("table_plans", &[("tenancy.tenants", "client app"), ("tenancy.audit_log", "app")]);
}

/// Tables that only functions reach: not by any level, not by a column, and not even where someone grants them by mistake.
#[test]
fn nobody_reads_or_writes_what_is_stored_of_credentials() {
    const STORED: [&str; 5] =
        ["stored_api_keys", "stored_invitations", "stored_jwt_keys", "added_roles", "api_key_usage"];
    let database = Database::new("stored");
    let mut admin = database.connect("admin");
    text(&mut admin, "SELECT add_role('manager', 70)");
    fixtures::signing_key(&mut admin, "k1");
    let own = populated(&database);
    let mut superuser = database.superuser();
    superuser.batch_execute("ANALYZE").expect("analyze");
    let before = fixtures::stored(&mut superuser);
    for (role, _) in ROLES {
        for table in STORED {
            let any = "SELECT has_any_column_privilege($1, $2::text, 'SELECT, INSERT, UPDATE, REFERENCES')
                           OR has_table_privilege($1, $2::text, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')";
            assert!(!one::<bool>(&mut superuser, any, &[&role, &format!("tenancy.{table}")]), "{role}: {table}");
        }
        let mut session = database.connect(role);
        let statistics = "SELECT count(*) FROM pg_stats WHERE schemaname = 'tenancy' AND tablename = ANY ($1)";
        assert_eq!(one::<i64>(&mut session, statistics, &[&STORED.as_slice()]), 0, "{role}");
        for table in STORED {
            for statement in [
                format!("SELECT FROM tenancy.{table}"),
                format!("SELECT ctid FROM tenancy.{table} FOR UPDATE"),
                format!("COPY tenancy.{table} TO STDOUT"),
                format!("TABLE tenancy.{table} LIMIT 0"),
                format!("DELETE FROM tenancy.{table}"),
                format!("SELECT query_to_xml('TABLE tenancy.{table}', true, true, '')"),
            ] {
                fails(session.batch_execute(&statement), "42501");
            }
        }
    }
    // A grant by mistake shows no hash and no key, and writes none.
    superuser.batch_execute("GRANT ALL ON ALL TABLES IN SCHEMA tenancy TO app, client").expect("grant too much");
    for role in ["app", "client"] {
        let mut session = database.connect(role);
        for (table, column) in
            [("stored_api_keys", "tenant_id"), ("stored_invitations", "tenant_id"), ("stored_jwt_keys", "kid")]
        {
            let mut transaction = session.transaction().expect("begin");
            enter(&mut transaction, role, &own);
            assert_eq!(count(&mut transaction, &format!("tenancy.{table}")), 0, "{role}: {table}");
            for write in
                [format!("UPDATE tenancy.{table} SET {column} = {column}"), format!("DELETE FROM tenancy.{table}")]
            {
                assert_eq!(transaction.execute(&write, &[]).expect("a statement without rows"), 0, "{role}: {write}");
            }
            transaction.rollback().expect("roll back");
        }
        let forge = format!(
            "INSERT INTO tenancy.stored_api_keys (key_hash, tenant_id, scopes, name, key_prefix) \
             VALUES (sha256('mine'), '{}', '{{*}}', 'mine', 'ptk_')",
            own.id
        );
        fails(session.batch_execute(&forge), "42501");
        let forge = "INSERT INTO tenancy.stored_jwt_keys (kid, algorithm, verifying_key) VALUES ('mine', 'HS256', repeat('x', 32))";
        fails(session.batch_execute(forge), "42501");
    }
    assert_eq!(fixtures::stored(&mut superuser), before);
}

/// The distinct tenants that a query of ids yields.
fn ids(session: &mut impl GenericClient, sql: &str) -> BTreeSet<Uuid> {
    rows(session, sql, &[]).iter().map(|row| row.get(0)).collect()
}

const TENANT_IDS: &str = "SELECT id FROM tenancy.tenants";
const LOGGED_IDS: &str = "SELECT DISTINCT tenant_id FROM tenancy.audit_log WHERE tenant_id IS NOT NULL";

#[test]
fn an_app_sees_its_own_tenant_in_the_registry_and_the_audit_log() {
    let database = Database::new("own_rows");
    let all = tenants(&mut database.connect("operator"), 3);
    let mut app = database.connect("app");
    for table in ["tenancy.tenants", "tenancy.audit_log"] {
        assert_eq!(count(&mut app, table), 0, "{table} without a tenant");
    }
    for &id in &all {
        as_tenant(&mut app, id, |transaction| {
            assert_eq!(ids(transaction, TENANT_IDS), BTreeSet::from([id]));
            assert_eq!(ids(transaction, LOGGED_IDS), BTreeSet::from([id]));
            assert_eq!(count(transaction, "tenancy.audit_log WHERE tenant_id IS NULL"), 0);
            assert_eq!(count(transaction, "tenancy.audit_log WHERE action = 'tenant.create'"), 1);
        });
    }
    for table in ["tenancy.tenants", "tenancy.audit_log"] {
        assert_eq!(count(&mut app, table), 0, "{table} after the transaction");
    }
}

#[test]
fn a_client_sees_its_own_tenant_in_the_registry_and_no_audit_log() {
    let database = Database::new("client_rows");
    let all = tenants(&mut database.connect("operator"), 2);
    database
        .superuser()
        .batch_execute(
            "CREATE FUNCTION login(tenant uuid) RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
             AS 'SELECT set_tenant(tenant)'; ALTER FUNCTION login(uuid) OWNER TO app",
        )
        .expect("create");
    let mut client = database.connect("client");
    assert_eq!(count(&mut client, "tenancy.tenants"), 0);
    for id in all {
        let mut transaction = client.transaction().expect("begin");
        one::<Uuid>(&mut transaction, "SELECT login($1)", &[&id]);
        assert_eq!(ids(&mut transaction, TENANT_IDS), BTreeSet::from([id]));
        fails(transaction.batch_execute("SELECT * FROM tenancy.audit_log"), "42501");
    }
}

#[test]
fn operator_and_admin_see_every_tenant_and_the_whole_log() {
    let database = Database::new("whole");
    let all: BTreeSet<Uuid> = tenants(&mut database.connect("operator"), 3).into_iter().collect();
    let logged = count(&mut database.superuser(), "tenancy.audit_log");
    for role in ["operator", "admin"] {
        let mut session = database.connect(role);
        assert_eq!(ids(&mut session, TENANT_IDS), all, "{role}");
        assert_eq!(ids(&mut session, LOGGED_IDS), all, "{role}");
        assert_eq!(count(&mut session, "tenancy.audit_log"), logged, "{role}");
    }
    assert_eq!(ids(&mut database.connect("operator"), "SELECT id FROM tenancy.tenant_overview"), all);
    // Also where the admin has bound one of them.
    let mut admin = database.connect("admin");
    let first = *all.first().expect("a tenant");
    as_tenant(&mut admin, first, |transaction| assert_eq!(ids(transaction, TENANT_IDS), all));
    for role in ["stranger", "owner", "monitor"] {
        for table in ["tenancy.tenants", "tenancy.audit_log", "tenancy.tenant_overview"] {
            fails(database.connect(role).batch_execute(&format!("SELECT * FROM {table}")), "42501");
        }
    }
}

/// A function in the WHERE clause runs after the policy, so that it is not shown what the policy hides.
#[test]
fn a_leaking_function_learns_of_no_other_tenant() {
    let database = Database::new("leaking");
    let both = tenants(&mut database.connect("operator"), 2);
    database
        .superuser()
        .batch_execute(
            "CREATE FUNCTION leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
             $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$",
        )
        .expect("create");
    let (mut app, notices) = database.connect_with_notices("app");
    for query in [
        "SELECT FROM tenancy.tenants WHERE leak(id)",
        "SELECT FROM tenancy.tenants WHERE leak(slug) AND slug LIKE '%'",
        "SELECT FROM tenancy.audit_log WHERE leak(tenant_id)",
        "SELECT FROM tenancy.audit_log WHERE leak(after)",
        "SELECT max(CASE WHEN leak(id) THEN 1 END) FROM tenancy.tenants",
    ] {
        app.batch_execute(query).expect(query);
        assert_eq!(notices.take().len(), 0, "{query} without a tenant");
        as_tenant(&mut app, both[0], |transaction| {
            transaction.batch_execute(query).expect(query);
        });
        let messages: Vec<String> = notices.take().iter().map(|notice| notice.message().to_owned()).collect();
        assert_eq!(messages.len(), 1, "{query}");
        assert!(!messages[0].contains(&both[1].to_string()), "{query}: {messages:?}");
    }
    // Nor by a key that it guesses.
    as_tenant(&mut app, both[0], |transaction| {
        let other = format!("tenancy.tenants WHERE id = '{}'", both[1]);
        assert_eq!(count(transaction, &other), 0);
    });
}

#[test]
fn a_role_with_a_level_reads_the_registry_in_an_extension_schema_of_its_own() {
    let database = harness::cluster().empty_database("own_schema");
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE SCHEMA \"My tools\"; CREATE EXTENSION pg_tenancy SCHEMA \"My tools\"; SET search_path = \"My tools\"")
        .expect("create the extension");
    let name = database.name();
    superuser.batch_execute(&format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")).expect("revoke");
    let nobody = rights(&mut superuser, "stranger");
    for (role, level) in
        [("app", "app"), ("client", "client"), ("operator", "operator"), ("monitor", "monitor"), ("admin", "admin")]
    {
        grant(&mut superuser, role, level);
    }
    let connect = |role: &str| {
        let mut session = database.connect(role);
        session.batch_execute("SET search_path = \"My tools\", public").expect("set the path");
        session
    };
    let id = tenant(&mut connect("operator"));
    let mut app = connect("app");
    as_tenant(&mut app, id, |transaction| assert_eq!(ids(transaction, TENANT_IDS), BTreeSet::from([id])));
    assert_eq!(count(&mut connect("monitor"), &format!("tenancy.activity WHERE tenant_id = '{id}'")), 0);
    let mut admin = connect("admin");
    for role in ["app", "client", "operator", "monitor"] {
        assert!(one::<bool>(&mut admin, "SELECT revoke_access($1::text::regrole)", &[&role]), "{role}");
        assert_eq!(rights(&mut superuser, role), nobody, "{role}");
    }
}
