//! The lists that watches begin with: as a stream where the server has such, in pages elsewhere.

use std::collections::BTreeSet;

use bouncert::api::crds;
use bouncert::cluster::Cluster;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::install;
use bouncert::local::store::Store;
use bouncert::names::Area;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::{Event, InitialListStrategy, watcher};

use super::config;

/// More than two pages.
const OBJECTS: usize = 250;

#[tokio::test]
async fn a_watch_shows_the_same_whether_its_list_comes_as_a_stream_or_in_pages() {
    let mut shown = Vec::new();
    for without_watch_list in [false, true] {
        let options = Options {
            without_watch_list,
            ..Options::default()
        };
        let client = ApiServer::new(Store::in_memory().unwrap(), options)
            .unwrap()
            .client();
        for crd in crds::own() {
            let crd = serde_json::to_value(crd).unwrap();
            install::definition(&client, crd).await.unwrap();
        }
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        for n in 0..OBJECTS {
            let config = config(&format!("book-{n}"), "7");
            configs
                .create(&PostParams::default(), &config)
                .await
                .unwrap();
        }
        let cluster = Cluster::new(client);
        cluster
            .find_out_whether_lists_stream(&Area::Everywhere)
            .await;
        let how = cluster.every();
        let is_streamed = how.initial_list_strategy == InitialListStrategy::StreamingList;
        assert_eq!(is_streamed, !without_watch_list);
        let mut events = Box::pin(watcher(configs, how));
        let mut names = BTreeSet::new();
        loop {
            match events.try_next().await.unwrap().unwrap() {
                Event::Init => assert!(names.is_empty()),
                Event::InitApply(config) => drop(names.insert(config.name_any())),
                Event::InitDone => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names.len(), OBJECTS);
        shown.push(names);
    }
    assert_eq!(shown[0], shown[1]);
}
