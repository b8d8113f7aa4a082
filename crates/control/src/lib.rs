//! Commands to events to state; desired and observed to a plan; invariants.
