//! `stack` and what is pushed to apps: what is told of what is not there, or stays.

use super::*;

fn write(platform: &Platform, file: &str, text: &str) {
    let path = platform.directory.path().join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_manifest_beside_the_source_of_a_service_is_told_of() {
    let platform = Platform::run(&[]);
    write(&platform, "compose.yaml", "services:\n  a: {image: x}\n  api: {build: ./api}\n");
    write(&platform, "api/berth.toml", "app = \"api\"\n");
    let (status, out, _) = platform.berth("stack up --dry-run", "");
    assert_eq!(status, ExitStatus::Ok);
    assert!(out.contains("compose.yaml:3 services.api.build: ./api/berth.toml is not read"), "{out}");
    std::fs::remove_file(platform.directory.path().join("api/berth.toml")).unwrap();
    assert!(!platform.berth("stack up --dry-run", "").1.contains("not taken over"));
}

#[test]
fn images_of_an_app_that_is_not_there_yet_may_be_pushed_all_the_same() {
    let (status, _, err) = Platform::run(&[]).berth("registry -a shop", "");
    assert_eq!(status, ExitStatus::NotFound);
    assert!(err.contains("`berth registry password --app shop` makes it"), "{err}");
}
