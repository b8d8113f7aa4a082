//! A seeded world in which the control plane is run and broken.
