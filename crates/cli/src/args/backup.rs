//! `backup` and `restore`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `berth backup`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupArgs {
    /// What to do; nothing saves the platform.
    #[command(subcommand)]
    pub action: Option<BackupAction>,
    /// The file to make, or the directory to make it in [default: the current directory]
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Put the key in that opens the secrets; whoever has the file can read them then
    #[arg(long)]
    pub with_key: bool,
    /// Leave the volumes out
    #[arg(long)]
    pub without_volumes: bool,
}

/// What to do with a backup.
#[derive(Debug, Clone, Subcommand)]
pub enum BackupAction {
    /// Show what is in a backup
    List(BackupFile),
    /// Read a backup to its end and compare every hash
    Verify(BackupFile),
    /// Write the key that opens the secrets into a file of its own
    Key(BackupFile),
}

/// A file of a backup.
#[derive(Debug, Clone, Args)]
pub struct BackupFile {
    /// The file
    pub file: PathBuf,
}

/// `berth restore`
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// The backup
    pub file: PathBuf,
    /// The file with the key that opens the secrets, where the backup has none
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Go on without the key: the values of all secrets are lost
    #[arg(long, conflicts_with = "key")]
    pub without_key: bool,
}
