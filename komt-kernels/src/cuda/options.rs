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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::Command;

    /// What the defaults become in a process with these variables and no other that matters.
    fn told(variables: &[(&str, &str)]) -> String {
        let mut child = Command::new(env::current_exe().expect("the test's own file"));
        child.args(["--exact", "cuda::options::tests::child_that_tells", "--ignored", "--nocapture"]);
        for other in ["KOMT_CUDA_SYNC", "KOMT_CUDA_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"] {
            child.env_remove(other);
        }
        let output = child.envs(variables.iter().copied()).output().expect("a child");
        let text = String::from_utf8_lossy(&output.stdout);
        let told = text.split_once("<told>").and_then(|(_, rest)| rest.split_once("</told>"));
        told.unwrap_or_else(|| panic!("{variables:?}: {text}")).0.to_string()
    }

    #[test]
    #[ignore = "run by the tests below"]
    fn child_that_tells() {
        let options = CudaOptions::default();
        let cache = options.cache_dir().map_or("none".into(), |dir| dir.display().to_string());
        println!("<told>{cache}, sync {}</told>", options.is_sync());
    }

    #[test]
    fn the_variables_say_where_compiled_kernels_are_kept() {
        let (home, caches) = (("HOME", "/home/u"), ("XDG_CACHE_HOME", "/caches"));
        let off = ("KOMT_CUDA_CACHE", "off");
        for (variables, expected) in [
            (&[home][..], "/home/u/.cache/komt"),
            (&[], "none"),
            (&[home, caches], "/caches/komt"),
            (&[home, ("XDG_CACHE_HOME", "")], "/home/u/.cache/komt"),
            (&[home, caches, ("KOMT_CUDA_CACHE", "/kernels")], "/kernels"),
            (&[home, caches, ("KOMT_CUDA_CACHE", "")], "/caches/komt"),
            (&[home, caches, off], "none"),
        ] {
            assert_eq!(told(variables), format!("{expected}, sync false"), "{variables:?}");
        }
    }

    #[test]
    fn only_1_waits_for_each_operation() {
        for (value, expected) in [("1", true), ("0", false), ("", false)] {
            let told = told(&[("KOMT_CUDA_SYNC", value)]);
            assert_eq!(told, format!("none, sync {expected}"), "KOMT_CUDA_SYNC={value}");
        }
    }

    #[test]
    fn what_a_program_sets_goes_before_the_variables() {
        let options = CudaOptions::default().cache(CudaCache::Dir("/mine".into())).sync(true);
        assert_eq!(options.cache_dir(), Some("/mine".into()));
        assert!(options.is_sync());
        assert_eq!(options.cache(CudaCache::Off).cache_dir(), None);
    }
}
