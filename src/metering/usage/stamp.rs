//! The trigger of the inbox, for rows that come by SQL: from a dump, or by replication. The transaction that such a row names is one of another
//! cluster, and the rollup may have gone past its number before the row came: so it is given its own, and marked as what it is: workers that
//! see no other rows leave them alone, because the rest of the dump may not be there yet. [`super::inbox`] fires no triggers.

use crate::error::{Error, Result};
use crate::raw::fallible_function;
use pgrx::pg_sys;

/// The columns `txid` and `by_sql` of `tenancy.usage_inbox`; sql/metering/usage.sql keeps them.
const COLUMNS: [i32; 2] = [2, 10];

fallible_function! {
    /// Names the running transaction in a row of the inbox.
    pg_tenancy_stamp_usage, pg_finfo_pg_tenancy_stamp_usage, stamp
}

/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn stamp(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: a trigger is called with a TriggerData; one before an INSERT gives the row that is to be inserted.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(Error::Unsupported("tenancy.stamp_usage() is a trigger".to_owned()));
        }
        let trigger = context.cast::<pg_sys::TriggerData>();
        let mut columns = COLUMNS;
        let mut values = [pg_sys::Datum::from(pg_sys::GetTopFullTransactionId().value), pg_sys::Datum::from(true)];
        let mut nulls = [false; 2];
        let descriptor = (*(*trigger).tg_relation).rd_att;
        let row = (*trigger).tg_trigtuple;
        let (columns, values, nulls) = (columns.as_mut_ptr(), values.as_mut_ptr(), nulls.as_mut_ptr());
        let stamped = pg_sys::heap_modify_tuple_by_cols(row, descriptor, COLUMNS.len() as i32, columns, values, nulls);
        Ok(pg_sys::Datum::from(stamped))
    }
}
