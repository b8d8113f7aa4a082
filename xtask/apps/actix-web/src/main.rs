//! Actix Web's own first example.

use actix_web::{App, HttpServer, Responder, get};

#[get("/")]
async fn index() -> impl Responder {
    "This is the first release"
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    HttpServer::new(|| App::new().service(index)).workers(2).bind(("127.0.0.1", port))?.run().await
}
