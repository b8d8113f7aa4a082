//! The only place that starts programs: argument vectors, limits, kill of whole trees.
