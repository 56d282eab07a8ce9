//! A plan as JSON: what one database has planned, another carries out. Roles are those of the server, which all its databases share.

use super::plan::{Plan, Position, Rows, Step};
use crate::error::{Error, Result};
use crate::fields::{list, number, oid, text, texts};
use pgrx::pg_sys::Oid;
use serde_json::{Value, json};

impl Plan {
    pub fn to_json(&self) -> Value {
        let steps = |steps: &[Step]| steps.iter().map(Step::to_json).collect::<Vec<Value>>();
        json!({
            "source": self.source,
            "owner": self.owner.to_u32(),
            "define": steps(&self.define),
            "rows": self.rows.iter().map(Rows::to_json).collect::<Vec<Value>>(),
            "positions": self.positions.iter().map(Position::to_json).collect::<Vec<Value>>(),
            "complete": steps(&self.complete),
            "attached": self.attached,
            "finish": steps(&self.finish),
            "close": steps(&self.close),
            "leave": steps(&self.leave),
            "locks": self.locks,
        })
    }

    pub fn from_json(plan: &Value) -> Result<Self> {
        let size = |name: &str| {
            let missing = |_| Error::Internal(format!("a plan has no {name}"));
            usize::try_from(number(plan, name)?).map_err(missing)
        };
        let steps = |name: &str| list(plan, name)?.iter().map(Step::from_json).collect::<Result<Vec<Step>>>();
        Ok(Self {
            source: text(plan, "source")?.to_owned(),
            owner: oid(plan, "owner")?,
            define: steps("define")?,
            rows: list(plan, "rows")?.iter().map(Rows::from_json).collect::<Result<_>>()?,
            positions: list(plan, "positions")?.iter().map(Position::from_json).collect::<Result<_>>()?,
            complete: steps("complete")?,
            attached: size("attached")?,
            finish: steps("finish")?,
            close: steps("close")?,
            leave: steps("leave")?,
            locks: size("locks")?,
        })
    }
}

impl Step {
    fn to_json(&self) -> Value {
        json!({ "role": self.role.to_u32(), "sql": self.sql, "object": self.object })
    }

    fn from_json(step: &Value) -> Result<Self> {
        Ok(Self::new(oid(step, "role")?, text(step, "sql")?, text(step, "object")?))
    }
}

impl Rows {
    fn to_json(&self) -> Value {
        json!({ "name": self.name, "part_of": self.part_of, "owner": self.owner.to_u32() })
    }

    /// Without its oid and its columns, which are the other database's.
    fn from_json(rows: &Value) -> Result<Self> {
        let (name, part_of, owner) = (text(rows, "name")?.to_owned(), texts(rows, "part_of")?, oid(rows, "owner")?);
        Ok(Self { oid: Oid::INVALID, name, part_of, owner, columns: Vec::new(), names: Vec::new() })
    }
}

impl Position {
    fn to_json(&self) -> Value {
        json!({ "name": self.name, "owner": self.owner.to_u32() })
    }

    fn from_json(position: &Value) -> Result<Self> {
        Ok(Self { name: text(position, "name")?.to_owned(), owner: oid(position, "owner")?, table: None })
    }
}
