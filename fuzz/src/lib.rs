//! What each fuzz target does with its input. The ordinary tests of each crate do the same with the files in `seeds`, so that CI, which has no
//! nightly compiler, sees a target that no longer compiles or holds.

// Edge keeps these to itself; of the rest of it they use what stands here.
mod client {
    use http::HeaderValue;

    /// Where a request comes from, as far as heads say it.
    #[expect(dead_code, reason = "nothing that is fuzzed comes from within")]
    pub(crate) enum Origin {
        Outside { peer: HeaderValue, secure: Option<String> },
        Inside { peer: HeaderValue, caller: HeaderValue, target: () },
    }
}
mod forward {
    pub(crate) const TARGET_MAX: usize = 8 << 10;
}
#[expect(dead_code, reason = "edge uses more of it than is fuzzed")]
#[path = "../../crates/edge/src/headers.rs"]
mod headers;
#[expect(dead_code, reason = "edge uses more of it than is fuzzed")]
#[path = "../../crates/edge/src/http1"]
mod http1 {
    pub(crate) mod message;
    pub(crate) mod request;
    pub(crate) mod response;
}
#[path = "../../crates/edge/src/frames.rs"]
mod frames;
#[expect(dead_code, reason = "edge uses more of it than is fuzzed")]
#[path = "../../crates/edge/src/strict.rs"]
mod strict;

pub mod edge;
pub mod image;
pub mod routing;
pub mod source;
pub mod spec;
