//! Registries that mean well, and what happens on the way to them.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use berth_image::registry::{Config, Credentials};
use berth_image::{Digest, Limits, Registries, Step, Store, Wanted};

use crate::server::{HOST, Network, Reply, Sample};
use crate::{pull_over, quick, wanted};

#[tokio::test]
async fn an_image_is_pulled_once_and_stands() {
    let sample = Sample::new();
    let digest = Digest::of(&sample.manifest);
    let network = Network::new(move |asked| sample.answer(asked)).await;
    let pull = pull_over(Arc::clone(&network), HOST).await;
    let pulled = pull.outcome.unwrap();
    assert_eq!((pulled.digest, pulled.image.config.cmd.as_slice()), (digest, &["/hello".to_owned()][..]));
    assert_eq!(fs::read(pulled.image.layers[0].join("hello")).unwrap().len(), 100_000);
    assert_eq!(fs::read_dir(pull.store.path().join("downloads")).unwrap().count(), 0);
    let before = network.paths().len();
    let store = Store::open(pull.store.path(), Limits::default()).unwrap();
    let registries = Registries::over(quick(), Arc::<Network>::clone(&network));
    let pinned = Wanted { had: [digest].into(), ..wanted(&format!("{HOST}/app@{digest}")) };
    // In a task of its own, as control pulls.
    let again = tokio::spawn(async move { store.pull(&registries, &pinned, &|_| ()).await });
    let again = again.await.unwrap().unwrap();
    assert_eq!((again.image, network.paths().len()), (pulled.image, before));
}

#[tokio::test]
async fn what_would_fill_the_disk_is_not_fetched() {
    let sample = Sample::new();
    let network = Network::new(move |asked| sample.answer(asked)).await;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { reserve: u64::MAX, ..Limits::default() };
    let store = Store::open(dir.path(), limits).unwrap();
    let registries = Registries::over(quick(), Arc::<Network>::clone(&network));
    let full = store.pull(&registries, &wanted(&format!("{HOST}/app")), &|_| ()).await.unwrap_err();
    assert_eq!(full.code(), "disk_full");
    let sizes = fs::read_dir(dir.path().join("downloads")).unwrap();
    let sizes: Vec<u64> = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes, [0], "nor is what there was of it kept");
}

#[tokio::test]
async fn a_broken_download_is_taken_up_where_it_broke_off() {
    let sample = Sample::new();
    let layer = sample.layer.clone();
    let network = Network::new(move |asked| {
        if !asked.path.ends_with(&Digest::of(&layer).to_string()) {
            return sample.answer(asked);
        }
        let all = layer.len();
        match asked
            .headers
            .get("range")
            .and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        {
            None => Reply { length: Some(all as u64), ..Reply::ok(layer[..40_000].to_vec()) },
            Some(from) => Reply { status: 206, ..Reply::ok(layer[from..].to_vec()) }
                .header("Content-Range", format!("bytes {from}-{}/{all}", all - 1)),
        }
    })
    .await;
    let pull = pull_over(network, HOST).await;
    pull.outcome.unwrap();
    let ranges: Vec<String> =
        pull.network.asked.lock().unwrap().iter().filter_map(|it| it.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=40000-"]);
}

#[tokio::test]
async fn a_registry_out_of_order_is_asked_again_and_one_that_ignores_ranges_starts_over() {
    let (sample, asked_for) = (Sample::new(), AtomicUsize::new(0));
    let layer = sample.layer.clone();
    let network = Network::new(move |asked| match asked_for.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(503).header("Retry-After", "0"),
        1 => Reply::status(429).header("Retry-After", "0"),
        _ if asked.path.ends_with(&Digest::of(&layer).to_string())
            && !asked.headers.contains_key("range") =>
        {
            Reply { length: Some(layer.len() as u64), ..Reply::ok(layer[..40_000].to_vec()) }
        }
        _ => sample.answer(asked),
    })
    .await;
    pull_over(network, HOST).await.outcome.unwrap();
}

#[tokio::test]
async fn who_we_are_is_said_to_the_token_service_and_the_registry_alone() {
    let sample = Sample::new();
    let network = Network::new(move |asked| {
        let said = asked.headers.get("authorization").map(String::as_str);
        let path = asked.path.clone();
        match said {
            Some("Basic bWU6c2VjcmV0")
                if path.starts_with("/token?account=x&service=s&scope=repository%3Aapp%3Apull") =>
            {
                Reply::ok(r#"{"token":"t0k"}"#)
            }
            Some("Bearer t0k") if path.contains("/blobs/") => {
                Reply::status(307).header("Location", format!("http://files.test{path}"))
            }
            Some("Bearer t0k") => sample.answer(asked),
            None if asked.host == "files.test" => sample.answer(asked),
            None => Reply::status(401).header(
                "WWW-Authenticate",
                format!(r#"Bearer realm="http://{HOST}/token?account=x",service="s""#),
            ),
            Some(_) => Reply::status(403),
        }
    })
    .await;
    let mut credentials = Credentials::default();
    credentials.add(HOST, "me", "secret".to_owned().into());
    let config = Config {
        credentials,
        insecure: BTreeSet::from([HOST.to_owned(), "files.test".to_owned()]),
        ..quick()
    };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits::default()).unwrap();
    let registries = Registries::over(config, Arc::<Network>::clone(&network));
    store.pull(&registries, &wanted(&format!("{HOST}/app")), &|_| ()).await.unwrap();
    assert_eq!(network.paths().iter().filter(|path| path.starts_with("/token")).count(), 1);
}

#[tokio::test]
async fn what_stands_of_another_is_had_by_nobody_who_may_not_have_it() {
    let (sample, is_gone) = (Sample::new(), Arc::new(AtomicBool::new(false)));
    let (digest, layer) = (Digest::of(&sample.manifest), Digest::of(&sample.layer).to_string());
    let gone = Arc::clone(&is_gone);
    let network = Network::new(move |asked| match gone.load(Ordering::Relaxed) {
        true => Reply::status(404),
        false => sample.answer(asked),
    })
    .await;
    let registries = |config| Registries::over(config, Arc::<Network>::clone(&network));
    let fetched = || network.paths().iter().filter(|path| path.ends_with(&layer)).count();
    let mut known = quick();
    known.credentials.add(HOST, "me", "secret".to_owned().into());
    let (known, anybody) = (registries(known), registries(quick()));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits::default()).unwrap();
    let (other, own) = (
        wanted(&format!("{HOST}/app@{digest}")),
        Wanted { had: [digest].into(), ..wanted(&format!("{HOST}/app@{digest}")) },
    );
    store.pull(&known, &other, &|_| ()).await.unwrap();
    assert_eq!(fetched(), 1);
    // The registry says who may have it, not the digest; whoever it gives it to shares what stands.
    is_gone.store(true, Ordering::Relaxed);
    store.pull(&known, &other, &|_| ()).await.unwrap_err();
    let again = store.pull(&known, &own, &|_| ()).await.unwrap();
    assert_eq!((again.digest, fetched()), (digest, 1));
    is_gone.store(false, Ordering::Relaxed);
    store.pull(&anybody, &other, &|_| ()).await.unwrap();
    assert_eq!(fetched(), 2);
    // By now it is known to be everybody's.
    store.pull(&known, &other, &|_| ()).await.unwrap();
    assert_eq!(fetched(), 2);
    assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_when_it_does_not_have_it() {
    let sample = Sample::new();
    let network = Network::new(move |asked| match asked.host.as_str() {
        "mirror.test" if asked.path.contains("/blobs/") => Reply::ok("not what it should be"),
        _ => sample.answer(asked),
    })
    .await;
    let mut config = quick();
    config.mirrors.insert(HOST.to_owned(), vec!["gone.test".to_owned(), "mirror.test".to_owned()]);
    config.insecure.insert("mirror.test".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits::default()).unwrap();
    let registries = Registries::over(config, Arc::<Network>::clone(&network));
    store.pull(&registries, &wanted(&format!("{HOST}/app")), &|_| ()).await.unwrap();
    let hosts: BTreeSet<String> =
        network.asked.lock().unwrap().iter().map(|asked| asked.host.clone()).collect();
    assert_eq!(hosts, BTreeSet::from([HOST.to_owned(), "mirror.test".to_owned()]));
}

#[tokio::test]
async fn pulls_of_one_layer_at_once_fetch_and_unpack_it_once() {
    let sample = Sample::new();
    let layer = Digest::of(&sample.layer);
    let network = Network::new(move |asked| sample.answer(asked)).await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits::default()).unwrap();
    let registries = Registries::over(quick(), Arc::<Network>::clone(&network));
    let (unpacked, wanted) = (AtomicUsize::new(0), wanted(&format!("{HOST}/app")));
    let count = |step: Step| {
        if matches!(step, Step::Unpacking(_)) {
            unpacked.fetch_add(1, Ordering::Relaxed);
        }
    };
    let pulls = (0..8).map(|_| store.pull(&registries, &wanted, &count));
    for pulled in futures_util::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let fetched = network.paths().iter().filter(|path| path.ends_with(&layer.to_string())).count();
    assert_eq!((unpacked.load(Ordering::Relaxed), fetched), (1, 1));
}

#[tokio::test]
async fn a_sweep_takes_what_nobody_needs_and_nothing_else() {
    let images: Vec<Sample> = ["kept", "gone"]
        .into_iter()
        .map(|name| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(4);
            tar.append_data(&mut header, name, name.as_bytes()).unwrap();
            Sample::of(tar.into_inner().unwrap())
        })
        .collect();
    let (kept, gone) = (images[0].clone(), images[1].clone());
    let [kept_digest, gone_digest] = [&kept, &gone].map(|image| Digest::of(&image.manifest));
    let network = Network::new(move |asked| match asked.path.contains("/kept/") {
        true => kept.answer(asked),
        false => gone.answer(asked),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits::default()).unwrap();
    let registries = Registries::over(quick(), network);
    let pull = async |name: &str| {
        store.pull(&registries, &wanted(&format!("{HOST}/{name}")), &|_| ()).await.unwrap()
    };
    let (one, two) = (pull("kept").await, pull("gone").await);
    // Both are held by those who pulled them.
    assert_eq!(store.sweep(&BTreeSet::new()).unwrap().layers, 0);
    let ownership = berth_image::Ownership::Own;
    let image = one.image.clone();
    drop((one, two));
    // What a crash leaves, at any step.
    for left in ["layers/.new-7/tree/d", "layers/.gone-3/tree", "blobs/.new-2"] {
        fs::create_dir_all(dir.path().join(left)).unwrap();
    }
    for left in ["downloads/0123", "blobs/ffff", "layers/.new-7/tree/d/f"] {
        fs::write(dir.path().join(left), "half").unwrap();
    }
    let store = Store::open(dir.path(), Limits::default()).unwrap();
    let swept = store.sweep(&BTreeSet::from([kept_digest])).unwrap();
    assert_eq!((swept.layers, swept.bytes), (1, 4));
    assert_eq!(store.image(&kept_digest, ownership).unwrap(), Some(image));
    assert_eq!(store.image(&gone_digest, ownership).unwrap(), None);
    let count = |folder: &str| fs::read_dir(dir.path().join(folder)).unwrap().count();
    assert_eq!([count("layers"), count("blobs"), count("downloads")], [1, 2, 0]);
    store.sweep(&BTreeSet::new()).unwrap();
    assert_eq!([count("layers"), count("blobs"), count("downloads")], [0, 0, 0]);
}
