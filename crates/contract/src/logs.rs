//! Log lines of an app.

use berth_spec::{InstanceId, ProcessName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which lines, and whether to wait for more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Whether the stream stays open for lines to come.
    #[serde(default)]
    pub follow: bool,
    /// How many of the newest lines to begin with, up to 10,000; 100 when not given. Has no meaning with a cursor.
    pub lines: Option<u32>,
    /// Only lines of this process.
    #[param(value_type = Option<String>)]
    pub process: Option<ProcessName>,
    /// Only lines of this instance: `web.7`.
    pub instance: Option<String>,
    /// Only lines after this cursor. The header `Last-Event-ID` says the same and wins.
    pub after: Option<String>,
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
    /// By Berth about the instance: started, ended, lines dropped.
    Berth,
}

/// A log line; its cursor is the event's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Where it stands in the app's log; opaque.
    pub cursor: String,
    /// When it was read from the program.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// The instance that wrote it.
    #[schema(value_type = String, example = "default/default/shop/web.7")]
    pub instance: InstanceId,
    /// The process that the instance runs.
    #[schema(value_type = String, example = "web")]
    pub process: ProcessName,
    /// Where it was written.
    pub stream: LogStream,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}
