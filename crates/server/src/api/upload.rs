//! Sending source: which chunks are missing, chunks, trees. All of it goes by its hash, so a repeat is harmless by itself and an
//! idempotency key, which every other mutation needs, is taken and not looked at. Who asks is looked at before a byte is read.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use berth_contract::upload::CHUNKS_QUERY_MAX;
use berth_contract::{ChunkHash, ChunksMissing, ChunksQuery, Code, Problem, TreeCreated, route};
use berth_spec::{TenantId, TenantName};
use tokio::sync::Semaphore;

use super::Api;
use super::auth::Principal;
use super::problem::{Body, Path, Refused};
use super::whole::Whole;

/// The longest chunk, with room for nothing else.
pub(super) const CHUNK_MAX: usize = 256 << 10;
/// The longest tree: 50,000 entries with their paths and chunks.
pub(super) const TREE_MAX: usize = 32 << 20;
/// How many trees are held in memory at a time, some 100 MiB each at the worst while they are read. Others wait before their body is.
static TREES: Semaphore = Semaphore::const_new(2);

#[utoipa::path(post, path = route::CHUNKS_MISSING, tag = "source", request_body = ChunksQuery,
    responses((status = 200, body = ChunksMissing)), params(("tenant" = String, Path)))]
pub(super) async fn missing(
    State(api): State<Arc<Api>>,
    principal: Principal,
    Path((tenant,)): Path<(TenantName,)>,
    Body(query): Body<ChunksQuery>,
) -> Result<Json<ChunksMissing>, Refused> {
    principal.enter_tenant(&api, &TenantId { tenant: tenant.clone() })?;
    if query.chunks.len() > CHUNKS_QUERY_MAX {
        let detail = format!("{} chunks are asked for, more than {CHUNKS_QUERY_MAX}", query.chunks.len());
        return Err(Problem::new(Code::RequestInvalid, detail).into());
    }
    let missing = api.machine.missing_chunks(&tenant, query.chunks).await?;
    Ok(Json(ChunksMissing { missing }))
}

#[utoipa::path(put, path = route::CHUNK, tag = "source", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "It is stored")),
    params(("tenant" = String, Path), ("hash" = String, Path)))]
pub(super) async fn put_chunk(
    State(api): State<Arc<Api>>,
    principal: Principal,
    Path((tenant, hash)): Path<(TenantName, ChunkHash)>,
    request: Request,
) -> Result<StatusCode, Refused> {
    principal.enter_tenant(&api, &TenantId { tenant: tenant.clone() })?;
    let Whole(bytes) = Whole::from_request(request, &api).await?;
    api.machine.put_chunk(&tenant, hash, bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = route::TREES, tag = "source", request_body(content = String, content_type = "application/json"),
    responses((status = 201, body = TreeCreated)), params(("tenant" = String, Path)))]
pub(super) async fn put_tree(
    State(api): State<Arc<Api>>,
    principal: Principal,
    Path((tenant,)): Path<(TenantName,)>,
    request: Request,
) -> Result<(StatusCode, Json<TreeCreated>), Refused> {
    principal.enter_tenant(&api, &TenantId { tenant: tenant.clone() })?;
    let _turn = TREES.acquire().await.expect("nobody closes the semaphore");
    let Whole(bytes) = Whole::from_request(request, &api).await?;
    let tree = api.machine.put_tree(&tenant, bytes).await?;
    Ok((StatusCode::CREATED, Json(TreeCreated { tree })))
}
