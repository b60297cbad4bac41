//! Events: who did what, and waiting for it.

use serde_json::json;

use super::*;
use crate::events::{Event, What};

#[tokio::test]
async fn events_tell_who_did_what_and_wait_for_more() {
    let server = Server::start();
    let before = server.get("/v1/events").await.body;
    assert_eq!(before, json!({ "events": [], "next": 0, "lost": 0 }));
    let waiting = server.get("/v1/events?after=0&wait_seconds=600");
    let change = server.send("PATCH", FIRST, &[], "{\"weight\": 7}");
    let (heard, changed) = tokio::join!(waiting, change);
    assert_eq!(changed.status, 200);
    let event: Event = serde_json::from_value(heard.body["events"][0].clone()).unwrap();
    let What::Call { who, action, .. } = event.what else {
        panic!("{event:?}")
    };
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(who, Some(format!("user {own}")));
    assert_eq!(action, "targets:update");
    assert_eq!(heard.body["next"], 1);
    for wrong in ["after=x", "wait_seconds=601", "dry_run=true"] {
        let answer = server.get(&format!("/v1/events?{wrong}")).await;
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
}
