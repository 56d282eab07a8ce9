//! Plans and limits of five kinds of application, to begin with.

use super::{plan, rate_limit};
use crate::error::{Error, SqlResult};
use crate::json::Object;
use crate::level::Level;
use crate::query;
use pgrx::AnyNumeric;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[(Level::Operator, "load_plans")];

const EXISTS: &str = "SELECT true FROM tenancy.plans WHERE plan = $1";

/// How much of a resource the plans of a preset allow, in their order; None for no limit.
struct Limits {
    resource: &'static str,
    per: Per,
    values: &'static [Option<i32>],
}

/// What a figure is counted over.
enum Per {
    /// What is there, or what is used in an hour, day or month.
    Period(&'static str),
    /// How often in it.
    Rate(&'static str),
}

struct Preset {
    name: &'static str,
    /// Each with the isolation of its tenants.
    plans: &'static [(&'static str, &'static str)],
    limits: &'static [Limits],
}

const fn total(resource: &'static str, values: &'static [Option<i32>]) -> Limits {
    Limits { resource, per: Per::Period("total"), values }
}

const fn monthly(resource: &'static str, values: &'static [Option<i32>]) -> Limits {
    Limits { resource, per: Per::Period("month"), values }
}

const fn hourly_rate(resource: &'static str, values: &'static [Option<i32>]) -> Limits {
    Limits { resource, per: Per::Rate("hour"), values }
}

const ROWS: &[(&str, &str)] = &[("free", "row"), ("starter", "row"), ("pro", "row"), ("enterprise", "row")];

const PRESETS: &[Preset] = &[
    Preset {
        name: "agent_platform",
        plans: ROWS,
        limits: &[
            total("agents", &[Some(10), Some(50), Some(100), None]),
            monthly("tasks", &[Some(1_000), Some(10_000), Some(100_000), None]),
            total("concurrent_workflows", &[Some(2), Some(10), Some(50), None]),
        ],
    },
    Preset {
        name: "workspaces",
        plans: ROWS,
        limits: &[
            monthly("agent_minutes", &[Some(1_000), Some(10_000), Some(100_000), None]),
            hourly_rate("api_calls", &[Some(100), Some(1_000), Some(10_000), None]),
            total("concurrent_tasks", &[Some(1), Some(5), Some(20), None]),
            total("members", &[Some(1), Some(3), Some(10), None]),
        ],
    },
    Preset { name: "crm", plans: &[("standard", "schema")], limits: &[total("users", &[None])] },
    Preset {
        name: "capital_planning",
        plans: &[("starter", "schema"), ("professional", "schema"), ("enterprise", "schema")],
        limits: &[
            total("users", &[Some(5), Some(20), None]),
            total("skus", &[Some(100), Some(500), None]),
            total("storage_gb", &[Some(1), Some(10), Some(100)]),
        ],
    },
    Preset {
        name: "hybrid",
        plans: &[("free", "row"), ("starter", "row"), ("pro", "row"), ("enterprise", "database")],
        limits: &[
            total("agents", &[Some(5), Some(50), Some(100), None]),
            monthly("agent_minutes", &[Some(1_000), Some(10_000), Some(100_000), None]),
        ],
    },
];

/// Creates the plans of a preset that are not there, and sets what each is limited to; how many plans it has.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn load_plans(preset: Option<&str>) -> SqlResult<i32> {
    let name = preset.ok_or(Error::Null("preset"))?;
    let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
        return Err(Error::invalid(
            format!("\"{}\" is not a preset", name.chars().take(63).collect::<String>()),
            "Presets are agent_platform, workspaces, crm, capital_planning and hybrid.",
        )
        .into());
    };
    for (index, (plan, isolation)) in preset.plans.iter().enumerate() {
        if query::value::<bool>(EXISTS, &[(*plan).into()])?.is_none() {
            plan::create_plan(Some(plan), Some(isolation), Some(Object::new().finish()), Some(Vec::new()))?;
        }
        for limits in preset.limits {
            let value = limits.values.get(index).copied().flatten();
            match limits.per {
                Per::Period(period) => {
                    plan::set_plan_limit(Some(plan), Some(limits.resource), value.map(AnyNumeric::from), Some(period))?
                }
                Per::Rate(period) => {
                    rate_limit::set_plan_rate_limit(Some(plan), Some(limits.resource), value, Some(period), None)?
                }
            };
        }
    }
    Ok(i32::try_from(preset.plans.len()).unwrap_or(i32::MAX))
}

extension_sql_file!(
    "../../sql/metering/presets.sql",
    name = "metering_presets",
    requires = ["metering_plan", "metering_usage", "metering_rate_limit", load_plans]
);
