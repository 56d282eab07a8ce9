//! Who is asking: nothing but a bind sets the tenant, once in a transaction; every way a transaction can go restores the context
//! exactly; without a tenant there is an error and never a row; cursors, plans and parallel workers keep to one tenant.

use crate::access::fixtures;
use harness::{
    Client, Cluster, Database, GenericClient, Options, Uuid, as_tenant, backend_pid, bind, count, fails, one, optional,
    protected_table, rows, run, simple, tenant, tenants, text, wait_for_lock,
};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The table notes with two rows of tenant `a` (a1, a2) and three of tenant `b` (b1, b2, b3).
struct World {
    database: Database,
    a: Uuid,
    b: Uuid,
}

/// A function by which the role `client` gets bound, as a credential will do it: it runs with the rights of `app`, and pins its
/// search_path, as every definer function should.
const LOGIN: &str = "
CREATE FUNCTION login(tenant uuid) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$ BEGIN RETURN set_tenant(tenant); END $$;
ALTER FUNCTION login(uuid) OWNER TO app;
";

impl World {
    fn new(label: &str) -> World {
        World::fill(Database::new(label))
    }

    fn fill(database: Database) -> World {
        protected_table(&database);
        let both = tenants(&mut database.connect("operator"), 2);
        let world = World { database, a: both[0], b: both[1] };
        let mut superuser = world.database.superuser();
        superuser.batch_execute(LOGIN).expect("create the function login");
        for (tenant, bodies) in [(world.a, ["a1", "a2", ""]), (world.b, ["b1", "b2", "b3"])] {
            for body in bodies.iter().filter(|body| !body.is_empty()) {
                superuser
                    .execute("INSERT INTO notes (tenant_id, body) VALUES ($1, $2)", &[&tenant, body])
                    .expect("insert a note");
            }
        }
        world
    }

    fn connect(&self, role: &str) -> Client {
        self.database.connect(role)
    }

    /// Everything in notes, as the superuser sees it.
    fn content(&self) -> String {
        text(
            &mut self.database.superuser(),
            "SELECT string_agg(id || ':' || tenant_id || ':' || coalesce(body, '?'), ',' ORDER BY id) FROM notes",
        )
    }
}

/// The bodies that the session sees in notes, in order.
#[track_caller]
fn bodies(session: &mut impl GenericClient) -> Vec<String> {
    column(session, "SELECT body FROM notes ORDER BY body")
}

/// The first column of a query's rows.
#[track_caller]
fn column(session: &mut impl GenericClient, sql: &str) -> Vec<String> {
    simple(session, sql).into_iter().map(|row| row[0].clone().unwrap_or_else(|| "NULL".to_owned())).collect()
}

/// The tenant that is bound now, if any.
#[track_caller]
fn bound(session: &mut impl GenericClient) -> Option<Uuid> {
    optional::<Option<Uuid>>(session, "SELECT current_tenant_or_null()", &[]).flatten()
}

/// Begins a transaction bound to `tenant`; `app` chooses it, `client` gets it by the function login.
#[track_caller]
fn enter(session: &mut Client, tenant: Uuid) {
    session.batch_execute("BEGIN").expect("begin");
    text(session, &format!("SELECT login('{tenant}')"));
}

/// Runs a statement that must fail with this SQLSTATE inside the open transaction, which goes on.
#[track_caller]
fn fails_inside(session: &mut Client, sql: &str, sqlstate: &str) -> harness::DbError {
    session.batch_execute("SAVEPOINT attempt").expect("savepoint");
    let Err(error) = session.batch_execute(sql) else { panic!("{sql}: succeeded where {sqlstate} was due") };
    let fault = fails::<()>(Err(error), sqlstate);
    session.batch_execute("ROLLBACK TO attempt; RELEASE attempt").expect("roll back to the savepoint");
    fault
}

/// The session has no tenant and reads nothing.
#[track_caller]
fn assert_unbound(session: &mut Client) {
    assert_eq!(bound(session), None);
    let fault = fails(session.batch_execute("SELECT * FROM notes"), "42501");
    assert_eq!(fault.message(), "no tenant is bound in this transaction");
}

/// The value of `tenancy.context` by which `set_tenant` binds a tenant.
fn value_of(tenant: impl std::fmt::Display) -> String {
    format!("{tenant}||set_tenant|||||")
}

/// Values of `tenancy.context` that would bind `tenant` if they were taken, some of them with all that a principal can have.
fn forged_values(tenant: Uuid) -> Vec<String> {
    vec![
        value_of(tenant),
        format!("{tenant}|{}|api_key||owner|{}|| *", Uuid::new_v4(), Uuid::new_v4()),
        format!("{tenant}||maintenance|||||||"),
        format!("{tenant}||set_tenant"),
        "garbage".to_owned(),
    ]
}

/// Statements by which a role might try to give `tenancy.context` a value; all of them are refused with 42501.
fn settings_of(value: &str, role: &str, database: &str) -> Vec<String> {
    vec![
        format!("SET tenancy.context = '{value}'"),
        format!("SET LOCAL tenancy.context = '{value}'"),
        format!("SET SESSION tenancy.context TO '{value}'"),
        format!("SELECT set_config('tenancy.context', '{value}', true)"),
        format!("SELECT set_config('tenancy.context', '{value}', false)"),
        format!("SELECT pg_catalog.set_config('TENANCY.Context', '{value}', true)"),
        format!("DO $$ BEGIN PERFORM set_config('tenancy.context', '{value}', true); END $$"),
        format!("DO $$ BEGIN EXECUTE 'SET LOCAL tenancy.context = ''{value}'''; END $$"),
        format!("ALTER ROLE CURRENT_USER SET tenancy.context = '{value}'"),
        format!("ALTER ROLE {role} IN DATABASE {database} SET tenancy.context = '{value}'"),
        format!("ALTER ROLE ALL SET tenancy.context = '{value}'"),
        format!("ALTER DATABASE {database} SET tenancy.context = '{value}'"),
    ]
}

/// A role of this test alone, since roles and their parameter rights belong to the whole server.
fn own_role(database: &Database, level: &str) -> String {
    let role = format!("{level}_of_{}", database.name());
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; SELECT grant_access('{role}', '{level}'); \
             DO $$ BEGIN IF to_regclass('notes') IS NOT NULL THEN GRANT ALL ON notes TO {role}; END IF; END $$"
        ))
        .expect("create a role");
    role
}

// ---- forging ------------------------------------------------------------------------------------------------------------------

/// How a statement that tries to change the bound tenant must end.
enum End {
    /// With this SQLSTATE, and nothing changed.
    Refused(&'static str),
    /// Without a tenant: nothing can be read.
    Unbound,
    /// It does nothing.
    Kept,
}

/// Statements by which a guarded role might try to become tenant `b`.
fn attacks(world: &World, role: &str) -> Vec<(String, End)> {
    use End::{Kept, Refused, Unbound};
    let (b, database) = (world.b, world.database.name());
    let mut attacks = Vec::new();
    for value in forged_values(b) {
        attacks.extend(settings_of(&value, role, database).into_iter().map(|statement| (statement, Refused("42501"))));
        attacks.push((format!("UPDATE pg_settings SET setting = '{value}' WHERE name LIKE 'tenancy%context'"), Kept));
    }
    for (statement, end) in [
        ("SET LOCAL tenancy.context = ''", Refused("42501")),
        ("RESET tenancy.context", Refused("42501")),
        ("SET tenancy.context TO DEFAULT", Refused("42501")),
        ("SET LOCAL tenancy.context TO DEFAULT", Refused("42501")),
        // The binding, prolonged beyond the transaction.
        ("SELECT set_config('tenancy.context', current_setting('tenancy.context'), false)", Refused("42501")),
        ("ALTER ROLE CURRENT_USER SET tenancy.context FROM CURRENT", Refused("42501")),
        ("SET tenancy.allow_rebind = on", Refused("42501")),
        ("SET LOCAL tenancy.allow_bypass = on", Refused("42501")),
        ("SET tenancy.definer_exempt = on", Refused("42501")),
        ("SELECT set_config('tenancy.allow_rebind', 'on', true)", Refused("42501")),
        ("SET tenancy.invented = 'x'", Refused("42602")),
        ("SET row_security = off", Kept),
        ("DISCARD ALL", Refused("25001")),
        ("RESET ALL", Unbound),
        ("SELECT clear_tenant()", Unbound),
        ("DO $$ BEGIN PERFORM clear_tenant(); EXECUTE 'RESET ALL'; END $$", Unbound),
        ("SET ROLE postgres", Refused("42501")),
        ("SET ROLE operator", Refused("42501")),
        ("SET ROLE admin", Refused("42501")),
        ("SET SESSION AUTHORIZATION postgres", Refused("42501")),
        ("RESET ROLE", Kept),
        ("SET SESSION AUTHORIZATION DEFAULT", Kept),
        ("SET ROLE NONE", Kept),
        ("SET search_path = pg_temp, public", Kept),
    ] {
        attacks.push((statement.to_owned(), end));
    }
    let denied = if role == "app" { "55000" } else { "42501" };
    for statement in [
        format!("SELECT set_tenant('{b}')"),
        format!("SELECT set_tenant('{b}', gen_random_uuid())"),
        format!("SELECT set_tenant_by_slug((SELECT slug FROM slugs WHERE id = '{b}'))"),
        format!("DO $$ BEGIN PERFORM clear_tenant(); PERFORM set_tenant('{b}'); END $$"),
        format!("DO $$ BEGIN EXECUTE 'RESET ALL'; PERFORM set_tenant('{b}'); END $$"),
        format!(
            "DO $$ BEGIN BEGIN PERFORM clear_tenant(); RAISE 'back'; EXCEPTION WHEN raise_exception THEN END; \
             PERFORM set_tenant('{b}'); END $$"
        ),
    ] {
        attacks.push((statement, Refused(denied)));
    }
    attacks.push((format!("SELECT login('{b}')"), Refused("55000")));
    attacks.push((format!("DO $$ BEGIN PERFORM clear_tenant(); PERFORM login('{b}'); END $$"), Refused("55000")));
    attacks.push((format!("SELECT rebind_tenant('{b}')"), Refused("42501")));
    attacks.push((format!("GRANT SET ON PARAMETER tenancy.context TO {role}"), Refused("42501")));
    if role == "client" {
        attacks.push(("SET ROLE app".to_owned(), Refused("42501")));
    }
    attacks
}

/// Slugs by id, for roles that do not see the other tenant's registry row.
fn publish_slugs(world: &World) {
    world
        .database
        .superuser()
        .batch_execute("CREATE TABLE slugs AS SELECT id, slug FROM tenancy.tenants; GRANT SELECT ON slugs TO PUBLIC")
        .expect("publish the slugs");
}

fn no_statement_moves(role: &str) {
    let world = World::new(&format!("forge_{role}"));
    publish_slugs(&world);
    let before = world.content();
    let mut session = world.connect(role);
    let pid = backend_pid(&mut session);
    for (statement, end) in attacks(&world, role) {
        enter(&mut session, world.a);
        match end {
            End::Refused(sqlstate) => {
                fails_inside(&mut session, &statement, sqlstate);
            }
            End::Unbound | End::Kept => {
                session.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
            }
        }
        if matches!(end, End::Unbound) {
            assert_eq!(bound(&mut session), None, "{statement}");
            fails_inside(&mut session, "SELECT * FROM notes", "42501");
            let again = fails_inside(&mut session, &format!("SELECT login('{}')", world.b), "55000");
            assert!(again.message().contains("another tenant was bound"), "{statement}: {again}");
            text(&mut session, &format!("SELECT login('{}')", world.a));
        }
        assert_eq!(bound(&mut session), Some(world.a), "{statement}");
        assert_eq!(text(&mut session, "SELECT current_tenant_text()"), world.a.to_string(), "{statement}");
        session.batch_execute("SET LOCAL row_security = on").expect("row_security");
        assert_eq!(bodies(&mut session), ["a1", "a2"], "{statement}");
        session.batch_execute("COMMIT; RESET ALL").expect("commit");
        assert_unbound(&mut session);
    }
    assert_eq!(backend_pid(&mut session), pid, "the backend survived");
    assert_eq!(world.content(), before);
}

#[test]
fn no_statement_of_an_app_changes_its_tenant() {
    no_statement_moves("app");
}

#[test]
fn no_statement_of_a_client_changes_its_tenant() {
    no_statement_moves("client");
}

#[test]
fn no_statement_outside_a_transaction_binds_a_tenant() {
    let world = World::new("forge_outside");
    for role in ["app", "client"] {
        let mut session = world.connect(role);
        for value in forged_values(world.a) {
            for statement in [
                format!("SET tenancy.context = '{value}'"),
                format!("SELECT set_config('tenancy.context', '{value}', false)"),
                format!("ALTER SYSTEM SET tenancy.context = '{value}'"),
                format!("ALTER ROLE {role} SET tenancy.context = '{value}'"),
                format!("ALTER DATABASE {} SET tenancy.context = '{value}'", world.database.name()),
            ] {
                fails(session.batch_execute(&statement), "42501");
                assert_unbound(&mut session);
            }
        }
    }
}

#[test]
fn a_client_cannot_choose_its_tenant() {
    let world = World::new("client_choice");
    let mut client = world.connect("client");
    for (function, argument) in [
        ("set_tenant", world.a.to_string()),
        ("set_tenant_by_slug", "x".to_owned()),
        ("rebind_tenant", world.a.to_string()),
    ] {
        let fault = fails(client.batch_execute(&format!("BEGIN; SELECT {function}('{argument}')")), "42501");
        assert_eq!(fault.message(), format!("permission denied for function {function}"));
        client.batch_execute("ROLLBACK").expect("roll back");
        assert_unbound(&mut client);
    }
}

/// A function may carry settings: the tenant is not among them, whoever owns it.
#[test]
fn a_functions_set_clause_binds_nothing() {
    let world = World::new("set_clause");
    let mut superuser = world.database.superuser();
    for value in forged_values(world.b) {
        for role in ["postgres", "owner"] {
            let mut session = world.connect(role);
            let create = format!(
                "CREATE FUNCTION public.forged() RETURNS bigint LANGUAGE sql SET tenancy.context = '{value}' \
                 AS 'SELECT count(*) FROM notes'"
            );
            fails(session.batch_execute(&create), "42501");
        }
    }
    // From a transaction that is bound: the value is a true one.
    superuser.batch_execute("SET tenancy.allow_bypass = on; BEGIN").expect("begin");
    text(&mut superuser, &format!("SELECT set_tenant('{}')", world.b));
    let create = "CREATE FUNCTION public.forged() RETURNS bigint LANGUAGE sql SET tenancy.context FROM CURRENT \
                  AS 'SELECT count(*) FROM notes'";
    fails_inside(&mut superuser, create, "42501");
    superuser
        .batch_execute("CREATE FUNCTION public.plain() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM notes'")
        .expect("create");
    fails_inside(&mut superuser, "ALTER FUNCTION public.plain() SET tenancy.context FROM CURRENT", "42501");
    superuser.batch_execute("COMMIT").expect("commit");
    // Written into the catalog behind PostgreSQL's back.
    superuser
        .execute(
            "UPDATE pg_proc SET proconfig = ARRAY[$1] WHERE proname = 'plain'",
            &[&format!("tenancy.context={}", value_of(world.b))],
        )
        .expect("update the catalog");
    let mut app = world.connect("app");
    fails(app.batch_execute("SELECT plain()"), "42501");
    enter(&mut app, world.a);
    fails_inside(&mut app, "SELECT plain()", "42501");
    assert_eq!(bodies(&mut app), ["a1", "a2"]);
}

#[test]
fn a_superusers_settings_bind_no_tenant_for_a_role_or_database() {
    let world = World::new("alter_settings");
    let mut superuser = world.database.superuser();
    for value in forged_values(world.a) {
        for target in [
            "ROLE app".to_owned(),
            "ROLE ALL".to_owned(),
            format!("ROLE app IN DATABASE {}", world.database.name()),
            format!("DATABASE {}", world.database.name()),
        ] {
            fails(superuser.batch_execute(&format!("ALTER {target} SET tenancy.context = '{value}'")), "42501");
        }
        assert!(superuser.batch_execute(&format!("ALTER SYSTEM SET tenancy.context = '{value}'")).is_err());
        for statement in ["SET tenancy.context =", "SET LOCAL tenancy.context ="] {
            fails(superuser.batch_execute(&format!("BEGIN; {statement} '{value}'")), "42501");
            superuser.batch_execute("ROLLBACK").expect("roll back");
        }
        fails(superuser.batch_execute(&format!("SELECT set_config('tenancy.context', '{value}', false)")), "42501");
        assert_eq!(bound(&mut superuser), None);
    }
}

#[test]
fn settings_smuggled_into_the_catalog_bind_no_tenant() {
    let world = World::new("smuggled");
    let settings = format!("tenancy.context={}", value_of(world.a));
    world
        .database
        .superuser()
        .execute(
            "INSERT INTO pg_db_role_setting SELECT oid, 'app'::regrole, ARRAY[$1] FROM pg_database WHERE datname = current_database()",
            &[&settings],
        )
        .expect("insert into the catalog");
    let mut app = world.connect("app");
    assert_unbound(&mut app);
    app.batch_execute("DISCARD ALL").expect("discard");
    assert_unbound(&mut app);
    as_tenant(&mut app, world.b, |transaction| assert_eq!(bodies(transaction), ["b1", "b2", "b3"]));
    assert_unbound(&mut app);
}

#[test]
fn the_right_to_set_the_parameter_binds_no_tenant() {
    let world = World::new("parameter");
    let role = own_role(&world.database, "app");
    let mut superuser = world.database.superuser();
    let grant = format!("GRANT SET, ALTER SYSTEM ON PARAMETER tenancy.context TO {role}");
    superuser.batch_execute(&grant).expect("grant");
    let mut session = world.connect(&role);
    for value in forged_values(world.b) {
        fails(session.batch_execute(&format!("SET tenancy.context = '{value}'")), "42501");
        fails(session.batch_execute(&format!("ALTER ROLE {role} SET tenancy.context = '{value}'")), "42501");
        enter(&mut session, world.a);
        fails_inside(&mut session, &format!("SET LOCAL tenancy.context = '{value}'"), "42501");
        fails_inside(&mut session, &format!("SELECT set_config('tenancy.context', '{value}', false)"), "42501");
        let prolong = "SELECT set_config('tenancy.context', current_setting('tenancy.context'), false)";
        fails_inside(&mut session, prolong, "42501");
        assert_eq!(bodies(&mut session), ["a1", "a2"]);
        session.batch_execute("COMMIT").expect("commit");
        assert_unbound(&mut session);
        let options = format!("-c tenancy.context={value}");
        let connected = world.database.connect_with(&role, |config| {
            config.options(&options);
        });
        if let Ok(mut session) = connected {
            assert_unbound(&mut session);
        }
    }
    // Such a role may unbind, which makes no room for another tenant.
    enter(&mut session, world.a);
    session.batch_execute("RESET tenancy.context").expect("reset");
    assert_eq!(bound(&mut session), None);
    fails_inside(&mut session, &format!("SELECT set_tenant('{}')", world.b), "55000");
    session.batch_execute("ROLLBACK; BEGIN").expect("next transaction");
    text(&mut session, &format!("SELECT set_tenant('{}')", world.a));
    session.batch_execute("SET LOCAL tenancy.context = ''").expect("unbind");
    fails_inside(&mut session, &format!("SELECT set_tenant('{}')", world.b), "55000");
    session.batch_execute("ROLLBACK").expect("roll back");
    assert_unbound(&mut session);
}

#[test]
fn connection_options_bind_no_tenant_and_switch_nothing_off() {
    let world = World::new("options");
    for role in ["app", "client"] {
        for (name, value) in [
            ("tenancy.context", value_of(world.a)),
            ("tenancy.context", world.a.to_string()),
            ("tenancy.allow_bypass", "on".to_owned()),
            ("tenancy.allow_rebind", "on".to_owned()),
            ("tenancy.definer_exempt", "on".to_owned()),
        ] {
            let connected = world.database.connect_with(role, |config| {
                config.options(&format!("-c {name}={value}"));
            });
            fails(connected.map(drop), "42501");
            let mut psql = world.database.tool("psql", role);
            psql.args(["-X", "-c", "SELECT * FROM notes"]).env("PGOPTIONS", format!("-c {name}={value}"));
            let output = psql.output().expect("run psql");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && output.stdout.is_empty(), "{stderr}");
            assert!(stderr.contains("permission denied to set parameter"), "{stderr}");
            let answer = startup_packet(&world.database, role, name, &value);
            assert!(answer.contains("C42501"), "{answer}");
        }
    }
}

/// What the server answers to a connection whose startup packet names a setting.
fn startup_packet(database: &Database, role: &str, name: &str, value: &str) -> String {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", role, "database", database.name(), name, value] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("a short packet");
    let mut stream = TcpStream::connect(("127.0.0.1", database.server().port())).expect("connect");
    stream.write_all(&[length.to_be_bytes().as_slice(), &body].concat()).expect("send the packet");
    let mut answer = Vec::new();
    // An accepted connection would stay open: this ends it.
    stream.write_all(b"X\0\0\0\x04").expect("send the end");
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_superusers_own_connection_options_bind_no_tenant() {
    let world = World::new("super_options");
    let options = format!("-c tenancy.context={}", value_of(world.a));
    let connected = world.database.connect_with("postgres", |config| {
        config.options(&options);
    });
    if let Ok(mut session) = connected {
        assert_eq!(bound(&mut session), None);
    }
}

/// Before the library is loaded, `tenancy.context` is a name that anyone may invent.
#[test]
fn a_placeholder_invented_before_the_library_was_loaded_binds_nothing() {
    const TENANT: &str = "11111111-1111-4111-8111-111111111111";
    let mut cluster = Cluster::start(Options::new().without_preload());
    let mut superuser = cluster.server().superuser();
    superuser
        .batch_execute(&format!(
            "ALTER ROLE app SET tenancy.context = '{}'; ALTER ROLE ALL SET tenancy.context = '{TENANT}||maintenance|||'",
            value_of(TENANT)
        ))
        .expect("a superuser invents the setting");
    let mut stranger =
        cluster.server().config("postgres", "client").connect(harness::postgres::NoTls).expect("connect");
    for name in ["tenancy.context", "tenancy.allow_rebind", "tenancy.allow_bypass", "tenancy.definer_exempt"] {
        // PostgreSQL refuses this; were it taken, it must still bring nothing.
        let _ = stranger.batch_execute(&format!("ALTER ROLE client SET {name} = 'on'"));
    }
    drop((superuser, stranger));
    cluster.configure("tenancy.context", &value_of(TENANT));
    cluster.configure("shared_preload_libraries", "pg_tenancy");
    cluster.restart();
    let database = cluster.database("placeholder");
    protected_table(&database);
    let create = format!("SELECT create_tenant('Forged', id => '{TENANT}')");
    text(&mut database.connect("operator"), &create);
    database
        .superuser()
        .batch_execute(&format!("INSERT INTO notes (tenant_id, body) VALUES ('{TENANT}', 'secret')"))
        .expect("insert");
    for role in ["app", "client"] {
        let mut session = database.connect(role);
        assert_unbound(&mut session);
        for reset in ["RESET ALL", "DISCARD ALL"] {
            session.batch_execute(reset).expect("reset");
            assert_unbound(&mut session);
        }
        for name in ["tenancy.allow_rebind", "tenancy.allow_bypass", "tenancy.definer_exempt"] {
            assert_eq!(text(&mut session, &format!("SHOW {name}")), "off", "{name}");
        }
    }
}

#[test]
fn a_role_that_app_may_set_keeps_the_tenant_and_cannot_bind_another() {
    let world = World::new("set_role");
    let other = own_role(&world.database, "app");
    let session_role = own_role(&world.database, "client");
    world.database.superuser().batch_execute(&format!("GRANT {other} TO {session_role}")).expect("grant");
    let mut session = world.connect(&session_role);
    enter(&mut session, world.a);
    session.batch_execute(&format!("SET LOCAL ROLE {other}")).expect("set role");
    assert_eq!(bodies(&mut session), ["a1", "a2"]);
    fails_inside(&mut session, &format!("SELECT set_tenant('{}')", world.b), "55000");
    session.batch_execute("RESET ROLE").expect("reset role");
    assert_eq!(bodies(&mut session), ["a1", "a2"]);
    fails_inside(&mut session, &format!("SELECT login('{}')", world.b), "55000");
    session.batch_execute("COMMIT").expect("commit");
    assert_unbound(&mut session);
}

/// What stands before pg_catalog and public in the search_path, or in pg_temp, does not get between a policy and its functions.
#[test]
fn functions_and_operators_of_the_same_name_shadow_nothing() {
    let world = World::new("shadow");
    let mut superuser = world.database.superuser();
    superuser
        .batch_execute(&format!(
            "GRANT TEMPORARY ON DATABASE {} TO app; CREATE SCHEMA evil; GRANT CREATE ON SCHEMA evil TO app; \
             GRANT USAGE ON SCHEMA evil TO PUBLIC",
            world.database.name()
        ))
        .expect("let app create objects");
    let (mut app, notices) = world.database.connect_with_notices("app");
    app.batch_execute("CREATE TEMP TABLE t ()").expect("create the temporary schema");
    for schema in ["pg_temp", "evil"] {
        app.batch_execute(&shadows(schema, world.b)).unwrap_or_else(|error| panic!("{schema}: {error}"));
    }
    for path in ["pg_temp, evil, pg_catalog, public", "evil, pg_catalog, public, pg_temp", "evil, public, pg_catalog"] {
        app.batch_execute(&format!("BEGIN; SET LOCAL search_path = {path}")).expect("set the path");
        fails_inside(&mut app, "SELECT * FROM public.notes", "42501");
        text(&mut app, &format!("SELECT public.set_tenant('{}'::pg_catalog.uuid)", world.a));
        let read = "SELECT body FROM public.notes ORDER BY body USING OPERATOR(pg_catalog.<)";
        assert_eq!(column(&mut app, read), ["a1", "a2"], "{path}");
        assert_eq!(
            column(
                &mut app,
                &format!(
                    "SELECT body FROM public.notes WHERE tenant_id OPERATOR(pg_catalog.=) '{}'::pg_catalog.uuid",
                    world.b
                )
            ),
            [""; 0]
        );
        assert_eq!(text(&mut app, "SELECT pg_catalog.count(*) FROM tenancy.tenants"), "1", "{path}");
        let insert = format!("INSERT INTO public.notes (tenant_id, body) VALUES ('{}', 'forged')", world.b);
        let fault = fails_inside(&mut app, &insert, "42501");
        assert!(fault.message().starts_with("tenant mismatch"), "{fault}");
        app.batch_execute("INSERT INTO public.notes (body) VALUES ('own')").expect("insert");
        assert_eq!(
            text(&mut app, "SELECT tenant_id FROM public.notes WHERE body OPERATOR(pg_catalog.=) 'own'"),
            world.a.to_string()
        );
        fails_inside(&mut app, &format!("SELECT public.set_tenant('{}'::pg_catalog.uuid)", world.b), "55000");
        app.batch_execute("ROLLBACK").expect("roll back");
        assert_eq!(notices.messages(), [""; 0], "{path}");
    }
    // And for those who run the product's own queries with such a path.
    let (mut admin, notices) = world.database.connect_with_notices("admin");
    admin.batch_execute("SET search_path = evil, public, pg_catalog").expect("set the path");
    for call in [
        format!("SELECT public.create_tenant('Under a hostile path', id => '{}'::pg_catalog.uuid)", Uuid::new_v4()),
        "SELECT public.protect_table('public.notes')".to_owned(),
        "SELECT public.grant_access('stranger', 'monitor')".to_owned(),
        format!("SELECT public.set_tenant('{}'::pg_catalog.uuid)", world.a),
        "SELECT pg_catalog.count(*) FROM tenancy.tenant_overview".to_owned(),
    ] {
        admin.batch_execute(&call).unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    assert!(!notices.contains("shadow"), "{:?}", notices.messages());
}

/// Objects that would let tenant `b`'s rows through if anyone called them, and tell of it.
fn shadows(schema: &str, b: Uuid) -> String {
    let mut sql = "SET search_path = pg_catalog;".to_owned();
    for (function, returns, value) in [
        ("current_tenant()", "uuid", format!("'{b}'::uuid")),
        ("current_tenant_text()", "text", format!("'{b}'")),
        ("current_tenant_or_null()", "uuid", format!("'{b}'::uuid")),
        ("sees_all_tenants()", "boolean", "true".to_owned()),
        ("first_visible_tenant()", "uuid", format!("'{}'::uuid", Uuid::nil())),
        ("last_visible_tenant()", "uuid", format!("'{}'::uuid", Uuid::max())),
        ("uuid_ge(uuid, uuid)", "boolean", "true".to_owned()),
        ("uuid_le(uuid, uuid)", "boolean", "true".to_owned()),
        ("has_function_privilege(oid, oid, text)", "boolean", "true".to_owned()),
        ("set_tenant(uuid, uuid)", "uuid", format!("'{b}'::uuid")),
        ("refuse_row(text)", "boolean", "true".to_owned()),
        ("tenancy_guard()", "boolean", "true".to_owned()),
        ("uuid_eq(uuid, uuid)", "boolean", "true".to_owned()),
        ("texteq(text, text)", "boolean", "true".to_owned()),
        ("always(uuid, uuid)", "boolean", "true".to_owned()),
        ("always(text, text)", "boolean", "true".to_owned()),
        ("format(text, text, text)", "text", "'evil'".to_owned()),
        ("quote_ident(text)", "text", "'evil'".to_owned()),
        ("now()", "timestamptz", "'epoch'::timestamptz".to_owned()),
    ] {
        sql += &format!(
            "CREATE FUNCTION {schema}.{function} RETURNS {returns} LANGUAGE plpgsql AS $f$ BEGIN \
             RAISE WARNING 'shadow %', '{function}'; RETURN {value}; END $f$;"
        );
    }
    if schema != "pg_temp" {
        sql += &format!(
            "CREATE OPERATOR {schema}.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = {schema}.always);
             CREATE OPERATOR {schema}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {schema}.always);"
        );
    }
    format!("{sql} RESET search_path")
}

#[test]
fn overloads_in_public_change_no_policy_and_get_no_rights() {
    let world = World::new("overload");
    let mut owner = world.connect("owner");
    owner
        .batch_execute(&format!(
            "CREATE FUNCTION current_tenant(int) RETURNS uuid LANGUAGE sql AS $$ SELECT '{b}'::uuid $$;
             CREATE FUNCTION tenancy_guard(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             CREATE FUNCTION set_tenant(tenant bytea) RETURNS uuid LANGUAGE sql AS $$ SELECT '{b}'::uuid $$;
             CREATE FUNCTION grant_access(role text, level text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             REVOKE ALL ON FUNCTION set_tenant(bytea), grant_access(text, text) FROM PUBLIC;",
            b = world.b
        ))
        .expect("create overloads");
    let mut app = world.connect("app");
    fails(app.batch_execute("SELECT * FROM notes"), "42501");
    enter(&mut app, world.a);
    assert_eq!(bodies(&mut app), ["a1", "a2"]);
    app.batch_execute("INSERT INTO notes (body) VALUES ('own'); COMMIT").expect("insert");
    let mut superuser = world.database.superuser();
    let own = format!("notes WHERE body = 'own' AND tenant_id = '{}'", world.a);
    assert_eq!(count(&mut superuser, &own), 1);
    // Giving levels anew grants nothing on functions that only look like ours.
    let mut admin = world.connect("admin");
    text(&mut admin, "SELECT grant_access('stranger'::regrole, 'admin')");
    for function in ["set_tenant(bytea)", "grant_access(text, text)"] {
        let may = format!("SELECT has_function_privilege('stranger', '{function}', 'EXECUTE')");
        assert!(!one::<bool>(&mut superuser, &may, &[]), "{function}");
    }
    // A table protected with the overloads in place is held by the true functions.
    owner
        .batch_execute("CREATE TABLE later (id int, tenant_id uuid, body text); GRANT ALL ON later TO app")
        .expect("create");
    text(&mut admin, "SELECT protect_table('later')");
    let insert = format!("INSERT INTO later VALUES (1, '{}', 'a'), (2, '{}', 'b')", world.a, world.b);
    superuser.batch_execute(&insert).expect("insert");
    enter(&mut app, world.a);
    assert_eq!(column(&mut app, "SELECT body FROM later"), ["a"]);
}

/// The forged values above are what the product itself writes: otherwise they would prove nothing.
#[test]
fn the_forged_values_are_of_the_true_form() {
    let world = World::new("true_form");
    let user = fixtures::member(&mut world.connect("app"), world.a, "owner");
    let key = fixtures::api_key(&mut world.connect("app"), world.a, Some(user), &["*"]);
    let mut app = world.connect("app");
    enter(&mut app, world.a);
    assert_eq!(text(&mut app, "SELECT current_setting('tenancy.context')"), value_of(world.a));
    app.batch_execute("COMMIT; BEGIN").expect("next transaction");
    text(&mut app, &format!("SELECT tenant_id FROM authenticate_api_key('{}')", key.text));
    let forged = format!("{}|{user}|api_key||owner|{}|| *", world.a, key.id);
    assert_eq!(text(&mut app, "SELECT current_setting('tenancy.context')"), forged);
}

/// A member of `a` whose key has few rights, and what a session bound by it is told of itself.
struct Lowly {
    key: fixtures::ApiKey,
    user: Uuid,
}

impl Lowly {
    const SELF: &str = "
        SELECT concat_ws(' ', p.tenant_id, p.user_id, p.api_key_id, p.source, p.role, p.scopes::text, current_member_role(),
            has_role('viewer'), has_role('member'), has_role('owner'), has_scope('a:read'), has_scope('a:write'), has_scope('*'))
        FROM (SELECT) AS one LEFT JOIN current_principal() p ON true";

    fn new(world: &World) -> Lowly {
        let mut app = world.connect("app");
        let user = fixtures::member(&mut app, world.a, "viewer");
        Lowly { key: fixtures::api_key(&mut app, world.a, Some(user), &["a:read"]), user }
    }

    /// Begins a transaction bound by the key.
    #[track_caller]
    fn enter(&self, session: &mut Client) {
        session.batch_execute("BEGIN").expect("begin");
        text(session, &format!("SELECT tenant_id FROM authenticate_api_key('{}')", self.key.text));
    }

    #[track_caller]
    fn assert_bound(&self, session: &mut Client, world: &World, after: &str) {
        let (key, user) = (self.key.id, self.user);
        let due = format!("{} {user} {key} api_key viewer {{a:read}} viewer t f f t f f", world.a);
        assert_eq!(text(session, Lowly::SELF), due, "{after}");
    }
}

/// Nobody has a role, a key or a scope in this session now.
#[track_caller]
fn assert_nobody(session: &mut Client, after: &str) {
    assert_eq!(text(session, Lowly::SELF), "f f f f f f", "{after}");
}

#[test]
fn no_statement_gives_its_session_a_role_or_scope() {
    let world = World::new("elevate");
    let lowly = Lowly::new(&world);
    let (a, user, key) = (world.a, lowly.user, lowly.key.id);
    let values = [
        format!("{a}|{user}|api_key||owner|{key}|| *"),
        format!("{a}|{user}|api_key||viewer|{key}|| a:read a:write *"),
        format!("{a}|{user}|set_tenant||owner|||"),
    ];
    let mut superuser = world.database.superuser();
    let before = fixtures::stored(&mut superuser);
    for role in ["client", "app"] {
        let mut statements: Vec<String> =
            values.iter().flat_map(|value| settings_of(value, role, world.database.name())).collect();
        statements.extend(
            [
                "SET tenancy.context = ''",
                "SET tenancy.jwt_membership = 'trusted'",
                "SET LOCAL tenancy.jwt_leeway = 300",
                "SET tenancy.jwt_role_claim = 'sub'",
                "SET tenancy.api_key_prefix = 'x_'",
                "UPDATE tenancy.memberships SET role = 'owner'",
                "UPDATE tenancy.stored_api_keys SET scopes = '{*}'",
                "INSERT INTO tenancy.added_roles VALUES ('viewer2', 99)",
                "SELECT add_role('viewer2', 99)",
                "CREATE OR REPLACE FUNCTION public.has_role(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
                "SET ROLE admin",
            ]
            .map(str::to_owned),
        );
        let mut session = world.connect(role);
        let pid = backend_pid(&mut session);
        for statement in &statements {
            lowly.enter(&mut session);
            fails_inside(&mut session, statement, "42501");
            lowly.assert_bound(&mut session, &world, statement);
            for refused in ["SELECT require_role('member')", "SELECT require_scope('a:write')"] {
                fails_inside(&mut session, refused, "42501");
            }
            session.batch_execute("COMMIT").expect("commit");
            fails(session.batch_execute(statement), "42501");
            assert_nobody(&mut session, statement);
        }
        assert_eq!(backend_pid(&mut session), pid, "the backend survived");
        for value in &values {
            let connected = world.database.connect_with(role, |config| {
                config.options(&format!("-c tenancy.context={}", value.replace(' ', "\\ ")));
            });
            fails(connected.map(drop), "42501");
        }
    }
    assert_eq!(fixtures::stored(&mut superuser), before);
}

/// Scopes may hold whatever separates things in the setting; they come back as they were given, and as nothing else.
#[test]
fn scopes_of_any_form_are_kept_apart_from_the_role() {
    let world = World::new("odd_scopes");
    let mut app = world.connect("app");
    let long: Vec<String> = (0..100).map(|n| format!("{n:0>255}")).collect();
    let sets: [Vec<&str>; 5] = [
        vec!["a|b", "|", "||set_tenant||owner||", "|owner|"],
        vec![],
        vec!["'", "$1", "%s", "{}", ",", ";--"],
        vec!["x"; 100],
        long.iter().map(String::as_str).collect(),
    ];
    for scopes in sets {
        let user = fixtures::member(&mut app, world.a, "viewer");
        let key = fixtures::api_key(&mut app, world.a, Some(user), &scopes);
        let mut transaction = app.transaction().expect("begin");
        assert_eq!(fixtures::bind_by_key(&mut transaction, &key.text).as_deref(), Some("viewer"));
        let principal = rows(&mut transaction, "SELECT scopes, role, user_id FROM current_principal()", &[]);
        assert_eq!(principal[0].get::<_, Vec<String>>(0), scopes);
        assert_eq!((principal[0].get::<_, String>(1), principal[0].get::<_, Uuid>(2)), ("viewer".to_owned(), user));
        for scope in scopes {
            assert!(one::<bool>(&mut transaction, "SELECT has_scope($1)", &[&scope]), "{scope}");
        }
        assert!(!one::<bool>(&mut transaction, "SELECT has_scope('owner')", &[]));
    }
}

// ---- users and roles ----------------------------------------------------------------------------------------------------------

#[test]
fn a_member_who_is_named_has_their_role_and_a_user_whom_only_the_application_knows_has_none() {
    let world = World::new("named_users");
    let mut app = world.connect("app");
    let a = world.a;
    text(&mut world.connect("admin"), "SELECT add_role('manager', 70)");
    fixtures::member(&mut app, a, "owner");
    let role = "SELECT role FROM current_principal() WHERE role IS NOT DISTINCT FROM current_member_role()";
    for call in binds(&world) {
        for own in fixtures::ROLES.into_iter().chain(["manager"]) {
            let user = fixtures::member(&mut app, a, own);
            let mut transaction = app.transaction().expect("begin");
            one::<Uuid>(&mut transaction, &call, &[&user]);
            assert_eq!(one::<String>(&mut transaction, role, &[]), own, "{call}");
            assert!(one::<bool>(&mut transaction, "SELECT has_role($1) AND require_role('viewer')", &[&own]));
            assert!(!one::<bool>(&mut transaction, "SELECT has_scope('x')", &[]), "no credential with scopes");
        }
        let user = Uuid::new_v4();
        let mut transaction = app.transaction().expect("begin");
        one::<Uuid>(&mut transaction, &call, &[&user]);
        assert_eq!(one::<Option<String>>(&mut transaction, role, &[]), None, "{call}");
        assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_user_id()", &[]), user);
        assert!(!one::<bool>(&mut transaction, "SELECT has_role('viewer')", &[]));
        fails(transaction.batch_execute("SELECT require_role('viewer')"), "42501");
    }
}

/// Every way to bind tenant `a` for a user `$1`.
fn binds(world: &World) -> [String; 2] {
    let slug = "SELECT slug FROM tenancy.tenants WHERE id = $1";
    let slug: String = one(&mut world.connect("operator"), slug, &[&world.a]);
    [format!("SELECT set_tenant('{}', $1)", world.a), format!("SELECT set_tenant_by_slug('{slug}', $1)")]
}

#[test]
fn a_user_whom_the_product_knows_is_not_bound_unless_a_member() {
    let world = World::new("non_members");
    let mut app = world.connect("app");
    let (a, b) = (world.a, world.b);
    let nobodys = fixtures::user(&mut app);
    let others = fixtures::member(&mut app, b, "owner");
    let home: Uuid = one(&mut app, "SELECT create_user($1, tenant => $2)", &[&fixtures::email(), &b]);
    let removed = fixtures::member(&mut app, a, "admin");
    as_tenant(&mut app, a, |tx| assert!(one::<bool>(tx, "SELECT remove_member($1)", &[&removed])));
    let counted =
        format!("SELECT coalesce(sum(refused_binds), 0)::bigint FROM tenancy.refusals WHERE tenant_id = '{a}'");
    let mut monitor = world.connect("monitor");
    for user in [nobodys, others, home, removed] {
        for call in binds(&world) {
            let before: i64 = one(&mut monitor, &counted, &[]);
            app.batch_execute("BEGIN").expect("begin");
            let fault = fails_inside(&mut app, &call.replace("$1", &format!("'{user}'")), "42501");
            assert!(fault.message().contains("is not a member of tenant"), "{fault}");
            assert_eq!(bound(&mut app), None);
            assert_nobody(&mut app, &call);
            assert_eq!(one::<i64>(&mut monitor, &counted, &[]), before + 1, "{call}: counted");
            // A refused bind leaves room for another tenant.
            assert_eq!(text(&mut app, &format!("SELECT set_tenant('{b}')")), b.to_string());
            app.batch_execute("COMMIT").expect("commit");
        }
    }
}

#[test]
fn role_scopes_and_key_end_with_the_transaction() {
    let world = World::new("principal_ends");
    let lowly = Lowly::new(&world);
    let gid = format!("gid_{}", world.database.name());
    for role in ["client", "app"] {
        let mut session = world.connect(role);
        session.batch_execute("SET plan_cache_mode = force_generic_plan").expect("generic plans");
        session.batch_execute(&format!("PREPARE myself AS {}", Lowly::SELF)).expect("prepare");
        for end in [
            "COMMIT",
            "ROLLBACK",
            "COMMIT AND CHAIN",
            "ROLLBACK AND CHAIN",
            &format!("PREPARE TRANSACTION '{gid}'"),
            "SELECT 1 / 0",
        ] {
            lowly.enter(&mut session);
            lowly.assert_bound(&mut session, &world, end);
            assert!(text(&mut session, "EXECUTE myself").contains("viewer t f f t f f"), "{end}");
            if session.batch_execute(end).is_err() {
                session.batch_execute("ROLLBACK").expect("roll back");
            }
            assert_nobody(&mut session, end);
            assert_eq!(text(&mut session, "EXECUTE myself"), "f f f f f f", "{end}");
            session.batch_execute("ROLLBACK").expect("end what was chained");
            if end.starts_with("PREPARE") {
                session.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).expect("roll the prepared one back");
            }
            // The next one to be bound inherits nothing.
            enter(&mut session, world.b);
            assert_eq!(text(&mut session, Lowly::SELF), format!("{} set_tenant f f f f f f", world.b), "{end}");
            session.batch_execute("COMMIT").expect("commit");
        }
    }
}

#[test]
fn unbinding_and_discarding_leave_no_role_scopes_or_key() {
    let world = World::new("principal_unbound");
    let lowly = Lowly::new(&world);
    let mut session = world.connect("client");
    for unbinding in ["SELECT clear_tenant()", "RESET ALL", "COMMIT; DISCARD ALL"] {
        lowly.enter(&mut session);
        session.batch_execute(unbinding.split_once("; ").map_or(unbinding, |(first, _)| first)).expect(unbinding);
        if unbinding.contains("DISCARD") {
            session.batch_execute("DISCARD ALL").expect("discard");
        }
        assert_nobody(&mut session, unbinding);
        session.batch_execute("ROLLBACK").expect("end");
    }
    // A credential that is refused takes nothing from the one that is bound, and gives nothing.
    lowly.enter(&mut session);
    for credential in ["authenticate_api_key('noise')", "authenticate_jwt('noise')", "authenticate_api_key(NULL)"] {
        fails_inside(&mut session, &format!("SELECT {credential}"), "28000");
        lowly.assert_bound(&mut session, &world, credential);
    }
    session.batch_execute("ROLLBACK").expect("roll back");
    // A binding without a credential ends the rights of the one before.
    let mut app = world.connect("app");
    lowly.enter(&mut app);
    text(&mut app, &format!("SELECT set_tenant('{}')", world.a));
    assert_eq!(text(&mut app, Lowly::SELF), format!("{} set_tenant f f f f f f", world.a));
    let mut admin = world.connect("admin");
    lowly.enter(&mut admin);
    text(&mut admin, &format!("SELECT rebind_tenant('{}')", world.b));
    assert_eq!(text(&mut admin, Lowly::SELF), format!("{} rebind_tenant f f f f f f", world.b));
}

#[test]
fn a_rollback_to_a_savepoint_restores_role_scopes_and_key_exactly() {
    let world = World::new("principal_savepoints");
    let lowly = Lowly::new(&world);
    let mut app = world.connect("app");
    let owner = fixtures::member(&mut app, world.a, "owner");
    let mighty = fixtures::api_key(&mut app, world.a, Some(owner), &["*"]);
    let rise = format!("PERFORM authenticate_api_key('{}');", mighty.text);
    for role in ["client", "app"] {
        let mut session = world.connect(role);
        lowly.enter(&mut session);
        for (change, becomes) in [
            (rise.clone(), "owner t t t t t t"),
            ("PERFORM clear_tenant();".to_owned(), "f f f f f f"),
            ("EXECUTE 'RESET ALL';".to_owned(), "f f f f f f"),
            (format!("PERFORM clear_tenant(); {rise}"), "owner t t t t t t"),
        ] {
            session
                .batch_execute(&format!("SAVEPOINT s; DO $$ BEGIN {change} END $$; SAVEPOINT t; RELEASE t"))
                .expect("change");
            assert!(text(&mut session, Lowly::SELF).ends_with(becomes), "{change}");
            session.batch_execute("ROLLBACK TO s").expect("roll back");
            lowly.assert_bound(&mut session, &world, &change);
            let caught = format!("DO $$ BEGIN {change} RAISE 'undo'; EXCEPTION WHEN raise_exception THEN END $$");
            session.batch_execute(&caught).expect("an exception block");
            lowly.assert_bound(&mut session, &world, &caught);
        }
        session.batch_execute(&format!("SAVEPOINT s; DO $$ BEGIN {rise} END $$; RELEASE s")).expect("rise");
        assert!(text(&mut session, Lowly::SELF).ends_with("owner t t t t t t"), "what was released stays");
        session.batch_execute("COMMIT").expect("commit");
        assert_nobody(&mut session, "commit");
    }
}

/// Who a transaction acts for was settled when it was bound; the next one is told anew.
#[test]
fn a_changed_role_counts_from_the_next_bind() {
    let world = World::new("changed_role");
    let lowly = Lowly::new(&world);
    let mut app = world.connect("app");
    let mut session = world.connect("client");
    lowly.enter(&mut session);
    as_tenant(&mut app, world.a, |tx| assert!(one::<bool>(tx, "SELECT change_role($1, 'admin')", &[&lowly.user])));
    lowly.assert_bound(&mut session, &world, "a change of role in another session");
    session.batch_execute("COMMIT").expect("commit");
    lowly.enter(&mut session);
    assert_eq!(text(&mut session, "SELECT current_member_role()"), "admin");
    session.batch_execute("COMMIT").expect("commit");
    as_tenant(&mut app, world.a, |tx| assert!(one::<bool>(tx, "SELECT remove_member($1)", &[&lowly.user])));
    fails(session.query("SELECT authenticate_api_key($1)", &[&lowly.key.text]), "28000");
    assert_nobody(&mut session, "the member is removed");
}

// ---- the course of a transaction ----------------------------------------------------------------------------------------------

#[test]
fn a_rollback_to_a_savepoint_restores_the_context_exactly() {
    let world = World::new("savepoints");
    let user = Uuid::new_v4();
    for role in ["app", "client"] {
        let mut session = world.connect(role);
        enter(&mut session, world.a);
        for undone in
            ["SELECT clear_tenant()", "RESET ALL", "SAVEPOINT inner_one; SELECT clear_tenant(); RELEASE inner_one"]
        {
            session.batch_execute(&format!("SAVEPOINT s; {undone}")).expect(undone);
            assert_eq!(bound(&mut session), None);
            session.batch_execute("ROLLBACK TO s").expect("roll back");
            assert_eq!(bound(&mut session), Some(world.a));
            assert_eq!(bodies(&mut session), ["a1", "a2"]);
            session.batch_execute("RELEASE s").expect("release");
            assert_eq!(bodies(&mut session), ["a1", "a2"]);
        }
        session.batch_execute("SAVEPOINT s; SELECT clear_tenant(); RELEASE s").expect("clear in a savepoint");
        assert_eq!(bound(&mut session), None, "a released savepoint's unbinding stays");
        session.batch_execute("COMMIT").expect("commit");
        // A bind that is undone leaves nothing, and yet no room for another tenant.
        session.batch_execute("BEGIN; SAVEPOINT s").expect("begin");
        text(&mut session, &format!("SELECT login('{}')", world.a));
        session.batch_execute("ROLLBACK TO s").expect("roll back");
        assert_eq!(bound(&mut session), None);
        fails_inside(&mut session, "SELECT * FROM notes", "42501");
        fails_inside(&mut session, &format!("SELECT login('{}')", world.b), "55000");
        text(&mut session, &format!("SELECT login('{}')", world.a));
        assert_eq!(bodies(&mut session), ["a1", "a2"]);
        session.batch_execute("ROLLBACK").expect("roll back");
        assert_unbound(&mut session);
    }
    // The user is restored with the tenant.
    let mut app = world.connect("app");
    app.batch_execute("BEGIN").expect("begin");
    text(&mut app, &format!("SELECT set_tenant('{}', '{user}')", world.a));
    app.batch_execute(&format!("SAVEPOINT s; SELECT set_tenant('{}', gen_random_uuid())", world.a)).expect("rebind");
    assert_ne!(text(&mut app, "SELECT current_user_id()"), user.to_string());
    app.batch_execute("ROLLBACK TO s").expect("roll back");
    assert_eq!(text(&mut app, "SELECT current_user_id()"), user.to_string());
}

#[test]
fn an_exception_block_restores_the_context_exactly() {
    let world = World::new("exceptions");
    let (a, b) = (world.a, world.b);
    let mut app = world.connect("app");
    enter(&mut app, a);
    app.batch_execute(&format!(
        "DO $$ BEGIN
            FOR i IN 1..3 LOOP
                BEGIN
                    PERFORM clear_tenant();
                    ASSERT current_tenant_or_null() IS NULL;
                    PERFORM 1 / 0;
                EXCEPTION WHEN division_by_zero THEN
                    ASSERT current_tenant() = '{a}';
                END;
                BEGIN
                    PERFORM set_tenant('{b}');
                EXCEPTION WHEN object_not_in_prerequisite_state THEN
                    ASSERT current_tenant() = '{a}';
                END;
                ASSERT (SELECT count(*) FROM notes) = 2;
            END LOOP;
        END $$"
    ))
    .expect("exception blocks");
    assert_eq!(bodies(&mut app), ["a1", "a2"]);
    app.batch_execute("ROLLBACK").expect("roll back");
    app.batch_execute(&format!(
        "DO $$ BEGIN
            BEGIN
                PERFORM set_tenant('{a}');
                PERFORM 1 / 0;
            EXCEPTION WHEN division_by_zero THEN
                ASSERT current_tenant_or_null() IS NULL;
            END;
            BEGIN
                PERFORM * FROM notes;
                RAISE 'read without a tenant';
            EXCEPTION WHEN insufficient_privilege THEN
            END;
            BEGIN
                PERFORM set_tenant('{b}');
                RAISE 'bound another tenant';
            EXCEPTION WHEN object_not_in_prerequisite_state THEN
            END;
        END $$"
    ))
    .expect("a bind undone by an exception");
    assert_unbound(&mut app);
}

#[test]
fn every_end_of_a_transaction_unbinds() {
    let world = World::new("ends");
    let mut app = world.connect("app");
    for end in
        ["COMMIT", "ROLLBACK", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "PREPARE TRANSACTION 'ctx_ends'"]
    {
        enter(&mut app, world.a);
        app.batch_execute(end).unwrap_or_else(|error| panic!("{end}: {error}"));
        if end.ends_with("CHAIN") {
            assert_eq!(bound(&mut app), None, "{end}");
            fails_inside(&mut app, "SELECT * FROM notes", "42501");
            text(&mut app, &format!("SELECT set_tenant('{}')", world.b));
            assert_eq!(bodies(&mut app), ["b1", "b2", "b3"], "{end}: the next transaction may serve another tenant");
            app.batch_execute("COMMIT").expect("commit");
        }
        assert_unbound(&mut app);
    }
    app.batch_execute("ROLLBACK PREPARED 'ctx_ends'").expect("roll back the prepared transaction");
    // An error ends it too, and so does a commit that fails.
    enter(&mut app, world.a);
    fails(app.batch_execute("SELECT 1 / 0"), "22012");
    fails(app.batch_execute("SELECT current_tenant()"), "25P02");
    app.batch_execute("COMMIT").expect("end");
    assert_unbound(&mut app);
    let mut superuser = world.database.superuser();
    superuser
        .batch_execute("CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON once TO app")
        .expect("create");
    enter(&mut app, world.a);
    app.batch_execute("INSERT INTO once VALUES (1), (1)").expect("insert");
    fails(app.batch_execute("COMMIT"), "23505");
    assert_unbound(&mut app);
}

#[test]
fn discard_all_clears() {
    let world = World::new("discard");
    let mut app = world.connect("app");
    text(&mut app, &format!("SELECT set_tenant('{}')", world.a));
    app.batch_execute("DISCARD ALL").expect("discard");
    assert_unbound(&mut app);
    as_tenant(&mut app, world.b, |transaction| assert_eq!(bodies(transaction), ["b1", "b2", "b3"]));
    app.batch_execute("DISCARD ALL").expect("discard");
    assert_unbound(&mut app);
}

#[test]
fn the_same_tenant_may_be_bound_again() {
    let world = World::new("again");
    let mut app = world.connect("app");
    let mut transaction = app.transaction().expect("begin");
    for _ in 0..3 {
        bind(&mut transaction, world.a);
        assert_eq!(bodies(&mut transaction), ["a1", "a2"]);
        assert!(one::<bool>(&mut transaction, "SELECT clear_tenant()", &[]));
        assert!(!one::<bool>(&mut transaction, "SELECT clear_tenant()", &[]), "nothing was bound any more");
    }
    bind(&mut transaction, world.a);
    assert_eq!(bodies(&mut transaction), ["a1", "a2"]);
}

#[test]
fn a_bind_outside_a_transaction_block_warns_and_ends_with_its_statement() {
    let world = World::new("warn");
    let (mut app, notices) = world.database.connect_with_notices("app");
    text(&mut app, &format!("SELECT set_tenant('{}')", world.a));
    let warnings = notices.take();
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].severity(), warnings[0].code().code()), ("WARNING", "25P01"));
    assert_unbound(&mut app);
    let slug =
        text(&mut world.connect("operator"), &format!("SELECT slug FROM tenancy.tenants WHERE id = '{}'", world.a));
    one::<Uuid>(&mut app, "SELECT set_tenant_by_slug($1)", &[&slug]);
    assert_eq!(notices.take().len(), 1, "by the extended protocol too");
    assert_unbound(&mut app);
}

#[test]
fn a_bind_in_a_block_or_a_function_does_not_warn() {
    let world = World::new("quiet");
    let (mut app, notices) = world.database.connect_with_notices("app");
    let a = world.a;
    app.batch_execute(&format!("BEGIN; SELECT set_tenant('{a}'); COMMIT")).expect("a block");
    app.batch_execute(&format!(
        "DO $$ BEGIN PERFORM set_tenant('{a}'); ASSERT (SELECT count(*) FROM notes) = 2; END $$"
    ))
    .expect("a DO block");
    text(&mut app, &format!("SELECT login('{a}')"));
    as_tenant(&mut app, a, |transaction| assert_eq!(bodies(transaction), ["a1", "a2"]));
    assert_eq!(notices.messages(), [""; 0]);
    // Several statements in one message are one transaction.
    let answer = simple(&mut app, &format!("SELECT set_tenant('{a}'); SELECT body FROM notes ORDER BY body"));
    assert_eq!(answer.len(), 3);
    assert_eq!(notices.messages(), [""; 0]);
    assert_unbound(&mut app);
}

/// A definer function is how an application wraps a bind; its SET clause undoes its own settings only.
#[test]
fn a_bind_inside_a_function_with_settings_outlives_the_function() {
    let world = World::new("wrapped");
    let mut client = world.connect("client");
    enter(&mut client, world.a);
    assert_eq!(bodies(&mut client), ["a1", "a2"]);
    client.batch_execute("INSERT INTO notes (body) VALUES ('a3'); COMMIT").expect("insert");
    assert_unbound(&mut client);
    assert_eq!(count(&mut world.database.superuser(), &format!("notes WHERE tenant_id = '{}'", world.a)), 3);
}

#[test]
fn a_procedure_that_commits_serves_one_tenant_in_each_transaction() {
    let world = World::new("procedure");
    world
        .connect("owner")
        .batch_execute(
            "CREATE PROCEDURE work(tenants uuid[], undo boolean) LANGUAGE plpgsql AS $$
             DECLARE tenant uuid;
             BEGIN
                FOREACH tenant IN ARRAY tenants LOOP
                    ASSERT current_tenant_or_null() IS NULL;
                    PERFORM set_tenant(tenant);
                    ASSERT current_tenant() = tenant;
                    INSERT INTO notes (body) VALUES ('by procedure');
                    IF undo THEN ROLLBACK; ELSE COMMIT; END IF;
                END LOOP;
             END $$",
        )
        .expect("create the procedure");
    let mut app = world.connect("app");
    let pair = format!("ARRAY['{}', '{}']::uuid[]", world.a, world.b);
    app.batch_execute(&format!("CALL work({pair}, false); CALL work({pair}, true)")).unwrap_err();
    app.batch_execute(&format!("CALL work({pair}, false)")).expect("commit");
    app.batch_execute(&format!("CALL work({pair}, true)")).expect("roll back");
    assert_unbound(&mut app);
    let mut superuser = world.database.superuser();
    let written = rows(&mut superuser, "SELECT tenant_id FROM notes WHERE body = 'by procedure' ORDER BY id", &[]);
    let written: Vec<Uuid> = written.iter().map(|row| row.get(0)).collect();
    assert_eq!(written, [world.a, world.b]);
    // Inside a transaction block it may not commit, and what it bound goes with the error.
    app.batch_execute("BEGIN").expect("begin");
    fails_inside(&mut app, &format!("CALL work({pair}, false)"), "2D000");
    assert_eq!(bound(&mut app), None);
    app.batch_execute("ROLLBACK").expect("roll back");
}

/// `current_tenant()` hands out a value, not a window on what is bound later.
#[test]
fn a_tenant_id_that_was_read_does_not_change_with_the_next_bind() {
    let world = World::new("stable_value");
    world
        .connect("owner")
        .batch_execute(
            "CREATE PROCEDURE inner_work(given uuid, given_text text, next uuid, INOUT seen uuid, INOUT seen_text text)
             LANGUAGE plpgsql AS $$ BEGIN COMMIT; PERFORM set_tenant(next); seen := given; seen_text := given_text; END $$;
             CREATE FUNCTION by_user(given uuid, tenant uuid) RETURNS uuid LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_tenant(tenant, gen_random_uuid()); RETURN given; END $$;",
        )
        .expect("create");
    let mut app = world.connect("app");
    let (a, b) = (world.a, world.b);
    app.batch_execute(&format!(
        "DO $$ DECLARE seen uuid; seen_text text; BEGIN
            PERFORM set_tenant('{a}');
            CALL inner_work(current_tenant(), current_tenant_text(), '{b}', seen, seen_text);
            IF seen <> '{a}' OR seen_text <> '{a}' THEN RAISE 'the argument became % %', seen, seen_text; END IF;
        END $$"
    ))
    .expect("an argument keeps its value over a commit");
    let user = Uuid::new_v4();
    let mut transaction = app.transaction().expect("begin");
    one::<Uuid>(&mut transaction, "SELECT set_tenant($1, $2)", &[&a, &user]);
    let seen: Uuid = one(&mut transaction, "SELECT by_user(current_user_id(), $1)", &[&a]);
    assert_eq!(seen, user, "an argument keeps its value over another bind");
}

// ---- what is bound ------------------------------------------------------------------------------------------------------------

#[test]
fn the_context_is_told_to_everyone() {
    let world = World::new("told");
    let user = Uuid::new_v4();
    let mut app = world.connect("app");
    let mut transaction = app.transaction().expect("begin");
    one::<Uuid>(&mut transaction, "SELECT set_tenant($1, $2)", &[&world.a, &user]);
    assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_tenant()", &[]), world.a);
    assert_eq!(one::<Option<Uuid>>(&mut transaction, "SELECT current_tenant_or_null()", &[]), Some(world.a));
    assert_eq!(one::<String>(&mut transaction, "SELECT current_tenant_text()", &[]), world.a.to_string());
    assert_eq!(one::<Option<Uuid>>(&mut transaction, "SELECT current_user_id()", &[]), Some(user));
    let principal = rows(&mut transaction, "SELECT * FROM current_principal()", &[]);
    assert_eq!(principal.len(), 1);
    assert_eq!(principal[0].get::<_, Uuid>("tenant_id"), world.a);
    assert_eq!(principal[0].get::<_, Option<Uuid>>("user_id"), Some(user));
    assert_eq!(principal[0].get::<_, Option<String>>("role"), None);
    assert_eq!(principal[0].get::<_, Option<Uuid>>("api_key_id"), None);
    assert_eq!(principal[0].get::<_, Option<Vec<String>>>("scopes"), None);
    assert_eq!(principal[0].get::<_, String>("source"), "set_tenant");
    one::<Uuid>(&mut transaction, "SELECT set_tenant($1)", &[&world.a]);
    assert_eq!(
        one::<Option<Uuid>>(&mut transaction, "SELECT current_user_id()", &[]),
        None,
        "no user of an earlier bind"
    );
    transaction.commit().expect("commit");
    let mut stranger = world.connect("stranger");
    assert_eq!(bound(&mut stranger), None);
    assert_eq!(one::<Option<Uuid>>(&mut stranger, "SELECT current_user_id()", &[]), None);
    assert!(rows(&mut stranger, "SELECT * FROM current_principal()", &[]).is_empty());
    for function in ["current_tenant()", "current_tenant_text()", &format!("assert_tenant('{}')", world.a)] {
        let fault = fails(stranger.batch_execute(&format!("SELECT {function}")), "42501");
        assert_eq!(fault.message(), "no tenant is bound in this transaction", "{function}");
        assert!(fault.hint().is_some_and(|hint| hint.contains("set_tenant()")), "{function}");
    }
}

#[test]
fn assert_tenant_tells_the_bound_tenant_from_every_other_value() {
    let world = World::new("assert");
    let mut app = world.connect("app");
    enter(&mut app, world.a);
    assert!(one::<bool>(&mut app, "SELECT assert_tenant($1)", &[&world.a]));
    for other in
        [format!("'{}'", world.b), "NULL".to_owned(), format!("'{}'", Uuid::nil()), "gen_random_uuid()".to_owned()]
    {
        let fault = fails_inside(&mut app, &format!("SELECT assert_tenant({other})"), "42501");
        assert!(fault.message().starts_with("tenant mismatch"), "{fault}");
    }
    fails_inside(&mut app, "SELECT assert_tenant('x')", "22P02");
    assert_eq!(bodies(&mut app), ["a1", "a2"]);
}

#[test]
fn binding_works_in_every_kind_of_transaction() {
    let world = World::new("kinds");
    let mut app = world.connect("app");
    for mode in [
        "READ ONLY",
        "ISOLATION LEVEL SERIALIZABLE",
        "ISOLATION LEVEL REPEATABLE READ",
        "READ ONLY, ISOLATION LEVEL SERIALIZABLE, DEFERRABLE",
    ] {
        app.batch_execute(&format!("BEGIN {mode}")).expect(mode);
        text(&mut app, &format!("SELECT set_tenant('{}')", world.b));
        assert_eq!(bodies(&mut app), ["b1", "b2", "b3"], "{mode}");
        app.batch_execute("COMMIT").expect("commit");
        assert_unbound(&mut app);
    }
}

// ---- settings that loosen -----------------------------------------------------------------------------------------------------

#[test]
fn allow_rebind_lets_one_transaction_use_two_tenants() {
    let world = World::new("allow_rebind");
    let allow = format!("ALTER DATABASE {} SET tenancy.allow_rebind = on", world.database.name());
    world.database.superuser().batch_execute(&allow).expect("allow");
    let mut app = world.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, world.a);
    assert_eq!(bodies(&mut transaction), ["a1", "a2"]);
    bind(&mut transaction, world.b);
    assert_eq!(bodies(&mut transaction), ["b1", "b2", "b3"]);
    transaction.batch_execute("INSERT INTO notes (body) VALUES ('b4'); SAVEPOINT s").expect("insert");
    bind(&mut transaction, world.a);
    assert_eq!(bodies(&mut transaction), ["a1", "a2"]);
    transaction.batch_execute("ROLLBACK TO s").expect("roll back");
    assert_eq!(bodies(&mut transaction), ["b1", "b2", "b3", "b4"]);
    transaction.batch_execute("DECLARE c CURSOR FOR SELECT body FROM notes ORDER BY body").expect("declare");
    assert_eq!(column(&mut transaction, "FETCH c"), ["b1"]);
    transaction.batch_execute("SAVEPOINT s").expect("savepoint");
    let fault = fails(transaction.batch_execute(&format!("SELECT set_tenant('{}')", world.a)), "55000");
    assert!(fault.message().contains("cursor \"c\""), "{fault}");
    transaction.batch_execute("ROLLBACK TO s").expect("roll back");
    assert_eq!(column(&mut transaction, "FETCH ALL FROM c"), ["b2", "b3", "b4"]);
    transaction.batch_execute("CLOSE c").expect("close");
    bind(&mut transaction, world.a);
    assert_eq!(bodies(&mut transaction), ["a1", "a2"]);
    transaction.commit().expect("commit");
    assert_unbound(&mut app);
}

#[test]
fn a_role_that_bypasses_row_security_binds_only_when_allowed() {
    let world = World::new("bypass");
    let role = own_role(&world.database, "app");
    let mut superuser = world.database.superuser();
    superuser.batch_execute(&format!("ALTER ROLE {role} BYPASSRLS")).expect("alter");
    for name in ["postgres", &role] {
        let mut session = world.connect(name);
        let fault = fails(session.batch_execute(&format!("BEGIN; SELECT set_tenant('{}')", world.a)), "42501");
        assert_eq!(
            fault.message(),
            format!("role {name} bypasses row security, so that a bound tenant would not restrict it")
        );
        session.batch_execute("ROLLBACK").expect("roll back");
        assert_eq!(bound(&mut session), None);
    }
    // For maintenance: the tenant is then the default of what is written.
    superuser.batch_execute("SET tenancy.allow_bypass = on; BEGIN").expect("allow");
    text(&mut superuser, &format!("SELECT set_tenant('{}')", world.a));
    superuser.batch_execute("INSERT INTO notes (body) VALUES ('maintained'); COMMIT").expect("insert");
    assert_eq!(count(&mut superuser, &format!("notes WHERE body = 'maintained' AND tenant_id = '{}'", world.a)), 1);
    // As the ordinary role that a superuser becomes, the binding holds.
    superuser.batch_execute("RESET tenancy.allow_bypass; BEGIN; SET LOCAL ROLE app").expect("set role");
    text(&mut superuser, &format!("SELECT set_tenant('{}')", world.b));
    assert_eq!(bodies(&mut superuser), ["b1", "b2", "b3"]);
    superuser.batch_execute("ROLLBACK").expect("roll back");
}

/// The statements that a refused superuser is told to run.
fn told_to_superuser(superuser: &mut Client, tenant: Uuid) -> String {
    let fault = fails(superuser.batch_execute(&format!("SELECT set_tenant('{tenant}')")), "42501");
    let hint = fault.hint().expect("a hint");
    assert!(hint.contains("tenancy.allow_bypass = on"), "{hint}");
    let (_, after) = hint.split_once("CREATE ROLE").expect("the statement that creates a role");
    let (sql, _) = after.split_once("then grant it the tables").expect("the end of the statements");
    format!("CREATE ROLE{sql}")
}

/// Docker's default user is a superuser: what it is told to do works as it stands.
#[test]
fn a_superuser_is_told_in_sql_which_role_to_create() {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("told");
    protected_table(&database);
    let a = tenant(&mut database.connect("operator"));
    let mut superuser = database.superuser();
    // On a new server the role of the hint is free, and here not everyone may connect.
    let close =
        format!("ALTER ROLE app RENAME TO former_app; REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database.name());
    superuser.batch_execute(&close).expect("rename the tests' own role");
    let sql = told_to_superuser(&mut superuser, a);
    superuser.batch_execute(&sql).expect("the hint's SQL");
    superuser.batch_execute("GRANT SELECT, INSERT ON notes TO app").expect("grant it the tables");
    let mut app = database.connect("app");
    as_tenant(&mut app, a, |transaction| {
        transaction.batch_execute("INSERT INTO notes (body) VALUES ('told')").expect("insert");
        assert_eq!(bodies(transaction), ["told"]);
    });
    // In a database of a name that needs quotes.
    for statement in ["DROP OWNED BY app", "DROP ROLE app", "CREATE DATABASE \"Odd \"\"db's\""] {
        superuser.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let odd = database.server().config("Odd \"db's", "postgres");
    let mut superuser = odd.connect(harness::postgres::NoTls).expect("connect");
    superuser.batch_execute("CREATE EXTENSION pg_tenancy").expect("create the extension");
    let a = tenant(&mut superuser);
    let sql = told_to_superuser(&mut superuser, a);
    superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

// ---- plans --------------------------------------------------------------------------------------------------------------------

#[test]
fn a_drivers_prepared_statements_serve_each_tenant_with_its_own_rows() {
    let world = World::new("prepared");
    for mode in ["force_generic_plan", "force_custom_plan", "auto"] {
        let mut app = world.connect("app");
        app.batch_execute(&format!("SET plan_cache_mode = {mode}")).expect("plan_cache_mode");
        enter(&mut app, world.a);
        let read = app.prepare("SELECT body FROM notes ORDER BY body").expect("prepare");
        let point = app.prepare("SELECT count(*) FROM notes WHERE body = $1").expect("prepare");
        let write =
            app.prepare("UPDATE notes SET body = body WHERE body = ANY ($1) RETURNING tenant_id").expect("prepare");
        app.batch_execute("COMMIT").expect("commit");
        let all = ["a1", "a2", "b1", "b2", "b3"];
        for round in 0..8 {
            let (tenant, expected) = if round % 2 == 0 { (world.b, &all[2..]) } else { (world.a, &all[..2]) };
            as_tenant(&mut app, tenant, |transaction| {
                let found: Vec<String> =
                    transaction.query(&read, &[]).expect("read").iter().map(|row| row.get(0)).collect();
                assert_eq!(found, expected, "{mode}");
                for body in all {
                    let found: i64 = transaction.query_one(&point, &[&body]).expect("read").get(0);
                    assert_eq!(found == 1, expected.contains(&body), "{mode}");
                }
                let written = transaction.query(&write, &[&all.to_vec()]).expect("update");
                assert_eq!(written.len(), expected.len(), "{mode}");
                assert!(written.iter().all(|row| row.get::<_, Uuid>(0) == tenant));
            });
            fails(app.query(&read, &[]), "42501");
            fails(app.query(&point, &[&"b1"]), "42501");
            fails(app.query(&write, &[&all.to_vec()]), "42501");
        }
    }
}

#[test]
fn sql_prepared_statements_serve_each_tenant_with_its_own_rows() {
    let world = World::new("execute");
    let mut app = world.connect("app");
    app.batch_execute("SET plan_cache_mode = force_generic_plan").expect("plan_cache_mode");
    enter(&mut app, world.a);
    app.batch_execute(
        "PREPARE all_bodies AS SELECT body FROM notes ORDER BY body;
         PREPARE hidden AS SELECT (SELECT count(*) FROM notes), EXISTS (SELECT FROM notes WHERE body LIKE 'b%');
         PREPARE own AS SELECT current_tenant(), current_tenant_text(), current_tenant_or_null();
         PREPARE put AS INSERT INTO notes (body) VALUES ($1) RETURNING tenant_id;
         PREPARE move AS UPDATE notes SET tenant_id = $1 WHERE body = 'mine';
         EXECUTE all_bodies; EXECUTE hidden; EXECUTE own; COMMIT",
    )
    .expect("prepare");
    for (tenant, expected, other) in [(world.b, 3, world.a), (world.a, 2, world.b), (world.b, 3, world.a)] {
        enter(&mut app, tenant);
        assert_eq!(simple(&mut app, "EXECUTE all_bodies").len(), expected);
        let hidden = simple(&mut app, "EXECUTE hidden").remove(0);
        assert_eq!(hidden[0].as_deref(), Some(expected.to_string().as_str()));
        assert_eq!(hidden[1].as_deref(), Some(if tenant == world.b { "t" } else { "f" }));
        let own = simple(&mut app, "EXECUTE own").remove(0);
        assert!(own.iter().all(|value| value.as_deref() == Some(tenant.to_string().as_str())), "{own:?}");
        assert_eq!(text(&mut app, "EXECUTE put('mine')"), tenant.to_string());
        fails_inside(&mut app, &format!("EXECUTE move('{other}')"), "42501");
        app.batch_execute("ROLLBACK").expect("roll back");
        for statement in ["all_bodies", "hidden", "own", "put('x')"] {
            fails(app.batch_execute(&format!("EXECUTE {statement}")), "42501");
        }
    }
    assert_eq!(world.content().matches("mine").count(), 0);
}

/// Generic plans choose partitions and index keys when they start, not when they are made.
#[test]
fn generic_plans_over_partitions_and_indexes_find_the_rows_of_the_tenant_bound_now() {
    let world = World::new("partitions");
    let (a, b) = (world.a, world.b);
    world
        .connect("owner")
        .batch_execute(&format!(
            "CREATE TABLE parted (id int, tenant_id uuid NOT NULL, body text, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
             CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('{a}');
             CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('{b}');
             CREATE TABLE hashed (id int, tenant_id uuid NOT NULL, body text) PARTITION BY HASH (tenant_id);
             CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             GRANT ALL ON parted, parted_a, parted_b, hashed TO app"
        ))
        .expect("create");
    let mut admin = world.connect("admin");
    let mut superuser = world.database.superuser();
    for table in ["parted", "hashed"] {
        text(&mut admin, &format!("SELECT protect_table('{table}')"));
        superuser
            .batch_execute(&format!(
                "INSERT INTO {table} SELECT g, '{a}', 'a' FROM generate_series(1, 200) g;
                 INSERT INTO {table} SELECT g, '{b}', 'b' FROM generate_series(1, 300) g; ANALYZE {table}"
            ))
            .expect("fill");
    }
    let mut app = world.connect("app");
    app.batch_execute("SET plan_cache_mode = force_generic_plan").expect("plan_cache_mode");
    for access in
        ["SET enable_seqscan = off", "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_seqscan = on"]
    {
        app.batch_execute(access).expect(access);
        app.batch_execute("DEALLOCATE ALL").expect("deallocate");
        enter(&mut app, a);
        app.batch_execute(
            "PREPARE in_parted AS SELECT count(*), min(body), max(body) FROM parted WHERE id <= $1;
             PREPARE in_hashed AS SELECT count(*), min(body), max(body) FROM hashed WHERE id <= $1;
             PREPARE in_other AS SELECT count(*) FROM parted_b WHERE id <= $1;
             PREPARE named AS SELECT count(*) FROM parted WHERE tenant_id = $1;
             PREPARE named_b AS SELECT count(*) FROM parted_b WHERE body = 'b';
             COMMIT",
        )
        .expect("prepare");
        for (tenant, body, total, in_b) in [(a, "a", "200", "0"), (b, "b", "300", "300"), (a, "a", "200", "0")] {
            enter(&mut app, tenant);
            for statement in ["in_parted", "in_hashed"] {
                let found = simple(&mut app, &format!("EXECUTE {statement}(1000)")).remove(0);
                let found: Vec<&str> = found.iter().flatten().map(String::as_str).collect();
                assert_eq!(found, [total, body, body], "{access}: {statement}");
            }
            assert_eq!(text(&mut app, "EXECUTE in_other(1000)"), in_b, "{access}");
            assert_eq!(text(&mut app, &format!("EXECUTE named('{b}')")), in_b, "{access}");
            app.batch_execute("COMMIT").expect("commit");
            for statement in ["in_parted(1000)", "in_hashed(1000)", "in_other(1000)", "named_b"] {
                fails(app.batch_execute(&format!("EXECUTE {statement}")), "42501");
            }
        }
    }
}

#[test]
fn functions_planned_under_one_tenant_serve_the_next_one() {
    let world = World::new("functions");
    world
        .connect("owner")
        .batch_execute(
            "CREATE FUNCTION in_plpgsql(OUT own uuid, OUT total bigint, OUT names text) LANGUAGE plpgsql AS $$ BEGIN
                own := current_tenant();
                IF current_tenant_or_null() IS DISTINCT FROM own THEN RAISE 'two tenants'; END IF;
                SELECT count(*), string_agg(body, ',' ORDER BY body) INTO total, names FROM notes;
             END $$;
             CREATE FUNCTION in_sql() RETURNS text LANGUAGE sql STABLE AS
                'SELECT string_agg(body, '','' ORDER BY body) FROM notes WHERE tenant_id = current_tenant()';
             CREATE FUNCTION in_atomic_sql() RETURNS text LANGUAGE sql STABLE
                BEGIN ATOMIC SELECT string_agg(body, ',' ORDER BY body) FROM notes; END;",
        )
        .expect("create");
    for mode in ["force_generic_plan", "auto"] {
        let mut app = world.connect("app");
        app.batch_execute(&format!("SET plan_cache_mode = {mode}")).expect("plan_cache_mode");
        for round in 0..12 {
            let (tenant, expected) = if round % 2 == 0 { (world.a, "a1,a2") } else { (world.b, "b1,b2,b3") };
            enter(&mut app, tenant);
            let found = simple(&mut app, "SELECT own, names, in_sql(), in_atomic_sql() FROM in_plpgsql()").remove(0);
            let found: Vec<&str> = found.iter().flatten().map(String::as_str).collect();
            assert_eq!(found, [tenant.to_string().as_str(), expected, expected, expected], "{mode} {round}");
            app.batch_execute("COMMIT").expect("commit");
            for call in ["in_plpgsql()", "in_sql()", "in_atomic_sql()"] {
                fails(app.batch_execute(&format!("SELECT {call}")), "42501");
            }
        }
    }
}

// ---- cursors ------------------------------------------------------------------------------------------------------------------

#[test]
fn a_holdable_cursor_of_a_bound_transaction_is_refused_and_gone() {
    let world = World::new("hold");
    world
        .connect("owner")
        .batch_execute(
            "CREATE FUNCTION later_notes() RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT body FROM notes; END $$;
             CREATE FUNCTION bound_notes(tenant uuid) RETURNS SETOF text LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_tenant(tenant); RETURN QUERY SELECT body FROM notes; END $$;
             CREATE FUNCTION looped_notes(tenant uuid) RETURNS SETOF text LANGUAGE plpgsql AS $$ DECLARE found text; BEGIN
                IF tenant IS NOT NULL THEN PERFORM set_tenant(tenant); END IF;
                FOR found IN SELECT body FROM notes LOOP RETURN NEXT found; END LOOP; END $$",
        )
        .expect("create");
    let (a, b) = (world.a, world.b);
    let mut app = world.connect("app");
    for script in [
        format!("BEGIN; SELECT set_tenant('{a}'); DECLARE c CURSOR WITH HOLD FOR SELECT body FROM notes"),
        format!(
            "BEGIN; SELECT set_tenant('{a}'); DECLARE c CURSOR WITH HOLD FOR SELECT body FROM notes; FETCH c; SELECT clear_tenant()"
        ),
        format!("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM later_notes(); SELECT set_tenant('{a}')"),
        format!(
            "BEGIN; SELECT set_tenant('{a}'); DO $$ BEGIN EXECUTE 'DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT body FROM notes'; END $$"
        ),
        format!(
            "BEGIN; SELECT set_tenant('{a}'); SAVEPOINT s; DECLARE c CURSOR WITH HOLD FOR SELECT body FROM notes; RELEASE s"
        ),
        format!("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM bound_notes('{a}')"),
        format!("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM looped_notes('{a}')"),
        format!("BEGIN; SELECT set_tenant('{a}'); DECLARE c CURSOR WITH HOLD FOR SELECT * FROM looped_notes(NULL)"),
        format!(
            "BEGIN; SELECT set_tenant('{a}'), clear_tenant(); DECLARE c CURSOR WITH HOLD FOR SELECT * FROM looped_notes('{a}')"
        ),
        format!(
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM looped_notes(NULL); SELECT set_tenant('{a}'); FETCH c"
        ),
    ] {
        refused_by_its_commit(&mut app, &script, "COMMIT");
        assert_nothing_is_held(&mut app, b);
    }
    // In a transaction of one statement, which commits by itself, and in a prepared one, which PostgreSQL refuses.
    for function in ["bound_notes", "looped_notes"] {
        let declare = format!("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM {function}('{a}')");
        fails(app.batch_execute(&declare), "55000");
        assert_nothing_is_held(&mut app, b);
    }
    let script = format!("BEGIN; SELECT set_tenant('{a}'); DECLARE c CURSOR WITH HOLD FOR SELECT body FROM notes");
    refused_by_its_commit(&mut app, &script, "PREPARE TRANSACTION 'with_hold'");
    assert_nothing_is_held(&mut app, b);
}

/// A deferred constraint that fails after the cursor's rows were stored ends the transaction before the cursor is looked at.
#[test]
fn a_holdable_cursor_does_not_survive_a_commit_that_fails_for_another_reason() {
    let world = World::new("hold_fail");
    world
        .connect("owner")
        .batch_execute(
            "CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON once TO app;
             CREATE FUNCTION failing_notes() RETURNS SETOF text LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO once VALUES (1), (1); RETURN QUERY SELECT body FROM notes; END $$",
        )
        .expect("create");
    let mut app = world.connect("app");
    enter(&mut app, world.a);
    match app.batch_execute("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM failing_notes()") {
        Ok(()) => assert!(app.batch_execute("COMMIT").is_err(), "committed"),
        Err(error) => {
            fails::<()>(Err(error), "0A000");
        }
    }
    app.batch_execute("ROLLBACK").expect("roll back");
    assert_nothing_is_held(&mut app, world.b);
}

/// A transaction that would leave a tenant's rows in a cursor fails: as it ends or, which is as good, before.
#[track_caller]
fn refused_by_its_commit(app: &mut Client, script: &str, end: &str) {
    let error = app.batch_execute(script).and_then(|()| app.batch_execute(end)).expect_err(script);
    let fault = error.as_db_error().expect("an error of the server");
    // Not supported, a bind beside an open cursor, or no tenant any more as the cursor's rows are stored.
    assert!(["0A000", "55000", "42501"].contains(&fault.code().code()), "{script}: {fault}");
    assert!(fault.hint().is_some() || end.starts_with("PREPARE"), "{script}: {fault}");
    app.batch_execute("ROLLBACK").expect("roll back");
}

/// No cursor is left in the session, whatever tenant it serves next.
#[track_caller]
fn assert_nothing_is_held(app: &mut Client, next: Uuid) {
    assert_eq!(bound(app), None);
    let left = column(app, "SELECT name FROM pg_cursors WHERE name = 'c'");
    assert_eq!(left, [""; 0], "a held cursor is left in the session");
    fails(app.batch_execute("FETCH ALL FROM c"), "34000");
    as_tenant(app, next, |transaction| {
        assert_eq!(bodies(transaction), ["b1", "b2", "b3"]);
        fails(transaction.batch_execute("FETCH ALL FROM c"), "34000");
    });
    app.batch_execute("CLOSE ALL").expect("close");
}

/// In a procedure's later transactions, a cursor is as old as the CALL: older than the transaction that it is made in.
#[test]
fn a_holdable_cursor_made_in_a_later_transaction_of_a_procedure_is_refused_too() {
    let world = World::new("hold_later");
    let (a, b) = (world.a, world.b);
    let mut app = world.connect("app");
    let declare = "EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT body FROM notes'";
    for block in [
        format!("DO $$ BEGIN COMMIT; PERFORM set_tenant('{a}'); {declare}; END $$"),
        format!("DO $$ BEGIN COMMIT; PERFORM set_tenant('{a}'); {declare}; COMMIT; END $$"),
        format!(
            "DO $$ BEGIN ROLLBACK; PERFORM set_tenant('{a}'); {declare}; COMMIT; PERFORM set_tenant('{b}'); END $$"
        ),
    ] {
        fails(app.batch_execute(&block), "0A000");
        assert_nothing_is_held(&mut app, b);
    }
}

#[test]
fn a_holdable_cursor_of_an_earlier_unbound_transaction_is_nobodys_business() {
    let world = World::new("hold_open");
    let (mut app, notices) = world.database.connect_with_notices("app");
    app.batch_execute("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 4) g; COMMIT")
        .expect("hold");
    as_tenant(&mut app, world.a, |transaction| {
        assert_eq!(bodies(transaction), ["a1", "a2"]);
        assert_eq!(column(transaction, "FETCH c"), ["1"]);
    });
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, world.b);
    assert_eq!(column(&mut transaction, "FETCH c"), ["2"]);
    transaction.rollback().expect("roll back");
    assert_eq!(column(&mut app, "FETCH ALL FROM c"), ["3", "4"]);
    assert_eq!(notices.messages(), [""; 0]);
}

/// Neither a cursor nor a loop that is open at a bind or at the commit costs a warning, or a scan that is never ended: those once
/// added up to the end of the server, so that this one has a server of its own.
#[test]
fn binding_beside_open_cursors_is_quiet_however_often() {
    let cluster = Cluster::start(Options::new());
    let world = World::fill(cluster.database("open_portals"));
    let (mut app, notices) = world.database.connect_with_notices("app");
    let a = world.a;
    app.batch_execute(&format!(
        "DO $$ DECLARE n int; BEGIN FOR n IN SELECT g FROM generate_series(1, 300) g LOOP PERFORM set_tenant('{a}'); END LOOP; END $$"
    ))
    .expect("bind in a loop over a query");
    app.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 3) g; FETCH c").expect("declare");
    text(&mut app, &format!("SELECT set_tenant('{a}')"));
    assert_eq!(column(&mut app, "FETCH ALL FROM c"), ["2", "3"]);
    app.batch_execute("COMMIT").expect("commit");
    assert_eq!(notices.messages(), [""; 0]);
    app.batch_execute(&format!(
        "DO $$ DECLARE tenant uuid; BEGIN
            FOR tenant IN SELECT unnest(ARRAY['{a}', '{b}', '{a}']::uuid[]) LOOP
                PERFORM set_tenant(tenant); ASSERT current_tenant() = tenant; COMMIT;
            END LOOP; END $$",
        b = world.b
    ))
    .expect("a job that serves one tenant after another");
    assert_eq!(notices.messages(), [""; 0]);
    assert_unbound(&mut app);
}

#[test]
fn the_tenant_cannot_change_under_an_open_cursor() {
    let world = World::new("cursor");
    world.database.superuser().batch_execute("GRANT SELECT ON notes TO admin").expect("grant");
    let mut admin = world.connect("admin");
    for scan in
        ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_indexscan = off; SET enable_bitmapscan = off"]
    {
        admin.batch_execute(&format!("{scan}; BEGIN")).expect(scan);
        text(&mut admin, &format!("SELECT set_tenant('{}')", world.a));
        admin.batch_execute("DECLARE c CURSOR FOR SELECT body FROM notes").expect("declare");
        assert_eq!(column(&mut admin, "FETCH c").len(), 1);
        let fault = fails_inside(&mut admin, &format!("SELECT rebind_tenant('{}')", world.b), "55000");
        assert!(fault.message().contains("cursor \"c\"") && fault.hint().is_some(), "{fault}");
        let by_driver = one::<Uuid>(&mut admin, "SELECT current_tenant()", &[]);
        assert_eq!(by_driver, world.a);
        let rest = column(&mut admin, "FETCH ALL FROM c");
        assert!(rest.len() == 1 && rest[0].starts_with('a'), "{rest:?}");
        admin.batch_execute("CLOSE c").expect("close");
        text(&mut admin, &format!("SELECT rebind_tenant('{}')", world.b));
        assert_eq!(bodies(&mut admin), ["b1", "b2", "b3"]);
        // Through the extended protocol, whose own portal is no cursor.
        let rebound: Uuid = one(&mut admin, "SELECT rebind_tenant($1)", &[&world.a]);
        assert_eq!(rebound, world.a);
        assert_eq!(text(&mut admin, "SELECT source FROM current_principal()"), "rebind_tenant");
        admin.batch_execute("COMMIT").expect("commit");
        assert_unbound_for_admin(&mut admin);
    }
}

#[track_caller]
fn assert_unbound_for_admin(admin: &mut Client) {
    assert_eq!(bound(admin), None);
    fails(admin.batch_execute("SELECT * FROM notes"), "42501");
}

#[test]
fn a_plpgsql_loop_and_a_refcursor_keep_to_one_tenant() {
    let world = World::new("loops");
    world.database.superuser().batch_execute("GRANT SELECT ON notes TO admin").expect("grant");
    let b = world.b;
    let mut admin = world.connect("admin");
    admin.batch_execute("BEGIN").expect("begin");
    text(&mut admin, &format!("SELECT set_tenant('{}')", world.a));
    for block in [
        format!(
            "DECLARE r record; BEGIN FOR r IN SELECT body FROM notes LOOP PERFORM rebind_tenant('{b}'); END LOOP; END"
        ),
        format!(
            "DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT body FROM notes' LOOP PERFORM rebind_tenant('{b}'); END LOOP; END"
        ),
        format!("DECLARE c CURSOR FOR SELECT body FROM notes; BEGIN OPEN c; MOVE c; PERFORM rebind_tenant('{b}'); END"),
        format!(
            "DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE 'SELECT body FROM notes'; PERFORM rebind_tenant('{b}'); END"
        ),
    ] {
        fails_inside(&mut admin, &format!("DO $$ {block} $$"), "55000");
        assert_eq!(bodies(&mut admin), ["a1", "a2"]);
    }
}

/// A loop that commits goes on with the rows that it had read, and the next tenant's are not among them.
#[test]
fn a_loop_that_commits_yields_the_rows_of_its_own_tenant_only() {
    let world = World::new("loop_commit");
    let mut app = world.connect("app");
    app.batch_execute(&format!(
        "DO $$ DECLARE r record; seen text[] := '{{}}'; BEGIN
            PERFORM set_tenant('{}');
            FOR r IN SELECT body FROM notes ORDER BY id LOOP
                seen := seen || r.body;
                COMMIT;
                PERFORM set_tenant('{}');
                ASSERT (SELECT count(*) FROM notes) = 3;
            END LOOP;
            IF seen <> '{{a1,a2}}' THEN RAISE 'saw %', seen; END IF;
        END $$",
        world.a, world.b
    ))
    .expect("a loop with commits");
    assert_unbound(&mut app);
    assert_eq!(column(&mut app, "SELECT name FROM pg_cursors WHERE name <> ''"), [""; 0]);
}

#[test]
fn a_drivers_portal_yields_one_tenants_rows() {
    let world = World::new("portal");
    let mut app = world.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, world.a);
    let portal = transaction.bind("SELECT body FROM notes", &[]).expect("open a portal");
    let first = transaction.query_portal(&portal, 1).expect("fetch");
    assert!(first.len() == 1 && first[0].get::<_, String>(0).starts_with('a'));
    transaction.batch_execute("SAVEPOINT s").expect("savepoint");
    fails(transaction.batch_execute(&format!("SELECT set_tenant('{}')", world.b)), "55000");
    transaction.batch_execute("ROLLBACK TO s; SELECT clear_tenant(); SAVEPOINT s").expect("unbind");
    match transaction.query_portal(&portal, 0) {
        Ok(rest) => assert!(rest.len() <= 1 && rest.iter().all(|row| row.get::<_, String>(0).starts_with('a'))),
        Err(error) => {
            fails::<()>(Err(error), "42501");
            transaction.batch_execute("ROLLBACK TO s").expect("roll back");
        }
    }
    transaction.rollback().expect("roll back");
    assert_unbound(&mut app);
    // Where a rebind is allowed, an open portal still forbids it.
    let mut superuser = world.database.superuser();
    let allow = format!("ALTER DATABASE {} SET tenancy.allow_rebind = on", world.database.name());
    superuser.batch_execute(&allow).expect("allow");
    let mut app = world.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, world.a);
    let portal = transaction.bind("SELECT body FROM notes", &[]).expect("open a portal");
    transaction.query_portal(&portal, 1).expect("fetch");
    transaction.batch_execute("SAVEPOINT s").expect("savepoint");
    fails(transaction.batch_execute(&format!("SELECT set_tenant('{}')", world.b)), "55000");
    transaction.batch_execute("ROLLBACK TO s").expect("roll back");
    let rest = transaction.query_portal(&portal, 0).expect("fetch");
    assert!(rest.len() == 1 && rest[0].get::<_, String>(0).starts_with('a'));
}

/// The statement that rebinds reads no protected rows beside it: half of them would be the former tenant's.
#[test]
fn a_statement_that_rebinds_does_not_mix_rows() {
    let world = World::new("mixing");
    world.database.superuser().batch_execute("GRANT SELECT ON notes TO admin").expect("grant");
    let mut admin = world.connect("admin");
    for scan in
        ["SET enable_seqscan = off", "SET enable_seqscan = on; SET enable_indexscan = off; SET enable_bitmapscan = off"]
    {
        admin.batch_execute(&format!("{scan}; BEGIN")).expect(scan);
        text(&mut admin, &format!("SELECT set_tenant('{}')", world.a));
        admin.batch_execute("SAVEPOINT s").expect("savepoint");
        match admin.simple_query(&format!("SELECT body, rebind_tenant('{}') FROM notes", world.b)) {
            Err(error) => {
                fails::<()>(Err(error), "55000");
                admin.batch_execute("ROLLBACK TO s").expect("roll back");
            }
            Ok(_) => {
                admin.batch_execute("ROLLBACK TO s").expect("roll back");
                let found = column(&mut admin, &format!("SELECT body, rebind_tenant('{}') FROM notes", world.b));
                assert!(found.iter().all(|body| body.starts_with('a')), "rows of two tenants: {found:?}");
            }
        }
        admin.batch_execute("ROLLBACK").expect("roll back");
    }
}

// ---- no tenant ----------------------------------------------------------------------------------------------------------------

/// Statements over notes, none of which may yield or write anything without a tenant.
fn statements(a: Uuid) -> Vec<String> {
    let mut statements: Vec<String> = [
        "SELECT * FROM notes",
        "TABLE notes",
        "SELECT 1 FROM notes LIMIT 1",
        "SELECT count(*) FROM notes",
        "SELECT body FROM notes WHERE id = 1",
        "SELECT body FROM notes WHERE ctid = '(0,1)'",
        "SELECT tableoid, ctid, xmin FROM notes",
        "SELECT * FROM ONLY notes",
        "SELECT * FROM notes TABLESAMPLE BERNOULLI (100)",
        "SELECT * FROM notes FOR UPDATE",
        "SELECT * FROM notes FOR KEY SHARE SKIP LOCKED",
        "SELECT DISTINCT ON (body) * FROM notes ORDER BY body",
        "SELECT max(id) FROM notes",
        "SELECT row_number() OVER (ORDER BY id), body FROM notes",
        "SELECT EXISTS (SELECT FROM notes)",
        "SELECT NOT EXISTS (SELECT FROM notes)",
        "SELECT (SELECT count(*) FROM notes) = 5",
        "SELECT ARRAY(SELECT body FROM notes)",
        "SELECT 'b1' IN (SELECT body FROM notes)",
        "SELECT 1 WHERE 1 = ALL (SELECT 1 FROM notes)",
        "VALUES ((SELECT min(body) FROM notes))",
        "SELECT * FROM freely f JOIN notes n ON n.id = f.id",
        "SELECT * FROM freely f LEFT JOIN notes n ON n.id = f.id",
        "SELECT * FROM notes n RIGHT JOIN freely f USING (id)",
        "SELECT * FROM notes n FULL JOIN freely f USING (id)",
        "SELECT * FROM freely f, LATERAL (SELECT * FROM notes n WHERE n.id = f.id) x",
        "SELECT * FROM notes x JOIN notes y USING (id)",
        "SELECT f.id FROM freely f WHERE f.id NOT IN (SELECT id FROM notes)",
        "SELECT id FROM freely UNION ALL SELECT id FROM notes",
        "SELECT id FROM freely EXCEPT SELECT id FROM notes",
        "WITH n AS (SELECT * FROM notes) SELECT count(*) FROM n",
        "WITH n AS MATERIALIZED (SELECT * FROM notes) SELECT * FROM n",
        "WITH RECURSIVE n AS (SELECT id FROM notes UNION SELECT id + 100 FROM n WHERE id < 100) SELECT * FROM n",
        "WITH gone AS (DELETE FROM notes RETURNING *) SELECT * FROM gone",
        "WITH moved AS (UPDATE notes SET body = 'x' RETURNING *) SELECT count(*) FROM moved",
        "WITH new AS (INSERT INTO notes (body) VALUES ('x') RETURNING *) SELECT * FROM new",
        "SELECT * FROM invoker_view",
        "SELECT * FROM invoker_view v JOIN freely f USING (id)",
        "SELECT * FROM owners_view",
        "UPDATE invoker_view SET body = 'x'",
        "INSERT INTO notes (body) VALUES ('x')",
        "INSERT INTO notes (body) VALUES ('x') RETURNING *",
        "INSERT INTO notes DEFAULT VALUES",
        "INSERT INTO notes (body) SELECT body FROM notes",
        "INSERT INTO freely (id) SELECT id FROM notes",
        "INSERT INTO notes (tenant_id, body) VALUES (NULL, 'x')",
        "INSERT INTO notes (body) VALUES ('x') ON CONFLICT DO NOTHING",
        "UPDATE notes SET body = 'x'",
        "UPDATE notes SET body = 'x' WHERE id = 1 RETURNING body",
        "UPDATE notes n SET body = 'x' FROM freely f WHERE f.id = n.id",
        "UPDATE freely f SET id = f.id FROM notes n WHERE f.id = n.id",
        "DELETE FROM notes",
        "DELETE FROM notes WHERE id = 1 RETURNING *",
        "DELETE FROM notes n USING freely f WHERE f.id = n.id",
        "DELETE FROM freely f USING notes n WHERE f.id = n.id",
        "MERGE INTO notes n USING freely f ON n.id = f.id WHEN MATCHED THEN UPDATE SET body = 'x' WHEN NOT MATCHED THEN INSERT (body) VALUES ('x')",
        "MERGE INTO notes n USING freely f ON n.id = f.id WHEN MATCHED THEN DELETE",
        "MERGE INTO notes n USING freely f ON n.id = f.id + 1000 WHEN NOT MATCHED THEN INSERT (body) VALUES ('x')",
        "MERGE INTO freely f USING notes n ON n.id = f.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (n.id)",
        "EXPLAIN ANALYZE SELECT * FROM notes",
        "SELECT reading()",
        "DO $$ BEGIN PERFORM * FROM notes; END $$",
        "BEGIN; DECLARE c CURSOR FOR SELECT * FROM notes; FETCH ALL FROM c",
    ]
    .map(str::to_owned)
    .to_vec();
    statements.extend([
        format!("SELECT * FROM notes WHERE tenant_id = '{a}'"),
        format!("INSERT INTO notes (tenant_id, body) VALUES ('{a}', 'x')"),
        format!("INSERT INTO notes (id, tenant_id, body) OVERRIDING SYSTEM VALUE VALUES (1, '{a}', 'x') ON CONFLICT (id) DO NOTHING"),
        format!("INSERT INTO notes (id, tenant_id, body) OVERRIDING SYSTEM VALUE VALUES (1, '{a}', 'x') ON CONFLICT (id) DO UPDATE SET body = 'x'"),
        format!("INSERT INTO notes (id, tenant_id) OVERRIDING SYSTEM VALUE VALUES (1, '{a}') ON CONFLICT (id) DO UPDATE SET body = 'x' RETURNING body"),
        format!("UPDATE notes SET tenant_id = '{a}'"),
    ]);
    statements
}

/// What the statements of [`statements`] use beside notes.
const SURROUNDINGS: &str = "
CREATE TABLE freely (id bigint);
INSERT INTO freely SELECT generate_series(1, 10);
CREATE VIEW invoker_view WITH (security_invoker = true) AS SELECT * FROM notes;
CREATE VIEW owners_view AS SELECT * FROM notes;
CREATE FUNCTION reading() RETURNS SETOF notes LANGUAGE sql STABLE AS 'SELECT * FROM notes';
GRANT ALL ON freely, invoker_view, owners_view TO app, client;
";

#[test]
fn without_a_tenant_every_statement_fails_and_writes_nothing() {
    let world = World::new("unbound");
    world.connect("owner").batch_execute(SURROUNDINGS).expect("create the surroundings");
    let before = world.content();
    for role in ["app", "client"] {
        let mut session = world.connect(role);
        let pid = backend_pid(&mut session);
        for statement in statements(world.a) {
            assert_refused(session.simple_query(&statement).map(drop), &statement);
            session.batch_execute("ROLLBACK").expect("roll back");
            if !statement.contains(';') {
                assert_refused(session.query(&statement, &[]).map(drop), &statement);
            }
        }
        for copy in [
            "COPY notes TO STDOUT",
            "COPY notes (body) TO STDOUT (FORMAT csv)",
            "COPY (SELECT body FROM notes) TO STDOUT",
        ] {
            let mut received = String::new();
            let copied = session.copy_out(copy).and_then(|mut reader| {
                reader
                    .read_to_string(&mut received)
                    .map_err(|error| *error.into_inner().expect("cause").downcast().expect("postgres"))
            });
            assert_refused(copied.map(drop), copy);
            assert_eq!(received, "", "{copy}");
        }
        assert_eq!(backend_pid(&mut session), pid, "the backend survived");
    }
    assert_eq!(world.content(), before);
    assert_eq!(count(&mut world.database.superuser(), "freely"), 10);
}

/// Refused for want of a tenant, with a hint.
#[track_caller]
fn assert_refused(result: Result<(), harness::postgres::Error>, statement: &str) {
    let Err(error) = result else { panic!("{statement}: succeeded without a tenant") };
    let Some(fault) = error.as_db_error() else { panic!("{statement}: {error:?}") };
    assert_eq!(fault.code().code(), "42501", "{statement}: {fault}");
    assert_eq!(fault.message(), "no tenant is bound in this transaction", "{statement}");
    assert!(fault.hint().is_some_and(|hint| hint.contains("set_tenant()")), "{statement}");
}

/// The same when no planning stands between the statement and the rows: the plans were made for a tenant.
#[test]
fn without_a_tenant_every_cached_plan_fails_and_writes_nothing() {
    let world = World::new("unbound_plans");
    world.connect("owner").batch_execute(SURROUNDINGS).expect("create the surroundings");
    let mut app = world.connect("app");
    app.batch_execute("SET plan_cache_mode = force_generic_plan").expect("plan_cache_mode");
    let preparable =
        |statement: &&String| !["EXPLAIN", "DO", "BEGIN", "TABLE"].iter().any(|start| statement.starts_with(start));
    let all = statements(world.a);
    let prepared: Vec<(String, &String)> =
        all.iter().filter(preparable).enumerate().map(|(n, statement)| (format!("p{n}"), statement)).collect();
    for (name, statement) in &prepared {
        enter(&mut app, world.a);
        app.batch_execute(&format!("PREPARE {name} AS {statement}"))
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
        // Some of them may not succeed for this tenant; the plan is made all the same.
        let _ = app.batch_execute(&format!("EXECUTE {name}"));
        app.batch_execute("ROLLBACK").expect("roll back");
    }
    let before = world.content();
    for parallel in ["off", "on"] {
        app.batch_execute(&format!("SET force_parallel_mode = {parallel}")).ok();
        for (name, statement) in &prepared {
            assert_refused(app.batch_execute(&format!("EXECUTE {name}")), statement);
        }
    }
    assert_eq!(world.content(), before);
    // A function whose notices would tell of rows sees none: the guard comes first.
    let mut superuser = world.database.superuser();
    superuser
        .batch_execute(
            "CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$",
        )
        .expect("create");
    let (mut app, notices) = world.database.connect_with_notices("app");
    app.batch_execute("SET plan_cache_mode = force_generic_plan; BEGIN").expect("begin");
    text(&mut app, &format!("SELECT set_tenant('{}')", world.a));
    app.batch_execute("PREPARE leaking AS SELECT * FROM notes WHERE leak(body); EXECUTE leaking; COMMIT")
        .expect("prepare");
    assert_eq!(notices.messages(), ["leaked a1", "leaked a2"]);
    notices.take();
    assert_refused(app.batch_execute("EXECUTE leaking"), "leaking");
    assert_eq!(notices.messages(), [""; 0]);
}

// ---- parallel workers ---------------------------------------------------------------------------------------------------------

/// Makes every scan parallel, and leaves it to the workers.
const ALL_PARALLEL: &str = "
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SET max_parallel_workers = 32;
SET parallel_leader_participation = off;
";

/// The table numbers: 1 to 6000 of tenant `a`, 10001 to 14000 of tenant `b`.
fn numbers(world: &World) {
    world
        .connect("owner")
        .batch_execute("CREATE TABLE numbers (n bigint, tenant_id uuid, pad text); GRANT SELECT ON numbers TO app")
        .expect("create");
    text(&mut world.connect("admin"), "SELECT protect_table('numbers')");
    world
        .database
        .superuser()
        .batch_execute(&format!(
            "INSERT INTO numbers SELECT g, '{}', repeat('x', 100) FROM generate_series(1, 6000) g;
             INSERT INTO numbers SELECT g, '{}', repeat('x', 100) FROM generate_series(10001, 14000) g;
             ANALYZE numbers",
            world.a, world.b
        ))
        .expect("fill");
}

#[test]
fn parallel_workers_see_the_tenant() {
    let world = World::new("parallel");
    numbers(&world);
    let sums = [(world.a, "18003000"), (world.b, "48002000")];
    for scan in [
        "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
        "SET enable_seqscan = off",
    ] {
        let mut app = world.connect("app");
        app.batch_execute(&format!("{ALL_PARALLEL} {scan}")).expect("settings");
        for (tenant, sum) in sums {
            enter(&mut app, tenant);
            let plan =
                column(&mut app, "EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT sum(n) FROM numbers").join("\n");
            let launched = plan.lines().find_map(|line| line.trim().strip_prefix("Workers Launched: "));
            assert!(launched.is_some_and(|workers| workers != "0"), "{plan}");
            assert_eq!(text(&mut app, "SELECT sum(n) FROM numbers"), sum);
            let same = "SELECT count(DISTINCT tenant_id) = 1 AND bool_and(tenant_id = current_tenant_or_null()
                            AND tenant_id::text = current_tenant_text() AND assert_tenant(tenant_id)) FROM numbers";
            assert_eq!(text(&mut app, same), "t");
            app.batch_execute("COMMIT").expect("commit");
        }
    }
}

#[test]
fn a_parallel_plan_without_a_tenant_fails_in_its_workers() {
    let world = World::new("parallel_unbound");
    numbers(&world);
    let mut app = world.connect("app");
    app.batch_execute(&format!("{ALL_PARALLEL} SET plan_cache_mode = force_generic_plan")).expect("settings");
    assert_refused(app.batch_execute("SELECT sum(n) FROM numbers"), "unplanned");
    enter(&mut app, world.a);
    app.batch_execute("PREPARE total AS SELECT sum(n) FROM numbers").expect("prepare");
    let plan = column(&mut app, "EXPLAIN EXECUTE total").join("\n");
    assert!(plan.contains("Gather"), "{plan}");
    assert_eq!(text(&mut app, "EXECUTE total"), "18003000");
    app.batch_execute("COMMIT").expect("commit");
    for _ in 0..3 {
        assert_refused(app.batch_execute("EXECUTE total"), "total");
    }
    enter(&mut app, world.b);
    assert_eq!(text(&mut app, "EXECUTE total"), "48002000");
    app.batch_execute("COMMIT").expect("commit");
}

/// Each row of the query is judged in a worker, which knows what its leader knows: role, scopes however many, and key.
#[test]
fn parallel_workers_know_the_role_and_the_scopes() {
    let world = World::new("parallel_rights");
    numbers(&world);
    let open =
        "CREATE TABLE open_numbers AS SELECT * FROM numbers; GRANT SELECT ON open_numbers TO app; ANALYZE open_numbers";
    world.database.superuser().batch_execute(open).expect("create a table");
    text(&mut world.connect("admin"), "SELECT add_role('manager', 70)");
    let mut app = world.connect("app");
    let user = fixtures::member(&mut app, world.a, "manager");
    let many: Vec<String> = (0..99).map(|n| format!("{n:0>255}")).chain(["a|b:*".to_owned()]).collect();
    let scopes: Vec<&str> = many.iter().map(String::as_str).collect();
    let key = fixtures::api_key(&mut app, world.a, Some(user), &scopes);
    let query = format!(
        "SELECT count(*) FROM numbers WHERE has_role('manager') AND require_role('member') AND NOT has_role('admin')
            AND has_scope('a|b:c') AND require_scope('{}') AND NOT has_scope('a|c') AND current_member_role() = 'manager'
            AND current_user_id() = '{user}' AND EXISTS (SELECT FROM current_principal() p
                WHERE p.api_key_id = '{}' AND p.role = 'manager' AND cardinality(p.scopes) = 100 AND p.source = 'api_key' AND n > 0)",
        many[98], key.id
    );
    let mut app = world.connect("app");
    app.batch_execute(ALL_PARALLEL).expect("settings");
    for _ in 0..2 {
        app.batch_execute("BEGIN").expect("begin");
        text(&mut app, &format!("SELECT tenant_id FROM authenticate_api_key('{}')", key.text));
        // Of a table that is not protected, since EXPLAIN ANALYZE of others is not for bearers of keys.
        let open = query.replace("FROM numbers", "FROM open_numbers");
        let plan = column(&mut app, &format!("EXPLAIN (ANALYZE, COSTS off, TIMING off) {open}")).join("\n");
        let launched = plan.lines().find_map(|line| line.trim().strip_prefix("Workers Launched: "));
        assert!(launched.is_some_and(|workers| workers != "0"), "{plan}");
        assert_eq!(text(&mut app, &query), "6000");
        fails_inside(&mut app, "SELECT count(*) FROM numbers WHERE require_role('admin')", "42501");
        fails_inside(&mut app, "SELECT count(*) FROM numbers WHERE require_scope('other')", "42501");
        fails_inside(&mut app, "SELECT count(*) FROM numbers WHERE has_role('emperor')", "22023");
        app.batch_execute("COMMIT").expect("commit");
        // Workers of the next transaction know only what that one binds.
        enter(&mut app, world.a);
        let nothing = "SELECT count(*) FROM numbers WHERE NOT has_role('viewer') AND NOT has_scope('a|b:c') AND current_member_role() IS NULL";
        assert_eq!(text(&mut app, nothing), "6000");
        app.batch_execute("COMMIT").expect("commit");
    }
}

#[test]
fn rights_are_told_and_refused_alike_where_plans_are_forced_to_be_parallel() {
    let world = World::new("forced_rights");
    let lowly = Lowly::new(&world);
    let mut client = world.connect("client");
    client.batch_execute("SET force_parallel_mode = on").ok();
    client.batch_execute("SET debug_parallel_query = on").ok();
    for _ in 0..2 {
        lowly.enter(&mut client);
        lowly.assert_bound(&mut client, &world, "forced parallel plans");
        fails_inside(&mut client, "SELECT require_role('member')", "42501");
        fails_inside(&mut client, "SELECT require_scope('a:write')", "42501");
        fails_inside(&mut client, "SELECT has_role('emperor')", "22023");
        assert_eq!(count(&mut client, "tenancy.members"), 1);
        client.batch_execute("COMMIT").expect("commit");
        assert_nobody(&mut client, "forced parallel plans");
    }
}

#[test]
fn a_session_that_forces_parallel_plans_works_as_any_other() {
    let world = World::new("forced");
    let mut app = world.connect("app");
    app.batch_execute("SET force_parallel_mode = on").ok();
    app.batch_execute("SET debug_parallel_query = on").ok();
    for (tenant, expected) in [(world.a, "a1,a2"), (world.b, "b1,b2,b3")] {
        enter(&mut app, tenant);
        assert_eq!(bodies(&mut app).join(","), expected);
        assert_eq!(text(&mut app, "SELECT tenant_id FROM current_principal()"), tenant.to_string());
        fails_inside(&mut app, &format!("SELECT assert_tenant('{}')", Uuid::new_v4()), "42501");
        assert_eq!(bodies(&mut app).join(","), expected);
        app.batch_execute("COMMIT").expect("commit");
        assert_unbound(&mut app);
    }
}

// ---- two-phase commit ---------------------------------------------------------------------------------------------------------

#[test]
fn a_prepared_transaction_keeps_its_tenants_rows_and_leaves_no_tenant_behind() {
    let world = World::new("two_phase");
    let gid = format!("gid_{}", world.database.name());
    let mut app = world.connect("app");
    enter(&mut app, world.a);
    app.batch_execute(&format!("INSERT INTO notes (body) VALUES ('a3'); PREPARE TRANSACTION '{gid}'"))
        .expect("prepare");
    assert_unbound(&mut app);
    as_tenant(&mut app, world.b, |transaction| assert_eq!(bodies(transaction), ["b1", "b2", "b3"]));
    as_tenant(&mut app, world.a, |transaction| assert_eq!(bodies(transaction), ["a1", "a2"]));
    // It has written for the tenant: a suspension waits for it.
    let mut operator = world.connect("operator");
    let pid = backend_pid(&mut operator);
    std::thread::scope(|scope| {
        let suspension = scope.spawn(|| text(&mut operator, &format!("SELECT suspend_tenant('{}', 'test')", world.a)));
        wait_for_lock(&mut world.database.superuser(), pid);
        let mut other = world.connect("app");
        other.batch_execute(&format!("COMMIT PREPARED '{gid}'")).expect("commit");
        assert_unbound(&mut other);
        suspension.join().expect("suspend");
    });
    let own = format!("notes WHERE body = 'a3' AND tenant_id = '{}'", world.a);
    assert_eq!(count(&mut world.database.superuser(), &own), 1);
    fails(app.batch_execute(&format!("BEGIN; SELECT set_tenant('{}')", world.a)), "42501");
}

// ---- errors -------------------------------------------------------------------------------------------------------------------

#[test]
fn hot_error_paths_keep_the_backend_alive() {
    const ROUNDS: usize = 300;
    let world = World::new("hot_errors");
    let mut app = world.connect("app");
    let pid = backend_pid(&mut app);
    let read = {
        enter(&mut app, world.a);
        let read = app.prepare("SELECT body FROM notes").expect("prepare");
        app.batch_execute("COMMIT").expect("commit");
        read
    };
    for round in 0..ROUNDS {
        fails(app.query(&read, &[]), "42501");
        fails(app.batch_execute("SELECT current_tenant_text()"), "42501");
        fails(app.batch_execute("SELECT set_tenant(NULL)"), "22023");
        fails(app.batch_execute(&format!("SELECT set_tenant('{}')", Uuid::new_v4())), "P0002");
        fails(app.batch_execute("INSERT INTO notes (body) VALUES ('x')"), "42501");
        if round % 10 == 0 {
            enter(&mut app, world.a);
            fails_inside(&mut app, &format!("SELECT set_tenant('{}')", world.b), "55000");
            fails_inside(&mut app, &format!("SELECT assert_tenant('{}')", world.b), "42501");
            fails_inside(&mut app, &format!("INSERT INTO notes (tenant_id) VALUES ('{}')", world.b), "42501");
            fails_inside(&mut app, "SET LOCAL tenancy.context = 'x'", "42501");
            assert_eq!(bodies(&mut app), ["a1", "a2"]);
            app.batch_execute("COMMIT").expect("commit");
        }
    }
    assert_eq!(backend_pid(&mut app), pid);
}

/// Thousands of errors caught inside one transaction: no memory, no lock and no context is lost on the way.
#[test]
fn errors_caught_inside_one_transaction_lose_nothing() {
    const MEMORY: &str = "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts";
    let world = World::new("caught_errors");
    let (a, b) = (world.a, world.b);
    let role = own_role(&world.database, "app");
    world.database.superuser().batch_execute(&format!("GRANT pg_read_all_stats TO {role}")).expect("grant");
    let mut app = world.connect(&role);
    let provoke = format!(
        "DO $$ BEGIN FOR i IN 1..1000 LOOP
            BEGIN PERFORM set_tenant('{b}'); EXCEPTION WHEN object_not_in_prerequisite_state THEN END;
            BEGIN PERFORM assert_tenant('{b}'); EXCEPTION WHEN insufficient_privilege THEN END;
            BEGIN INSERT INTO notes (tenant_id, body) VALUES ('{b}', 'x'); EXCEPTION WHEN insufficient_privilege THEN END;
            BEGIN PERFORM clear_tenant(); PERFORM count(*) FROM notes; EXCEPTION WHEN insufficient_privilege THEN END;
         END LOOP; END $$"
    );
    let mut used = Vec::new();
    for _ in 0..4 {
        enter(&mut app, a);
        app.batch_execute(&provoke).expect("provoke errors");
        assert_eq!(bodies(&mut app), ["a1", "a2"]);
        app.batch_execute("COMMIT").expect("commit");
        assert_unbound(&mut app);
        used.push(one::<i64>(&mut app, MEMORY, &[]));
    }
    let growth = used[3] - used[1];
    assert!(growth < 100_000, "8000 caught errors cost {growth} bytes: {used:?}");
    assert_eq!(count(&mut world.database.superuser(), "notes WHERE body = 'x'"), 0);
}

// ---- bad input ----------------------------------------------------------------------------------------------------------------

/// Values that have broken something somewhere.
fn hostile_texts() -> Vec<String> {
    vec![
        String::new(),
        " ".to_owned(),
        "'".to_owned(),
        "''; DROP TABLE notes; --".to_owned(),
        "%s%n%d%".to_owned(),
        "\\".to_owned(),
        "\\x00".to_owned(),
        "a\nb\tc".to_owned(),
        "\u{202e}\u{0301}日本語🦀".to_owned(),
        "$1 $$ {} {0}".to_owned(),
        "NULL".to_owned(),
        "x".repeat(1 << 20),
    ]
}

#[test]
fn bad_arguments_of_the_binding_functions_are_refused() {
    let world = World::new("bad_binds");
    let before = world.content();
    let mut admin = world.connect("admin");
    let pid = backend_pid(&mut admin);
    for call in
        ["set_tenant(NULL)", "set_tenant(NULL, gen_random_uuid())", "set_tenant_by_slug(NULL)", "rebind_tenant(NULL)"]
    {
        let fault = fails(admin.batch_execute(&format!("SELECT {call}")), "22023");
        assert!(fault.message().contains("must not be null"), "{call}: {fault}");
    }
    for unknown in [Uuid::nil(), Uuid::max(), Uuid::new_v4()] {
        for function in ["set_tenant", "rebind_tenant"] {
            let fault = fails(admin.query(&format!("SELECT {function}($1)"), &[&unknown]), "P0002");
            assert_eq!(fault.message(), format!("tenant \"{unknown}\" does not exist"));
        }
    }
    for text in hostile_texts() {
        for function in ["set_tenant", "rebind_tenant", "assert_tenant"] {
            fails(admin.query(&format!("SELECT {function}($1::text::uuid)"), &[&text]), "22P02");
        }
        fails(admin.query("SELECT set_tenant_by_slug($1)", &[&text]), "P0002");
        assert_eq!(bound(&mut admin), None);
    }
    assert_eq!(backend_pid(&mut admin), pid);
    assert_eq!(world.content(), before);
}

#[test]
fn a_slug_binds_exactly_its_tenant() {
    let world = World::new("by_slug");
    let slugs = rows(&mut world.connect("operator"), "SELECT slug, id FROM tenancy.tenants", &[]);
    let mut app = world.connect("app");
    for row in &slugs {
        let (slug, id): (String, Uuid) = (row.get(0), row.get(1));
        let mut transaction = app.transaction().expect("begin");
        assert_eq!(one::<Uuid>(&mut transaction, "SELECT set_tenant_by_slug($1)", &[&slug]), id);
        assert_eq!(bound(&mut transaction), Some(id));
        transaction.rollback().expect("roll back");
        for near in
            [slug.to_uppercase(), format!("{slug} "), format!(" {slug}"), format!("{slug}%"), slug[1..].to_owned()]
        {
            fails(app.query("SELECT set_tenant_by_slug($1)", &[&near]), "P0002");
        }
    }
}

#[test]
fn a_tenant_that_was_rolled_back_cannot_be_bound() {
    let world = World::new("rolled_back");
    let id = Uuid::new_v4();
    let mut admin = world.connect("admin");
    admin.batch_execute("BEGIN").expect("begin");
    text(&mut admin, &format!("SELECT create_tenant('Fleeting', id => '{id}')"));
    assert_eq!(text(&mut admin, &format!("SELECT set_tenant('{id}')")), id.to_string(), "one's own new tenant");
    fails(world.connect("app").batch_execute(&format!("SELECT set_tenant('{id}')")), "P0002");
    admin.batch_execute("ROLLBACK").expect("roll back");
    fails(admin.batch_execute(&format!("SELECT set_tenant('{id}')")), "P0002");
}

#[test]
fn pgbench_binds_and_reads_through_every_protocol() {
    let world = World::new("pgbench");
    let script = std::env::temp_dir().join(format!("{}.sql", world.database.name()));
    let lines = format!(
        "BEGIN;\nSELECT set_tenant('{}');\nSELECT 1 / (count(*) = 2)::int FROM notes;\nCOMMIT;\n\
         BEGIN;\nSELECT set_tenant('{}');\nSELECT 1 / (count(*) = 3)::int FROM notes;\nCOMMIT;\n",
        world.a, world.b
    );
    std::fs::write(&script, lines).expect("write the script");
    for protocol in ["simple", "extended", "prepared"] {
        let mut pgbench = world.database.tool("pgbench", "app");
        pgbench.args(["-n", "-M", protocol, "-c", "2", "-t", "100", "-f"]).arg(&script);
        let report = run(&mut pgbench);
        assert!(report.contains("200/200") && !report.contains("aborted"), "{report}");
    }
    std::fs::remove_file(&script).expect("remove the script");
}
