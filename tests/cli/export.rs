//! Exporting a collection, and importing what was exported.

use std::fs;

use super::server::Server;
use super::{Place, THREE};
use crate::support::model::{SMALL_DIM, SMALL_MODEL, install_small_model};

impl Place {
    /// What `export` writes of a collection.
    #[track_caller]
    fn exported(&self, collection: &str, arguments: &[&str]) -> String {
        self.succeed(&[&["export", collection], arguments].concat()).stdout
    }

    /// Imports an export into another collection.
    #[track_caller]
    fn take(&self, collection: &str, lines: &str, arguments: &[&str]) {
        let ran = self.run_with_input(&[&["import", collection, "-"], arguments].concat(), lines);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
}

#[test]
fn what_is_exported_is_imported_as_it_was() {
    let place = Place::with_colours();
    place.take("colours", THREE, &[]);
    let tricky = concat!(
        r#"{"id":"a/b \"дом\"","text":"line\nline","vector":[0.6,0.8,0],"metadata":{"price":1.0,"e":1e+300,"#,
        r#""max":9223372036854775807,"metadata":{"metadata":[]},"id":"x","seq":1,"chunks":["x"],"n":null}}"#,
    );
    place.take("colours", tricky, &[]);
    let lines = place.exported("colours", &[]);
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(lines.contains(r#""price":1.0"#) && lines.contains("9223372036854775807"), "{lines}");

    place.succeed(&["collection", "create", "again", "--dim", "3", "--field", "price:number"]);
    place.take("again", &lines, &[]);
    assert_eq!(place.exported("again", &[]), lines);
    assert_eq!(place.exported("colours", &["--vectors"]), lines, "every vector is a document's own");

    place.succeed(&["collection", "create", "none", "--dim", "3"]);
    let ran = place.succeed(&["export", "none"]);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("0 documents of none written to stdout"), "{}", ran.stderr);
    place.run(&["export", "nobody"]).failed_with(1, &["there is no collection \"nobody\""]);
}

#[test]
fn a_file_appears_whole_or_stays_as_it_was() {
    let place = Place::with_colours();
    place.take("colours", THREE, &[]);
    let file = place.write("out.jsonl", "what stood there");
    place.run(&["export", "nobody", "--out", &file]).failed_with(1, &["nobody"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "what stood there");
    let ran = place.succeed(&["export", "colours", "--out", &file, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["documents"], report["file"].as_str()), (&serde_json::json!(3), Some(file.as_str())));
    assert!(ran.stderr.contains("3 documents of colours written to"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), place.exported("colours", &["--json"]));
    place.run(&["export", "colours", "--out", place.path("").to_str().unwrap()]).failed_with(2, &["is no file"]);
    let left = fs::read_dir(place.path("")).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".tmp")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_server_is_read_page_by_page() {
    let place = Place::with_colours();
    let server = Server::start(&place, &[]);
    let at = ["--server", server.address()];
    let lines: String = (0..777).map(|n| format!("{{\"id\":\"{n:03}\",\"vector\":[{n},1,0]}}\n")).collect();
    place.take("colours", &lines, &at);
    let ids = |lines: &str| -> Vec<String> {
        let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().into();
        lines.lines().map(id).collect()
    };
    let exported = place.exported("colours", &at);
    assert_eq!(ids(&exported), (0..777).map(|n| format!("{n:03}")).collect::<Vec<_>>());
    place.succeed(&[&["collection", "create", "again", "--dim", "3"], &at[..]].concat());
    place.take("again", &exported, &at);
    assert_eq!(ids(&place.exported("again", &at)), ids(&exported));
}

#[test]
fn texts_are_made_and_embedded_again_unless_they_are_asked_for() {
    let place = Place::new();
    let models = place.path("models");
    install_small_model(&models);
    let of = ["--models", models.to_str().unwrap()];
    let create = |name: &str, options: &[&str]| {
        let base = ["collection", "create", name, "--model", SMALL_MODEL];
        place.succeed(&[&base[..], options, &of].concat());
    };
    create("made", &["--template", "{{a}} {{b}}"]);
    let own = vec!["1"; SMALL_DIM].join(",");
    let second = format!("{{\"id\":\"2\",\"a\":\"d\",\"vector\":[{own}]}}\n");
    place.take("made", &format!("{{\"id\":\"1\",\"a\":\"c d\",\"b\":\"b\"}}\n{second}"), &of);
    let of_fields = place.exported("made", &of);
    let line: Vec<serde_json::Value> = of_fields.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(line[0], serde_json::json!({"id": "1", "metadata": {"a": "c d", "b": "b"}}));
    assert_eq!(line[1]["metadata"], serde_json::json!({"a": "d"}));
    assert_eq!(line[1]["vector"].as_array().unwrap().len(), SMALL_DIM);

    // The same template, another one, and none.
    let all = [&["--vectors", "--made-texts"], &of[..]].concat();
    create("same", &["--template", "{{a}} {{b}}"]);
    place.take("same", &of_fields, &of);
    assert_eq!(place.exported("same", &all), place.exported("made", &all));
    create("other", &["--template", "{{b}}"]);
    place.take("other", &of_fields, &of);
    assert!(place.exported("other", &all).contains(r#""text":"b""#));
    create("plain", &[]);
    place.take("plain", &place.exported("made", &[&["--made-texts"], &of[..]].concat()), &of);
    assert_eq!(place.exported("plain", &all), place.exported("made", &all));

    // Chunks of texts are made again, and chunks of one's own stay.
    create("parts", &["--chunk-tokens", "4", "--chunk-overlap", "0"]);
    let chunks = format!("[{{\"vector\":[{own}],\"start\":0,\"end\":1}},{{\"vector\":[{own}]}}]");
    let given = format!("{{\"id\":\"3\",\"text\":\"a b\",\"chunks\":{chunks}}}\n");
    place.take("parts", &format!("{{\"id\":\"1\",\"text\":\"a b c d a b c d\"}}\n{given}"), &of);
    let lines = place.exported("parts", &of);
    assert_eq!(lines.lines().next(), Some(r#"{"id":"1","text":"a b c d a b c d"}"#));
    create("parts-2", &["--chunk-tokens", "4", "--chunk-overlap", "0"]);
    place.take("parts-2", &lines, &of);
    assert_eq!(place.exported("parts-2", &of), lines);
    assert_eq!(place.exported("parts-2", &all), place.exported("parts", &all));

    // Without vectors every text is embedded, also of documents that came with some.
    let lines = place.exported("parts", &[&["--without-vectors"], &of[..]].concat());
    assert_eq!(lines, "{\"id\":\"1\",\"text\":\"a b c d a b c d\"}\n{\"id\":\"3\",\"text\":\"a b\"}\n");
    place.run(&["export", "parts", "--without-vectors", "--vectors"]).failed_with(2, &["--without-vectors"]);
    create("parts-3", &["--chunk-tokens", "4", "--chunk-overlap", "0"]);
    place.take("parts-3", &lines, &of);
    assert_eq!(place.exported("parts-3", &of), lines);
}

#[test]
fn chunks_of_texts_that_a_template_makes_are_exported_and_imported() {
    let place = Place::new();
    let models = place.path("models");
    install_small_model(&models);
    let of = ["--models", models.to_str().unwrap()];
    for name in ["one", "two", "three"] {
        let options = ["--model", SMALL_MODEL, "--template", "{{a}} {{b}}", "--chunk-tokens", "4"];
        place.succeed(&[&["collection", "create", name, "--chunk-overlap", "0"], &options[..], &of].concat());
    }
    let own = vec!["1"; SMALL_DIM].join(",");
    let lines = [
        r#"{"id":"1","a":"a b c d","b":"a b c d"}"#.to_owned(),
        format!(r#"{{"id":"2","a":"c","b":"d","vector":[{own}]}}"#),
        format!(r#"{{"id":"3","a":"a b","chunks":[{{"start":0,"end":1,"vector":[{own}]}}]}}"#),
    ];
    place.take("one", &lines.join("\n"), &of);
    let all = [&["--vectors", "--made-texts"], &of[..]].concat();
    for (name, options) in [("two", &[][..]), ("three", &["--vectors"])] {
        let exported = place.exported("one", &[options, &of].concat());
        assert!(exported.contains(r#""start":0"#) && !exported.contains(r#""text""#), "{exported}");
        place.take(name, &exported, &of);
        assert_eq!(place.exported(name, &all), place.exported("one", &all));
    }
    // No place lies outside of the text that is made.
    let beyond = lines[2].replace(r#""end":1"#, r#""end":4"#);
    place.run_with_input(&[&["import", "one", "-"], &of[..]].concat(), &beyond).failed_with(1, &["must lie within"]);
}
