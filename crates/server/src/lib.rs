//! Decide, append, publish; reconcilers; REST.
