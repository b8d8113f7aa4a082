//! Repositories as a client of the protocol, a full disk and a sweep meet them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use super::*;

/// How long what nothing names stays.
const DAY: Duration = Duration::from_secs(24 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);
const ID: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "00000000000000000000000000000000";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn hosted(bounds: Bounds) -> (tempfile::TempDir, Hosted) {
    let root = tempfile::tempdir().unwrap();
    let hosted = Hosted::new(root.path().to_owned(), bounds);
    (root, hosted)
}

fn push(repository: &Repository, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    repository.begin(ID).unwrap();
    let mut upload = repository.upload(ID).unwrap();
    upload.append(bytes).unwrap();
    upload.finish(&digest).unwrap();
    digest
}

/// Dates everything that is in a folder of a repository a month back, and gives the time that it is.
fn age(repository: &Repository, folders: &[&str]) -> SystemTime {
    let now = fs::metadata(&repository.path).unwrap().modified().unwrap();
    for path in folders.iter().map(|folder| repository.path.join(folder)) {
        for entry in fs::read_dir(path).unwrap() {
            File::open(entry.unwrap().path()).unwrap().set_modified(now - 30 * DAY).unwrap();
        }
    }
    now
}

/// Keeps nothing but what tags mean, in all repositories.
fn tags_alone(hosted: &Hosted) -> (Vec<String>, Kept) {
    let names = hosted.names().unwrap();
    let kept = names.iter().map(|name| (name.clone(), BTreeSet::new())).collect();
    (names, kept)
}

fn sweep(hosted: &Hosted, now: SystemTime) -> Removed {
    let (names, kept) = tags_alone(hosted);
    let (removed, failed) = hosted.sweep(&names, &kept, now);
    assert!(failed.is_empty(), "{failed:?}");
    removed
}

fn image(config: &Digest, layers: &[Digest]) -> Vec<u8> {
    let descriptor = |digest: &Digest| format!(r#"{{"mediaType":"x","digest":"{digest}","size":1}}"#);
    let layers: Vec<String> = layers.iter().map(descriptor).collect();
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, descriptor(config), layers.join(","))
        .into_bytes()
}

fn tag(name: &str) -> Named {
    Named::read(name).unwrap()
}

#[test]
fn what_is_pushed_in_pieces_is_pulled_whole() {
    let (_root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("default/default/shop");
    assert!(!shop.exists() && shop.tags().unwrap().is_empty());
    shop.begin(ID).unwrap();
    let mut upload = shop.upload(ID).unwrap();
    upload.append(b"hello ").unwrap();
    assert!(matches!(shop.upload(ID), Err(HostedError::Busy)), "one at a time");
    drop(upload);
    let mut upload = shop.upload(ID).unwrap();
    assert!(matches!(upload.begins_at(0), Err(HostedError::OutOfOrder { has: 6 })));
    upload.begins_at(6).unwrap();
    upload.append(b"world").unwrap();
    let digest = Digest::of(b"hello world");
    upload.finish(&digest).unwrap();
    let (mut file, length) = shop.blob(&digest).unwrap().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), length), ("hello world", 11));
    assert!(matches!(shop.upload(ID), Err(HostedError::NoUpload)));
    for id in ["../blobs/x", "", "0123456789ABCDEF0123456789ABCDEF"] {
        assert!(matches!(shop.upload(id), Err(HostedError::NoUpload)), "{id}");
    }
}

#[test]
fn bytes_of_another_digest_are_thrown_away() {
    let (_root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    shop.begin(ID).unwrap();
    let mut upload = shop.upload(ID).unwrap();
    upload.append(b"hello").unwrap();
    let wanted = Digest::of(b"other");
    assert!(matches!(upload.finish(&wanted), Err(HostedError::OtherDigest { .. })));
    assert!(shop.blob(&wanted).unwrap().is_none() && matches!(shop.upload(ID), Err(HostedError::NoUpload)));
    let bytes = image(&Digest::of(b""), &[]);
    assert!(matches!(
        shop.put_manifest(&Named::Digest(wanted), OCI, &bytes),
        Err(HostedError::OtherDigest { .. })
    ));
}

#[test]
fn nothing_is_added_to_what_became_a_blob_meanwhile() {
    let (_root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    shop.begin(ID).unwrap();
    // Opened before it was finished, and held only after it.
    let (path, file) = shop.opened(ID).unwrap();
    let mut first = shop.upload(ID).unwrap();
    first.append(b"hello").unwrap();
    let digest = Digest::of(b"hello");
    first.finish(&digest).unwrap();
    assert!(matches!(shop.held(path, file), Err(HostedError::NoUpload)));
    // No more is one held that was thrown away, whatever was begun in its place.
    shop.begin(ID).unwrap();
    let (path, file) = shop.opened(ID).unwrap();
    shop.upload(ID).unwrap().cancel().unwrap();
    shop.begin(ID).unwrap();
    assert!(matches!(shop.held(path, file), Err(HostedError::NoUpload)));
    assert_eq!(shop.blob(&digest).unwrap().unwrap().1, 5);
}

#[test]
fn a_manifest_stands_only_with_all_its_parts() {
    let (_root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    let (config, layer) = (push(&shop, b"config"), Digest::of(b"layer"));
    let bytes = image(&config, &[layer]);
    assert!(
        matches!(shop.put_manifest(&tag("v1"), OCI, &bytes), Err(HostedError::Missing(it)) if it == layer)
    );
    push(&shop, b"layer");
    let digest = shop.put_manifest(&tag("v1"), OCI, &bytes).unwrap();
    let held = shop.manifest(&tag("v1")).unwrap().unwrap();
    assert_eq!((held.digest, held.media_type.as_str(), &held.bytes), (digest, OCI, &bytes));
    assert_eq!(shop.manifest(&Named::Digest(digest)).unwrap(), Some(held));
    let index = |digest: Digest| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"digest":"{digest}","size":1}}]}}"#
        )
    };
    shop.put_manifest(&tag("all"), INDEX, index(digest).as_bytes()).unwrap();
    let strange = index(Digest::of(b"nowhere"));
    assert!(matches!(shop.put_manifest(&tag("x"), INDEX, strange.as_bytes()), Err(HostedError::Missing(_))));
    let lies = index(digest);
    assert!(matches!(shop.put_manifest(&tag("x"), OCI, lies.as_bytes()), Err(HostedError::Manifest(_))));
    assert!(matches!(shop.put_manifest(&tag("x"), OCI, b"{}"), Err(HostedError::Manifest(_))));
    assert!(matches!(shop.put_manifest(&tag("x"), "a\nb", &bytes), Err(HostedError::Manifest(_))));
    assert_eq!(shop.tags().unwrap(), BTreeSet::from(["all".to_owned(), "v1".to_owned()]));
    for text in ["../x", "", ".x", "a/b", "sha256:zz"] {
        assert_eq!(Named::read(text), None, "{text}");
    }
}

#[test]
fn repositories_share_nothing_but_what_is_mounted() {
    let (_root, hosted) = hosted(Bounds::default());
    let (shop, blog) = (hosted.repository("a/b/shop"), hosted.repository("a/b/blog"));
    let digest = push(&shop, b"layer");
    assert!(blog.blob(&digest).unwrap().is_none());
    assert!(blog.mount(&shop, &digest).unwrap() && blog.mount(&shop, &digest).unwrap());
    assert!(blog.blob(&digest).unwrap().is_some());
    assert!(!blog.mount(&shop, &Digest::of(b"x")).unwrap());
}

#[test]
fn nothing_grows_beyond_its_bound() {
    let bounds = Bounds { blob: 10, repository: 16, uploads: 2, tags: 1, reserve: 0 };
    let (_root, hosted) = hosted(bounds);
    let shop = hosted.repository("a/b/shop");
    let digest = push(&shop, b"0123456789");
    shop.begin(ID).unwrap();
    shop.begin(OTHER).unwrap();
    assert!(matches!(shop.begin("ffffffffffffffffffffffffffffffff"), Err(HostedError::TooMuch(_))));
    let mut upload = shop.upload(ID).unwrap();
    assert!(matches!(upload.append(b"01234567890"), Err(HostedError::TooMuch(_))), "longer than a blob");
    upload.append(b"012345").unwrap();
    assert!(matches!(upload.append(b"0"), Err(HostedError::TooMuch(_))), "more than a repository");
    upload.cancel().unwrap();
    // Counted anew from the disk it is the same.
    let again = Hosted::new(hosted.inside.root.clone(), bounds).repository("a/b/shop");
    let mut upload = again.upload(OTHER).unwrap();
    assert!(matches!(upload.append(b"0123456"), Err(HostedError::TooMuch(_))));
    upload.append(b"012345").unwrap();
    assert!(shop.blob(&digest).unwrap().is_some());
    let full = Hosted::new(hosted.inside.root.clone(), Bounds { reserve: u64::MAX, ..bounds });
    let mut upload = {
        drop(upload);
        full.repository("a/b/shop").upload(OTHER).unwrap()
    };
    assert!(matches!(upload.append(b"0"), Err(HostedError::DiskFull)));
}

#[test]
fn a_sweep_takes_what_nobody_needs_and_nothing_else() {
    let (root, hosted) = hosted(Bounds::default());
    let (shop, gone) = (hosted.repository("a/b/shop"), hosted.repository("a/b/gone"));
    let (config, layer, spare) = (push(&shop, b"config"), push(&shop, b"layer"), push(&shop, b"spare"));
    let first = shop.put_manifest(&tag("v1"), OCI, &image(&config, &[layer])).unwrap();
    let other = push(&shop, b"other");
    let second = shop.put_manifest(&tag("v1"), OCI, &image(&config, &[other])).unwrap();
    push(&gone, b"x");
    shop.begin(ID).unwrap();
    let now = fs::metadata(root.path().join("a/b/shop/uploads")).unwrap().modified().unwrap();
    let shop_alone = ["a/b/shop".to_owned()];
    let later = now + 2 * DAY;
    let kept = |manifests: &[Digest]| {
        Kept::from([("a/b/shop".to_owned(), manifests.iter().copied().collect::<BTreeSet<_>>())])
    };
    let names = hosted.names().unwrap();
    let late = hosted.repository("a/b/late");
    push(&late, b"y");
    let (removed, failed) = hosted.sweep(&names, &kept(&[first]), now);
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(
        (removed.files, root.path().join("a/b/gone").try_exists().unwrap()),
        (1, false),
        "it is young"
    );
    hosted.sweep(&shop_alone, &kept(&[first]), later);
    for digest in [config, layer, other] {
        assert!(shop.blob(&digest).unwrap().is_some());
    }
    assert!(shop.blob(&spare).unwrap().is_none() && shop.upload(ID).is_err());
    hosted.sweep(&shop_alone, &kept(&[]), later + 2 * DAY);
    assert!(shop.manifest(&Named::Digest(first)).unwrap().is_none() && shop.blob(&layer).unwrap().is_none());
    assert!(shop.manifest(&Named::Digest(second)).unwrap().is_some() && shop.blob(&other).unwrap().is_some());
    assert_eq!(hosted.names().unwrap(), ["a/b/late", "a/b/shop"], "what came later is not touched");
}

#[test]
fn who_writes_the_same_manifest_or_tag_at_once_writes_a_file_of_his_own() {
    let (root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    let bytes = image(&push(&shop, b"config"), &[]);
    let digest = Digest::of(&bytes);
    // What others write just now, and what a crash left, under whatever name.
    let folders = [("tags", "v1".to_owned()), ("manifests", digest.hex())];
    let others: Vec<PathBuf> = folders
        .iter()
        .flat_map(|(folder, name)| {
            [format!(".{name}"), ".new-0".to_owned(), ".new-1".to_owned()]
                .map(|it| root.path().join("a/b/shop").join(folder).join(it))
        })
        .collect();
    for path in &others {
        fs::write(path, b"half").unwrap();
    }
    assert_eq!(shop.put_manifest(&tag("v1"), OCI, &bytes).unwrap(), digest);
    for path in &others {
        assert_eq!(fs::read(path).unwrap(), b"half", "{path:?}");
    }
    assert_eq!(shop.manifest(&tag("v1")).unwrap().unwrap().bytes, bytes);
    let now = fs::metadata(&others[0]).unwrap().modified().unwrap();
    sweep(&hosted, now);
    assert!(others.iter().all(|path| path.try_exists().unwrap()), "they may be under way");
    sweep(&hosted, now + 2 * DAY);
    assert!(others.iter().all(|path| !path.try_exists().unwrap()));
    assert_eq!(shop.manifest(&tag("v1")).unwrap().unwrap().bytes, bytes);
}

#[test]
fn a_repository_that_cannot_be_read_keeps_no_other_from_being_swept() {
    let (root, hosted) = hosted(Bounds::default());
    let [first, second] = ["a/b/first", "a/b/second"].map(|name| hosted.repository(name));
    let (spare, other) = (push(&first, b"spare"), push(&second, b"spare"));
    fs::write(root.path().join("a/b/first/tags/v1"), b"no digest").unwrap();
    let (names, kept) = tags_alone(&hosted);
    let now = fs::metadata(root.path().join("a/b/first/tags/v1")).unwrap().modified().unwrap();
    let (removed, failed) = hosted.sweep(&names, &kept, now + 2 * DAY);
    assert_eq!((removed.files, failed.len(), failed[0].0.as_str()), (1, 1, "a/b/first"), "{failed:?}");
    assert!(first.blob(&spare).unwrap().is_some(), "who knows what needs it");
    assert!(second.blob(&other).unwrap().is_none());
}

#[test]
fn what_is_elsewhere_too_need_not_be_pushed_and_stays_where_it_was() {
    let (root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    let (pushed, away) = (push(&shop, b"windows"), Digest::of(b"more windows"));
    let layer = |digest| format!(r#"{{"digest":"{digest}","size":1,"urls":["https://example.com/x"]}}"#);
    let bytes = format!(r#"{{"schemaVersion":2,"layers":[{},{}]}}"#, layer(pushed), layer(away));
    shop.put_manifest(&tag("v1"), OCI, bytes.as_bytes()).unwrap();
    let now = fs::metadata(root.path().join("a/b/shop/tags/v1")).unwrap().modified().unwrap();
    sweep(&hosted, now + 2 * DAY);
    assert!(shop.blob(&pushed).unwrap().is_some());
}

#[test]
fn what_was_named_stays_a_day_from_when_nothing_names_it() {
    let (_root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    let (config, layer) = (push(&shop, b"config"), push(&shop, b"layer"));
    let digest = shop.put_manifest(&tag("v1"), OCI, &image(&config, &[layer])).unwrap();
    let now = age(&shop, &FOLDERS);
    assert_eq!(sweep(&hosted, now), Removed::default());
    shop.untag("v1").unwrap();
    assert_eq!(sweep(&hosted, now + DAY - HOUR), Removed::default());
    assert!(shop.manifest(&Named::Digest(digest)).unwrap().is_some());
    assert_eq!(sweep(&hosted, now + DAY + HOUR).files, 3);
    assert!(shop.manifest(&Named::Digest(digest)).unwrap().is_none());
}

#[test]
fn what_is_pushed_or_mounted_again_is_new() {
    let (_root, hosted) = hosted(Bounds::default());
    let [shop, blog] = ["a/b/shop", "a/b/blog"].map(|name| hosted.repository(name));
    let [mounted, pushed, late] = [b"mounted", b"pushed.", b"late..."].map(|bytes| push(&shop, bytes));
    let now = age(&shop, &[BLOBS]);
    assert!(blog.mount(&shop, &mounted).unwrap());
    push(&shop, b"pushed.");
    // All of it came yesterday, and only now it is said what it is.
    blog.begin(ID).unwrap();
    blog.upload(ID).unwrap().append(b"late...").unwrap();
    age(&blog, &[UPLOADS]);
    blog.upload(ID).unwrap().finish(&late).unwrap();
    assert_eq!(sweep(&hosted, now).files, 1);
    assert!(blog.blob(&mounted).unwrap().is_some() && blog.blob(&late).unwrap().is_some());
    assert!(shop.blob(&pushed).unwrap().is_some() && shop.blob(&late).unwrap().is_none());
}

#[test]
fn the_manifests_of_an_index_that_is_to_come_stay_with_what_they_need() {
    let (_root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    let (config, layer) = (push(&shop, b"config"), push(&shop, b"layer"));
    // A client that finds them there sends them no more.
    let now = age(&shop, &[BLOBS]);
    let bytes = image(&config, &[layer]);
    let digest = shop.put_manifest(&Named::Digest(Digest::of(&bytes)), OCI, &bytes).unwrap();
    assert_eq!(sweep(&hosted, now), Removed::default());
    assert!(shop.blob(&config).unwrap().is_some() && shop.blob(&layer).unwrap().is_some());
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":1}}]}}"#);
    shop.put_manifest(&tag("all"), INDEX, index.as_bytes()).unwrap();
    shop.untag("all").unwrap();
    assert_eq!(sweep(&hosted, now + DAY + HOUR).files, 4, "what nobody came to name goes");
}

/// Waits until a thread waits for a lock. Says whether it did, and did not end without.
fn waits<T>(thread: &JoinHandle<T>) -> bool {
    let own = format!(" {} ", std::process::id());
    loop {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        if locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&own)) {
            return true;
        }
        if thread.is_finished() {
            return false;
        }
        thread::yield_now();
    }
}

#[test]
fn an_image_that_was_taken_has_its_layers_whatever_is_swept_meanwhile() {
    let (_root, hosted) = hosted(Bounds::default());
    let shop = hosted.repository("a/b/shop");
    let (config, layer, spare) = (push(&shop, b"config"), push(&shop, b"layer"), push(&shop, b"spare"));
    let now = age(&shop, &[BLOBS]);
    let put = |tag: Named, layer: Digest| {
        let (shop, bytes) = (shop.clone(), image(&config, &[layer]));
        move || shop.put_manifest(&tag, OCI, &bytes)
    };
    // A sweep begins, and waits for who pushes.
    let pushing = shop.hold(FlockOperation::LockShared).unwrap();
    let all = hosted.clone();
    let sweeping = thread::spawn(move || sweep(&all, now));
    assert!(waits(&sweeping));
    put(tag("v1"), layer)().unwrap();
    drop(pushing);
    assert_eq!(sweeping.join().unwrap().files, 1);
    assert!(shop.blob(&layer).unwrap().is_some() && shop.blob(&spare).unwrap().is_none());
    // Who pushes waits for a sweep, and finds what that left.
    let sweeping = shop.hold(FlockOperation::LockExclusive).unwrap();
    let pushing = thread::spawn(put(tag("v2"), layer));
    assert!(waits(&pushing));
    fs::remove_file(shop.path.join(BLOBS).join(layer.hex())).unwrap();
    drop(sweeping);
    assert!(matches!(pushing.join().unwrap(), Err(HostedError::Missing(it)) if it == layer));
    // Also where it left nothing.
    let sweeping = shop.hold(FlockOperation::LockExclusive).unwrap();
    let pushing = thread::spawn(put(tag("v3"), layer));
    assert!(waits(&pushing));
    fs::remove_dir_all(&shop.path).unwrap();
    drop(sweeping);
    assert!(matches!(pushing.join().unwrap(), Err(HostedError::Missing(it)) if it == config));
}

#[test]
fn uploads_that_were_abandoned_make_room_and_those_in_use_do_not() {
    let (_root, hosted) = hosted(Bounds { uploads: 3, ..Bounds::default() });
    let shop = hosted.repository("a/b/shop");
    let [first, second, third, fourth] = ["1", "2", "3", "4"].map(|digit| digit.repeat(32));
    for id in [&first, &second, &third] {
        shop.begin(id).unwrap();
    }
    assert!(matches!(shop.begin(&fourth), Err(HostedError::TooMuch(_))), "they are young");
    let now = age(&shop, &[UPLOADS]);
    // The oldest is somebody's, and the youngest is younger than the other.
    let held = shop.upload(&first).unwrap();
    let date = |id: &str, time| File::open(shop.path.join(UPLOADS).join(id)).unwrap().set_modified(time);
    date(&third, now - HOUR).unwrap();
    shop.begin(&fourth).unwrap();
    assert!(matches!(shop.upload(&second), Err(HostedError::NoUpload)));
    drop(shop.upload(&third).unwrap());
    shop.begin(&second).unwrap();
    assert!(matches!(shop.upload(&third), Err(HostedError::NoUpload)));
    assert!(matches!(shop.begin(&third), Err(HostedError::TooMuch(_))));
    drop(held);
    shop.begin(&third).unwrap();
    assert_eq!(shop.names(UPLOADS).unwrap().len(), 3);
}

#[test]
fn what_was_sent_of_abandoned_uploads_makes_room_for_blobs() {
    let (_root, hosted) = hosted(Bounds { repository: 16, reserve: 0, ..Bounds::default() });
    let shop = hosted.repository("a/b/shop");
    for id in [OTHER, ID] {
        shop.begin(id).unwrap();
        shop.upload(id).unwrap().append(b"01234567").unwrap();
    }
    let mut upload = shop.upload(ID).unwrap();
    assert!(matches!(upload.append(b"8"), Err(HostedError::TooMuch(_))), "the other one is young");
    age(&shop, &[UPLOADS]);
    upload.append(b"89abcdef").unwrap();
    assert!(matches!(shop.upload(OTHER), Err(HostedError::NoUpload)));
    assert!(matches!(upload.append(b"x"), Err(HostedError::TooMuch(_))), "its own stays");
    upload.finish(&Digest::of(b"0123456789abcdef")).unwrap();
}

#[test]
fn an_upload_that_nobody_goes_on_with_is_thrown_away_when_it_ends() {
    let (_root, hosted) = hosted(Bounds { repository: 6, reserve: 0, ..Bounds::default() });
    let shop = hosted.repository("a/b/shop");
    let begin = || {
        shop.begin(ID).unwrap();
        shop.upload(ID).unwrap().at_once()
    };
    let mut upload = begin();
    upload.append(b"hello").unwrap();
    drop(upload);
    assert!(shop.names(UPLOADS).unwrap().is_empty());
    let mut upload = begin();
    upload.append(b"hello").unwrap();
    assert!(upload.finish(&Digest::of(b"other")).is_err());
    let mut upload = begin();
    upload.append(b"hello").unwrap();
    upload.finish(&Digest::of(b"hello")).unwrap();
    assert!(shop.names(UPLOADS).unwrap().is_empty() && shop.blob(&Digest::of(b"hello")).unwrap().is_some());
    let mut upload = begin();
    assert!(matches!(upload.append(b"12"), Err(HostedError::TooMuch(_))), "each was counted once");
    upload.append(b"1").unwrap();
}
