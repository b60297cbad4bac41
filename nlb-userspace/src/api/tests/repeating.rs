//! Conditions, and requests that are sent again.

use serde_json::json;

use super::{FIRST, SECOND, Server, TARGETS};

#[tokio::test]
async fn a_change_of_what_was_read_is_made_only_while_it_is_as_it_was() {
    let server = Server::start();
    let tag = server.get(FIRST).await.header("etag");
    let patch = |weight: u64| json!({ "weight": weight }).to_string();
    let matching = [("if-match", tag.as_str())];
    let first = server.send("PATCH", FIRST, &matching, &patch(2)).await;
    assert_eq!(first.status, 200, "{first:?}");
    let second = server.send("PATCH", FIRST, &matching, &patch(3)).await;
    assert_eq!(second.problem().status, 412);
    assert_eq!(server.get(FIRST).await.body["document"]["weight"], 2);
    // Only if it is not there yet.
    let absent = [("if-none-match", "*")];
    assert_eq!(server.send("PUT", FIRST, &absent, "{}").await.status, 409);
    assert_eq!(server.send("PUT", SECOND, &absent, "{}").await.status, 200);
    // Whoever has it already does not get it again.
    let known = first.header("etag");
    let same = server
        .send("GET", FIRST, &[("if-none-match", &known)], "")
        .await;
    assert_eq!((same.status, same.body), (304, json!("")));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_done_once() {
    let server = Server::start();
    let key = [("idempotency-key", "one")];
    let body = json!({"address": "10.0.0.12"}).to_string();
    let first = server.send("POST", TARGETS, &key, &body).await;
    let again = server.send("POST", TARGETS, &key, &body).await;
    assert_eq!((first.status, again.status), (201, 201), "{again:?}");
    assert_eq!(first.body, again.body);
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("idempotency-replayed"), "true");
    // Without the key, it is another request.
    assert_eq!(server.send("POST", TARGETS, &[], &body).await.status, 409);
    // Another request under the key is a mistake.
    let other = json!({"address": "10.0.0.13"}).to_string();
    let refused = server.send("POST", TARGETS, &key, &other).await.problem();
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (422, "urn:nlb:problem:key-reused")
    );
    // Two at once are one, too.
    let key = [("idempotency-key", "two")];
    let (one, two) = tokio::join!(
        server.send("POST", TARGETS, &key, &other),
        server.send("POST", TARGETS, &key, &other)
    );
    assert_eq!((one.status, two.status), (201, 201));
    assert_eq!(one.body, two.body);
}

#[tokio::test]
async fn a_caller_that_hung_up_gets_its_answer_when_it_asks_again() {
    let server = Server::start();
    let path = format!("{TARGETS}?wait=healthy");
    let key = [("idempotency-key", "lost")];
    let body = json!({"address": "10.0.0.12"}).to_string();
    {
        let first = std::pin::pin!(server.send("POST", &path, &key, &body));
        let made = std::pin::pin!(async { while server.get(SECOND).await.status != 200 {} });
        // It is dropped, and with it the connection, once the change is made.
        futures_util::future::select(first, made).await;
    }
    let again = server.send("POST", &path, &key, &body).await;
    assert_eq!(again.status, 201, "{again:?}");
}

#[tokio::test]
async fn a_request_that_is_sent_again_after_a_restart_is_answered_and_not_done_again() {
    let server = Server::start();
    let key = [("idempotency-key", "lasting")];
    let body = json!({"address": "10.0.0.12"}).to_string();
    let first = server.send("POST", TARGETS, &key, &body).await;
    assert_eq!(first.status, 201);
    // What failed for the caller's fault fails again.
    let wrong = [("idempotency-key", "wrong")];
    assert_eq!(server.send("POST", TARGETS, &wrong, "{").await.status, 400);
    let server = server.restart().await;
    let again = server.send("POST", TARGETS, &key, &body).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(server.send("POST", TARGETS, &wrong, "{").await.status, 400);
    let other = json!({"address": "10.0.0.13"}).to_string();
    let refused = server.send("POST", TARGETS, &key, &other).await.problem();
    assert_eq!(refused.kind, "urn:nlb:problem:key-reused");
}

#[tokio::test]
async fn a_request_that_a_crash_cut_off_is_not_done_again() {
    let server = Server::start();
    let key = [("idempotency-key", "cut")];
    let body = json!({"address": "10.0.0.12"}).to_string();
    let file = server.home.path().join("state/keys");
    assert_eq!(server.send("POST", TARGETS, &key, &body).await.status, 201);
    // The power fails before the end of the answer's record is on the disk.
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let server = server.restart().await;
    let problem = server.send("POST", TARGETS, &key, &body).await.problem();
    assert_eq!(problem.kind, "urn:nlb:problem:key-unfinished");
    assert_eq!(problem.status, 409);
}

#[tokio::test]
async fn a_key_that_cannot_be_kept_lets_nothing_be_done() {
    let server = Server::start();
    std::fs::create_dir_all(server.home.path().join("state/keys")).unwrap();
    let body = json!({"address": "10.0.0.12"}).to_string();
    let key = [("idempotency-key", "no room")];
    let problem = server.send("POST", TARGETS, &key, &body).await.problem();
    assert_eq!(
        (problem.status, problem.kind.as_str()),
        (507, "urn:nlb:problem:not-kept")
    );
    assert_eq!(server.get(SECOND).await.status, 404);
}
