//! The images that were pushed for an app to the platform's own registry.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An app's repository of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Images {
    /// What `docker push` and `berth deploy --image` call it, without a tag.
    #[schema(example = "127.0.0.1:7070/shop")]
    pub repository: String,
    /// What was pushed to it, by tag.
    pub tags: Vec<ImageTag>,
}

/// A tag, and what it means now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageTag {
    /// The tag.
    #[schema(example = "v1.4")]
    pub tag: String,
    /// The digest of its manifest or index.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub digest: String,
}
