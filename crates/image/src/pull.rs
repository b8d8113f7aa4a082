//! An image from its registry into the store: nothing is believed, and nothing is fetched or unpacked twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::config;
use crate::digest::Digest;
use crate::error::{ImageError, failed};
use crate::manifest::{Descriptor, Document, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Fetched, Registries};
use crate::store::{Image, Parts, Pin, Store};
use crate::unpack::Ownership;

/// How many indexes may lie within one another: a list of lists is allowed, and nobody makes one.
const INDEXES: u8 = 3;
/// How many layers are fetched at once, as Docker does.
const AT_ONCE: usize = 3;

/// What is to be pulled.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name. One with a digest gives the same image for ever.
    pub reference: Reference,
    /// What it has to run on.
    pub platform: Platform,
    /// Whom its files belong to.
    pub ownership: Ownership,
    /// The images that whoever wants it has already, by the digests of their manifests or indexes. What stands here of others is another's: a digest, which
    /// anybody may have read somewhere, gives nobody what its registry would not.
    pub had: BTreeSet<Digest>,
}

/// How a pull gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What the name means is known: so many layers, of so many bytes as they are sent.
    Found {
        /// How many layers it has.
        layers: usize,
        /// The bytes of all of them.
        bytes: u64,
    },
    /// A layer stood already.
    Had(Digest),
    /// A layer arrived whole and is unpacked.
    Unpacking(Digest),
    /// A layer stands.
    Done(Digest),
}

/// An image that was pulled. While this lives no sweep takes any of it.
#[derive(Debug)]
pub struct Pulled {
    /// The digest of what the name meant: an index, or the manifest itself.
    pub digest: Digest,
    /// The image.
    pub image: Image,
    _pins: Vec<Pin>,
}

impl Pulled {
    pub(crate) fn new(digest: Digest, image: Image, pins: Vec<Pin>) -> Self {
        Self { digest, image, _pins: pins }
    }
}

/// Ends the work in other threads when nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A layer, by both its names.
struct Layer {
    sent: Descriptor,
    diff_id: Digest,
}

impl Store {
    /// Pulls an image, or takes what stands. To drop it ends it; what was fetched by then is taken up by the next one.
    ///
    /// # Errors
    /// [`ImageError`]; then what stands stands, whole, and the rest is swept some time.
    pub async fn pull(
        &self,
        registries: &Registries,
        wanted: &Wanted,
        progress: &(dyn Fn(Step) + Sync),
    ) -> Result<Pulled, ImageError> {
        let mut pins = Vec::new();
        let own = self.parts_of(&wanted.had);
        let (top, manifest, documents) = self.find(registries, wanted, &own, &mut pins).await?;
        let digest = documents.last().map_or(top, |fetched| fetched.digest);
        let config = match self.own_document(&manifest.config.digest, &own)? {
            Some(config) => config,
            None => registries.small_blob(&wanted.reference, &manifest.config).await?,
        };
        let layers = layers(&manifest, &config, &wanted.platform)?;
        pins.push(self.pin(layers.iter().flat_map(|layer| [layer.sent.digest, layer.diff_id])));
        let bytes = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.sent.size));
        if bytes > self.limits().compressed {
            let most = self.limits().compressed;
            return Err(ImageError::TooLarge(format!(
                "its layers are {bytes} bytes, and {most} are the most"
            )));
        }
        progress(Step::Found { layers: layers.len(), bytes });
        let cancelled = Arc::new(AtomicBool::new(false));
        let _ends = CancelOnDrop(Arc::clone(&cancelled));
        let mut all: Vec<BoxFuture<'_, Result<(), ImageError>>> = Vec::new();
        for layer in &layers {
            all.push(Box::pin(self.get(registries, wanted, (layer, &own), &cancelled, progress)));
        }
        futures_util::stream::iter(all).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        // In this order: what has a manifest is whole.
        self.put_document(&config)?;
        for fetched in documents.iter().rev() {
            self.put_document(&fetched.bytes)?;
        }
        let image = self.image(&digest, wanted.ownership)?;
        let image = image.ok_or_else(|| ImageError::invalid("it changed while it was pulled"))?;
        Ok(Pulled { digest: top, image, _pins: pins })
    }

    /// What the name means: its digest, the manifest for the platform, and the documents that lead there, the manifest last.
    async fn find(
        &self,
        registries: &Registries,
        wanted: &Wanted,
        own: &Parts,
        pins: &mut Vec<Pin>,
    ) -> Result<(Digest, Manifest, Vec<Fetched>), ImageError> {
        let mut documents: Vec<Fetched> = Vec::new();
        let mut reference = wanted.reference.clone();
        let mut size = None;
        for _depth in 0..=INDEXES {
            if let Some(digest) = reference.digest() {
                pins.push(self.pin([*digest]));
            }
            let stored = match reference.digest() {
                Some(digest) => {
                    let own = self.own_document(digest, own)?;
                    own.map(|bytes| Fetched { digest: *digest, bytes, content_type: None })
                }
                None => None,
            };
            let fetched = match stored {
                Some(fetched) => fetched,
                None => registries.manifest(&reference).await?,
            };
            pins.push(self.pin([fetched.digest]));
            let length = fetched.bytes.len() as u64;
            if size.is_some_and(|size| size != length) {
                return Err(ImageError::invalid(format!(
                    "its manifest has {length} bytes, and its index says otherwise"
                )));
            }
            let read = Document::read(&fetched.bytes, fetched.content_type.as_deref())?;
            documents.push(fetched);
            let top = documents.first().map(|fetched| fetched.digest).expect("one was just pushed");
            match read {
                Document::Manifest(manifest) => {
                    pins.push(self.pin([manifest.config.digest]));
                    return Ok((top, manifest, documents));
                }
                Document::Index(manifests) => {
                    let chosen = choose(&manifests, &wanted.platform)?;
                    reference = reference.pinned(chosen.digest);
                    size = Some(chosen.size);
                }
            }
        }
        Err(ImageError::invalid("its index holds an index that holds an index, and so on"))
    }

    /// A document that stands, where whoever asks has it.
    fn own_document(&self, digest: &Digest, own: &Parts) -> Result<Option<Vec<u8>>, ImageError> {
        if own.has_document(digest) { self.document(digest) } else { Ok(None) }
    }

    /// Has one layer stand.
    async fn get(
        &self,
        registries: &Registries,
        wanted: &Wanted,
        (layer, own): (&Layer, &Parts),
        cancelled: &Arc<AtomicBool>,
        progress: &(dyn Fn(Step) + Sync),
    ) -> Result<(), ImageError> {
        // Always in this order, so that no two wait for each other.
        let layer_turn = self.turn(format!("layer {} {:?}", layer.diff_id, wanted.ownership)).await;
        let stands = self.layer(&layer.diff_id, wanted.ownership)?;
        // One that stands and is another's is fetched as if it did not, which only who may have it can do.
        if stands.is_some_and(|it| it.for_all || own.has_layer(&layer.diff_id)) {
            progress(Step::Had(layer.diff_id));
            return Ok(());
        }
        let blob_turn = self.turn(format!("blob {}", layer.sent.digest)).await;
        let path = self.download(&layer.sent.digest);
        registries.blob(&wanted.reference, &layer.sent, &path, self.limits().reserve).await?;
        progress(Step::Unpacking(layer.diff_id));
        let (store, diff_id, ownership) = (self.clone(), layer.diff_id, wanted.ownership);
        let for_all = registries.is_for_all(&wanted.reference);
        let cancelled = Arc::clone(cancelled);
        let unpacking = tokio::task::spawn_blocking(move || {
            // Whoever drops the pull does not end this thread at once, and nobody else may have its file before it ends.
            let _turns = (layer_turn, blob_turn);
            let file = std::fs::File::open(&path).map_err(failed(&path, "opened"))?;
            let done = store.put_layer((file, Some(&path)), &diff_id, ownership, for_all, &cancelled);
            // Whole as it is, it is of no more use: what it holds is unpacked, or is not what it should be.
            if done.is_err() && path.try_exists().map_err(failed(&path, "read"))? {
                std::fs::remove_file(&path).map_err(failed(&path, "removed"))?;
            }
            done
        });
        match unpacking.await {
            Ok(done) => done?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(ImageError::Cancelled),
        }
        progress(Step::Done(layer.diff_id));
        Ok(())
    }
}

/// The image of an index that runs on the platform.
fn choose<'a>(manifests: &'a [Descriptor], platform: &Platform) -> Result<&'a Descriptor, ImageError> {
    let offered = manifests.iter().filter_map(|it| Some((it.platform.as_ref()?, it)));
    let named = platform.choose(offered);
    // An index of one image that says nothing of what it is for is what `oras` and older builders make.
    let sole = match manifests {
        [sole] if sole.platform.is_none() => Some(sole),
        _ => None,
    };
    named.or(sole).ok_or_else(|| {
        let mut offered: Vec<String> =
            manifests.iter().filter_map(|it| it.platform.as_ref()).map(ToString::to_string).collect();
        // What builders attach to images is listed as one for an unknown system.
        offered.retain(|it| !it.starts_with("unknown"));
        offered.truncate(20);
        let offered =
            if offered.is_empty() { "nothing that is known".to_owned() } else { offered.join(", ") };
        ImageError::NoPlatform {
            wanted: platform.to_string(),
            offered: crate::error::shown(offered.as_bytes()),
        }
    })
}

/// The layers with their digests by the configuration, which must fit the manifest and the platform.
fn layers(manifest: &Manifest, config: &[u8], platform: &Platform) -> Result<Vec<Layer>, ImageError> {
    let config = config::Document::read(config)?;
    if platform.choose([(&config.platform, ())].into_iter()).is_none() {
        let offered = crate::error::shown(config.platform.to_string().as_bytes());
        return Err(ImageError::NoPlatform { wanted: platform.to_string(), offered });
    }
    if config.diff_ids.len() != manifest.layers.len() {
        let (told, sent) = (config.diff_ids.len(), manifest.layers.len());
        return Err(ImageError::invalid(format!(
            "its configuration has {told} layers and its manifest {sent}"
        )));
    }
    let both = manifest.layers.iter().cloned().zip(config.diff_ids);
    Ok(both.map(|(sent, diff_id)| Layer { sent, diff_id }).collect())
}
