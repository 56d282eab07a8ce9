//! What a database is given of the control database's: its owner, privileges, and settings of it and of roles in it. They come last: as long as it is made
//! it is a superuser's alone.

use crate::error::Result;
use crate::home;
use crate::query::{self, ident, literal};
use pgrx::pg_sys;

/// Each entry of the privileges.
const PRIVILEGES: &str = "SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
        a.privilege_type, a.is_grantable
    FROM pg_catalog.pg_database d
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
    WHERE d.oid = $1 AND (a.grantee = 0 OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee))";
const OWNER: &str =
    "SELECT pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(datdba)) FROM pg_catalog.pg_database WHERE oid = $1";
const SETTINGS: &str = "SELECT CASE WHEN s.setrole <> 0 THEN pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(s.setrole)) END, c.setting
    FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) WITH ORDINALITY c (setting, place)
    WHERE s.setdatabase = $1 ORDER BY s.setrole, c.place";

/// Settings whose values are lists of identifiers, quoted where they need it (GUC_LIST_QUOTE): each item is a value of its own.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Takes from everyone what they may do in any new database.
pub fn close(database: pg_sys::Oid) -> Result<()> {
    let Some(name) = home::name_of(database).map(|name| ident(&name)) else { return Ok(()) };
    query::statement(&format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"), &[]).map(drop)
}

/// Gives a database what this one has.
pub fn as_control(database: pg_sys::Oid) -> Result<()> {
    let Some(name) = home::name_of(database).map(|name| ident(&name)) else { return Ok(()) };
    // SAFETY: a plain read.
    let control = unsafe { pg_sys::MyDatabaseId };
    if let Some(owner) = query::current_rows(OWNER, &[control.into()], |row| row.must::<String>(1))?.pop() {
        query::statement(&format!("ALTER DATABASE {name} OWNER TO {owner}"), &[])?;
        query::statement(&format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC, {owner}"), &[])?;
    }
    let entries = query::current_rows(PRIVILEGES, &[control.into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?, row.must::<bool>(3)?))
    })?;
    for (grantee, privilege, is_grantable) in entries {
        let option = if is_grantable { " WITH GRANT OPTION" } else { "" };
        query::statement(&format!("GRANT {privilege} ON DATABASE {name} TO {grantee}{option}"), &[])?;
    }
    let settings =
        query::current_rows(SETTINGS, &[control.into()], |row| Ok((row.get::<String>(1)?, row.must::<String>(2)?)))?;
    for (role, setting) in settings {
        let Some((setting, value)) = setting.split_once('=') else { continue };
        let of = role.map_or(format!("DATABASE {name}"), |role| format!("ROLE {role} IN DATABASE {name}"));
        query::statement(&format!("ALTER {of} SET {} TO {}", setting_name(setting), value_of(setting, value)), &[])?;
    }
    Ok(())
}

/// A setting's name; that of an extension has a dot.
fn setting_name(name: &str) -> String {
    name.split('.').map(ident).collect::<Vec<String>>().join(".")
}

fn value_of(setting: &str, value: &str) -> String {
    if !LISTS.contains(&setting) {
        return literal(value);
    }
    let items: Vec<String> = items(value).iter().map(|item| literal(item)).collect();
    if items.is_empty() { literal("") } else { items.join(", ") }
}

/// The items of a list of identifiers.
fn items(list: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                item.push('"');
            }
            '"' => (quoted, any) = (!quoted, true),
            ',' if !quoted => {
                items.push(std::mem::take(&mut item));
                any = false;
            }
            space if !quoted && space.is_whitespace() => {}
            other => {
                item.push(other);
                any = true;
            }
        }
    }
    if any || !item.is_empty() {
        items.push(item);
    }
    items
}
