//! The SQL of a migration: what it may consist of, and running it.

use crate::error::{Error, Result};
use crate::raw::elements;
use crate::worker::process;
use pgrx::{FromDatum, pg_sys};
use std::ffi::{CStr, CString};

/// Statements as the parser sees them, in the memory of the running transaction.
pub struct Script {
    text: CString,
    statements: Vec<*mut pg_sys::RawStmt>,
}

impl Script {
    /// Parses `sql`, of which `argument` is the name; raises PostgreSQL's own error where it is malformed.
    pub fn parse(argument: &'static str, sql: &str) -> Result<Self> {
        let text = CString::new(sql).map_err(|_| Error::invalid(format!("{argument} has a zero character"), ""))?;
        // SAFETY: a C string; the parser gives a list of raw statements.
        let statements = unsafe { elements(pg_sys::pg_parse_query(text.as_ptr())).collect::<Vec<_>>() };
        if statements.is_empty() {
            return Err(Error::invalid(format!("{argument} has no statement"), ""));
        }
        Ok(Self { text, statements })
    }

    /// Fails unless it can run inside a transaction that is not its own to end.
    pub fn check_transactional(&self, argument: &'static str) -> Result<()> {
        for statement in self.nodes() {
            match Kind::of(statement) {
                Kind::Ordinary => {}
                Kind::TransactionControl => {
                    return Err(Error::invalid(
                        format!("{argument} has a statement that begins or ends a transaction"),
                        "Each migration of each schema is a transaction of its own.",
                    ));
                }
                Kind::OfClient => {
                    return Err(Error::invalid(
                        format!("{argument} has a COPY from or to the client, and there is none"),
                        "Use INSERT.",
                    ));
                }
                Kind::Outside { .. } => {
                    return Err(Error::invalid(
                        format!("{argument} has a statement that cannot run in a transaction"),
                        "Make it a migration of its own, with transactional => false.",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Fails unless it is one statement that must run outside a transaction. Others have no need to, and could call functions whose rights
    /// nothing would then limit.
    pub fn check_single(&self, argument: &'static str) -> Result<()> {
        if self.statements.len() != 1 {
            return Err(Error::invalid(
                format!("{argument} must be one statement when transactional is false, not {}", self.statements.len()),
                "",
            ));
        }
        match self.nodes().next().map(Kind::of) {
            Some(Kind::Outside { named: true }) => Ok(()),
            Some(Kind::Outside { named: false }) => Err(Error::invalid(
                format!("{argument} must name the index or table that it is about"),
                "An index gets a name, so that a migration that failed half-way can be repeated.",
            )),
            _ => Err(Error::invalid(
                format!("{argument} is not a statement that needs transactional => false"),
                "Those are CREATE and DROP INDEX CONCURRENTLY, REINDEX, VACUUM, CLUSTER and DETACH PARTITION CONCURRENTLY.",
            )),
        }
    }

    /// The name of the index that it creates, if that is what it does.
    pub fn index(&self) -> Option<String> {
        let node = self.nodes().next()?;
        // SAFETY: the tag says what the node is; the name is a C string or null.
        unsafe {
            if (*node).type_ != pg_sys::NodeTag::T_IndexStmt {
                return None;
            }
            let name = (*node.cast::<pg_sys::IndexStmt>()).idxname;
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    fn nodes(&self) -> impl Iterator<Item = *mut pg_sys::Node> {
        // SAFETY: statements of the parser.
        self.statements.iter().map(|statement| unsafe { (**statement).stmt })
    }

    /// The text of each statement.
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let text = self.text.to_bytes();
        self.statements.iter().map(move |statement| {
            // SAFETY: a statement of the parser, which says where it stands; length 0 is the rest.
            let (start, length) = unsafe { ((**statement).stmt_location.max(0), (**statement).stmt_len) };
            let rest = text.get(start as usize..).unwrap_or_default();
            if length > 0 { rest.get(..length as usize).unwrap_or(rest) } else { rest }
        })
    }

    /// Runs the statements one after the other in the running transaction, with the rights of the current role.
    pub fn run(&self) -> Result<()> {
        let _connection = Connection::open();
        self.texts().try_for_each(execute)
    }

    /// Runs them, and says whether the first column of the first row of the last one is true; otherwise what it is.
    pub fn verify(&self) -> Result<()> {
        let _connection = Connection::open();
        self.texts().try_for_each(execute)?;
        // SAFETY: SPI is connected, and says what the last statement returned.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if table.is_null() || pg_sys::SPI_processed == 0 {
                return Err(Error::NotVerified("no row"));
            }
            if pg_sys::SPI_gettypeid((*table).tupdesc, 1) != pg_sys::BOOLOID {
                return Err(Error::NotVerified("something that is not boolean"));
            }
            let mut is_null = false;
            let datum = pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &mut is_null);
            match bool::from_datum(datum, is_null) {
                Some(true) => Ok(()),
                Some(false) => Err(Error::NotVerified("false")),
                None => Err(Error::NotVerified("null")),
            }
        }
    }

    /// Runs the one statement as a client's own, outside any transaction block: it commits and begins transactions as it likes.
    pub fn run_alone(&self) {
        process::run_alone(&self.text);
    }
}

/// A connection to SPI; an error leaves it to the end of the transaction.
struct Connection;

impl Connection {
    fn open() -> Self {
        // SAFETY: closed by drop.
        unsafe { pg_sys::SPI_connect() };
        Self
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: ends the connection that open made.
        unsafe { pg_sys::SPI_finish() };
    }
}

fn execute(statement: &[u8]) -> Result<()> {
    let statement = CString::new(statement).unwrap_or_default();
    // SAFETY: SPI is connected; a C string.
    let result = process::timed(|| unsafe { pg_sys::SPI_execute(statement.as_ptr(), false, 0) });
    match result {
        pg_sys::SPI_ERROR_TRANSACTION => Err(Error::TransactionControl),
        pg_sys::SPI_ERROR_COPY => Err(Error::Unsupported("cannot COPY from or to a client, there is none".to_owned())),
        failed if failed < 0 => Err(Error::Internal(format!("SPI_execute: {failed}"))),
        _ => Ok(()),
    }
}

/// What a statement asks of its surroundings.
enum Kind {
    Ordinary,
    /// BEGIN, COMMIT and the like.
    TransactionControl,
    /// Talks to the client.
    OfClient,
    /// Cannot run in a transaction, or need not; whether it names what it is about.
    Outside {
        named: bool,
    },
}

impl Kind {
    fn of(node: *mut pg_sys::Node) -> Self {
        use pg_sys::NodeTag;
        // SAFETY: the tag says what the node is.
        unsafe {
            match (*node).type_ {
                NodeTag::T_TransactionStmt => Self::TransactionControl,
                NodeTag::T_CopyStmt => {
                    let copy = node.cast::<pg_sys::CopyStmt>();
                    if (*copy).filename.is_null() && !(*copy).is_program { Self::OfClient } else { Self::Ordinary }
                }
                NodeTag::T_IndexStmt => {
                    let index = node.cast::<pg_sys::IndexStmt>();
                    outside_if((*index).concurrent, !(*index).idxname.is_null())
                }
                NodeTag::T_DropStmt => outside_if((*node.cast::<pg_sys::DropStmt>()).concurrent, true),
                NodeTag::T_ReindexStmt => {
                    Self::Outside { named: !(*node.cast::<pg_sys::ReindexStmt>()).relation.is_null() }
                }
                NodeTag::T_VacuumStmt => {
                    let vacuum = node.cast::<pg_sys::VacuumStmt>();
                    outside_if((*vacuum).is_vacuumcmd, !(*vacuum).rels.is_null())
                }
                NodeTag::T_ClusterStmt => {
                    Self::Outside { named: !(*node.cast::<pg_sys::ClusterStmt>()).relation.is_null() }
                }
                NodeTag::T_AlterTableStmt => {
                    let mut commands = elements::<pg_sys::AlterTableCmd>((*node.cast::<pg_sys::AlterTableStmt>()).cmds);
                    outside_if(commands.any(|command| detaches_concurrently(command)), true)
                }
                _ => Self::Ordinary,
            }
        }
    }
}

fn outside_if(condition: bool, named: bool) -> Kind {
    if condition { Kind::Outside { named } } else { Kind::Ordinary }
}

/// # Safety
/// A command of ALTER TABLE.
unsafe fn detaches_concurrently(command: *mut pg_sys::AlterTableCmd) -> bool {
    // SAFETY: the caller's promise; the subtype says what the definition is.
    unsafe {
        (*command).subtype == pg_sys::AlterTableType::AT_DetachPartition
            && (*(*command).def.cast::<pg_sys::PartitionCmd>()).concurrent
    }
}
