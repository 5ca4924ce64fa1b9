//! Templates and guards over HTTP: created, shown, tried.

use serde_json::json;

use super::server::Server;
use crate::support::model::SMALL_MODEL;

#[test]
pub fn a_template_is_created_shown_and_tried() {
    let server = Server::with_model();
    let template = "{{name}} {{features.total_jobs}} jobs";
    let body = json!({"embedding": {"model": SMALL_MODEL, "template": template},
        "guard": {"action": "refuse", "kinds": ["email"]}});
    let made = server.put("/v1/collections/c", &body).ok();
    assert_eq!(made["embedding"]["template"], template);
    assert_eq!(made["guard"], json!({"action": "refuse", "kinds": ["email"], "allow": []}));
    server.put("/v1/collections/c", &body).ok();
    let other = json!({"embedding": {"model": SMALL_MODEL, "template": {}}});
    server.put("/v1/collections/c", &other).refused(409, "definition_conflict");

    for template in ["{{ name", "{{ name | shout }}", "{% if a is even %}{% endif %}", "{{ range(3) }}"] {
        let body = json!({"embedding": {"model": SMALL_MODEL, "template": template}});
        let detail = server.put("/v1/collections/bad", &body).refused(422, "invalid_template");
        assert!(detail.contains("line 1"), "{detail}");
    }
    server.get("/v1/collections/bad").refused(404, "collection_not_found");

    // It would let everything in.
    let guard = json!({"embedding": {"model": SMALL_MODEL}, "guard": {"action": "refuse", "kinds": []}});
    let detail = server.put("/v1/collections/bad", &guard).refused(422, "invalid_definition");
    assert!(detail.contains("the number of a guard's kinds"), "{detail}");

    let document = json!({"id": "a", "metadata": {"name": "x", "features": {"total_jobs": 12.0}}});
    let preview = |body: serde_json::Value| server.post("/v1/collections/c/template/preview", &body);
    let shown = preview(json!({"documents": [document]})).ok();
    assert_eq!(shown, json!({"previews": [{"id": "a", "text": "x 12 jobs", "parts": []}]}));
    let weighted = json!({"fields": ["name", "features"], "weights": {"name": 2}});
    let shown = preview(json!({"documents": [document], "template": weighted})).ok();
    let parts = json!([{"text": "name: x.", "weight": 2.0}, {"text": "features.total_jobs: 12.", "weight": 1.0}]);
    assert_eq!(shown["previews"][0]["parts"], parts);
    assert_eq!(server.get("/v1/collections/c/documents").ok()["documents"], json!([]), "nothing was written");

    preview(json!({"documents": []})).refused(422, "invalid_value");
    preview(json!({"documents": [document], "template": "{{ a"})).refused(422, "invalid_template");
    preview(json!({"documents": [document], "template": "{{ a | int }}{{ name | int }}"}))
        .refused(422, "template_failed");
    let personal = json!({"id": "b", "metadata": {"name": "bob@example.com"}});
    let detail = preview(json!({"documents": [personal]})).refused(422, "personal_data");
    assert!(detail.contains("\"name\"") && !detail.contains("bob"), "{detail}");
    let documents = |text| json!({"documents": [{"id": "a", "text": text, "metadata": {"name": "x"}}]});
    server.post("/v1/collections/c/documents", &documents("mine")).refused(422, "text_is_made");
    server.post("/v1/collections/c/documents", &documents("x  jobs")).ok();
}

#[test]
fn what_is_kept_of_a_source_comes_back_until_it_is_forgotten() {
    let server = Server::start();
    server.get("/admin/sources/s").refused(404, "source_not_found");
    let kept = json!({"version": 1, "cursor": "x", "boundary": {"k": "0"}});
    server.put("/admin/sources/s", &kept).ok();
    assert_eq!(server.get("/admin/sources/s").ok(), kept);
    let file = server.data().join("sources/s.json");
    let bytes = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, bytes.replacen("kept", "keqt", 1)).unwrap();
    let refused = server.get("/admin/sources/s").refused(500, "storage");
    assert!(refused.contains("s.json: nothing is kept in it; remove the file"), "{refused}");
    assert_eq!(server.delete("/admin/sources/s").ok(), json!({"deleted": true}));
    assert_eq!(server.delete("/admin/sources/s").ok(), json!({"deleted": false}));
    server.put("/admin/sources/S!", &kept).refused(422, "invalid_name");
    // What takes many times its text in memory, as in documents.
    let heavy = json!({"a": vec![json!({"": 0}); 200_000]});
    server.put("/admin/sources/s", &heavy).refused(413, "body_too_large");
    server.get("/admin/sources/s").refused(404, "source_not_found");
}
