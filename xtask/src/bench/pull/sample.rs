//! The image that is pulled: layers as images have them, of thousands of files that pack well and files that do not, made from a seed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::program::Program;

/// What the app in it serves.
pub(super) const PAGE: &str = "from an image of some size\n";
/// Where it listens.
const PORT: u16 = 80;
/// Files in a folder.
const FOLDER: u64 = 40;
/// What the content is made from. Another one makes another image of the same size.
const SEED: u64 = 0x0BE2_7401_D0C4_E245;

/// A layer: a folder, how many files it has, how many bytes one of them in the mean, and how many of a hundred do not pack.
const LAYERS: [(&str, u64, u64, u64); 5] = [
    ("usr/lib/base", 2_000, 30_000, 30),
    ("usr/lib/runtime", 1_500, 30_000, 30),
    ("srv/modules", 6_000, 7_000, 10),
    ("srv/assets", 300, 110_000, 100),
    ("srv/code", 200, 100_000, 20),
];

/// An image in OCI's layout.
pub(super) struct Sample {
    /// Where it lies.
    pub(super) layout: PathBuf,
    files: u64,
    bytes: u64,
    sent: u64,
}

impl Sample {
    /// Makes it in `dir`.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let blobs = dir.join("layout/blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let mut sample = Self { layout: dir.join("layout"), files: 0, bytes: 0, sent: 0 };
        let mut random = Random(SEED);
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (index, layer) in LAYERS.iter().enumerate() {
            let root = dir.join(format!("layer-{index}"));
            sample.fill(&root, layer, &mut random)?;
            if index == 0 {
                app(&root)?;
            }
            let tar = dir.join(format!("layer-{index}.tar"));
            // The same bytes each time, whoever makes it when.
            let same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
            Program::new("tar").args(same).arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".").run()?;
            diff_ids.push(format!("sha256:{}", sha256(&tar)?));
            Program::new("gzip").args(["-n", "-6"]).arg(&tar).run()?;
            let packed = tar.with_extension("tar.gz");
            let (digest, size) = (sha256(&packed)?, fs::metadata(&packed)?.len());
            fs::rename(&packed, blobs.join(&digest))?;
            fs::remove_dir_all(&root)?;
            sample.sent += size;
            layers.push(descriptor("layer.v1.tar+gzip", &digest, size));
        }
        let config = blob(dir, &blobs, "config.v1+json", &configuration(&diff_ids))?;
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let mut manifest = blob(dir, &blobs, "manifest.v1+json", &manifest)?;
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "sample" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(sample.layout.join("index.json"), index.to_string())?;
        fs::write(sample.layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(sample)
    }

    /// How large it is, and of how many files.
    pub(super) fn in_words(&self) -> String {
        let (layers, million) = (LAYERS.len(), 1_000_000);
        let (bytes, sent, files) = (self.bytes / million, self.sent / million, self.files);
        format!("{bytes} MB in {layers} layers and {files} files, {sent} MB as they are sent")
    }

    fn fill(
        &mut self,
        root: &Path,
        (folder, files, mean, noisy): &(&str, u64, u64, u64),
        random: &mut Random,
    ) -> Result<()> {
        for number in 0..*files {
            let dir = root.join(folder).join(format!("{:03}", number / FOLDER));
            fs::create_dir_all(&dir)?;
            // From a quarter of the mean to seven quarters of it.
            let length = mean / 4 + random.below(mean * 3 / 2);
            let content = if random.below(100) < *noisy { random.noise(length) } else { random.text(length) };
            let mut file = fs::File::create(dir.join(format!("file-{number}")))?;
            file.write_all(&content)?;
            self.files += 1;
            self.bytes += length;
        }
        Ok(())
    }
}

fn app(root: &Path) -> Result<()> {
    for folder in ["bin", "srv/www", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox is not there")?;
    fs::write(root.join("srv/www/index.html"), PAGE)?;
    Ok(())
}

fn configuration(diff_ids: &[String]) -> Value {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({
        "architecture": machine, "os": "linux",
        "config": {
            "Cmd": command(PORT),
            "ExposedPorts": { format!("{PORT}/tcp"): {} },
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

/// What runs of it, listening at `port`.
pub(super) fn command(port: u16) -> [String; 7] {
    let port = port.to_string();
    ["/bin/busybox", "httpd", "-f", "-p", &port, "-h", "/srv/www"].map(str::to_owned)
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size,
    })
}

/// Keeps a document as a blob.
fn blob(dir: &Path, blobs: &Path, kind: &str, document: &Value) -> Result<Value> {
    let (file, text) = (dir.join("document"), document.to_string());
    fs::write(&file, &text)?;
    let digest = sha256(&file)?;
    fs::rename(&file, blobs.join(&digest))?;
    Ok(descriptor(kind, &digest, u64::try_from(text.len())?))
}

fn sha256(file: &Path) -> Result<String> {
    let said = Program::new("sha256sum").arg(file).output()?;
    let digest = said.split(' ').next().context("sha256sum says nothing")?;
    Ok(digest.to_owned())
}

/// Marsaglia's xorshift64*: what it gives does not pack, and is the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn noise(&mut self, length: u64) -> Vec<u8> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Words out of a few hundred, as code and its documents are: it packs to about a quarter.
    fn text(&mut self, length: u64) -> Vec<u8> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            let word = self.below(512);
            let ends = if word.is_multiple_of(11) { '\n' } else { ' ' };
            bytes.extend(format!("{:x}{ends}", word.wrapping_mul(0x9E37_79B9)).bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_content_of_the_length_that_is_asked_for() {
        let (mut one, mut other) = (Random(SEED), Random(SEED));
        assert_eq!((one.noise(13), one.text(1_001)), (other.noise(13), other.text(1_001)));
        assert_eq!((one.noise(13).len(), one.text(1_001).len()), (13, 1_001));
        assert_ne!(one.noise(64), one.noise(64));
    }

    #[test]
    fn it_has_two_hundred_megabytes() {
        let bytes: u64 = LAYERS.iter().map(|(_, files, mean, _)| files * mean).sum();
        assert_eq!(bytes, 200_000_000);
    }
}
