//! What a token says.

use super::super::{scope, settings};
use crate::monitor::Reason;
use serde_json::{Map, Value};

/// The payload of a token.
pub type Payload = Map<String, Value>;

/// The claims that the settings name.
pub struct Claims {
    pub user: String,
    pub tenant: String,
    pub role: Option<String>,
    pub scopes: Option<Vec<String>>,
    /// Seconds since 1970, with a fraction.
    pub issued_at: Option<f64>,
}

impl Claims {
    pub fn read(payload: &Payload) -> Result<Self, Reason> {
        let names = settings::claims();
        let text = |name: &str| match find(payload, name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(_) => Err(Reason::Claims),
        };
        Ok(Self {
            user: text(&names.user)?.ok_or(Reason::Claims)?,
            tenant: text(&names.tenant)?.ok_or(Reason::Claims)?,
            role: text(&names.role)?,
            scopes: scopes(find(payload, &names.scope))?,
            issued_at: payload.get("iat").and_then(Value::as_f64),
        })
    }
}

/// The claim of this name, or at this path of names with dots between.
fn find<'a>(payload: &'a Payload, name: &str) -> Option<&'a Value> {
    if let Some(value) = payload.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(payload.get(first)?.as_object()?, rest)
}

/// Scopes as RFC 8693, section 4.2, has them, with blanks between, or as a list.
fn scopes(claim: Option<&Value>) -> Result<Option<Vec<String>>, Reason> {
    let scopes: Vec<String> = match claim {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(list)) => {
            list.iter().map(|scope| scope.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or(Reason::Claims)?
        }
        Some(_) => return Err(Reason::Claims),
    };
    if scopes.iter().all(|scope| scope::is_well_formed(scope)) { Ok(Some(scopes)) } else { Err(Reason::Claims) }
}
