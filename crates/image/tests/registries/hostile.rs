//! Registries that wish us ill: each is refused, quickly, and leads us nowhere.

use std::sync::atomic::{AtomicUsize, Ordering};

use berth_image::{Digest, ImageError};

use crate::server::{Asked, HOST, Network, Reply, Sample};
use crate::{Pull, pull_over};

/// Pulls from a registry that stands outside and answers so, and must be refused with this code.
async fn refused(
    code: &str,
    answers: impl Fn(&Sample, &Asked) -> Reply + Send + Sync + 'static,
) -> (String, Pull) {
    let sample = Sample::new();
    let network = Network::new(move |asked| answers(&sample, asked)).await;
    let pull = pull_over(network, HOST).await;
    let error = pull.outcome.as_ref().unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    // Nothing half done has a name.
    for folder in ["layers", "blobs"] {
        assert_eq!(std::fs::read_dir(pull.store.path().join(folder)).unwrap().count(), 0, "{folder}");
    }
    (error.to_string(), pull)
}

fn is_blob(asked: &Asked, of: &[u8]) -> bool {
    asked.path.ends_with(&Digest::of(of).to_string())
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_with_its_port() {
    let network = Network::new(|_| Reply::status(500)).await;
    let error = pull_over(network, "gone.test:5001").await.outcome.unwrap_err().to_string();
    assert!(error.starts_with("gone.test:5001 cannot be reached: "), "{error}");
}

#[tokio::test]
async fn a_layer_with_the_wrong_digest() {
    let (text, pull) = refused("image_invalid", |sample, asked| match is_blob(asked, &sample.layer) {
        true => Reply::ok(vec![b'e'; sample.layer.len()]),
        false => sample.answer(asked),
    })
    .await;
    assert!(text.contains("blob sha256:"), "{text}");
    // Not even to be taken up.
    let left: u64 = std::fs::read_dir(pull.store.path().join("downloads"))
        .unwrap()
        .map(|it| it.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_manifest_and_a_configuration_with_the_wrong_digest() {
    refused("image_invalid", |sample, asked| match asked.path.contains("/manifests/") {
        true => Reply::ok(sample.manifest.clone())
            .header("Docker-Content-Digest", Digest::of(b"other").to_string()),
        false => sample.answer(asked),
    })
    .await;
    refused("image_invalid", |sample, asked| match is_blob(asked, &sample.config) {
        true => Reply::ok(vec![b' '; sample.config.len()]),
        false => sample.answer(asked),
    })
    .await;
}

#[tokio::test]
async fn a_layer_of_the_wrong_size() {
    for (told, code) in [(99, "image_invalid"), (1 << 30, "registry_unreachable")] {
        refused(code, move |sample, asked| match asked.path.contains("/manifests/") {
            true => Reply::ok(sample.manifest_of(1, told)),
            false => sample.answer(asked),
        })
        .await;
    }
}

#[tokio::test]
async fn a_layer_whose_content_is_another_than_its_configuration_says() {
    let lie = |sample: &Sample| {
        let config = String::from_utf8(sample.config.clone()).unwrap();
        config.replace(&Digest::of(&sample.layer).to_string(), &Digest::of(b"other").to_string()).into_bytes()
    };
    let (text, _) = refused("image_invalid", move |sample, asked| {
        let sample = Sample { config: lie(sample), ..sample.clone() };
        let sample = Sample { manifest: sample.manifest_of(1, sample.layer.len() as u64), ..sample };
        sample.answer(asked)
    })
    .await;
    assert!(text.contains("its configuration says"), "{text}");
}

#[tokio::test]
async fn an_endless_body_in_every_place() {
    for (at, code) in
        [("/manifests/", "image_too_large"), ("config", "image_too_large"), ("layer", "image_invalid")]
    {
        refused(code, move |sample, asked| {
            let here = match at {
                "config" => is_blob(asked, &sample.config),
                "layer" => is_blob(asked, &sample.layer),
                part => asked.path.contains(part),
            };
            let reply = sample.answer(asked);
            if here { Reply { endless: true, ..reply } } else { reply }
        })
        .await;
    }
}

#[tokio::test]
async fn a_manifest_of_a_hundred_megabytes() {
    let (text, _) =
        refused("image_too_large", |_, _| Reply { length: Some(100 << 20), endless: true, ..Reply::ok("{") })
            .await;
    assert!(text.contains("manifest"), "{text}");
}

#[tokio::test]
async fn redirects_inward() {
    for to in [
        "http://localhost/x",
        "http://127.0.0.1:6379/x",
        "http://[::1]/x",
        "https://internal.test/x",
        "https://10.1.2.3/x",
        "http://169.254.169.254/latest/meta-data/",
        "https://metadata.test/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[fd00:ec2::254]/x",
        "https://0.0.0.0/x",
        "https://2130706433/x",
        "file:///etc/passwd",
        "//localhost/x",
        "http://registry.test@localhost/x",
        "https://192.168.0.1/",
    ] {
        let (text, pull) =
            refused("image_invalid", move |sample, asked| match is_blob(asked, &sample.layer) {
                true => Reply::status(307).header("Location", to),
                false => sample.answer(asked),
            })
            .await;
        let gone_to = pull.network.gone_to.lock().unwrap().clone();
        assert!(
            gone_to.iter().all(|address| address.to_string() == "93.184.216.34"),
            "{to}: {gone_to:?} {text}"
        );
    }
}

#[tokio::test]
async fn a_redirect_from_the_manifest_inward() {
    refused("image_invalid", |_, _| {
        Reply::status(302).header("Location", "http://localhost/v2/a/manifests/latest")
    })
    .await;
}

#[tokio::test]
async fn a_redirect_to_plain_text() {
    let (text, _) =
        refused("image_invalid", |_, _| Reply::status(302).header("Location", "http://elsewhere.test/x"))
            .await;
    assert!(text.contains("without TLS"), "{text}");
}

#[tokio::test]
async fn redirects_without_end() {
    let (text, pull) = refused("image_invalid", |_, asked| {
        Reply::status(302).header("Location", format!("/v2/{}x", asked.path.trim_start_matches("/v2/")))
    })
    .await;
    assert!(text.contains("on and on") && pull.network.paths().len() < 10, "{text}");
}

#[tokio::test]
async fn a_token_service_inside() {
    for realm in [
        "http://localhost/token",
        "http://169.254.169.254/latest/api/token",
        "https://internal.test/token",
        "https://metadata.test/t",
    ] {
        let (_, pull) = refused("image_invalid", move |_, _| {
            Reply::status(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="x""#))
        })
        .await;
        assert_eq!(pull.network.gone_to.lock().unwrap().len(), 1, "{realm}");
    }
}

#[tokio::test]
async fn a_token_service_that_sends_us_inside() {
    let (_, pull) = refused("image_invalid", |_, asked| match asked.path.starts_with("/token") {
        true => Reply::status(302).header("Location", "http://localhost/token"),
        false => Reply::status(401)
            .header("WWW-Authenticate", format!(r#"Bearer realm="http://{HOST}/token",service="x""#)),
    })
    .await;
    assert_eq!(pull.network.gone_to.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_endless_token_and_one_that_is_no_header() {
    for (body, endless, code) in
        [("", true, "image_too_large"), (r#"{"token":"a\r\nHost: b"}"#, false, "registry_denied")]
    {
        refused(code, move |_, asked| match asked.path.starts_with("/token") {
            true => Reply { endless, ..Reply::ok(body) },
            false => Reply::status(401)
                .header("WWW-Authenticate", format!(r#"Bearer realm="http://{HOST}/token""#)),
        })
        .await;
    }
}

#[tokio::test]
async fn an_index_that_nests_for_ever() {
    let asked_for = AtomicUsize::new(0);
    // Each names the next, whose digest can be known only when all are made: so they are made from the innermost.
    let mut chain = vec![b"{}".to_vec()];
    for _ in 0..50 {
        let inner = chain.last().unwrap();
        let platform = r#"{"architecture":"amd64","os":"linux"}"#;
        let kind = "application/vnd.oci.image.index.v1+json";
        let (digest, size) = (Digest::of(inner), inner.len());
        let outer = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}","digest":"{digest}","size":{size},"platform":{platform}}}]}}"#
        );
        chain.push(outer.into_bytes());
    }
    let (text, pull) = refused("image_invalid", move |_, asked| {
        asked_for.fetch_add(1, Ordering::Relaxed);
        let named = chain.iter().find(|it| is_blob(asked, it));
        Reply::ok(named.or(chain.last()).unwrap().clone())
    })
    .await;
    assert!(text.contains("index") && pull.network.paths().len() <= 4, "{text}");
}

#[tokio::test]
async fn a_bomb_of_layers() {
    let (_, pull) = refused("image_too_large", |sample, _| Reply::ok(sample.manifest_of(20_000, 5))).await;
    assert_eq!(pull.network.paths().len(), 1);
    let (_, pull) = refused("image_too_large", |sample, asked| match asked.path.contains("/manifests/") {
        // One layer of an exabyte.
        true => Reply::ok(sample.manifest_of(1, 1 << 60)),
        false => sample.answer(asked),
    })
    .await;
    assert_eq!(pull.network.paths().len(), 2);
}

#[tokio::test]
async fn a_registry_that_goes_on_at_another_place() {
    let sent = AtomicUsize::new(0);
    refused("image_invalid", move |sample, asked| match is_blob(asked, &sample.layer) {
        true if sent.fetch_add(1, Ordering::Relaxed) == 0 => {
            Reply { length: Some(sample.layer.len() as u64), ..Reply::ok(sample.layer[..5_000].to_vec()) }
        }
        true => {
            let all = sample.layer.len();
            Reply { status: 206, ..Reply::ok(sample.layer[4_000..].to_vec()) }
                .header("Content-Range", format!("bytes 4000-{}/{all}", all - 1))
        }
        false => sample.answer(asked),
    })
    .await;
}

#[tokio::test]
async fn a_refusal_has_the_registrys_words_and_no_control_characters() {
    let (text, _) = refused("registry_denied", |_, _| Reply {
        status: 403,
        body: br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J way"}]}"#.to_vec(),
        ..Reply::default()
    })
    .await;
    assert!(text.contains("way") && !text.contains('\u{1b}'), "{text}");
    let sample = Sample::new();
    let network = Network::new(move |asked| match asked.path.contains("blobs") {
        true => Reply::status(404),
        false => sample.answer(asked),
    })
    .await;
    let missing = pull_over(network, HOST).await.outcome.unwrap_err();
    assert!(matches!(missing, ImageError::NotFound { .. }), "{missing}");
}
