//! Snapshots of a running server.

use serde_json::json;

use super::client::Request;
use super::server::Server;

#[test]
fn snapshots_are_taken_listed_verified_and_deleted_while_the_server_runs() {
    let server = Server::with_documents(&[("a", [1.0, 0.0, 0.0]), ("b", [0.0, 1.0, 0.0])]);
    assert_eq!(server.get("/admin/snapshots").ok(), json!({"snapshots": [], "damaged": []}));
    let created = Request::new("POST", "/admin/snapshots").json(&json!({"name": "first"})).send(server.address);
    assert_eq!(created.status, 201);
    let created = created.ok();
    assert_eq!((created["name"].as_str(), created["seq"].as_u64()), (Some("first"), Some(2)));
    assert_eq!(created["copied"], 0);
    server.post("/v1/collections/c/documents", &json!({"documents": [{"id": "c", "vector": [0, 0, 1]}]})).ok();
    let second = Request::new("POST", "/admin/snapshots").send(server.address).ok();
    assert_eq!(second["seq"], 3);
    assert_ne!(second["digest"], created["digest"]);
    let list = server.get("/admin/snapshots").ok();
    let names: Vec<_> = list["snapshots"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, [json!("first"), second["name"].clone()]);
    let read = server.get("/admin/snapshots/first").ok();
    assert_eq!((&read["digest"], &read["bytes"]), (&created["digest"], &created["bytes"]));
    let verified = Request::new("POST", "/admin/snapshots/first/verify").send(server.address).ok();
    assert_eq!((verified["files"].clone(), verified["problems"].clone()), (created["files"].clone(), json!([])));
    assert_eq!(server.delete("/admin/snapshots/first").ok(), json!({"deleted": true}));
    server.get("/admin/snapshots/first").refused(404, "snapshot_not_found");
}

#[test]
fn what_cannot_be_done_is_refused() {
    let server = Server::with_documents(&[]);
    let create = |body| Request::new("POST", "/admin/snapshots").json(&body).send(server.address);
    create(json!({"name": "a"})).ok();
    create(json!({"name": "a"})).refused(409, "snapshot_exists");
    create(json!({"name": "../a"})).refused(422, "invalid_name");
    create(json!({"nam": "a"})).refused(422, "unknown_field");
    server.get("/admin/snapshots/A").refused(422, "invalid_name");
    server.delete("/admin/snapshots/b").refused(404, "snapshot_not_found");
    let restore = |name: &str| Request::new("POST", &format!("/admin/snapshots/{name}/restore")).send(server.address);
    assert!(restore("a").refused(409, "restore_needs_stop").contains("pannier snapshot restore a"));
    restore("b").refused(404, "snapshot_not_found");
}

#[test]
fn a_damaged_snapshot_is_refused_by_its_file() {
    let server = Server::with_documents(&[("a", [1.0, 0.0, 0.0])]);
    for name in ["good", "bad"] {
        Request::new("POST", "/admin/snapshots").json(&json!({"name": name})).send(server.address).ok();
    }
    let file = server.data().join("snapshots/bad/SNAPSHOT");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let verify = |name: &str| Request::new("POST", &format!("/admin/snapshots/{name}/verify")).send(server.address);
    for answer in [verify("bad"), server.get("/admin/snapshots/bad")] {
        let detail = answer.refused(500, "snapshot_damaged");
        assert!(detail.contains("snapshots/bad/SNAPSHOT is damaged"), "{detail}");
    }
    assert_eq!(verify("good").ok()["problems"], json!([]));
    let list = server.get("/admin/snapshots").ok();
    assert_eq!((&list["snapshots"][0]["name"], &list["damaged"][0]["name"]), (&json!("good"), &json!("bad")));
}
