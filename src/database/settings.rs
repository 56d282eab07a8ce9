//! The setting of this domain.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;

static TEMPLATE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"template0"));

pub fn init() {
    GucRegistry::define_string_guc(
        c"tenancy.template_database",
        c"The database that databases of tenants are made from.",
        c"It may have extensions and settings of its own; another than template0 must have the encoding and locale of the control database.",
        &TEMPLATE,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// The database that tenants' are made from.
pub fn template_database() -> String {
    let template = TEMPLATE.get().map(|name| name.to_string_lossy().into_owned());
    template.filter(|name| !name.is_empty()).unwrap_or_else(|| "template0".to_owned())
}
