//! The data plane: forwards requests by routing snapshots, probes health, drains.
