//! `examples/crm/`: its story, and one test for each requirement of system 3.

use super::Examples;
use crate::row::without_restrict;
use harness::*;

/// The application with two tenants, each with its administrator and one company, contact and deal that bear its name.
struct Application {
    database: Database,
    acme: Uuid,
    globex: Uuid,
}

const PROVISION: &str =
    "SELECT create_tenant($1, slug => $1, isolation => 'schema', template => 'crm', metadata => '{}')";
const FIRST_USER: &str = "INSERT INTO users (email, password_hash, first_name, last_name, role)
    VALUES ($1::text, crypt('a password', gen_salt('bf', 4)), 'Ada', 'Almeida', 'admin')";

impl Application {
    fn new() -> Application {
        let database = Database::new("crm");
        Examples::copy().run("crm", "install.sql", &database);
        let [acme, globex] = ["acme", "globex"].map(|subdomain| provision(&database, subdomain).expect("provision"));
        let application = Application { database, acme, globex };
        for (tenant, name) in [(acme, "acme"), (globex, "globex")] {
            let fill = format!(
                "INSERT INTO companies (name, owner_id, custom_fields) VALUES ('{name} company', 1, '{{\"tier\": \"gold\"}}');
                 INSERT INTO contacts (company_id, first_name, last_name, email) VALUES (1, '{name}', 'Contact', 'contact@{name}.example');
                 INSERT INTO deals (title, value, contact_id, company_id, owner_id) VALUES ('{name} deal', 100, 1, 1, 1);
                 INSERT INTO deal_contacts (deal_id, contact_id) VALUES (1, 1);
                 INSERT INTO activities (type, subject, deal_id) VALUES ('call', '{name} call', 1)"
            );
            application.request(tenant, |tx| tx.batch_execute(&fill).expect("fill a tenant"));
        }
        application
    }

    /// One request to the backend.
    #[track_caller]
    fn request<T>(&self, tenant: Uuid, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
        as_tenant(&mut self.database.connect("app"), tenant, work)
    }

    /// Statements of one tenant's request that must fail, each with its SQLSTATE.
    #[track_caller]
    fn refuses(&self, role: &str, tenant: Uuid, statements: &[(&str, &str)]) {
        let mut session = self.database.connect(role);
        for (statement, sqlstate) in statements {
            let mut transaction = session.transaction().expect("begin");
            bind(&mut transaction, tenant);
            let Err(error) = transaction.batch_execute(statement) else { panic!("{statement} succeeded") };
            let code = error.code().map(|code| code.code().to_owned());
            assert_eq!(code.as_deref(), Some(*sqlstate), "{statement}: {error:?}");
        }
    }

    /// All rows of a tenant's schema, as the superuser sees them.
    fn contents(&self, schema: &str) -> Vec<Vec<Option<String>>> {
        const TABLES: [&str; 8] = [
            "users",
            "companies",
            "contacts",
            "deals",
            "deal_contacts",
            "activities",
            "deal_stages",
            "schema_migrations",
        ];
        let queries = TABLES.map(|table| format!("SELECT t::text FROM {schema}.{table} AS t ORDER BY 1;"));
        simple(&mut self.database.superuser(), &queries.concat())
    }
}

fn provision(database: &Database, subdomain: &str) -> Result<Uuid, postgres::Error> {
    provision_for(database, subdomain, &format!("ada@{subdomain}.example"))
}

/// A tenant with its schema and first user, whose address this is, in one transaction; or nothing.
fn provision_for(database: &Database, subdomain: &str, email: &str) -> Result<Uuid, postgres::Error> {
    let mut operator = database.connect("operator");
    let mut transaction = operator.transaction()?;
    let tenant: Uuid = transaction.query_one(PROVISION, &[&subdomain])?.get(0);
    transaction.query_one("SELECT set_tenant($1)", &[&tenant])?;
    transaction.execute(FIRST_USER, &[&email])?;
    transaction.commit()?;
    Ok(tenant)
}

#[test]
fn crm_keeps_every_promise_of_its_story() {
    let database = Database::new("crm");
    let told = Examples::copy().run("crm", "run.sql", &database);
    assert!(told.matches('✓').count() >= 73, "{told}");
}

#[test]
fn a_tenant_has_a_unique_subdomain_and_a_unique_schema() {
    let application = Application::new();
    let mut superuser = application.database.superuser();
    let query = "SELECT slug || ' ' || schema_name FROM tenancy.tenants ORDER BY 1";
    let named: Vec<String> = rows(&mut superuser, query, &[]).iter().map(|row| row.get(0)).collect();
    assert_eq!(named, ["acme tenant_acme", "globex tenant_globex"]);
    fails(provision(&application.database, "acme"), "23505");
    let taken = "SELECT create_tenant('Third', slug => 'third', isolation => 'schema', template => 'crm', schema_name => 'tenant_acme')";
    fails(application.database.connect("operator").batch_execute(taken), "23505");
    for wrong in ["", "a b", "acme_", "Ünïcödé", "-acme", &"a".repeat(64), "acme'; DROP SCHEMA tenant_acme CASCADE; --"]
    {
        fails(provision(&application.database, wrong), "22023");
    }
    let longest = "a".repeat(63);
    let mut app = application.database.connect("app");
    let schema: String = {
        let create = "SELECT create_tenant('Long', slug => $1, isolation => 'schema', template => 'crm', schema_name => 'tenant_long')";
        let tenant: Uuid = one(&mut application.database.connect("operator"), create, &[&longest]);
        one(&mut superuser, "SELECT schema_name::text FROM tenancy.tenants WHERE id = $1", &[&tenant])
    };
    assert_eq!(schema, "tenant_long");
    let mut transaction = app.transaction().expect("begin");
    one::<Uuid>(&mut transaction, "SELECT set_tenant_by_slug($1)", &[&longest]);
    assert_eq!(count(&mut transaction, "deal_stages"), 6);
}

#[test]
fn provisioning_is_all_or_nothing() {
    let application = Application::new();
    let there_is = "
        SELECT to_jsonb(t) FROM tenancy.tenants AS t ORDER BY 1; SELECT to_jsonb(a) FROM tenancy.audit_log AS a ORDER BY 1;
        SELECT nspname FROM pg_namespace ORDER BY 1; SELECT count(*) FROM pg_class; SELECT count(*) FROM pg_type; SELECT count(*) FROM pg_proc";
    let mut superuser = application.database.superuser();
    let before = simple(&mut superuser, there_is);
    // The subdomain, the first user, the schema: whatever is wrong.
    fails(provision(&application.database, "no subdomain"), "22023");
    fails(provision_for(&application.database, "taken", "no address"), "23514");
    superuser.batch_execute("CREATE SCHEMA tenant_taken").expect("somebody else's schema");
    fails(provision(&application.database, "taken"), "23505");
    superuser.batch_execute("DROP SCHEMA tenant_taken").expect("drop it");
    assert_eq!(simple(&mut superuser, there_is), before);
    let tenant = provision(&application.database, "taken").expect("now it is free");
    application.request(tenant, |tx| {
        assert_eq!(text(tx, "SELECT id || ' ' || email || ' ' || role FROM users"), "1 ada@taken.example admin");
        assert_eq!(count(tx, "deal_stages"), 6);
        assert_eq!(count(tx, "companies"), 0);
    });
}

#[test]
fn invitations_are_of_one_tenant_and_at_most_one_lives() {
    let application = Application::new();
    let mut app = application.database.connect("app");
    let invite =
        "SELECT token FROM create_invitation('ken@example.com', 'sales_rep', metadata => '{\"territory\": 1}')";
    let token: String = as_tenant(&mut app, application.acme, |tx| one(tx, invite, &[]));
    application.refuses("app", application.acme, &[(invite, "23505")]);
    as_tenant(&mut app, application.globex, |tx| {
        assert_eq!(count(tx, "tenancy.invitations"), 0);
        one::<String>(tx, invite, &[])
    });
    for role in ["admin", "manager", "sales_rep", "viewer"] {
        let invite = format!("SELECT count(*) FROM create_invitation('{role}@example.com', '{role}')");
        as_tenant(&mut app, application.acme, |tx| one::<i64>(tx, &invite, &[]));
    }
    // An expired one makes room.
    let expire = "UPDATE tenancy.stored_invitations SET expires_at = now() - interval '1 second', created_at = now() - interval '8 days' WHERE email = 'ken@example.com'";
    application.database.superuser().batch_execute(expire).expect("time passes");
    fails(app.query("SELECT accept_invitation($1, create_user('ken@example.com'))", &[&token]), "28000");
    let again: String = as_tenant(&mut app, application.acme, |tx| one(tx, invite, &[]));
    let ken: Uuid = one(&mut app, "SELECT create_user('ken@example.com', 'Ken')", &[]);
    assert_eq!(one::<Uuid>(&mut app, "SELECT accept_invitation($1, $2)", &[&again, &ken]), application.acme);
    fails(app.query("SELECT accept_invitation($1, $2)", &[&again, &ken]), "28000");
    assert_eq!(text(&mut app, &format!("SELECT slug || ' ' || role FROM user_tenants('{ken}')")), "acme sales_rep");
}

#[test]
fn the_tables_keep_their_rules_in_every_copy() {
    let application = Application::new();
    let user = "INSERT INTO users (email, password_hash, first_name, last_name) VALUES";
    application.refuses(
        "app",
        application.globex,
        &[
            (&format!("{user} ('ada@globex.example', '$2a$', 'A', 'B')"), "23505"),
            (&format!("{user} ('no address', '$2a$', 'A', 'B')"), "23514"),
            (&format!("{user} ('a@b.example', 'in the clear', 'A', 'B')"), "23514"),
            ("UPDATE users SET permissions = '[]'", "23514"),
            ("UPDATE users SET role = 'owner'", "22P02"),
            ("UPDATE users SET created_by = 99", "23503"),
            ("UPDATE companies SET parent_id = id", "23514"),
            ("UPDATE companies SET annual_revenue = 1e13", "22003"),
            ("UPDATE companies SET currency = 'euro'", "22001"),
            (
                "INSERT INTO contacts (first_name, last_name, email) VALUES ('A', 'B', 'Contact@Globex.example')",
                "23505",
            ),
            ("UPDATE deals SET value = 1e10", "22003"),
            ("UPDATE deals SET probability = -1", "23514"),
            ("UPDATE deals SET probability = 101", "23514"),
            ("UPDATE deals SET stage = 'dreaming'", "23503"),
            ("INSERT INTO deal_contacts (deal_id, contact_id) VALUES (1, 1)", "23505"),
            ("INSERT INTO deal_contacts (deal_id, contact_id) VALUES (2, 1)", "23503"),
            ("INSERT INTO activities (type, subject) VALUES ('call', 'about nothing')", "23514"),
            ("INSERT INTO password_reset_tokens (user_id, token_hash) VALUES (1, 'a token')", "23514"),
            ("UPDATE deals SET weighted_value = 1", "428C9"),
        ],
    );
    application.request(application.globex, |tx| {
        tx.batch_execute("UPDATE deals SET value = 200, probability = 50; DELETE FROM users")
            .expect("change and remove");
        assert_eq!(text(tx, "SELECT weighted_value || ' ' || (owner_id IS NULL) FROM deals"), "100.00 true");
        assert_eq!(text(tx, "SELECT owner_id IS NULL FROM companies"), "t");
        tx.batch_execute("DELETE FROM contacts").expect("remove the contact");
        assert_eq!(text(tx, "SELECT contact_id IS NULL FROM deals"), "t");
        assert_eq!(count(tx, "deal_contacts"), 0);
    });
    assert!(application.contents("tenant_acme").iter().flatten().flatten().any(|row| row.contains("acme deal")));
}

#[test]
fn every_request_reaches_the_tenant_of_its_subdomain_and_no_other() {
    let application = Application::new();
    let before = application.contents("tenant_acme");
    let [acmes, own] = ["tenant_acme", "tenant_globex"].map(|schema| {
        [
            format!("SELECT count(*) FROM {schema}.contacts"),
            format!("SELECT count(*) FROM {schema}.pipeline"),
            format!("UPDATE {schema}.users SET first_name = first_name"),
            format!("DELETE FROM {schema}.activities WHERE false"),
            format!("INSERT INTO {schema}.companies (name) VALUES ('Mole')"),
            format!("LOCK TABLE {schema}.deals IN EXCLUSIVE MODE"),
            format!("SELECT nextval('{schema}.deals_id_seq')"),
            format!("EXPLAIN SELECT * FROM {schema}.contacts"),
            format!("DO $$ BEGIN PERFORM * FROM {schema}.contacts; END $$"),
            format!("SELECT 'call'::{schema}.activity_type"),
            format!("PREPARE p AS SELECT * FROM {schema}.deals"),
            format!("DECLARE c CURSOR FOR SELECT * FROM {schema}.deals"),
        ]
    });
    let mut session = application.database.connect("app");
    for (foreign, own) in acmes.iter().zip(&own) {
        let attempt = |session: &mut Client, statement: &str, tenant: Option<Uuid>| {
            let mut transaction = session.transaction().expect("begin");
            if let Some(tenant) = tenant {
                bind(&mut transaction, tenant);
            }
            transaction.simple_query(statement).map(drop)
        };
        fails(attempt(&mut session, foreign, Some(application.globex)), "42501");
        fails(attempt(&mut session, foreign, None), "42501");
        attempt(&mut session, own, Some(application.globex)).unwrap_or_else(|error| panic!("{own}: {error:?}"));
    }
    assert_eq!(application.contents("tenant_acme"), before);
    // By the subdomain: the tables are found without their schema's name.
    let mut transaction = session.transaction().expect("begin");
    one::<Uuid>(&mut transaction, "SELECT set_tenant_by_slug('acme')", &[]);
    assert_eq!(text(&mut transaction, "SELECT first_name FROM contacts"), "acme");
    drop(transaction);
    fails(session.query("SELECT set_tenant_by_slug('nobody')", &[]), "P0002");
    fails(session.simple_query("SELECT * FROM contacts"), "42P01");
}

#[test]
fn a_change_of_the_template_reaches_every_tenant_with_its_version() {
    let application = Application::new();
    let mut admin = application.database.connect("admin");
    application.request(application.globex, |tx| {
        tx.batch_execute("UPDATE companies SET website = 'no address'").expect("bad data");
    });
    let add = "SELECT add_migration('crm', '002', $$ALTER TABLE companies ADD CONSTRAINT addresses CHECK (website LIKE 'http%');
        INSERT INTO schema_migrations (version) VALUES ('002')$$, down_sql => 'ALTER TABLE companies DROP CONSTRAINT addresses; DELETE FROM schema_migrations WHERE version = ''002''')";
    one::<String>(&mut admin, add, &[]);
    admin.batch_execute("CALL migrate_tenants('crm')").expect("the others go on");
    let status = "SELECT coalesce(slug, '-') || ' ' || status || ' ' || coalesce(sqlstate, '') FROM tenancy.migration_status ORDER BY 1";
    let mut operator = application.database.connect("operator");
    let statuses = |operator: &mut Client| -> Vec<String> {
        rows(operator, status, &[]).iter().map(|row| row.get::<_, String>(0).trim_end().to_owned()).collect()
    };
    assert_eq!(statuses(&mut operator), ["- applied", "acme applied", "globex failed 23514"]);
    application.request(application.globex, |tx| {
        assert_eq!(count(tx, "schema_migrations"), 1, "the tenant is as it was");
        tx.batch_execute("UPDATE companies SET website = 'https://globex.example'").expect("good data");
    });
    admin.batch_execute("CALL migrate_tenants('crm')").expect("go on");
    assert_eq!(statuses(&mut operator), ["- applied", "acme applied", "globex applied"]);
    for tenant in [application.acme, application.globex] {
        application.request(tenant, |tx| assert_eq!(count(tx, "schema_migrations"), 2));
    }
    assert_eq!(count(&mut operator, "tenancy.schema_drift"), 0);
    admin.batch_execute("CALL rollback_tenants('crm', NULL)").expect("roll back");
    assert_eq!(statuses(&mut operator), ["- pending", "acme pending", "globex pending"]);
}

#[test]
fn operators_see_numbers_of_every_tenant() {
    let application = Application::new();
    let mut operator = application.database.connect("operator");
    let query = "SELECT slug || ' ' || table_name || ' ' || row_count FROM tenant_statistics(exact => true)
        WHERE table_name IN ('users', 'contacts', 'deals') ORDER BY 1";
    let numbers: Vec<String> = rows(&mut operator, query, &[]).iter().map(|row| row.get(0)).collect();
    let expected =
        ["acme contacts 1", "acme deals 1", "acme users 1", "globex contacts 1", "globex deals 1", "globex users 1"];
    assert_eq!(numbers, expected);
    let sizes =
        "SELECT bool_and(table_bytes > 0 AND index_bytes > 0) FROM tenant_statistics() WHERE table_name = 'users'";
    assert!(one::<bool>(&mut operator, sizes, &[]));
    let commands: i64 = one(
        &mut operator,
        "SELECT count(*) FROM maintenance_commands() WHERE maintenance_commands LIKE 'VACUUM%'",
        &[],
    );
    assert!(commands >= 16, "{commands}");
    fails(operator.simple_query("SELECT * FROM tenant_acme.contacts"), "42501");
}

#[test]
fn the_database_roles_do_their_part_and_no_more() {
    let application = Application::new();
    let acme = application.acme;
    as_tenant(&mut application.database.connect("crm_readonly"), acme, |tx| assert_eq!(count(tx, "deals"), 1));
    application.refuses(
        "crm_readonly",
        acme,
        &[
            ("UPDATE deals SET value = 0", "42501"),
            ("DELETE FROM contacts", "42501"),
            ("INSERT INTO contacts (first_name, last_name) VALUES ('a', 'b')", "42501"),
            ("TRUNCATE deals", "42501"),
            ("SELECT nextval('deals_id_seq')", "42501"),
            ("SELECT password_hash FROM users", "42501"),
            ("SELECT * FROM password_reset_tokens", "42501"),
            ("SELECT * FROM tenant_globex.deals", "42501"),
            ("CREATE TABLE t (a integer)", "42501"),
        ],
    );
    let mut backup = application.database.connect("crm_backup");
    assert_eq!(count(&mut backup, "tenant_acme.deals") + count(&mut backup, "tenant_globex.deals"), 2);
    fails(backup.batch_execute("DELETE FROM tenant_acme.deals"), "42501");
    fails(application.database.connect("app").batch_execute("SELECT register_template('x', 'crm_template')"), "42501");
}

#[test]
fn one_tenant_is_backed_up_and_restored() {
    let application = Application::new();
    let dump = |role: &str| {
        let mut pg_dump = application.database.tool("pg_dump", role);
        without_restrict(&run(pg_dump.args(["-n", "tenant_acme"])))
    };
    let saved = dump("crm_backup");
    assert!(saved.contains("acme deal") && !saved.contains("globex"), "exactly one tenant's");
    // In another database, without the extension: rows and all.
    let elsewhere = cluster().empty_database("restored");
    let prepared = "CREATE EXTENSION pgcrypto";
    elsewhere.superuser().batch_execute(prepared).expect("an extension");
    let plain: String =
        saved.lines().filter(|line| !line.starts_with("SECURITY LABEL")).flat_map(|line| [line, "\n"]).collect();
    let output = elsewhere.psql("postgres", &plain);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text(&mut elsewhere.superuser(), "SELECT title FROM tenant_acme.deals"), "acme deal");
}
