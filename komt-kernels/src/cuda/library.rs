//! Where NVRTC may be: its library is looked for in the places where toolkits and Python packages leave it, not only where
//! the system's loader looks.

use super::driver::version_text;
use super::nvrtc::Nvrtc;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};

/// The first NVRTC that opens, has what is needed, and is not of a newer major version than the driver (whose machine code
/// the driver would refuse). `driver_version`: as the driver tells it; `None` where nothing is to be run. `named`: its file
/// or directory; `None`: as `KOMT_NVRTC` says.
///
/// Looked for there and nowhere else when it is named; else in the loader's own places, `CUDA_HOME` and
/// `CUDA_PATH`, `/usr/local/cuda*`, `/opt/cuda`, and `nvidia/cuda_nvrtc` or `nvidia/cu13` of the Python environment.
pub(super) fn find(driver_version: Option<i32>, named: Option<&Path>) -> Result<Nvrtc> {
    let mut looked = vec![];
    let mut too_new = None;
    for candidate in candidates(named) {
        match Nvrtc::open(&candidate) {
            Ok(nvrtc) => match driver_version {
                Some(driver) if nvrtc.version.0 > driver / 1000 => too_new = Some((nvrtc.version.0, driver)),
                _ => return Ok(nvrtc),
            },
            Err(reason) => looked.push(format!("{} ({reason})", candidate.display())),
        }
    }
    match too_new {
        Some((major, driver)) => Err(Error::DriverTooOld {
            found: version_text(driver),
            needed: format!(
                "{major}.0, for the NVRTC {major} that was found; an NVRTC {} would do",
                driver / 1000
            ),
        }),
        None => Err(Error::NoNvrtc { looked: summary(&looked) }),
    }
}

/// The first few; by name alone there are many.
fn summary(looked: &[String]) -> String {
    const MANY: usize = 6;
    match looked.len().checked_sub(MANY) {
        Some(more @ 1..) => format!("{}, and {more} more", looked[..MANY].join(", ")),
        _ => looked.join(", "),
    }
}

fn candidates(named: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = named.map(PathBuf::from).or_else(|| set("KOMT_NVRTC")) {
        return match in_dir(&named) {
            found if !found.is_empty() => found,
            _ => vec![named],
        };
    }
    let by_name = names().into_iter().map(PathBuf::from);
    let mut seen = BTreeSet::new();
    by_name
        .chain(dirs().iter().flat_map(|dir| in_dir(dir)))
        .filter(|file| seen.insert(file.clone()))
        .collect()
}

/// A variable that says something.
fn set(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Names to ask the loader for. 12 first: its machine code runs on more drivers.
fn names() -> Vec<String> {
    if cfg!(windows) {
        return vec!["nvrtc64_120_0.dll".into(), "nvrtc64_130_0.dll".into()];
    }
    ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"].map(String::from).into()
}

/// The library's files in a directory: 12 first, then by name.
fn in_dir(dir: &Path) -> Vec<PathBuf> {
    let is_library = |name: &str| match cfg!(windows) {
        true => name.starts_with("nvrtc64_") && name.ends_with(".dll") && !name.contains("alt"),
        false => name.starts_with("libnvrtc.so"),
    };
    let Ok(entries) = dir.read_dir() else { return vec![] };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_library(name))
        .collect();
    names.sort_by_key(|name| (!name.contains(".so.12") && !name.contains("64_12"), name.clone()));
    names.iter().map(|name| dir.join(name)).collect()
}

/// Directories beside the loader's.
fn dirs() -> Vec<PathBuf> {
    let mut dirs = vec![];
    let toolkits = [set("CUDA_HOME"), set("CUDA_PATH"), Some("/opt/cuda".into())];
    let installed = matching(Path::new("/usr/local"), |name| name.starts_with("cuda"));
    for toolkit in toolkits.into_iter().flatten().chain(installed) {
        dirs.extend(
            ["lib64", "lib", "bin", "bin/x64", "targets/x86_64-linux/lib"].map(|sub| toolkit.join(sub)),
        );
    }
    dirs.extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"].map(PathBuf::from));
    for packages in python_packages() {
        dirs.extend(
            ["cuda_nvrtc/lib", "cuda_nvrtc/bin", "cu13/lib", "cu13/bin/x86_64"]
                .map(|sub| packages.join("nvidia").join(sub)),
        );
    }
    dirs
}

/// `site-packages` of the environment that is active, the user's and the system's.
fn python_packages() -> Vec<PathBuf> {
    let home = set("HOME").map(|home| home.join(".local"));
    let mut found = vec![];
    for root in [set("VIRTUAL_ENV"), set("CONDA_PREFIX"), home].into_iter().flatten() {
        found.push(root.join("Lib/site-packages")); // Windows
        found.extend(pythons(&root.join("lib")).into_iter().map(|python| python.join("site-packages")));
    }
    for lib in ["/usr/local/lib", "/usr/lib"] {
        for python in pythons(Path::new(lib)) {
            found.extend(["site-packages", "dist-packages"].map(|sub| python.join(sub)));
        }
    }
    found
}

fn pythons(lib: &Path) -> Vec<PathBuf> {
    matching(lib, |name| name.starts_with("python3"))
}

/// Entries of `dir` whose names please, sorted.
fn matching(dir: &Path, pleases: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = dir.read_dir() else { return vec![] };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_str().is_some_and(&pleases))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_12_comes_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let names = [
            "libnvrtc.so",
            "libnvrtc.so.11.8",
            "libnvrtc.so.12",
            "libnvrtc.so.12.9.86",
            "libnvrtc.so.13",
            "libnvrtc-builtins.so.12.9",
            "libnvrtc.alt.so.12",
            "libcudart.so",
        ];
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), "").expect("a file"));
        if !cfg!(windows) {
            let expected = [2, 3, 0, 1, 4].map(|i| dir.path().join(names[i]));
            assert_eq!(in_dir(dir.path()), expected);
        }
        assert!(in_dir(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn a_long_list_is_cut() {
        let list: Vec<String> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(String::from).into();
        assert_eq!(summary(&list[..2]), "a, b");
        assert_eq!(summary(&list), "a, b, c, d, e, f, and 2 more");
    }
}
