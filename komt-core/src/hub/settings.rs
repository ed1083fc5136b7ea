//! [`HubOptions`], and what they amount to in a process's environment.

use std::path::PathBuf;

/// Where from, and where to, a model is fetched. What is `None` is taken from the environment variables that all tools
/// of the hub know, and what they leave open is the default.
///
/// Files are kept in the cache that these tools share, and are downloaded once. An interrupted download goes on where it
/// stopped, at the next call. When the hub cannot be reached, a revision that the cache holds completely is used as it
/// was last seen. A proxy is taken from `HTTPS_PROXY`, `HTTP_PROXY` and the like.
///
/// ```
/// # use komt_core::HubOptions;
/// let options = HubOptions::default().revision("v1.0").offline(true);
/// assert_eq!(options.revision.as_deref(), Some("v1.0"));
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct HubOptions {
    /// A branch, tag or commit. Default: `main`.
    pub revision: Option<String>,
    /// The access token, for private and gated repositories. Default: `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else the
    /// file `token` in `HF_HOME` (what `hf auth login` writes). An empty one sends none.
    pub token: Option<String>,
    /// The cache. Default: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, which is `~/.cache/huggingface` unless set.
    pub cache_dir: Option<PathBuf>,
    /// Whether to use nothing but the cache. Default: `HF_HUB_OFFLINE` (1, ON, YES, TRUE), else no.
    pub offline: Option<bool>,
    /// The hub's address. Default: `HF_ENDPOINT`, else `https://huggingface.co`.
    pub endpoint: Option<String>,
}

impl HubOptions {
    /// Of this branch, tag or commit.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// With this access token; an empty one sends none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// With this cache.
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// From the cache alone or not.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = Some(offline);
        self
    }

    /// From a mirror or a hub of one's own: `scheme://host[:port]`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }
}

impl std::fmt::Debug for HubOptions {
    /// Without the token: options end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("revision", &self.revision)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .field("endpoint", &self.endpoint)
            .finish()
    }
}

/// [`HubOptions`] with everything decided.
pub(super) struct Settings {
    pub revision: String,
    pub token: Option<String>,
    pub cache_dir: PathBuf,
    pub offline: bool,
    pub endpoint: String,
}

impl Settings {
    /// In this process's environment.
    pub fn of_process(options: &HubOptions) -> Result<Self, String> {
        Self::of(options, &|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// In an environment of variables and a home directory. Empty variables count as not set.
    pub fn of(
        options: &HubOptions,
        var: &dyn Fn(&str) -> Option<String>,
        user: Option<PathBuf>,
    ) -> Result<Self, String> {
        let var =
            |name: &str| var(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let path = |name: &str| var(name).map(PathBuf::from);
        let user = user.filter(|dir| !dir.as_os_str().is_empty());
        let general = path("XDG_CACHE_HOME").or_else(|| user.map(|dir| dir.join(".cache")));
        let home = path("HF_HOME").or_else(|| general.map(|dir| dir.join("huggingface")));
        let cache_dir = options.cache_dir.clone().or_else(|| path("HF_HUB_CACHE"));
        let cache_dir = cache_dir.or_else(|| home.as_ref().map(|dir| dir.join("hub")));
        let cache_dir = cache_dir.ok_or("no home directory: set HF_HOME or HubOptions::cache_dir")?;
        let from_file = || {
            let file = path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|dir| dir.join("token")))?;
            std::fs::read_to_string(file).ok()
        };
        let token = options.token.clone().or_else(|| var("HF_TOKEN")).or_else(from_file);
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        let endpoint = options.endpoint.clone().or_else(|| var("HF_ENDPOINT"));
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Self {
            revision: options.revision.clone().unwrap_or_else(|| "main".into()),
            token,
            cache_dir,
            offline: options.offline.unwrap_or_else(|| var("HF_HUB_OFFLINE").is_some_and(yes)),
            endpoint: endpoint.trim_end_matches('/').into(),
        })
    }
}
