//! Files that nobody should trust: each is refused for what it is, and leaves nothing.

use super::*;
use aws_lc_rs::digest;

/// Numbers the records anew, and ends them as they would end: what is left is a file that only its content betrays.
pub fn sign(records: &mut Vec<Record>) {
    records.retain(|record| record.1 != "end");
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut rows = 0;
    for (number, record) in records.iter_mut().enumerate() {
        record.0 = number as i64 + 1;
        for text in [&record.1, &record.2, &record.3] {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        rows += match record.1.as_str() {
            "rows" => record.3.matches('\n').count(),
            "own" => record.3.lines().count(),
            _ => 0,
        };
    }
    let sha256: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let number = records.len() as i64;
    let end = format!("{{\"records\":{number},\"rows\":{rows},\"sha256\":\"{sha256}\"}}");
    records.push((number + 1, "end".to_owned(), String::new(), end));
}

/// The data of the first record of this kind and name.
#[track_caller]
fn data<'a>(records: &'a mut [Record], kind: &str, name: &str) -> &'a mut String {
    let found = records.iter_mut().find(|record| record.1 == kind && (name.is_empty() || record.2 == name));
    &mut found.unwrap_or_else(|| panic!("there is no {kind} {name}")).3
}

#[track_caller]
fn replace(records: &mut [Record], kind: &str, name: &str, from: &str, to: &str) {
    let data = data(records, kind, name);
    assert!(data.contains(from), "{data}");
    *data = data.replace(from, to);
}

struct World {
    database: Database,
    acme: Uuid,
    victim: Uuid,
    exported: Vec<Record>,
    before: (String, String),
}

impl World {
    /// An export of a tenant that is there no more, and another tenant.
    fn new(label: &str) -> World {
        let database = shop(cluster(), label);
        let (acme, victim) = (filled(&database, "acme"), filled(&database, "victim"));
        let mut app = database.connect("app");
        let mut operator = database.connect("operator");
        rows(&mut operator, "SELECT create_metric('calls')", &[]);
        for (tenant, email) in [(acme, "ada@example.com"), (victim, "eve@example.com")] {
            as_tenant(&mut app, tenant, |tx| {
                let tell = format!(
                    "SELECT add_member(create_user('{email}', external_id => 'ext:{email}'), 'owner');
                     SELECT api_key FROM create_api_key('robots'); SELECT record_usage('calls')"
                );
                tx.batch_execute(&tell).unwrap_or_else(|error| panic!("{error:?}"));
            });
        }
        let subscribe = "SELECT set_subscription($1, 'active')::text, set_tenant_limit($1, 'agents', 3)";
        rows(&mut operator, subscribe, &[&acme]);
        let exported = export(&database, acme);
        rows(&mut operator, "SELECT delete_tenant($1)", &[&acme]);
        database.connect("admin").batch_execute(&format!("CALL purge_tenant('{acme}', true)")).expect("purge");
        store(&database, &[]);
        let before = (traces(&database), picture(&database, None));
        World { database, acme, victim, exported, before }
    }

    /// Imports the file as someone has changed it, which fails so and leaves nothing.
    #[track_caller]
    fn refuses(&self, what: &str, sqlstate: &str, change: impl FnOnce(&mut Vec<Record>)) {
        let mut records = self.exported.clone();
        change(&mut records);
        sign(&mut records);
        self.refuses_unsigned(what, sqlstate, &records);
    }

    #[track_caller]
    fn refuses_unsigned(&self, what: &str, sqlstate: &str, records: &[Record]) {
        let before = &self.before;
        let result = import(&self.database, records, "");
        assert!(result.is_err(), "{what} was loaded");
        let fault = fails(result, sqlstate);
        let after = (traces(&self.database), picture(&self.database, None));
        assert!(*before == after, "{what} left something: {}\n{}\n{}", fault.message(), before.0, after.0);
    }

    fn victims<T: postgres::types::FromSqlOwned>(&self, sql: &str) -> T {
        one(&mut self.database.superuser(), sql, &[&self.victim])
    }
}

#[test]
fn a_file_that_is_not_whole_is_refused() {
    let world = World::new("not_whole");
    let whole = &world.exported;
    for (missing, record) in whole.iter().enumerate() {
        let mut records = whole.clone();
        records.remove(missing);
        let what = format!("a file without {} {}", record.1, record.2);
        world.refuses_unsigned(&what, "22023", &records);
        // And with the gap closed.
        if missing < 3 || missing + 3 > whole.len() {
            records.iter_mut().enumerate().for_each(|(number, record)| record.0 = number as i64 + 1);
            world.refuses_unsigned(&what, "22023", &records);
        }
    }
    let twice: Vec<Record> = whole.iter().chain(whole.last()).cloned().collect();
    world.refuses_unsigned("a record that is there twice", "22023", &twice);
    let mut changed = whole.clone();
    replace(&mut changed, "rows", "people", "1\t1", "1\t2");
    world.refuses_unsigned("a row that was changed", "22023", &changed);
    world.refuses_unsigned("nothing", "22023", &[]);
    let mut late = whole.clone();
    late.push((whole.len() as i64 + 1, "rows".to_owned(), "people".to_owned(), "9\t1\n".to_owned()));
    world.refuses_unsigned("rows behind the end", "22023", &late);
    // Nothing was wrong with the file itself.
    import(&world.database, whole, "").unwrap_or_else(|error| panic!("{error:?}"));
    fails(import(&world.database, whole, ""), "23505");
}

#[test]
fn a_file_cannot_name_what_is_not_its_own() {
    let world = World::new("not_its_own");
    let (acme, victim) = (world.acme.to_string(), world.victim.to_string());
    let owned = |records: &mut Vec<Record>, tenant: &str| {
        replace(records, "table", "people", "\"columns\":[", "\"columns\":[{\"name\":\"tenant_id\"},");
        let rows = data(records, "rows", "people");
        *rows = rows.lines().map(|line| format!("{tenant}\t{line}\n")).collect();
    };
    world.refuses("a row of another tenant", "22023", |records| owned(records, &victim));
    world.refuses("a row of no tenant", "22023", |records| owned(records, "\\N"));
    let customer: i64 = world.victims("SELECT min(id) FROM shop.customers WHERE tenant_id = $1");
    let order: Uuid = world.victims("SELECT id FROM shop.orders WHERE tenant_id = $1 LIMIT 1");
    world.refuses("an order of another tenant's customer", "23503", |records| {
        let rows = data(records, "rows", "orders");
        let (first, rest) = rows.split_once('\n').expect("rows");
        let mut values: Vec<&str> = first.split('\t').collect();
        let other = customer.to_string();
        values[1] = &other;
        *rows = format!("{}\n{rest}", values.join("\t"));
    });
    world.refuses("a line of another tenant's order", "23503", |records| {
        data(records, "rows", "lines").push_str(&format!("{order}\t9\tmine\n"));
    });
    world.refuses("another tenant's order itself", "23505", |records| {
        let rows = data(records, "rows", "orders");
        let id = rows.split('\t').next().expect("an id").to_owned();
        *rows = rows.replacen(&id, &order.to_string(), 1);
    });
    world.refuses("a tenant's id in what is known of it", "22023", |records| {
        replace(records, "header", "", &acme, "no uuid");
    });
    for table in
        ["tenants", "pg_authid", "tenancy.tenants", "fired", "people; DROP TABLE shop.people", "events_old", ""]
    {
        world.refuses(&format!("rows of {table}"), "22023", |records| {
            for record in records.iter_mut().filter(|record| record.2 == "people") {
                record.2 = table.to_owned();
            }
        });
    }
    for column in ["nothing", "id\\\", (SELECT 1)", "twice", "ctid", "tableoid", "team"] {
        world.refuses(&format!("column {column}"), "22023", |records| {
            replace(records, "table", "people", "\"name\":\"id\"", &format!("\"name\":\"{column}\""));
        });
    }
    world.refuses("a column that is computed", "22023", |records| {
        replace(records, "table", "orders", "\"name\":\"amount\"", "\"name\":\"twice\"");
    });
    world.refuses("records of the product's own", "22023", |records| {
        records.insert(1, (0, "own".to_owned(), "tenants".to_owned(), "{}".to_owned()));
    });
    world.refuses("a tenant's id in its subscription", "23505", |records| {
        let more = format!("{{\"tenant_id\":\"{victim}\",");
        let subscription = data(records, "own", "subscription");
        *subscription = subscription.replacen('{', &more, 1) + "\n" + &subscription.clone();
    });
    owned_by_itself(&world, owned);
}

/// What says of each row that it is the tenant's is no harm.
fn owned_by_itself(world: &World, owned: impl Fn(&mut Vec<Record>, &str)) {
    let mut records = world.exported.clone();
    owned(&mut records, &world.acme.to_string());
    sign(&mut records);
    import(&world.database, &records, "").unwrap_or_else(|error| panic!("{error:?}"));
    let people = format!("shop.people WHERE tenant_id = '{}'", world.acme);
    assert_eq!(count(&mut world.database.superuser(), &people), 3);
}

#[test]
fn rows_that_are_no_rows_are_refused() {
    let world = World::new("no_rows");
    for (what, from, to) in [
        ("the end of the data in its middle", "2\t1\n", "\\.\n2\t1\n"),
        ("a value too many", "2\t1\n", "2\t1\t1\n"),
        ("a value too few", "2\t1\n", "2\n"),
        ("no number", "2\t1\n", "two\t1\n"),
        ("a number too large", "2\t1\n", "99999999999\t1\n"),
        ("a line that does not end", "3\t2\n", "3\t2"),
    ] {
        world.refuses(what, "22023", |records| replace(records, "rows", "people", from, to));
    }
    world.refuses("a value that a check refuses", "22023", |records| {
        replace(records, "rows", "orders", "\tnew\t", "\tnew\t-")
    });
    world.refuses("NULL in a key", "22023", |records| replace(records, "rows", "people", "2\t1\n", "\\N\t1\n"));
    world.refuses("a row twice", "23505", |records| replace(records, "rows", "people", "2\t1\n", "2\t1\n2\t1\n"));
    world.refuses("an enum's value that is none", "22023", |records| {
        replace(records, "rows", "orders", "\tpaid\t", "\tstolen\t")
    });
    for (what, kind, data) in [
        ("no JSON", "header", "{"),
        ("an array", "header", "[]"),
        ("another format", "header", "{\"format\":2}"),
        ("deep JSON", "table", &"[".repeat(100_000)),
        ("no object", "own", "7"),
        ("an unknown kind", "nonsense", ""),
    ] {
        world.refuses(what, "22023", |records| match kind {
            "header" => records[0].3 = data.to_owned(),
            _ => records.insert(1, (0, kind.to_owned(), "members".to_owned(), data.to_owned())),
        });
    }
    let long = "x".repeat(100_000);
    for (field, value, sqlstate) in [
        ("slug", "Not A Slug", "22023"),
        ("slug", "a'); DROP TABLE shop.people; --", "22023"),
        ("slug", long.as_str(), "22023"),
        ("slug", "victim", "23505"),
        ("plan", "unheard", "P0002"),
        ("status", "omnipotent", "22023"),
    ] {
        world.refuses(&format!("{field} {}", &value[..value.len().min(20)]), sqlstate, |records| {
            let header: serde_json::Value = serde_json::from_str(&records[0].3).expect("a header");
            let now = format!("\"{field}\": {}", header["tenant"][field]);
            replace(records, "header", "", &now, &format!("\"{field}\": {}", serde_json::json!(value)));
        });
    }
}

#[test]
fn a_file_takes_over_nobody() {
    let world = World::new("takes_over");
    let eve: Uuid = world.victims("SELECT user_id FROM tenancy.memberships WHERE tenant_id = $1");
    let ada: String = {
        let users: serde_json::Value =
            serde_json::from_str(data(&mut world.exported.clone(), "own", "users")).expect("a user");
        users["id"].as_str().expect("an id").to_owned()
    };
    let eves = eve.to_string();
    let hash: String =
        world.victims("SELECT '\\\\' || encode(key_hash, 'hex') FROM tenancy.stored_api_keys WHERE tenant_id = $1");
    let hash = hash.replacen("\\\\", "\\\\x", 1);
    let all = |records: &mut Vec<Record>| {
        for record in records.iter_mut().filter(|record| record.1 == "own") {
            record.3 = record.3.replace(&ada, &eves);
        }
    };
    // Her id with another address; her address with another account; hers without saying who she is.
    world.refuses("a user's id", "23505", |records| {
        all(records);
        replace(records, "own", "users", "ada@example.com", "mallory@example.com");
    });
    world.refuses("a user's address", "55000", |records| {
        replace(records, "own", "users", "\"email\": \"ada@", "\"email\": \"eve@")
    });
    world.refuses("a member who is no user of it", "22023", |records| {
        replace(records, "own", "members", &ada, &eves);
    });
    world.refuses("a key of a user who is none of it", "22023", |records| {
        replace(records, "own", "api_keys", "\"user_id\": null", &format!("\"user_id\": \"{eves}\""));
    });
    world.refuses("another tenant's key", "23505", |records| {
        let keys: serde_json::Value = serde_json::from_str(data(records, "own", "api_keys")).expect("a key");
        let now = keys["key_hash"].to_string();
        replace(records, "own", "api_keys", &now, &format!("\"{hash}\""));
    });
    for state in ["provisioning", "moving", "deleting"] {
        let change = |records: &mut Vec<Record>| {
            replace(records, "header", "", "\"status\": \"active\"", &format!("\"status\": \"{state}\""));
        };
        world.refuses("a state that nobody would end", "22023", change);
    }
    world.refuses("a role that there is not", "P0002", |records| replace(records, "own", "members", "owner", "god"));
    world.refuses("a metric that there is not", "P0002", |records| {
        replace(records, "own", "usage_buckets", "calls", "money")
    });
    world.refuses("an address that is none", "22023", |records| {
        replace(records, "own", "users", "ada@example.com", "Ada@Example.com")
    });
    world.refuses("a limit below nothing", "22023", |records| replace(records, "own", "limits", "agents", "a b"));
}

#[test]
fn a_call_that_makes_no_sense_is_refused() {
    let world = World::new("calls");
    store(&world.database, &world.exported);
    let mut superuser = world.database.superuser();
    superuser
        .batch_execute(
            "CREATE VIEW looks AS SELECT * FROM export; ALTER VIEW looks OWNER TO admin;
             CREATE TABLE secured AS SELECT * FROM export; ALTER TABLE secured OWNER TO admin, ENABLE ROW LEVEL SECURITY;
             CREATE TABLE narrow (seq int, kind text, name text, data text); ALTER TABLE narrow OWNER TO admin;
             CREATE TABLE foreign_export AS SELECT * FROM export",
        )
        .expect("make the tables");
    let mut admin = world.database.connect("admin");
    for (call, sqlstate) in [
        ("CALL import_tenant(NULL)", "22023"),
        ("CALL import_tenant('export', NULL)", "22023"),
        ("CALL import_tenant('export', 'overwrite')", "22023"),
        ("CALL import_tenant('export', 'new', id => gen_random_uuid())", "22023"),
        ("CALL import_tenant('export', 'replace', slug => 'x')", "22023"),
        ("CALL import_tenant('export', 'replace', new_ids => true)", "22023"),
        ("CALL import_tenant('export', 'replace')", "P0002"),
        ("CALL import_tenant('export', isolation => 'cloud')", "22023"),
        ("CALL import_tenant('export', isolation => 'schema', template => 'nothing')", "P0002"),
        ("CALL import_tenant('export', plan => 'unheard')", "P0002"),
        ("CALL import_tenant('export', slug => 'A B')", "22023"),
        ("CALL import_tenant('looks')", "22023"),
        ("CALL import_tenant('secured')", "22023"),
        ("CALL import_tenant('narrow')", "22023"),
        ("CALL import_tenant('pg_class')", "22023"),
        ("CALL import_tenant('tenancy.tenants')", "22023"),
        ("CALL import_tenant('foreign_export')", "42501"),
        ("BEGIN; CALL import_tenant('export')", "25001"),
        ("SELECT export_tenant(NULL)", "22023"),
        ("SELECT export_tenant(gen_random_uuid())", "P0002"),
    ] {
        fails(admin.batch_execute(call), sqlstate);
        admin.batch_execute("ROLLBACK").expect("roll back");
    }
    for role in ["app", "client", "operator", "monitor", "owner", "stranger"] {
        let mut session = world.database.connect(role);
        fails(session.batch_execute("CALL import_tenant('pg_class')"), "42501");
        fails(session.batch_execute("SELECT export_tenant(gen_random_uuid())"), "42501");
    }
}

/// The owner of a database may create functions in schema public, and so some that fit a call better than the product's own.
#[test]
fn an_import_runs_no_function_that_someone_has_put_beside_the_products_own() {
    let world = World::new("beside_ours");
    let mut superuser = world.database.superuser();
    superuser.batch_execute("GRANT CREATE ON SCHEMA public TO owner").expect("grant");
    for arguments in ["template text", "template name", "template text, owner uuid, schema_name text"] {
        let sql = format!(
            "CREATE FUNCTION public.create_tenant(name text, slug text, plan text, isolation text, metadata jsonb, id uuid,
                external_id text, {arguments}) RETURNS uuid LANGUAGE plpgsql AS $$BEGIN RAISE 'run as %', current_user; END$$"
        );
        world.database.connect("owner").batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?}"));
    }
    import(&world.database, &world.exported, "").unwrap_or_else(|error| panic!("{error:?}"));
}
