//! Start, adopt, watch and stop instances.
