//! Reading: forwards, backwards, one stream, or everything as fast as it goes.
//!
//! No read transaction lasts long. Events are never changed, so a read can stop and go on in another
//! transaction without seeing another truth, and the write-ahead log, which cannot start over below an open
//! read transaction, stays short.

use std::error::Error;
use std::ops::ControlFlow;

use berth_spec::Timestamp;
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::database::{Readers, unreadable};
use crate::error::{ReadError, ReplayError};
use crate::record::{EventRef, Idempotent, Position, Recorded, StreamName, Version};

/// A list of events stops growing at this many bytes of bodies, so that one call cannot take all memory.
const LIST_BYTES: usize = 4 << 20;

/// Events read in one transaction of a replay: a few milliseconds of work.
const REPLAYED_AT_ONCE: u64 = 4_096;

/// A macro because `concat!` takes no constant.
macro_rules! select {
    () => {
        "SELECT position, stream, version, kind, schema, at, actor, correlation, reason, body FROM event "
    };
}

impl Readers {
    /// At most `limit` events from `from` to `to`.
    pub(crate) fn list(
        &self,
        from: Position,
        to: Position,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let sql = concat!(select!(), "WHERE position BETWEEN ?1 AND ?2 ORDER BY position LIMIT ?3");
        self.collect(sql, params![to_sql(from.0), to_sql(to.0), limit_to_sql(limit)], limit)
    }

    pub(crate) fn list_stream(
        &self,
        stream: &StreamName,
        from: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let sql = concat!(select!(), "WHERE stream = ?1 AND version >= ?2 ORDER BY version LIMIT ?3");
        self.collect(sql, params![stream.as_str(), to_sql(from.0), limit_to_sql(limit)], limit)
    }

    pub(crate) fn list_back(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let sql = concat!(select!(), "WHERE position < ?1 ORDER BY position DESC LIMIT ?2");
        let before = before.map_or(i64::MAX, |before| to_sql(before.0));
        self.collect(sql, params![before, limit_to_sql(limit)], limit)
    }

    pub(crate) fn list_stream_back(
        &self,
        stream: &StreamName,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        // Within a stream versions and positions rise together. The index is walked from the newest entry;
        // entries not below `before` are skipped without touching their rows, because each ends in its
        // position.
        let sql = concat!(select!(), "WHERE stream = ?1 AND position < ?2 ORDER BY version DESC LIMIT ?3");
        let before = before.map_or(i64::MAX, |before| to_sql(before.0));
        self.collect(sql, params![stream.as_str(), before, limit_to_sql(limit)], limit)
    }

    pub(crate) fn replay<E: Error + 'static>(
        &self,
        from: Position,
        to: Position,
        mut visit: impl FnMut(EventRef<'_>) -> Result<(), E>,
    ) -> Result<u64, ReplayError<E>> {
        let sql = concat!(select!(), "WHERE position BETWEEN ?1 AND ?2 ORDER BY position");
        let start = from.max(Position(1));
        let mut next = start;
        while next <= to {
            let last = to.min(next.plus(REPLAYED_AT_ONCE - 1));
            let refused = self.with::<_, ReadError>(|connection| {
                scan(connection, sql, params![to_sql(next.0), to_sql(last.0)], |event| {
                    if event.position != next {
                        let what = format!("event {next} is missing before {}", event.position);
                        return Err(ReadError::Damaged { what });
                    }
                    next = next.next();
                    Ok(match visit(event) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(source) => ControlFlow::Break((event.position, source)),
                    })
                })
            });
            match refused.map_err(|source| ReplayError::Read { source })? {
                ControlFlow::Break((position, source)) => {
                    return Err(ReplayError::Visit { position, source });
                }
                ControlFlow::Continue(()) if next <= last => {
                    let what = format!("event {next} is missing, the head is {to} or later");
                    return Err(ReplayError::Read { source: ReadError::Damaged { what } });
                }
                ControlFlow::Continue(()) => {}
            }
        }
        Ok(next.0 - start.0)
    }

    pub(crate) fn stream_version(&self, stream: &StreamName) -> Result<Version, ReadError> {
        self.with(|connection| stream_version(connection, stream.as_str()).map_err(unreadable))
    }

    pub(crate) fn idempotent(&self, scope: &str, key: &str) -> Result<Option<Idempotent>, ReadError> {
        let sql = "SELECT request_hash, result, position FROM idempotency WHERE scope = ?1 AND key = ?2";
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql).map_err(unreadable)?;
            let found = statement.query_row([scope, key], |row| {
                Ok(Idempotent {
                    request_hash: row.get(0)?,
                    result: row.get(1)?,
                    position: Position(from_sql(row.get(2)?)),
                })
            });
            found.optional().map_err(unreadable)
        })
    }

    fn collect(&self, sql: &str, params: impl Params, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        let mut list = Vec::with_capacity(limit.min(256));
        let mut bytes = 0;
        let _full: ControlFlow<()> = self.with::<_, ReadError>(|connection| {
            scan(connection, sql, params, |event| {
                list.push(event.to_recorded());
                bytes += event.body.len();
                Ok(if bytes < LIST_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        })?;
        Ok(list)
    }
}

/// Version of `stream` as `connection` sees it, inside of its transaction if it has one.
pub(crate) fn stream_version(connection: &Connection, stream: &str) -> rusqlite::Result<Version> {
    let sql = "SELECT version FROM event WHERE stream = ?1 ORDER BY version DESC LIMIT 1";
    let version = connection.prepare_cached(sql)?.query_row([stream], |row| row.get(0)).optional()?;
    Ok(Version(version.map_or(0, from_sql)))
}

/// The latest event.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<Position> {
    connection.query_row("SELECT coalesce(max(position), 0) FROM event", [], |row| {
        Ok(Position(from_sql(row.get(0)?)))
    })
}

/// What is wrong with the database.
pub(crate) fn problems(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut problems: Vec<String> = connection
        .prepare("PRAGMA integrity_check")?
        .query_map([], |row| row.get(0))?
        .filter(|line| !matches!(line, Ok(line) if line == "ok"))
        .collect::<Result<_, _>>()?;
    let counts = "SELECT count(*), coalesce(max(position), 0) FROM event";
    let (count, head): (i64, i64) = connection.query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if count != head {
        problems.push(format!("there are {count} events and the last has position {head}"));
    }
    // A stream whose events are not numbered 1, 2, 3 in the order of their positions.
    let numbered = "SELECT stream FROM (
            SELECT stream, version, row_number() OVER (PARTITION BY stream ORDER BY position) AS nth
            FROM event
        ) WHERE version <> nth GROUP BY stream";
    for stream in connection.prepare(numbered)?.query_map([], |row| row.get::<_, String>(0))? {
        problems.push(format!("stream {} is not numbered without holes", stream?));
    }
    Ok(problems)
}

/// Gives each row that `sql` finds to `visit`, borrowed, until it has enough.
fn scan<B>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut visit: impl FnMut(EventRef<'_>) -> Result<ControlFlow<B>, ReadError>,
) -> Result<ControlFlow<B>, ReadError> {
    let mut statement = connection.prepare_cached(sql).map_err(unreadable)?;
    let mut rows = statement.query(params).map_err(unreadable)?;
    while let Some(row) = rows.next().map_err(unreadable)? {
        if let ControlFlow::Break(reason) = visit(event(row)?)? {
            return Ok(ControlFlow::Break(reason));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn event<'a>(row: &'a Row<'_>) -> Result<EventRef<'a>, ReadError> {
    let position = row.get(0).map_err(unreadable)?;
    let damaged = |error: FromSqlError| ReadError::Damaged { what: format!("event {position}: {error}") };
    let text = |column| -> Result<&'a str, ReadError> {
        row.get_ref(column).map_err(unreadable)?.as_str().map_err(damaged)
    };
    let body = row.get_ref(9).map_err(unreadable)?.as_blob().map_err(damaged)?;
    let reason = row.get_ref(8).map_err(unreadable)?.as_str_or_null().map_err(damaged)?;
    Ok(EventRef {
        position: Position(from_sql(position)),
        stream: text(1)?,
        version: Version(from_sql(row.get(2).map_err(unreadable)?)),
        kind: text(3)?,
        schema: row.get(4).map_err(unreadable)?,
        body,
        at: Timestamp(from_sql(row.get(5).map_err(unreadable)?)),
        actor: text(6)?,
        correlation: text(7)?,
        reason,
    })
}

/// SQLite's integers are signed. Positions and versions never reach their end; a time beyond it is the end of
/// time.
pub(crate) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The journal never writes a negative number; a damaged one reads as nought, which the check for holes then
/// finds.
pub(crate) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn limit_to_sql(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
