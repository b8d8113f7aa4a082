//! The tables, and how a database comes to have them.
//!
//! Migrations only go forward, and an older program must be able to go on after an upgrade was taken back. So
//! each states from which format on programs can work with its result; that number travels in the database,
//! because the older program cannot know it. One that programs of the format that is there can work with (it
//! only adds a table, an index, a column with a default) is made when the journal is opened. Any other waits
//! until somebody says that there is no way back: see [`crate::Journal::advance`].

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::database::cause;
use crate::error::OpenError;

/// "brth", in the header of the database file.
pub(crate) const APPLICATION_ID: i32 = 0x6272_7468;

struct Migration {
    sql: &'static str,
    /// The oldest format whose programs can read and write the result.
    readable_from: u32,
}

/// Format n is the result of the first n migrations. Never edit one that was released; append another.
const MIGRATIONS: &[Migration] = &[
    Migration { sql: FORMAT_1, readable_from: 1 },
    // The tables are the same; its events may be such as programs of format 1 do not know.
    Migration { sql: "", readable_from: 2 },
];

/// Streams are named in each row instead of in a table of their own: it costs some 60 bytes an event and
/// saves a look-up for each event of a replay. The version of a stream is the last entry in
/// `event_by_stream`; a table of versions would be a second truth.
const FORMAT_1: &str = "
    CREATE TABLE format (only INTEGER PRIMARY KEY CHECK (only = 1), readable_from INTEGER NOT NULL) STRICT;
    CREATE TABLE event (
        position    INTEGER PRIMARY KEY,
        stream      TEXT NOT NULL,
        version     INTEGER NOT NULL,
        kind        TEXT NOT NULL,
        schema      INTEGER NOT NULL,
        at          INTEGER NOT NULL,
        actor       TEXT NOT NULL,
        correlation TEXT NOT NULL,
        reason      TEXT,
        body        BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX event_by_stream ON event (stream, version);
    CREATE TABLE idempotency (
        scope        TEXT NOT NULL,
        key          TEXT NOT NULL,
        request_hash BLOB NOT NULL,
        result       BLOB NOT NULL,
        position     INTEGER NOT NULL,
        at           INTEGER NOT NULL,
        PRIMARY KEY (scope, key)
    ) STRICT;
    CREATE INDEX idempotency_by_age ON idempotency (at);
";

/// The newest format that this program knows.
pub(crate) fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("the migrations are counted by hand")
}

/// Brings the database of `connection` to the newest format that programs of its own format can work with, a
/// new one to the newest of all, or finds that it is newer than this program. Gives the format that it is
/// written in from here on.
///
/// # Errors
/// When it belongs to something else, when only newer programs can read it, or when the database fails.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<u32, OpenError> {
    let broken = |error| OpenError::Database { source: cause(error) };
    let known = newest();
    let application_id: i32 = pragma(connection, "application_id").map_err(broken)?;
    let found: u32 = pragma(connection, "user_version").map_err(broken)?;
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(broken)?;
    let fresh = application_id == 0 && found == 0 && tables == 0;
    if !fresh && application_id != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), application_id });
    }
    if found > known {
        let readable_from: u32 =
            connection.query_row("SELECT readable_from FROM format", [], |row| row.get(0)).map_err(broken)?;
        return if readable_from <= known {
            Ok(known)
        } else {
            Err(OpenError::Newer { found, readable_from, known })
        };
    }
    let newer = (1_u32..).zip(MIGRATIONS).skip_while(|(format, _)| *format <= found);
    let mut format = found;
    for (next, migration) in newer.take_while(|(_, it)| fresh || it.readable_from <= found) {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(broken)?;
        apply(&transaction, next, migration).map_err(broken)?;
        transaction.commit().map_err(broken)?;
        format = next;
    }
    Ok(format)
}

/// Makes the migrations from after format `from` to `to`, within the transaction that is open.
pub(crate) fn advance(connection: &Connection, from: u32, to: u32) -> rusqlite::Result<()> {
    let newer = (1_u32..).zip(MIGRATIONS).filter(|(format, _)| *format > from && *format <= to);
    newer.into_iter().try_for_each(|(format, migration)| apply(connection, format, migration))
}

fn apply(transaction: &Connection, format: u32, migration: &Migration) -> rusqlite::Result<()> {
    transaction.execute_batch(migration.sql)?;
    transaction.execute("INSERT OR REPLACE INTO format VALUES (1, ?1)", [migration.readable_from])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", format)
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
