//! `stack`: what is told before anything is done.

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
