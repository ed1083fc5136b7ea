//! `Model::from_hub` against a hub on this machine; what can go wrong on the way is tested beside `fetch`.
#![cfg(feature = "hub")]

#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests beside `fetch` use the rest; it is a test's part"
)]
#[path = "../src/hub/server.rs"]
mod server;

use komt_core::{Error, HubOptions, LoadOptions, Model, Progress};
use server::{Behaviour, FakeHub, MAIN, REPO};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

#[test]
fn a_model_comes_from_the_hub_and_says_how_far_it_is() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/tiny_sharded");
    let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    let (hub, cache) = (FakeHub::start(files, Behaviour::default()), tempfile::tempdir().unwrap());
    let options = HubOptions::default().revision("main").token("").offline(false);
    let options = options.endpoint(hub.endpoint()).cache_dir(cache.path());

    let told = Arc::new(Mutex::new(vec![]));
    let teller = told.clone();
    let load = LoadOptions::default().on_progress(move |progress| {
        let what = match progress {
            Progress::Download { file, done_bytes, total_bytes } if done_bytes == total_bytes => {
                file.to_owned()
            }
            Progress::Plan(_) => "the plan".into(),
            _ => return,
        };
        teller.lock().unwrap().push(what);
    });
    let model = Model::from_hub(REPO, &options, load).unwrap();
    assert_eq!(model.config(), Model::load(&dir, LoadOptions::default()).unwrap().config());
    assert!(model.dir().ends_with(Path::new("snapshots").join(MAIN)));
    let told = told.lock().unwrap();
    assert_eq!(told.last().unwrap(), "the plan");
    assert_eq!(told.iter().filter(|file| file.ends_with(".safetensors")).count(), 3);

    let error = Model::from_hub("komt/other", &options, LoadOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Hub { repo, .. } if repo == "komt/other"), "{error}");
}
