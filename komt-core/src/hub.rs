//! [`HubOptions`] and `fetch`: a model's files from the Hugging Face hub, through the cache that its tools share.
//!
//! ```text
//! <cache>/models--owner--name/refs/main            the commit that a branch stood at, last time
//!                             snapshots/<commit>/  a link for each file: the directory that `fetch` returns
//!                             blobs/<etag>         what the links point to
//! <cache>/.locks/models--owner--name/<etag>.lock   held while that blob is written
//! ```
//!
//! A download goes into a file beside its blob and gets the blob's name when all its bytes are on disk; the link comes
//! after that, the reference last. So whatever is interrupted, what has a name is whole.

mod settings;
mod transfer;

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use crate::files::{INDEX, SINGLE, is_file_name};
use crate::{Error, Result};
use hf_hub::api::RepoInfo;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde_json::Value;
pub use settings::HubOptions;
use settings::Settings;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use transfer::{Failure, Remote};

const CONFIG: &str = "config.json";
/// Files that a model may have beside its configuration and weights.
const OPTIONAL: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// How other frameworks' weights end: named in the error when there are only these.
const OTHER_WEIGHTS: [&str; 9] =
    [".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ckpt"];

/// File, bytes that are there, bytes in all.
pub(crate) type OnProgress<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// Finds a model's files in the cache, or downloads them into it, and returns the directory that holds them: the
/// configuration, the weights in safetensors, and what there is of tokenizer, template and generation defaults.
///
/// Files that the cache has are not asked for again; a branch's commit is, unless offline. All files are of one commit.
/// If the hub cannot be reached at all, what the cache has of the revision is used when it is complete.
///
/// `on_progress(file, done_bytes, total_bytes)` hears of each file that is downloaded: `done_bytes` never falls, and
/// ends at `total_bytes`.
///
/// # Errors
/// [`Error::Hub`].
pub(crate) fn fetch(repo: &str, options: &HubOptions, on_progress: OnProgress<'_>) -> Result<PathBuf> {
    fetch_with(repo, Settings::of_process(options), on_progress)
        .map_err(|reason| Error::Hub { repo: repo.into(), reason })
}

fn fetch_with(
    repo: &str,
    settings: std::result::Result<Settings, String>,
    on_progress: OnProgress<'_>,
) -> std::result::Result<PathBuf, String> {
    let settings = settings?;
    check_repo(repo)?;
    check_revision(&settings.revision)?;
    let repo = Repo::with_revision(repo.into(), RepoType::Model, settings.revision.clone());
    let snapshots =
        Snapshots { cache: Cache::new(settings.cache_dir.clone()).repo(repo.clone()), repo, settings };
    if snapshots.settings.offline {
        return snapshots.cached().map_err(|missing| {
            format!("offline, and {missing}: fetch it once without HF_HUB_OFFLINE or HubOptions::offline")
        });
    }
    let Settings { endpoint, token, .. } = &snapshots.settings;
    let remote = Remote::new(endpoint, snapshots.repo.clone(), token.clone());
    match remote.listing() {
        Ok(listing) => snapshots.download(&remote, &listing, on_progress),
        Err(Failure::Unreachable(reason)) => {
            snapshots.cached().map_err(|missing| format!("{reason}; and {missing}"))
        }
        Err(failure) => Err(failure.into_reason()),
    }
}

/// The cache's part for one repository.
struct Snapshots {
    cache: CacheRepo,
    repo: Repo,
    settings: Settings,
}

impl Snapshots {
    /// The directory of the revision, if the cache has all that a model needs; else what it lacks.
    fn cached(&self) -> std::result::Result<PathBuf, String> {
        let revision = &self.settings.revision;
        // A branch through its reference; a commit is the directory's own name.
        let by_ref = self.cache.get(CONFIG).and_then(|config| config.parent().map(Path::to_path_buf));
        let dir = by_ref.unwrap_or_else(|| self.cache.pointer_path(revision));
        let lacks = |what: &str| {
            Err(format!(
                "the cache {} has no {what} of revision `{revision}`",
                self.settings.cache_dir.display()
            ))
        };
        if !dir.join(CONFIG).exists() {
            return lacks(CONFIG);
        }
        if dir.join(SINGLE).exists() {
            return Ok(dir);
        }
        if !dir.join(INDEX).exists() {
            return lacks(&format!("{SINGLE} or {INDEX}"));
        }
        let absent: Vec<String> =
            shards(&dir)?.into_iter().filter(|shard| !dir.join(shard).exists()).collect();
        if absent.is_empty() { Ok(dir) } else { lacks(&absent.join(", ")) }
    }

    /// Downloads what the cache does not have yet. Weights last: where they are, the rest is.
    fn download(
        &self,
        remote: &Remote,
        listing: &RepoInfo,
        on_progress: OnProgress<'_>,
    ) -> std::result::Result<PathBuf, String> {
        let commit = &listing.sha;
        if !is_plain(commit) {
            return Err(format!("the hub gave `{}` as commit: not one", transfer::short(commit)));
        }
        let files: BTreeSet<&str> = listing.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        if !files.contains(CONFIG) {
            return Err(format!("expected a {CONFIG}, found none: not a model in the transformers layout"));
        }
        let weights = [SINGLE, INDEX]
            .into_iter()
            .find(|name| files.contains(name))
            .ok_or_else(|| no_weights(&files))?;
        for file in OPTIONAL.into_iter().filter(|file| files.contains(file)).chain([CONFIG, weights]) {
            self.file(remote, commit, file, on_progress)?;
        }
        let dir = self.cache.pointer_path(commit);
        if weights == INDEX {
            for shard in shards(&dir)? {
                if !files.contains(shard.as_str()) {
                    return Err(format!("{INDEX} names {shard}, which the repository does not have"));
                }
                self.file(remote, commit, &shard, on_progress)?;
            }
        }
        if *commit != self.settings.revision {
            self.cache.create_ref(commit).map_err(|error| cannot("write a reference below", &dir, &error))?;
        }
        Ok(dir)
    }

    /// Downloads one file, unless the cache has it.
    fn file(
        &self,
        remote: &Remote,
        commit: &str,
        file: &str,
        on_progress: OnProgress<'_>,
    ) -> std::result::Result<(), String> {
        let link = self.cache.pointer_path(commit).join(file);
        if link.exists() {
            return Ok(());
        }
        let head = remote.head(commit, file).map_err(Failure::into_reason)?;
        if !is_plain(&head.etag) {
            return Err(format!("{file}: the hub gave `{}` as ETag: not one", transfer::short(&head.etag)));
        }
        let blob = self.cache.blob_path(&head.etag);
        let lock = self.settings.cache_dir.join(".locks").join(self.repo.folder_name());
        let lock = lock.join(format!("{}.lock", head.etag));
        for path in [&link, &blob, &lock] {
            let dir = path.parent().unwrap_or(path);
            fs::create_dir_all(dir).map_err(|error| cannot("create", dir, &error))?;
        }
        let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
        let _locked = locked.map_err(|error| cannot("lock", &lock, &error))?; // until the end of the function
        let len = fs::metadata(&blob).ok().map(|blob| blob.len());
        if len.is_none() || head.size.is_some_and(|size| Some(size) != len) {
            // A name of our own: other tools resume other names, and some do not write front to back.
            let part = self.cache.blob_path(&format!("{}.komt-part", head.etag));
            remote.download(file, &head, &part, on_progress).map_err(Failure::into_reason)?;
            fs::rename(&part, &blob).map_err(|error| cannot("rename", &part, &error))?;
        }
        point(&link, &blob, &head.etag).map_err(|error| cannot("link", &link, &error))
    }
}

/// Shards that the index in `dir` names, each once.
fn shards(dir: &Path) -> std::result::Result<BTreeSet<String>, String> {
    let path = dir.join(INDEX);
    let text = fs::read(&path).map_err(|error| cannot("read", &path, &error))?;
    let index: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{INDEX}: not JSON: {error}"))?;
    let map = index.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
    let map =
        map.ok_or_else(|| format!("{INDEX}: expected `weight_map`, tensors and their files; found none"))?;
    map.iter()
        .map(|(tensor, shard)| match shard.as_str() {
            Some(name) if is_file_name(name) => Ok(name.to_owned()),
            _ => Err(format!(
                "{INDEX}: tensor `{}`: expected the name of a file beside the index, found {}",
                transfer::short(tensor),
                transfer::short(&shard.to_string())
            )),
        })
        .collect()
}

/// Commits and ETags become names of files: hexadecimal on the hub, and nothing that is more than a name elsewhere.
fn is_plain(name: &str) -> bool {
    is_file_name(name)
        && name.len() <= 128
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn no_weights(files: &BTreeSet<&str>) -> String {
    let is_other = |name: &&&str| OTHER_WEIGHTS.iter().any(|end| name.ends_with(end));
    let mut found: Vec<&str> = files.iter().filter(is_other).copied().take(6).collect();
    if found.len() == 6 {
        found[5] = "...";
    }
    let found = if found.is_empty() { "no weights at all".into() } else { found.join(", ") };
    format!("expected {SINGLE} or {INDEX}, found {found}: only weights in safetensors are read")
}

/// The hub's rule for names: `name` or `owner/name` of at most 96 letters, digits, `-`, `_` and `.`.
fn check_repo(repo: &str) -> std::result::Result<(), String> {
    let part = |part: &str| {
        let edge = |c: char| c == '-' || c == '.';
        let inner = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        inner && !part.is_empty() && !part.starts_with(edge) && !part.ends_with(edge)
    };
    let doubled = repo.contains("--") || repo.contains("..") || repo.ends_with(".git");
    if repo.len() <= 96 && !doubled && repo.split('/').count() <= 2 && repo.split('/').all(part) {
        return Ok(());
    }
    Err("expected a repository's name, as `owner/name` (letters, digits, single `-` and `.`, `_`; 96 at most)".into())
}

/// A branch, a tag or a commit: it becomes part of an address and of a path.
fn check_revision(revision: &str) -> std::result::Result<(), String> {
    let part = |part: &str| {
        let inner = part.chars().all(|c| c.is_ascii_graphic() && !"\\:*?\"<>|~^%#&[]{}`'".contains(c));
        inner && !part.is_empty() && !part.starts_with('.')
    };
    if revision.split('/').all(part) {
        return Ok(());
    }
    Err(format!("expected a branch, tag or commit as revision, found `{}`", transfer::short(revision)))
}

/// Makes `link` show the blob, in one step: another process may be reading it. A relative link, so that the cache can
/// be moved as a whole.
fn point(link: &Path, blob: &Path, etag: &str) -> std::io::Result<()> {
    let mut new = link.as_os_str().to_owned();
    new.push(".komt-part");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {} // there was none, or one of a process that was stopped
    }
    #[cfg(unix)]
    {
        let _ = blob;
        std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), &new)?;
    }
    #[cfg(not(unix))]
    {
        let _ = etag;
        fs::hard_link(blob, &new)?; // symbolic links need a privilege on Windows
    }
    fs::rename(new, link)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
