//! The small static program above each instance, and its wire protocol.
