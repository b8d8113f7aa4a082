//! Source tree to artifact: build, cache, seal, garbage collection.
