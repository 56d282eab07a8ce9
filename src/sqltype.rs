//! Argument types that pgrx has none for: `regclass`, `regrole`, `name`, and `jsonb` that is not parsed.

use crate::json::Jsonb;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, pg_sys};

macro_rules! sql_type {
    ($type:ident, $sql:literal) => {
        // SAFETY: the SQL name is that of a built-in type whose datum FromDatum reads.
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!($type);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }

        // SAFETY: unboxes through FromDatum, as pgrx does for its own types of this kind.
        unsafe impl<'fcx> ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: the caller promises a datum of this type.
                unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_default()
            }

            unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
                // SAFETY: the caller promises a datum of this type.
                unsafe { arg.unbox_arg_using_from_datum().into() }
            }
        }

        // SAFETY: returns the datum that IntoDatum made.
        unsafe impl BoxRet for $type {
            unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
                match self.into_datum() {
                    // SAFETY: a datum of the declared type.
                    Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
                    None => fcinfo.return_null(),
                }
            }
        }
    };
}

macro_rules! oid_type {
    ($type:ident, $sql:literal, $oid:path) => {
        /// An object by its oid, shown by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $type(pub pg_sys::Oid);

        impl Default for $type {
            fn default() -> Self {
                Self(pg_sys::InvalidOid)
            }
        }

        impl FromDatum for $type {
            unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, typoid: pg_sys::Oid) -> Option<Self> {
                // SAFETY: the datum is an oid.
                unsafe { pg_sys::Oid::from_polymorphic_datum(datum, is_null, typoid) }.map(Self)
            }
        }

        impl IntoDatum for $type {
            fn into_datum(self) -> Option<pg_sys::Datum> {
                self.0.into_datum()
            }

            fn type_oid() -> pg_sys::Oid {
                $oid
            }
        }

        sql_type!($type, $sql);
    };
}

oid_type!(RegClass, "regclass", pg_sys::REGCLASSOID);
oid_type!(RegRole, "regrole", pg_sys::REGROLEOID);

/// An identifier as the catalogs hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(pub String);

impl FromDatum for Name {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: a datum of type name points at a NameData, which ends with a zero.
        let text = unsafe { std::ffi::CStr::from_ptr(datum.cast_mut_ptr()) };
        Some(Self(text.to_string_lossy().into_owned()))
    }
}

impl IntoDatum for Name {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = std::ffi::CString::new(self.0).ok()?;
        // SAFETY: namein copies the C string into a palloc'd NameData.
        unsafe { pgrx::direct_function_call_as_datum(pg_sys::namein, &[text.as_c_str().into_datum()]) }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::NAMEOID
    }
}

sql_type!(Name, "name");
sql_type!(Jsonb, "jsonb");
