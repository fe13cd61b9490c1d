//! Tables, their versions, and the settings of a connection.
//!
//! The row of a task is kept small, because every step of its life rewrites it; its spec and result, which are
//! written once, have tables of their own. `user_version` numbers the schema: a file of a newer program is refused.
//!
//! | index | for | why its cost stays small |
//! |---|---|---|
//! | `tasks_ready` | claims | partial; a claim reads its first rows per demand |
//! | `tasks_due` | end of back-off | partial; read from the earliest |
//! | `upstreams_upstream` | who waits for what has ended | read for the tasks of a commit |
//! | `tasks_held` | inventory, expiry, listing of holders | partial; only what somebody holds |
//! | `tasks_end` | subscribers to ends | append only |

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::filesystem::WalMode;
use crate::coordinator::config::Durability;
use crate::coordinator::store::OpenError;

/// The schema version this program writes.
const VERSION: i64 = 5;

/// One script per version, applied in order; a released script is never changed.
const MIGRATIONS: [&str; 5] = [
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];

/// How long a statement waits for another process's lock (a reader that checkpoints, a backup).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements kept per connection; there are fewer different ones.
const STATEMENT_CACHE: usize = 128;

/// Opens the writing connection and brings the schema up to date.
pub(super) fn open_writer(
    path: &Path,
    durability: Durability,
    wal: WalMode,
) -> Result<Connection, OpenError> {
    create_private(path)?;
    let connect = || -> rusqlite::Result<(Connection, String)> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        configure(&conn)?;
        if wal == WalMode::Exclusive {
            conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        }
        let mode = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        let synchronous = match durability {
            Durability::Process => "NORMAL",
            Durability::Power => "FULL",
        };
        conn.pragma_update(None, "synchronous", synchronous)?;
        // A migration may make a table anew that others refer to.
        conn.pragma_update(None, "foreign_keys", false)?;
        Ok((conn, mode))
    };
    let (mut conn, mode) = connect().map_err(|source| backend(path, source))?;
    if mode != "wal" {
        return Err(OpenError::NoWriteAheadLog {
            path: path.to_owned(),
            mode,
        });
    }
    migrate(&mut conn, path)?;
    conn.pragma_update(None, "foreign_keys", true)
        .map_err(|source| backend(path, source))?;
    Ok(conn)
}

/// Opens a connection that can only read, on a file whose schema is known.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connect = || -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        configure(&conn)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(conn)
    };
    let conn = connect().map_err(|source| backend(path, source))?;
    let found = version(&conn, path)?;
    if found < VERSION {
        return Err(OpenError::OlderSchema {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    refuse_newer(found, path)?;
    Ok(conn)
}

/// What both connections have in common.
fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // A mapped file turns an I/O error into a signal.
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

/// The file is made here, so that it is its owner's alone from the first moment; SQLite's companions inherit that.
fn create_private(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| OpenError::Io {
            operation: "create the store",
            path: path.to_owned(),
            source,
        })
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let found = version(conn, path)?;
    refuse_newer(found, path)?;
    let missing = MIGRATIONS
        .iter()
        .zip(1_i64..)
        .skip_while(|(_, to)| *to <= found);
    for (script, to) in missing {
        let apply = |conn: &mut Connection| -> rusqlite::Result<()> {
            let transaction = conn.transaction()?;
            transaction.execute_batch(script)?;
            transaction.pragma_update(None, "user_version", to)?;
            transaction.commit()
        };
        apply(conn).map_err(|source| backend(path, source))?;
    }
    Ok(())
}

fn refuse_newer(found: i64, path: &Path) -> Result<(), OpenError> {
    if found > VERSION {
        return Err(OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    Ok(())
}

/// The schema version of an open file.
fn version(conn: &Connection, path: &Path) -> Result<i64, OpenError> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| backend(path, source))
}

pub(super) fn backend(path: &Path, source: rusqlite::Error) -> OpenError {
    OpenError::Backend {
        path: path.to_owned(),
        source: Box::new(source),
    }
}
