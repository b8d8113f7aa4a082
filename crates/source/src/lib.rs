//! A source tree: ignore rules, hash, chunk, pack, detection rules as data.
