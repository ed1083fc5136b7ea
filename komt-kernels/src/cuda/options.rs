//! [`CudaOptions`].

use super::cache;
use std::env;
use std::path::PathBuf;

/// How a [`Cuda`](super::Cuda) is to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CudaOptions {
    /// Number of the device.
    pub ordinal: usize,
    /// NVRTC's file or its directory. `None`: as `KOMT_NVRTC` says, else wherever it is usually installed: where the loader
    /// looks, in `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda*`, `/opt/cuda`, and in the packages of the Python environment.
    pub nvrtc: Option<PathBuf>,
    /// Where compiled kernels are kept.
    pub cache: CudaCache,
    /// Whether each operation is waited for, so that errors name it; nothing is recorded then. Also by `KOMT_CUDA_SYNC=1`.
    pub sync: bool,
}

/// Where compiled kernels are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CudaCache {
    /// As `KOMT_CUDA_CACHE` says (a directory, or `off`), else `komt` in the user's directory for caches.
    #[default]
    User,
    /// In this directory.
    Dir(PathBuf),
    /// Nowhere.
    Off,
}

impl CudaOptions {
    /// On this device.
    pub fn ordinal(mut self, ordinal: usize) -> Self {
        self.ordinal = ordinal;
        self
    }

    /// With this compiler.
    pub fn nvrtc(mut self, path: impl Into<PathBuf>) -> Self {
        self.nvrtc = Some(path.into());
        self
    }

    /// With compiled kernels kept there.
    pub fn cache(mut self, cache: CudaCache) -> Self {
        self.cache = cache;
        self
    }

    /// Waiting for each operation.
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    pub(super) fn cache_dir(&self) -> Option<PathBuf> {
        match &self.cache {
            CudaCache::User => cache::default_dir(),
            CudaCache::Dir(dir) => Some(dir.clone()),
            CudaCache::Off => None,
        }
    }

    pub(super) fn is_sync(&self) -> bool {
        self.sync || env::var_os("KOMT_CUDA_SYNC").is_some_and(|value| value == "1")
    }
}
