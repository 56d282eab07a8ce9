//! The answer of a function that has one row, or as a set one or none: what is asked on every request, so without the machinery of an
//! iterator.

use crate::error::{Error, Result};
use pgrx::pg_sys;

/// PostgreSQL's functions as they are: [`fill`] runs whole inside one boundary.
mod unguarded {
    use pgrx::pg_sys::*;
    use std::ffi::c_int;

    unsafe extern "C-unwind" {
        pub fn get_call_result_type(
            call: FunctionCallInfo,
            oid: *mut Oid,
            result: *mut TupleDesc,
        ) -> TypeFuncClass::Type;
        pub fn tuplestore_begin_heap(
            random_access: bool,
            across_transactions: bool,
            kilobytes: c_int,
        ) -> *mut Tuplestorestate;
        pub fn tuplestore_putvalues(
            store: *mut Tuplestorestate,
            descriptor: TupleDesc,
            values: *const Datum,
            nulls: *const bool,
        );
        pub fn heap_form_tuple(descriptor: TupleDesc, values: *const Datum, nulls: *const bool) -> HeapTuple;
        pub fn HeapTupleHeaderGetDatum(tuple: HeapTupleHeader) -> Datum;
    }
}

/// `row` as a datum, for a function that returns a composite type and no set. The calling expression keeps what the type is.
///
/// # Safety
/// `fcinfo` is the record of the running call; the function returns a composite type of `COLUMNS` columns, the datums are of their types, and
/// nothing else uses the expression's `fn_extra`.
pub unsafe fn composite<const COLUMNS: usize>(
    fcinfo: pg_sys::FunctionCallInfo,
    row: [Option<pg_sys::Datum>; COLUMNS],
) -> Result<pg_sys::Datum> {
    let values = row.map(|value| value.unwrap_or(pg_sys::Datum::null()));
    let nulls = row.map(|value| value.is_none());
    // SAFETY: form holds nothing with a destructor.
    let formed = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| form(fcinfo, &values, &nulls)) };
    formed.ok_or_else(|| Error::Internal("a function's result has not its columns".to_owned()))
}

/// # Safety
/// As for [`composite`], inside a boundary.
unsafe fn form<const COLUMNS: usize>(
    fcinfo: pg_sys::FunctionCallInfo,
    values: &[pg_sys::Datum; COLUMNS],
    nulls: &[bool; COLUMNS],
) -> Option<pg_sys::Datum> {
    use unguarded::*;
    // SAFETY: fn_extra is null or what was put there, which lives as long as the expression.
    unsafe {
        let info = (*fcinfo).flinfo;
        let mut descriptor: pg_sys::TupleDesc = (*info).fn_extra.cast();
        if descriptor.is_null() {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*info).fn_mcxt;
            get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            pg_sys::CurrentMemoryContext = before;
            if descriptor.is_null() || (*descriptor).natts as usize != COLUMNS {
                return None;
            }
            (*info).fn_extra = descriptor.cast();
        }
        let tuple = heap_form_tuple(descriptor, values.as_ptr(), nulls.as_ptr());
        Some(HeapTupleHeaderGetDatum((*tuple).t_data))
    }
}

/// Answers the call with `row`, or with no row.
///
/// # Safety
/// `fcinfo` is the record of the running call; the function returns a set of a composite type of `COLUMNS` columns, and the datums are of
/// their types.
pub unsafe fn answer<const COLUMNS: usize>(
    fcinfo: pg_sys::FunctionCallInfo,
    row: Option<[Option<pg_sys::Datum>; COLUMNS]>,
) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; a set-returning function is called with a ReturnSetInfo.
    unsafe {
        let result = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let can_materialize = !result.is_null()
            && (*result).type_ == pg_sys::NodeTag::T_ReturnSetInfo
            && (*result).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize != 0;
        if !can_materialize {
            return Err(Error::Unsupported(
                "set-valued function called in a context that cannot accept a set".to_owned(),
            ));
        }
        let columns =
            row.map(|row| (row.map(|value| value.unwrap_or(pg_sys::Datum::null())), row.map(|value| value.is_none())));
        if !pg_sys::ffi::pg_guard_ffi_boundary(|| fill(fcinfo, result, columns)) {
            return Err(Error::Internal("a function's result has not its columns".to_owned()));
        }
        (*fcinfo).isnull = true;
    }
    Ok(pg_sys::Datum::null())
}

/// # Safety
/// As for [`answer`], inside a boundary.
unsafe fn fill<const COLUMNS: usize>(
    fcinfo: pg_sys::FunctionCallInfo,
    result: *mut pg_sys::ReturnSetInfo,
    columns: Option<([pg_sys::Datum; COLUMNS], [bool; COLUMNS])>,
) -> bool {
    use unguarded::*;
    // SAFETY: the result is built where the query lives; handed over without a descriptor it has the declared one.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*(*result).econtext).ecxt_per_query_memory;
        let mut descriptor = (*result).expectedDesc;
        if descriptor.is_null() {
            get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
        }
        if descriptor.is_null() || (*descriptor).natts as usize != COLUMNS {
            pg_sys::CurrentMemoryContext = before;
            return false;
        }
        let random = (*result).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
        let store = tuplestore_begin_heap(random, false, pg_sys::work_mem);
        if let Some((values, nulls)) = &columns {
            tuplestore_putvalues(store, descriptor, values.as_ptr(), nulls.as_ptr());
        }
        (*result).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
        (*result).setResult = store;
        pg_sys::CurrentMemoryContext = before;
    }
    true
}
