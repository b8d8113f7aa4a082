//! Decide, append, publish; reconcilers; REST.

pub mod config;

/// Why control ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The control plane is not part of this build.
    #[error("this build has no control plane")]
    Absent,
}

/// Runs control until the platform goes down or the leash is cut.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: config::ControlConfig) -> Result<(), RunError> {
    drop(config);
    Err(RunError::Absent)
}
