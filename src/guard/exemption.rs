//! Exemptions: views and functions of bypassing owners that an administrator lets through by name.
//!
//! Each is kept on the object: as its security label, and for a function also as its own SET clause of `tenancy.definer_exempt`, which only
//! a superuser's right can put there, because the executor does not tell a hook which function it runs in. An object that is
//! replaced loses its exemption: nobody approved the new definition.

use crate::audit::{self, Entry};
use crate::error::{Error, SqlResult};
use crate::json;
use crate::label::{EXEMPT, PROVIDER};
use crate::procedure;
use crate::query;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::prelude::*;

static DEFINER_EXEMPT: GucSetting<bool> = GucSetting::<bool>::new(false);

const MAX_REASON: usize = 1000;

const VIEW: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('v', 'm')";
const FUNCTION: &str =
    "SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.oidvectortypes(p.proargtypes)), 'function'
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = pg_catalog.to_regprocedure($1) AND p.prosecdef AND p.prokind = 'f'";
const IS_LISTED: &str = "SELECT true FROM tenancy.definer_exemptions WHERE object = $1";

pub fn init() {
    GucRegistry::define_bool_guc(
        c"tenancy.definer_exempt",
        c"Lets a SECURITY DEFINER function of a bypassing owner use protected tables.",
        c"Set by allow_definer() as a SET clause of the function; not for sessions.",
        &DEFINER_EXEMPT,
        GucContext::Suset,
        GucFlags::DISALLOW_IN_FILE,
    );
}

/// Whether the running function, or one that called it, is exempt.
pub fn function_is_exempt() -> bool {
    DEFINER_EXEMPT.get()
}

/// An object that can be exempted.
struct Definer {
    name: String,
    kind: String,
}

impl Definer {
    /// Finds the view, materialised view or SECURITY DEFINER function that `text` names, in its canonical spelling.
    fn find(text: &str) -> SqlResult<Self> {
        let sql = if text.contains('(') { FUNCTION } else { VIEW };
        // A name that is malformed is an error of PostgreSQL's parser.
        let found = procedure::attempt(|| {
            query::first(sql, &[text.into()], |row| Ok(Self { name: row.must(1)?, kind: row.must(2)? }))
        });
        Ok(found.ok().flatten().ok_or_else(|| {
            Error::invalid(
                format!("\"{text}\" is neither a view nor a SECURITY DEFINER function"),
                "Write it as schema.view or schema.function(argument types).",
            )
        })?)
    }

    /// Puts the label on the object, and for a function the setting.
    fn mark(&self, reason: Option<&str>) -> SqlResult<()> {
        let (kind, name) = (self.kind.to_uppercase(), &self.name);
        let label = reason.map_or_else(|| "NULL".to_owned(), |reason| query::literal(&format!("{EXEMPT}{reason}")));
        query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON {kind} {name} IS {label}"), &[])?;
        if self.kind == "function" {
            let change =
                if reason.is_some() { "SET tenancy.definer_exempt = on" } else { "RESET tenancy.definer_exempt" };
            query::statement(&format!("ALTER FUNCTION {name} {change}"), &[])?;
        }
        Ok(())
    }
}

/// Exempts a view, materialised view or definer function from the back-door check.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn allow_definer(object: Option<&str>, reason: Option<&str>) -> SqlResult<bool> {
    let definer = Definer::find(object.ok_or(Error::Null("object"))?)?;
    let reason = reason.map(str::trim).filter(|reason| !reason.is_empty()).ok_or_else(|| {
        Error::invalid("an exemption needs a reason", "Say why this object may see the rows of every tenant.")
    })?;
    if reason.chars().count() > MAX_REASON {
        return Err(Error::invalid("the reason is longer than 1000 characters", "").into());
    }
    definer.mark(Some(reason))?;
    audit::record(&Entry {
        action: "definer.allow",
        target: Some(&definer.name),
        after: Some(json::Object::new().text("kind", &definer.kind).text("reason", reason).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Takes an exemption back; false when there was none.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn disallow_definer(object: Option<&str>) -> SqlResult<bool> {
    let definer = Definer::find(object.ok_or(Error::Null("object"))?)?;
    let existed = query::value::<bool>(IS_LISTED, &[definer.name.as_str().into()])?.is_some();
    definer.mark(None)?;
    if existed {
        audit::record(&Entry { action: "definer.disallow", target: Some(&definer.name), ..Entry::default() })?;
    }
    Ok(existed)
}

extension_sql_file!("../../sql/guard.sql", name = "guard", requires = ["bootstrap", allow_definer, disallow_definer]);
