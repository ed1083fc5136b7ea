//! `fetch` against a [`FakeHub`], each test with a cache of its own. Options decide everything that the environment could.

use super::server::{Behaviour, FakeHub, MAIN, REPO, V2};
use super::settings::Settings;
use super::*;
use std::collections::BTreeMap;
use tempfile::TempDir;

const SHARDS: [&str; 3] = [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];

fn files(of: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    of.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect()
}

/// The small sharded model of the test data, with a file that no model needs.
fn sharded() -> BTreeMap<String, Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/tiny_sharded");
    let names = SHARDS.into_iter().chain([CONFIG, INDEX, "generation_config.json"]);
    let mut files: BTreeMap<_, _> =
        names.map(|name| (name.to_owned(), fs::read(dir.join(name)).unwrap())).collect();
    files.insert("README.md".into(), b"not needed".to_vec());
    files
}

/// A hub, a cache, and the options that lead to them.
fn start(files: BTreeMap<String, Vec<u8>>, behaviour: Behaviour) -> (FakeHub, TempDir, HubOptions) {
    let (hub, cache) = (FakeHub::start(files, behaviour), TempDir::new().unwrap());
    let options = HubOptions::default().revision("main").token("").offline(false);
    let options = options.endpoint(hub.endpoint()).cache_dir(cache.path().join("hub"));
    (hub, cache, options)
}

fn get(options: &HubOptions) -> Result<PathBuf> {
    fetch(REPO, options, &mut |_, _, _| ())
}

/// The reason of an error that names the repository.
fn reason(result: Result<PathBuf>) -> String {
    let Err(Error::Hub { repo, reason }) = result else { panic!("expected Error::Hub, found {result:?}") };
    assert_eq!(repo, REPO);
    reason
}

/// What was asked for of files in part, since the requests were last looked at.
fn ranges(hub: &FakeHub) -> Vec<String> {
    let weights = hub.requests().into_iter().filter(super::server::Request::is_weights);
    weights.filter_map(|request| request.headers.get("range").cloned()).collect()
}

fn assert_holds(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files.iter().filter(|(name, _)| *name != "README.md") {
        assert!(fs::read(dir.join(name)).unwrap() == *bytes, "{name}");
    }
}

#[test]
fn a_sharded_model_comes_whole_and_only_once() {
    let (hub, cache, options) = start(sharded(), Behaviour::default());
    let dir = get(&options).unwrap();
    assert_holds(&dir, &sharded());
    let repo_dir = cache.path().join("hub/models--komt--tiny");
    assert_eq!(dir, repo_dir.join("snapshots").join(MAIN));
    assert_eq!(fs::read_to_string(repo_dir.join("refs/main")).unwrap(), MAIN);
    assert!(!dir.join("README.md").exists());
    assert_eq!(hub.requests().iter().filter(|request| request.is_weights()).count(), SHARDS.len());

    assert_eq!(get(&options).unwrap(), dir);
    let paths: Vec<String> = hub.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/api/models/komt/tiny/revision/main"]);
}

#[test]
fn a_single_file_model_with_a_tokenizer() {
    let files = files(&[
        (CONFIG, b"{}"),
        (SINGLE, b"weights"),
        ("tokenizer.json", b"{\"tokenizer\": 0}"),
        ("chat_template.jinja", b""),
        ("pytorch_model.bin", b"the same weights"),
    ]);
    let (_hub, _cache, options) = start(files.clone(), Behaviour::default());
    let dir = get(&options).unwrap();
    assert!(!dir.join("pytorch_model.bin").exists());
    assert_eq!(fs::read(dir.join(SINGLE)).unwrap(), b"weights");
    assert_eq!(fs::read(dir.join("chat_template.jinja")).unwrap(), b"");
    assert_eq!(fs::read(dir.join("tokenizer.json")).unwrap(), files["tokenizer.json"]);
}

#[test]
fn offline_takes_the_cache_and_names_what_it_lacks() {
    let (hub, _cache, options) = start(sharded(), Behaviour::default());
    let offline = options.clone().offline(true);
    let missing = reason(get(&offline));
    assert!(missing.contains("offline") && missing.contains("config.json of revision `main`"), "{missing}");
    let dir = get(&options).unwrap();
    hub.requests();
    assert_eq!(get(&offline).unwrap(), dir);
    assert_eq!(get(&offline.clone().revision(MAIN)).unwrap(), dir);
    assert!(reason(get(&offline.clone().revision("v2"))).contains("`v2`"));
    fs::remove_file(dir.join(SHARDS[1])).unwrap();
    let missing = reason(get(&offline));
    assert!(missing.contains(SHARDS[1]) && !missing.contains(SHARDS[0]), "{missing}");
    assert!(hub.requests().is_empty());
}

#[test]
fn a_revision_other_than_main_shares_what_is_the_same() {
    let (hub, cache, options) = start(sharded(), Behaviour::default());
    get(&options).unwrap();
    hub.requests();
    let dir = get(&options.clone().revision("v2")).unwrap();
    assert_eq!(dir, cache.path().join("hub/models--komt--tiny/snapshots").join(V2));
    assert_eq!(fs::read(dir.join(CONFIG)).unwrap(), b"{\"v\": 2}");
    assert_eq!(fs::read(dir.join(SHARDS[0])).unwrap(), sharded()[SHARDS[0]]);
    assert!(!hub.requests().iter().any(|request| request.is_weights()));
    assert_eq!(get(&options.clone().revision(V2)).unwrap(), dir);
    assert!(reason(get(&options.revision("v3"))).contains("no revision `v3`"));
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let behaviour = Behaviour { token: Some("hf_secret"), ..Behaviour::default() };
    let (hub, _cache, options) = start(sharded(), behaviour);
    let denied = reason(get(&options));
    assert!(denied.contains("401") && denied.contains("HF_TOKEN"), "{denied}");
    let denied = reason(get(&options.clone().token("hf_wrong")));
    assert!(denied.contains("401") && !denied.contains("hf_wrong"), "{denied}");
    hub.requests();
    get(&options.clone().token("hf_secret")).unwrap();
    for request in hub.requests() {
        let sent = request.headers.get("authorization").map(String::as_str);
        assert_eq!(sent, (!request.is_weights()).then_some("Bearer hf_secret"), "{request:?}");
    }
    assert!(!format!("{:?}", options.token("hf_secret")).contains("hf_secret"));
}

#[test]
fn what_the_hub_refuses_is_told() {
    let (hub, _cache, options) = start(sharded(), Behaviour::default());
    let other = fetch("komt/other", &options, &mut |_, _, _| ()).unwrap_err().to_string();
    assert!(other.contains("komt/other") && other.contains("no such repository"), "{other}");
    for (status, expected) in [(403, "access"), (429, "too many"), (500, "try again"), (418, "HF_ENDPOINT")] {
        hub.behave(Behaviour { status: Some(status), ..Behaviour::default() });
        let reason = reason(get(&options));
        assert!(reason.contains(&status.to_string()) && reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_hub_that_is_down() {
    let (hub, cache, options) = start(sharded(), Behaviour::default());
    let endpoint = hub.endpoint();
    let (fetched, fresh) = (options.clone(), options.clone().cache_dir(cache.path().join("empty")));
    let dir = get(&fetched).unwrap();
    drop(hub);
    let down = reason(get(&fresh));
    assert!(
        down.contains(&endpoint) && down.contains("does not answer") && down.contains("`main`"),
        "{down}"
    );
    assert_eq!(get(&fetched).unwrap(), dir);
    let nonsense = reason(get(&fresh.clone().endpoint("no address")));
    assert!(nonsense.contains("check the endpoint"), "{nonsense}");
}

#[test]
fn repositories_without_what_a_model_needs() {
    let bin = files(&[(CONFIG, b"{}"), ("pytorch_model.bin", b"weights"), ("tokenizer.json", b"{}")]);
    let (hub, _cache, options) = start(bin, Behaviour::default());
    let found = reason(get(&options));
    assert!(
        found.contains("expected model.safetensors") && found.contains("found pytorch_model.bin"),
        "{found}"
    );
    assert_eq!(hub.requests().len(), 1, "nothing is downloaded in vain");
    let (_hub, _cache, options) = start(files(&[(SINGLE, b"weights")]), Behaviour::default());
    assert!(reason(get(&options)).contains("expected a config.json"));
}

#[test]
fn hostile_or_broken_indexes() {
    for (index, expected) in [
        (r#"{"weight_map": {"a": "../evil"}}"#, "../evil"),
        (r#"{"weight_map": {"a": "/evil"}}"#, "/evil"),
        (r#"{"weight_map": {"a": "..\\evil"}}"#, "evil"),
        (r#"{"weight_map": {"a": ".."}}"#, "file beside the index"),
        (r#"{"weight_map": {"a": 1}}"#, "file beside the index"),
        (r#"{"weight_map": {"a": "absent.safetensors"}}"#, "absent.safetensors"),
        (r#"{"weight_map": {}}"#, "weight_map"),
        ("[", "not JSON"),
    ] {
        let (hub, cache, options) =
            start(files(&[(CONFIG, b"{}"), (INDEX, index.as_bytes())]), Behaviour::default());
        let reason = reason(get(&options));
        assert!(reason.contains(expected) && reason.contains(INDEX), "{index}: {reason}");
        assert!(!cache.path().join("hub/models--komt--tiny/refs/main").exists());
        assert!(!hub.requests().iter().any(|request| request.path.contains("evil")));
    }
}

#[test]
fn an_etag_is_not_a_path() {
    let behaviour = Behaviour { etag: Some("../../evil"), ..Behaviour::default() };
    let (_hub, cache, options) = start(files(&[(CONFIG, b"{}"), (SINGLE, b"weights")]), behaviour);
    assert!(reason(get(&options)).contains("ETag"));
    assert!(!cache.path().join("hub/evil").exists());
}

#[test]
fn names_and_revisions_that_cannot_be() {
    let (_hub, _cache, options) = start(sharded(), Behaviour::default());
    for name in ["", "/", "a/b/c", "../up", "a//b", "a b", "-a", "a.", "a--b", "a/..", "a\\b", "a/b.git"] {
        let error = fetch(name, &options, &mut |_, _, _| ()).unwrap_err().to_string();
        assert!(error.contains("owner/name"), "{name}: {error}");
    }
    for revision in ["", "../x", "a//b", "a b", "/a", "a?b", "a%2e", "a\n"] {
        assert!(reason(get(&options.clone().revision(revision))).contains("revision"), "{revision:?}");
    }
}

#[test]
fn a_broken_download_resumes() {
    let behaviour = Behaviour { n_broken: 2, ..Behaviour::default() };
    let (hub, _cache, options) = start(sharded(), behaviour);
    assert_holds(&get(&options).unwrap(), &sharded());
    let size = sharded()[SHARDS[0]].len();
    assert_eq!(ranges(&hub), [format!("bytes={}-", size / 2), format!("bytes={}-", size / 2 + size / 4)]);
}

#[test]
fn a_busy_server_does_not_cost_what_is_there() {
    let behaviour = Behaviour { n_broken: 1, n_busy: 2, ..Behaviour::default() };
    let (hub, _cache, options) = start(sharded(), behaviour);
    assert_holds(&get(&options).unwrap(), &sharded());
    let half = format!("bytes={}-", sharded()[SHARDS[0]].len() / 2);
    assert_eq!(ranges(&hub), [half.clone(), half.clone(), half]);
}

#[test]
fn a_broken_download_of_unknown_size_starts_again() {
    let behaviour = Behaviour { n_broken: 2, no_size: true, ..Behaviour::default() };
    let (hub, _cache, options) = start(sharded(), behaviour);
    assert_holds(&get(&options).unwrap(), &sharded());
    assert!(ranges(&hub).is_empty());
}

#[test]
fn a_download_that_stays_broken_is_never_taken_for_whole() {
    let broken = Behaviour { n_broken: usize::MAX, no_ranges: true, ..Behaviour::default() };
    let (hub, cache, options) = start(sharded(), broken);
    let cut = reason(get(&options));
    let size = sharded()[SHARDS[0]].len();
    assert!(cut.contains(SHARDS[0]) && cut.contains(&format!("after {} of {size} bytes", size / 2)), "{cut}");
    let repo_dir = cache.path().join("hub/models--komt--tiny");
    assert!(!repo_dir.join("snapshots").join(MAIN).join(SHARDS[0]).exists());
    assert!(!repo_dir.join("refs/main").exists());
    assert!(reason(get(&options.clone().offline(true))).contains("offline"));
    hub.requests();
    hub.behave(Behaviour::default());
    assert_holds(&get(&options).unwrap(), &sharded());
    assert_eq!(ranges(&hub), [format!("bytes={}-", size / 2)]);
}

#[test]
fn damage_in_the_cache_is_repaired() {
    let (_hub, cache, options) = start(sharded(), Behaviour::default());
    let dir = get(&options).unwrap();
    let blob = fs::canonicalize(dir.join(SHARDS[0])).unwrap();
    // A blob that is gone, one that another tool left cut, and more in a part than the file has.
    fs::remove_file(&blob).unwrap();
    assert_holds(&get(&options).unwrap(), &sharded());
    fs::remove_file(dir.join(SHARDS[0])).unwrap();
    fs::write(&blob, b"cut").unwrap();
    assert_holds(&get(&options).unwrap(), &sharded());
    fs::remove_file(&blob).unwrap();
    let part = cache.path().join("hub/models--komt--tiny/blobs");
    let part = part.join(format!("{}.komt-part", blob.file_name().unwrap().to_str().unwrap()));
    fs::write(&part, vec![7; sharded()[SHARDS[0]].len() + 1]).unwrap();
    assert_holds(&get(&options).unwrap(), &sharded());
    // All bytes there, only the name not yet.
    fs::rename(&blob, &part).unwrap();
    assert_holds(&get(&options).unwrap(), &sharded());
}

#[test]
fn progress_never_falls_and_ends_at_the_size() {
    for behaviour in [
        Behaviour::default(),
        Behaviour { n_broken: 2, ..Behaviour::default() },
        Behaviour { n_broken: 2, no_ranges: true, ..Behaviour::default() },
    ] {
        let (_hub, _cache, options) = start(sharded(), behaviour);
        let mut told: Vec<(String, u64, u64)> = vec![];
        fetch(REPO, &options, &mut |file, done, total| told.push((file.into(), done, total))).unwrap();
        for pair in told.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            assert!(pair[0].1 < pair[1].1 && pair[0].2 == pair[1].2, "{pair:?}");
        }
        let last: BTreeMap<String, (u64, u64)> =
            told.into_iter().map(|(file, done, total)| (file, (done, total))).collect();
        for (name, bytes) in sharded().iter().filter(|(name, _)| *name != "README.md") {
            assert_eq!(last[name], (bytes.len() as u64, bytes.len() as u64), "{name}");
        }
        let mut calls = 0;
        fetch(REPO, &options, &mut |_, _, _| calls += 1).unwrap();
        assert_eq!(calls, 0, "nothing was downloaded");
    }
}

#[test]
fn two_at_once_download_once() {
    let (hub, _cache, options) = start(sharded(), Behaviour::default());
    let dirs: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| get(&options).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(dirs.iter().all(|dir| *dir == dirs[0]));
    assert_holds(&dirs[0], &sharded());
    assert_eq!(hub.requests().iter().filter(|request| request.is_weights()).count(), SHARDS.len());
}

#[test]
fn options_come_before_the_environment_and_that_before_the_defaults() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().to_str().unwrap();
    fs::write(dir.path().join("token"), "hf_file\n").unwrap();
    let of = |options: &HubOptions, vars: &[(&str, &str)]| {
        let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        Settings::of(options, &var, Some(PathBuf::from("/nowhere/user"))).unwrap()
    };
    let none = HubOptions::default();
    let bare = of(&none, &[("HF_TOKEN", ""), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!((bare.revision.as_str(), bare.token, bare.offline), ("main", None, false));
    assert_eq!(bare.endpoint, "https://huggingface.co");
    assert_eq!(bare.cache_dir, Path::new("/nowhere/user/.cache/huggingface/hub"));
    let from_home = of(&none, &[("HF_HOME", home)]);
    assert_eq!(from_home.token.as_deref(), Some("hf_file"));
    assert_eq!(from_home.cache_dir, dir.path().join("hub"));
    let vars = [
        ("HF_HOME", home),
        ("HF_TOKEN", "hf_env"),
        ("HF_HUB_CACHE", "/env/cache"),
        ("HF_HUB_OFFLINE", "true"),
        ("HF_ENDPOINT", "http://mirror/"),
    ];
    let env = of(&none, &vars);
    assert_eq!((env.token.as_deref(), env.offline), (Some("hf_env"), true));
    assert_eq!((env.endpoint.as_str(), env.cache_dir.as_path()), ("http://mirror", Path::new("/env/cache")));
    let options = none.token("hf_option").offline(false).cache_dir("/option").endpoint("http://option");
    let set = of(&options, &vars);
    assert_eq!((set.token.as_deref(), set.offline), (Some("hf_option"), false));
    assert_eq!((set.endpoint.as_str(), set.cache_dir.as_path()), ("http://option", Path::new("/option")));
    assert_eq!(of(&options.token(""), &vars).token, None);
    assert!(Settings::of(&HubOptions::default(), &|_| None, None).is_err());
}
