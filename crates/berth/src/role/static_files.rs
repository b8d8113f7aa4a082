//! The static role: an instance of an app that is a directory of files.

use std::convert::Infallible;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use tower::service_fn;
use tower_http::services::ServeDir;

use super::RoleError;
use super::tree::Tree;
use crate::args::StaticArgs;

/// Threads that read files: edge holds a few dozen connections to an instance, and reads from the page cache are short.
const READERS: usize = 4;
/// The longest page that is shown where there is none, in bytes.
const PAGE_MAX: u64 = 1 << 20;

pub(super) fn run(args: &StaticArgs) -> Result<(), RoleError> {
    let tree = Tree::open(&args.directory).map_err(RoleError::system("open the directory to serve"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(READERS)
        .build()
        .map_err(RoleError::system("start its runtime"))?;
    let serve = async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await?;
        axum::serve(listener, site(tree, args.single_page)).await
    };
    runtime.block_on(serve).map_err(RoleError::system("serve"))
}

/// The files of `tree`: GET and HEAD, `index.html` for a directory, ranges and validators, `404.html` for the rest. The rest of a
/// `single_page` without that page are its own pages, which the scripts of its `index.html` know.
fn site(tree: Tree, single_page: bool) -> Router {
    let missing = tree.clone();
    let not_found = service_fn(move |request: Request<Body>| {
        let page = single_page && is_page(request.uri().path());
        let answer = not_found(&missing, page);
        async move { Ok::<_, Infallible>(answer) }
    });
    Router::new()
        .fallback_service(ServeDir::with_backend(".", tree).fallback(not_found))
        .layer(axum::middleware::map_response(with_charset))
}

/// Whether a path may be that of a page: its last name has no extension. A missing script that is answered with a page would
/// be an error that nobody understands.
fn is_page(path: &str) -> bool {
    !path.rsplit('/').next().unwrap_or_default().contains('.')
}

fn not_found(tree: &Tree, page: bool) -> Response<Body> {
    const HTML: &str = "text/html; charset=utf-8";
    let own = read_page(tree, "404.html").map(|text| (StatusCode::NOT_FOUND, HTML, Body::from(text)));
    let (status, kind, body) = match own {
        Ok(own) => own,
        // Where the index is a page of its own, the one for all others is called so.
        Err(_) => {
            match read_page(tree, "200.html").or_else(|_| read_page(tree, "index.html")).ok().filter(|_| page)
            {
                Some(index) => (StatusCode::OK, HTML, Body::from(index)),
                None => (
                    StatusCode::NOT_FOUND,
                    "text/plain; charset=utf-8",
                    Body::from("There is nothing at this path.\n"),
                ),
            }
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::OK {
        // It has no validators of its own, and names the scripts of this release.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

fn read_page(tree: &Tree, name: &str) -> io::Result<Vec<u8>> {
    let (file, _) = tree.open_beneath(Path::new(name))?;
    let mut page = Vec::new();
    file.take(PAGE_MAX).read_to_end(&mut page)?;
    Ok(page)
}

/// Texts are in UTF-8 today, and without being told so browsers take some for Latin-1.
async fn with_charset(mut response: Response<Body>) -> Response<Body> {
    let told = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let text = told.filter(|kind| kind.starts_with("text/") && !kind.contains("charset"));
    if let Some(kind) = text.and_then(|kind| HeaderValue::try_from(format!("{kind}; charset=utf-8")).ok()) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    struct Site {
        temp: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("site");
            fs::create_dir_all(root.join("sub/.well-known")).unwrap();
            fs::create_dir_all(root.join(".well-known")).unwrap();
            fs::create_dir(root.join(".git")).unwrap();
            for (path, text) in [
                ("site/index.html", "<p>home"),
                ("site/sub/index.html", "<p>sub"),
                ("site/a b.css", "p {}"),
                ("site/.well-known/security.txt", "Contact: us"),
                ("site/.env", "SECRET=1"),
                ("site/.git/config", "[core]"),
                ("secret", "outside"),
            ] {
                fs::write(temp.path().join(path), text).unwrap();
            }
            symlink("../secret", root.join("out")).unwrap();
            symlink("/etc/passwd", root.join("passwd")).unwrap();
            symlink("..", root.join("up")).unwrap();
            symlink("index.html", root.join("inside.html")).unwrap();
            Self { temp }
        }

        async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (Response<()>, String) {
            self.ask_of(false, method, path, headers).await
        }

        async fn ask_of(
            &self,
            single_page: bool,
            method: &str,
            path: &str,
            headers: &[(&str, &str)],
        ) -> (Response<()>, String) {
            let router = site(Tree::open(&self.temp.path().join("site")).unwrap(), single_page);
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, body) =
                router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
            let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            (Response::from_parts(parts, ()), body)
        }

        async fn get(&self, path: &str) -> (u16, String) {
            let (response, body) = self.ask("GET", path, &[]).await;
            (response.status().as_u16(), body)
        }
    }

    #[tokio::test]
    async fn files_have_their_types_and_directories_their_index() {
        let site = Site::new();
        assert_eq!(site.get("/").await, (200, "<p>home".to_owned()));
        assert_eq!(site.get("/sub/").await, (200, "<p>sub".to_owned()));
        assert_eq!(site.get("/sub").await.0, 307);
        assert_eq!(site.get("/inside.html").await, (200, "<p>home".to_owned()));
        assert_eq!(site.get("/.well-known/security.txt").await.0, 200);
        let (response, body) = site.ask("GET", "/a%20b.css", &[]).await;
        assert_eq!(
            (response.headers()["content-type"].to_str().unwrap(), body.as_str()),
            ("text/css; charset=utf-8", "p {}")
        );
        let (response, body) = site.ask("HEAD", "/", &[]).await;
        assert_eq!((response.headers()["content-length"].to_str().unwrap(), body.as_str()), ("7", ""));
    }

    #[tokio::test]
    async fn nothing_hidden_or_outside_is_served() {
        let site = Site::new();
        for path in [
            "/.env",
            "/.git/config",
            "/sub/../.env",
            "/%2eenv",
            "/out",
            "/passwd",
            "/up/secret",
            "/..%2fsecret",
            "/%2e%2e/secret",
            "/../secret",
            "//etc/passwd",
            "/missing",
            "/a%00b",
        ] {
            let (status, body) = site.get(path).await;
            assert!((400..500).contains(&status), "{path}: {status}");
            assert!(
                !body.contains("outside") && !body.contains("root:") && !body.contains("SECRET"),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn validators_and_ranges_work() {
        let site = Site::new();
        let (response, _) = site.ask("GET", "/", &[]).await;
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let modified = response.headers()["last-modified"].to_str().unwrap().to_owned();
        assert_eq!(site.ask("GET", "/", &[("if-none-match", &tag)]).await.0.status(), 304);
        assert_eq!(site.ask("GET", "/", &[("if-modified-since", &modified)]).await.0.status(), 304);
        let (response, body) = site.ask("GET", "/", &[("range", "bytes=3-")]).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (206, "home"));
    }

    #[tokio::test]
    async fn a_change_that_keeps_length_and_time_is_seen() {
        let site = Site::new();
        let index = site.temp.path().join("site/index.html");
        let fixed = std::time::UNIX_EPOCH;
        let set = |text: &str| {
            fs::write(&index, text).unwrap();
            fs::File::options().write(true).open(&index).unwrap().set_modified(fixed).unwrap();
        };
        set("<p>one!");
        let (first, _) = site.ask("GET", "/", &[]).await;
        let changed = || {
            fs::metadata(&index).map(|metadata| {
                use std::os::unix::fs::MetadataExt;
                (metadata.ctime(), metadata.ctime_nsec())
            })
        };
        let before = changed().unwrap();
        // The kernel's clock for inodes ticks every few milliseconds: writes until it has.
        while changed().unwrap() == before {
            set("<p>two!");
        }
        let tag = first.headers()["etag"].to_str().unwrap();
        assert_eq!(site.ask("GET", "/", &[("if-none-match", tag)]).await.0.status(), 200);
    }

    #[tokio::test]
    async fn only_reading_is_allowed() {
        let site = Site::new();
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(site.ask(method, "/", &[]).await.0.status(), 405, "{method}");
        }
    }

    #[tokio::test]
    async fn the_sites_own_page_says_what_is_missing() {
        let site = Site::new();
        assert_eq!(site.get("/missing").await, (404, "There is nothing at this path.\n".to_owned()));
        fs::write(site.temp.path().join("site/404.html"), "<p>lost").unwrap();
        let (response, body) = site.ask("GET", "/missing", &[]).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (404, "<p>lost"));
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    }

    #[tokio::test]
    async fn the_pages_of_a_single_page_are_its_index() {
        let site = Site::new();
        let get = async |path: &str| {
            let (response, body) = site.ask_of(true, "GET", path, &[]).await;
            (response.status().as_u16(), body)
        };
        for page in ["/users", "/users/7", "/a%20page", "/users/"] {
            assert_eq!(get(page).await, (200, "<p>home".to_owned()), "{page}");
        }
        let (response, _) = site.ask_of(true, "GET", "/users", &[]).await;
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(get("/assets/gone.js").await.0, 404);
        assert_eq!(get("/.env").await.0, 404);
        assert_eq!(get("/sub/").await, (200, "<p>sub".to_owned()));
        assert_eq!(site.ask_of(true, "POST", "/users", &[]).await.0.status(), 405);
        fs::write(site.temp.path().join("site/200.html"), "<p>any").unwrap();
        assert_eq!(get("/users").await, (200, "<p>any".to_owned()));
        assert_eq!(get("/").await, (200, "<p>home".to_owned()));
        fs::write(site.temp.path().join("site/404.html"), "<p>lost").unwrap();
        assert_eq!(get("/users").await, (404, "<p>lost".to_owned()));
    }
}
