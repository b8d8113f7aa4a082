//! Wiring of the control role: what the supervisor handed down becomes what control is configured with.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use berth_clock::SystemClock;
use berth_server::config::{BuildBounds, ControlConfig, PushBounds};

use super::{RoleError, Ties, take};
use crate::args::ControlArgs;
use crate::home::Home;

pub(super) fn run(args: &ControlArgs) -> Result<(), RoleError> {
    let ties = Ties::take(&args.role)?;
    let (api_tcp, api_unix, edge_unix) = (take(args.api_tcp)?, take(args.api_unix)?, take(args.edge_unix)?);
    let supervisor = take(args.supervisor)?;
    // Checked again: this may be the hundredth restart, and somebody may have been at the home meanwhile.
    let home = Home::open(&args.home)?;
    if home.platform.platform != args.role.platform {
        let (started_for, found) = (args.role.platform.clone(), home.platform.platform);
        return Err(RoleError::OtherHome { started_for, found });
    }
    let owner = fs::metadata(&home.path).map_err(RoleError::system("examine the home"))?.uid();
    let config = ControlConfig {
        key_encryption_key: home.key()?,
        uid_plan: home.uid_plan(),
        home: home.path,
        run_dir: args.run.clone(),
        platform: home.platform.platform,
        api_tcp,
        api_unix,
        edge_unix,
        leash: ties.leash,
        ready: ties.ready,
        supervisor,
        owner_uid: owner,
        exe: args.exe.clone(),
        edge_addr: args.edge_addr,
        https_addr: args.https_addr,
        api_addr: args.api_addr,
        isolation: args.isolation,
        backend: args.backend.unwrap_or_default(),
        // The supervisor has refused what makes no sense.
        push_bounds: PushBounds::read(|name| std::env::var(name).ok()).unwrap_or_default(),
        build_bounds: BuildBounds::read(|name| std::env::var(name).ok()).unwrap_or_default(),
        clock: Arc::new(SystemClock::new()),
    };
    berth_server::run(config)?;
    Ok(())
}
