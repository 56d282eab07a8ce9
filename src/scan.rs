//! Reading rows of the product's own tables by key: an index scan without SPI, so that the caller's search_path, row security and
//! snapshot have no say, what was just committed counts, and it costs microseconds, also on a standby.

use crate::backend::BackendStatic;
use crate::changes;
use crate::error::{Error, Result};
use pgrx::{FromDatum, Uuid, pg_sys};
use std::ffi::CStr;

/// Columns that a table read so may have.
const MAX_COLUMNS: usize = 24;
/// Columns that a key may have.
const MAX_KEYS: usize = 4;

/// PostgreSQL's functions as they are, without pgrx's boundary around each: [`fetch`] runs whole inside one.
mod unguarded {
    use pgrx::pg_sys::*;
    use std::ffi::{c_char, c_int};

    unsafe extern "C-unwind" {
        pub fn get_namespace_oid(name: *const c_char, missing_ok: bool) -> Oid;
        pub fn get_relname_relid(name: *const c_char, namespace: Oid) -> Oid;
        pub fn table_open(relation: Oid, mode: LOCKMODE) -> Relation;
        pub fn ConditionalLockRelationOid(relation: Oid, mode: LOCKMODE) -> bool;
        pub fn table_close(relation: Relation, mode: LOCKMODE);
        pub fn ScanKeyInit(
            entry: ScanKey,
            column: AttrNumber,
            strategy: StrategyNumber,
            procedure: RegProcedure,
            argument: Datum,
        );
        pub fn systable_beginscan(
            relation: Relation,
            index: Oid,
            index_ok: bool,
            snapshot: Snapshot,
            keys: c_int,
            key: ScanKey,
        ) -> SysScanDesc;
        pub fn systable_getnext(scan: SysScanDesc) -> HeapTuple;
        pub fn systable_endscan(scan: SysScanDesc);
        pub fn index_open(index: Oid, mode: LOCKMODE) -> Relation;
        pub fn index_close(index: Relation, mode: LOCKMODE);
        pub fn systable_beginscan_ordered(
            relation: Relation,
            index: Relation,
            snapshot: Snapshot,
            keys: c_int,
            key: ScanKey,
        ) -> SysScanDesc;
        pub fn systable_getnext_ordered(scan: SysScanDesc, direction: ScanDirection::Type) -> HeapTuple;
        pub fn systable_endscan_ordered(scan: SysScanDesc);
        pub fn GetLatestSnapshot() -> Snapshot;
        pub fn RegisterSnapshot(snapshot: Snapshot) -> Snapshot;
        pub fn UnregisterSnapshot(snapshot: Snapshot);
        pub fn TransactionIdIsCurrentTransactionId(transaction: TransactionId) -> bool;
        pub fn heap_copytuple(tuple: HeapTuple) -> HeapTuple;
        pub fn heap_deform_tuple(tuple: HeapTuple, descriptor: TupleDesc, values: *mut Datum, nulls: *mut bool);
    }
}

/// What one column must equal.
#[derive(Clone, Copy)]
pub struct Key {
    column: i16,
    /// The equality operator's function; None where the column is to be NULL.
    equal: Option<u32>,
    value: pg_sys::Datum,
}

impl Key {
    /// The column is this uuid, which outlives the scan.
    pub fn uuid(column: i16, value: &[u8; 16]) -> Self {
        Self { column, equal: Some(pg_sys::F_UUID_EQ), value: pg_sys::Datum::from(value.as_ptr()) }
    }

    /// The column is this text, which may be an argument of the calling function.
    pub fn text(column: i16, value: &str) -> Result<Self> {
        let value = pgrx::IntoDatum::into_datum(value).ok_or_else(missing)?;
        Ok(Self { column, equal: Some(pg_sys::F_TEXTEQ), value })
    }

    /// The column is this oid.
    pub fn oid(column: i16, value: pg_sys::Oid) -> Self {
        Self { column, equal: Some(pg_sys::F_OIDEQ), value: pg_sys::Datum::from(value) }
    }

    /// The column, of type name, is this.
    pub fn name(column: i16, value: &'static CStr) -> Self {
        Self { column, equal: Some(pg_sys::F_NAMEEQ), value: pg_sys::Datum::from(value.as_ptr()) }
    }

    /// The column is NULL.
    pub fn null(column: i16) -> Self {
        Self { column, equal: None, value: pg_sys::Datum::null() }
    }

    /// The column is this moment, in PostgreSQL's microseconds.
    pub fn timestamp(column: i16, value: pg_sys::TimestampTz) -> Self {
        Self { column, equal: Some(pg_sys::F_TIMESTAMPTZ_EQ), value: pg_sys::Datum::from(value) }
    }

    /// # Safety
    /// Runs inside a boundary.
    unsafe fn write(&self, scan_key: &mut pg_sys::ScanKeyData) {
        match self.equal {
            // SAFETY: fills in the structure, looking up a built-in function.
            Some(equal) => unsafe {
                unguarded::ScanKeyInit(
                    scan_key,
                    self.column,
                    pg_sys::BTEqualStrategyNumber as _,
                    equal.into(),
                    self.value,
                );
            },
            None => {
                scan_key.sk_flags = (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL) as _;
                scan_key.sk_attno = self.column;
            }
        }
    }

    /// The column is this hash, which outlives the scan.
    pub fn hash(column: i16, value: &Hash) -> Self {
        Self { column, equal: Some(pg_sys::F_BYTEAEQ), value: pg_sys::Datum::from(std::ptr::from_ref(value)) }
    }
}

/// 32 bytes as PostgreSQL's bytea: length word, then the bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Hash {
    length_word: u32,
    bytes: [u8; 32],
}

impl Hash {
    pub fn new(bytes: [u8; 32]) -> Self {
        let mut hash = Self { length_word: 0, bytes };
        // SAFETY: writes the header that the structure begins with.
        unsafe { pgrx::varlena::set_varsize_4b((&raw mut hash).cast(), 4 + 32) };
        hash
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

/// A row that was found. What it refers to lives as long as the memory context that was current.
#[derive(Clone, Copy)]
pub struct Row {
    values: [pg_sys::Datum; MAX_COLUMNS],
    nulls: [bool; MAX_COLUMNS],
}

impl Row {
    const EMPTY: Self = Self { values: [pg_sys::Datum::null(); MAX_COLUMNS], nulls: [true; MAX_COLUMNS] };

    /// The column of this number, from 1; None for NULL.
    pub fn get<T: FromDatum>(&self, column: i16) -> Option<T> {
        let place = usize::try_from(column).ok()?.checked_sub(1)?;
        // SAFETY: the datum of a column whose type the caller knows, from a copy of the tuple.
        unsafe { T::from_datum(*self.values.get(place)?, *self.nulls.get(place)?) }
    }

    /// A column that is NOT NULL.
    pub fn must<T: FromDatum>(&self, column: i16) -> Result<T> {
        self.get(column).ok_or_else(missing)
    }

    /// The column's datum as it is, out of line or compressed no more; None for NULL.
    pub fn datum(&self, column: i16) -> Option<pg_sys::Datum> {
        let place = usize::try_from(column).ok()?.checked_sub(1)?;
        let datum = *self.values.get(place)?;
        // SAFETY: a datum of a column of variable length.
        (!*self.nulls.get(place)?).then(|| unsafe { pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()) }.into())
    }

    /// A column of type name; None for NULL.
    pub fn name(&self, column: i16) -> Option<String> {
        let place = usize::try_from(column).ok()?.checked_sub(1)?;
        let (datum, is_null) = (*self.values.get(place)?, *self.nulls.get(place)?);
        // SAFETY: a datum of type name points at 64 bytes that end with a zero.
        (!is_null).then(|| unsafe { CStr::from_ptr(datum.cast_mut_ptr()) }.to_string_lossy().into_owned())
    }

    pub fn uuid(&self, column: i16) -> Option<[u8; 16]> {
        self.get::<Uuid>(column).map(|uuid| *uuid.as_bytes())
    }
}

fn missing() -> Error {
    Error::Internal("schema tenancy is not complete".to_owned())
}

/// A table in schema `tenancy` with the index that rows are found by, or none to read it whole.
pub struct Table {
    name: &'static CStr,
    index: Option<&'static CStr>,
    /// What both are in the catalogs, and in which generation that was looked up.
    found: BackendStatic<(u64, pg_sys::Oid, pg_sys::Oid)>,
}

impl Table {
    pub const fn by(name: &'static CStr, index: &'static CStr) -> Self {
        Self { name, index: Some(index), found: BackendStatic::new((0, pg_sys::InvalidOid, pg_sys::InvalidOid)) }
    }

    pub const fn whole(name: &'static CStr) -> Self {
        Self { name, index: None, found: BackendStatic::new((0, pg_sys::InvalidOid, pg_sys::InvalidOid)) }
    }

    /// The row with these keys, as of the latest commit and the caller's own changes.
    pub fn first(&self, keys: &[Key]) -> Result<Option<Row>> {
        Ok(self.first_and_announced(keys)?.0)
    }

    /// The row with these keys, and whether every change of it is announced, so that what was read may be kept.
    pub fn first_and_announced(&self, keys: &[Key]) -> Result<(Option<Row>, bool)> {
        let mut rows = [Row::EMPTY];
        let read = self.read(keys, &mut rows, |_| true)?;
        Ok(((read.rows == 1).then_some(rows[0]), read.announced))
    }

    /// Every row with these keys that is `wanted`, up to `LIMIT`.
    pub fn all<const LIMIT: usize>(&self, keys: &[Key], wanted: fn(&Row) -> bool) -> Result<Vec<Row>> {
        let mut rows = vec![Row::EMPTY; LIMIT];
        let read = self.read(keys, &mut rows, wanted)?;
        rows.truncate(read.rows);
        Ok(rows)
    }

    /// Every row with these keys, up to `LIMIT`, and whether every change of them is announced.
    pub fn all_and_announced<const LIMIT: usize>(&self, keys: &[Key]) -> Result<(Vec<Row>, bool)> {
        let mut rows = vec![Row::EMPTY; LIMIT];
        let read = self.read(keys, &mut rows, |_| true)?;
        rows.truncate(read.rows);
        Ok((rows, read.announced))
    }

    fn read(&self, keys: &[Key], rows: &mut [Row], wanted: fn(&Row) -> bool) -> Result<Read> {
        if keys.len() > MAX_KEYS {
            return Err(missing());
        }
        let generation = changes::generation();
        // SAFETY: fetch holds nothing with a destructor, so an ERROR may leave it anywhere; the names are C strings.
        let found = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let (table, index) = self.look_up(generation)?;
                fetch(table, index, keys, rows, wanted)
            })
        };
        found.ok_or_else(missing)
    }

    /// Takes the lock of a writer until the transaction ends, unless someone would have to be waited for.
    pub fn lock_for_writing_if_free(&self) -> Result<bool> {
        let generation = changes::generation();
        // SAFETY: look_up and the lock function hold nothing with a destructor.
        let locked = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let (table, _) = self.look_up(generation)?;
                Some(unguarded::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as _))
            })
        };
        locked.ok_or_else(missing)
    }

    /// What is wanted of the row that comes last in the index among those with these keys, as of the latest commit and the caller's own
    /// changes: of many versions of one row, the newest comes first and the others are not looked at.
    pub fn last(&self, keys: &[Key]) -> Result<Option<(Row, pg_sys::ItemPointerData)>> {
        if keys.len() > MAX_KEYS {
            return Err(missing());
        }
        let generation = changes::generation();
        let mut row = Row::EMPTY;
        // SAFETY: fetch_last holds nothing with a destructor, so an ERROR may leave it anywhere; the names are C strings.
        let found = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let (table, index) = self.look_up(generation)?;
                fetch_last(table, index, keys, &mut row)
            })
        };
        Ok(found.ok_or_else(missing)?.map(|place| (row, place)))
    }

    /// The oids of table and index, looked up once in each generation.
    ///
    /// # Safety
    /// Runs inside a boundary.
    pub(crate) unsafe fn look_up(&self, generation: u64) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
        let (known, table, index) = self.found.get();
        if known == generation {
            return Some((table, index));
        }
        // SAFETY: syscache look-ups by C strings.
        unsafe {
            let namespace = unguarded::get_namespace_oid(c"tenancy".as_ptr(), true);
            let oid = |name: &CStr| unguarded::get_relname_relid(name.as_ptr(), namespace);
            let table = oid(self.name);
            let index = self.index.map_or(table, oid);
            if table == pg_sys::InvalidOid || index == pg_sys::InvalidOid {
                return None;
            }
            if changes::watch(table) {
                self.found.set((generation, table, index));
            }
            Some((table, index))
        }
    }
}

/// A row of one of PostgreSQL's catalogs with these keys, by an index of it or, without one, reading it whole.
pub fn catalog_row(catalog: pg_sys::Oid, index: Option<pg_sys::Oid>, keys: &[Key]) -> Option<Row> {
    let mut rows = [Row::EMPTY];
    // SAFETY: fetch holds nothing with a destructor; the callers' keys fit the catalog's columns.
    let read = unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| fetch(catalog, index.unwrap_or(catalog), keys, &mut rows, |_| true))
    };
    (read?.rows == 1).then_some(rows[0])
}

/// What a scan has read.
struct Read {
    rows: usize,
    /// Whether every change of the table is announced, and the rows are not of our own transaction: nothing announces that an INSERT is
    /// undone.
    announced: bool,
}

/// The number of rows read; None where the table has more columns than expected.
///
/// # Safety
/// Runs inside a boundary; there are at most MAX_KEYS keys, each for a column of its type; `wanted` holds nothing with a destructor.
unsafe fn fetch(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    keys: &[Key],
    rows: &mut [Row],
    wanted: fn(&Row) -> bool,
) -> Option<Read> {
    use unguarded::*;
    // SAFETY: the table is opened with a lock and closed; the scan ends before it; a null snapshot means the latest one; tuples are copied
    // before the scan goes on, and deformed into arrays that are long enough. On an ERROR PostgreSQL releases all of it.
    unsafe {
        let by_index = index != table;
        let relation = table_open(table, pg_sys::AccessShareLock as _);
        let descriptor = (*relation).rd_att;
        if (*descriptor).natts as usize > MAX_COLUMNS {
            table_close(relation, pg_sys::AccessShareLock as _);
            return None;
        }
        let mut scan_keys = [pg_sys::ScanKeyData::default(); MAX_KEYS];
        for (scan_key, key) in scan_keys.iter_mut().zip(keys) {
            key.write(scan_key);
        }
        let keys = keys.len() as i32;
        let scan = systable_beginscan(relation, index, by_index, std::ptr::null_mut(), keys, scan_keys.as_mut_ptr());
        let (mut found, mut is_ours) = (0, false);
        while let Some(row) = rows.get_mut(found) {
            let tuple = systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let copy = heap_copytuple(tuple);
            is_ours |= TransactionIdIsCurrentTransactionId((*(*copy).t_data).t_choice.t_heap.t_xmin);
            heap_deform_tuple(copy, descriptor, row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
            if wanted(row) {
                found += 1;
            }
        }
        systable_endscan(scan);
        let announced = !is_ours && changes::announces((*relation).trigdesc);
        table_close(relation, pg_sys::AccessShareLock as _);
        Some(Read { rows: found, announced })
    }
}

/// The last row with these keys and where it is; None where the table has more columns than expected.
///
/// # Safety
/// Runs inside a boundary; the index is of the table and begins with the keys' columns.
unsafe fn fetch_last(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    keys: &[Key],
    row: &mut Row,
) -> Option<Option<pg_sys::ItemPointerData>> {
    use unguarded::*;
    // SAFETY: as for fetch; the index's lock and the snapshot are given back, by PostgreSQL after an ERROR.
    unsafe {
        let relation = table_open(table, pg_sys::AccessShareLock as _);
        let descriptor = (*relation).rd_att;
        if (*descriptor).natts as usize > MAX_COLUMNS {
            table_close(relation, pg_sys::AccessShareLock as _);
            return None;
        }
        let index = index_open(index, pg_sys::AccessShareLock as _);
        let mut scan_keys = [pg_sys::ScanKeyData::default(); MAX_KEYS];
        for (scan_key, key) in scan_keys.iter_mut().zip(keys) {
            key.write(scan_key);
        }
        let snapshot = RegisterSnapshot(GetLatestSnapshot());
        let scan = systable_beginscan_ordered(relation, index, snapshot, keys.len() as i32, scan_keys.as_mut_ptr());
        let tuple = systable_getnext_ordered(scan, pg_sys::ScanDirection::BackwardScanDirection);
        let place = (!tuple.is_null()).then(|| {
            let copy = heap_copytuple(tuple);
            heap_deform_tuple(copy, descriptor, row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
            (*copy).t_self
        });
        systable_endscan_ordered(scan);
        UnregisterSnapshot(snapshot);
        index_close(index, pg_sys::AccessShareLock as _);
        table_close(relation, pg_sys::AccessShareLock as _);
        Some(place)
    }
}
