//! Importing files: every format, what is wrong with them, and what is left alone.

use super::{Place, THREE};

#[test]
fn every_format_brings_the_same_documents() {
    let array = format!("[{}]", THREE.trim_end().replace('\n', ",\n"));
    let csv = "id,text,vector,price\nred,a red thing,\"[1,0,0]\",3\nlime,,\"[0.7,1,0]\",12.5\nblue,,\"[0, 0, 1]\",7\n";
    for (name, text) in [("a.jsonl", THREE), ("a.ndjson", THREE), ("a.json", &array), ("a.csv", csv)] {
        let place = Place::with_colours();
        let file = place.write(name, text);
        let ran = place.succeed(&["import", "colours", &file]);
        assert!(ran.stderr.contains("3 documents written into colours"), "{name}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{name}");
        let cheap = place.hits(&["--vector", "[1,0,0]", "--filter", r#"{"price":{"$lt":10}}"#]);
        assert_eq!(cheap, ["red", "blue"], "{name}");
    }
}

#[test]
fn stdin_is_read_as_json_lines_unless_told_otherwise() {
    let place = Place::with_colours();
    let ran = place.run_with_input(&["import", "colours", "-", "--json", "--quiet"], THREE);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (report["lines"].as_u64(), report["upserted"].as_u64(), report["failed"].as_u64()),
        (Some(3), Some(3), Some(0))
    );
    let again =
        place.run_with_input(&["import", "colours", "-", "--format", "json"], "[{\"id\":\"red\",\"vector\":[0,1,0]}]");
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(place.hits(&["--vector", "[0,1,0]", "-k", "1"]), ["red"]);
}

#[test]
fn fields_are_taken_from_where_the_options_say() {
    let place = Place::with_colours();
    let csv = "sku,x\n";
    let file = place.write("bad.csv", csv);
    place.run(&["import", "colours", &file, "--id-field", "sku"]).succeeds_with_nothing();
    let line = "{\"sku\":7,\"title\":\"T\",\"body\":\"B\",\"emb\":[1,0,0],\"price\":1,\"secret\":\"s\"}\n";
    let file = place.write("a.jsonl", line);
    let arguments = [
        "import",
        "colours",
        &file,
        "--id-field",
        "sku",
        "--text-field",
        "title",
        "--text-field",
        "body",
        "--vector-field",
        "emb",
        "--metadata-fields",
        "price",
    ];
    place.succeed(&arguments);
    let found = place.succeed(&["search", "colours", "--vector", "[1,0,0]", "--json"]).stdout;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let hit = &found["hits"][0];
    assert_eq!((hit["id"].as_str(), hit["text"].as_str()), (Some("7"), Some("T\nB")));
    assert_eq!(hit["metadata"], serde_json::json!({"price": 1}));
    place
        .run(&["import", "colours", &file, "--id-field", "sku", "--text-field", "sku"])
        .failed_with(2, &["named twice"]);
}

#[test]
fn bad_lines_are_named_the_others_get_in_and_the_exit_code_tells() {
    let place = Place::with_colours();
    let text = concat!(
        "{\"id\":\"red\",\"vector\":[1,0,0]}\n",
        "nonsense\n",
        "\n",
        "{\"id\":\"short\",\"vector\":[1,0]}\n",
        "{\"id\":\"zero\",\"vector\":[0,0,0]}\n",
        "{\"id\":\"empty\"}\n",
        "{\"text\":\"no id\"}\n",
        "{\"id\":\"typed\",\"vector\":[1,0,0],\"price\":\"x\"}\n",
        "{\"id\":\"blue\",\"vector\":[0,0,1]}\n",
    );
    let file = place.write("bad.jsonl", text);
    let ran = place.run(&["import", "colours", &file]);
    let lines = ["line 2: ", "line 4: ", "line 5: ", "line 6: ", "line 7: ", "line 8: "];
    ran.failed_with(1, &lines);
    ran.failed_with(1, &["invalid_json", "dim_mismatch", "nothing_to_index", "missing_field", "field_type_mismatch"]);
    ran.failed_with(1, &["2 documents written", "error: 6 of 8 lines failed"]);
    assert_eq!(place.hits(&["--vector", "[1,0,0]"]), ["red", "blue"]);
}

#[test]
fn hints_accuse_no_column_that_is_there() {
    let place = Place::with_colours();
    let soon = place.write("soon.csv", "id,name,vector,price\na,x,\"[1,0,0]\",soon\n");
    let ran = place.run(&["import", "colours", &soon, "--text-field", "name", "--text-field", "nmae"]);
    ran.failed_with(1, &["column \"price\" is declared as a number"]);
    assert!(!ran.stderr.contains("misspelt"), "nothing could be read: {}", ran.stderr);
    let nameless = place.write("nameless.csv", "id,name,vector,price\n,x,\"[1,0,0]\",1\nb,,\"[1,0,0]\",1\n");
    let ran = place.run(&["import", "colours", &nameless, "--text-field", "name", "--text-field", "nmae"]);
    ran.failed_with(1, &["the cell of the id column \"id\" is empty", "has the field \"nmae\""]);
    assert!(!ran.stderr.contains("has the field \"name\""), "{}", ran.stderr);
}

#[test]
fn a_condition_is_not_taken_for_a_field() {
    let place = Place::with_colours();
    let file = place.write("if.jsonl", "{\"id\":\"a\",\"vector\":[1,0,0],\"if_seq\":0}\n");
    place.run(&["import", "colours", &file]).failed_with(1, &["\"if_seq\" would not be heeded", "invalid_value"]);
    place.succeed(&["import", "colours", &file, "--metadata-fields", "if_seq"]);
}

#[test]
fn events_that_failed_are_counted_among_all_that_came() {
    let place = Place::with_colours();
    let events = concat!(
        "{\"op\":\"c\",\"before\":null,\"after\":{\"id\":1,\"v\":[1,0,0]}}\n",
        "{\"op\":\"u\",\"before\":null,\"after\":{\"id\":1,\"v\":[0,1,0]}}\n",
        "nonsense\n",
        "{\"op\":\"d\",\"before\":{\"id\":9},\"after\":null}\n",
    );
    let file = place.write("events.jsonl", events);
    let ran = place.run(&["import", "debezium", "colours", &file, "--vector-column", "v"]);
    ran.failed_with(1, &["1 document written", "1 of 4 events failed"]);
}

#[test]
fn what_is_no_such_file_is_refused_before_anything_changes() {
    let place = Place::with_colours();
    place.run(&["import", "colours", "absent.jsonl"]).failed_with(1, &["cannot open absent.jsonl", "because: "]);
    let unknown = place.write("a.txt", THREE);
    place.run(&["import", "colours", &unknown]).failed_with(2, &["--format"]);
    let object = place.write("a.json", THREE);
    place.run(&["import", "colours", &object]).failed_with(1, &["--format jsonl"]);
    let file = place.write("a.jsonl", THREE);
    place.run(&["import", "shapes", &file]).failed_with(1, &["there is no collection shapes", "--create"]);
    // With --create too: what cannot be read leaves no empty collection behind.
    let table = place.write("a.csv", "id,id\n1,2\n");
    for (unreadable, words) in
        [(&object, "--format jsonl"), (&table, "column 2"), (&"absent.json".to_owned(), "cannot open")]
    {
        place.run(&["import", "shapes", unreadable, "--create"]).failed_with(1, &[words]);
        place.run(&["import", "shapes", &file]).failed_with(1, &["there is no collection shapes"]);
    }
    place.run(&["import", "..", &file]).failed_with(2, &["1 to 64 of the characters"]);
    let open =
        place.write("open.csv", "id,vector,note\nred,\"[1,0,0]\",a\nblue,\"[0,0,1]\",\"b\ngreen,\"\"[0,1,0]\"\",c\n");
    place.run(&["import", "colours", &open]).failed_with(1, &["1 document written", "a quote opens in row 2"]);
    let cut = place.write("cut.json", "[{\"id\":\"red\",\"vector\":[1,0,0]},{\"id\":\"blue\"");
    place.run(&["import", "colours", &cut]).failed_with(1, &["1 document written", "ends within the array"]);
    place
        .run(&["import", "colours", place.path("").to_str().unwrap(), "--format", "json"])
        .failed_with(2, &["is a directory"]);
}

#[test]
fn what_the_api_returns_is_imported_as_it_was() {
    let place = Place::with_colours();
    let file = place.write("a.jsonl", "{\"id\":\"red\",\"vector\":\"AACAPwAAAAAAAAAA\",\"text\":null,\"metadata\":{\"price\":1},\"seq\":9,\
        \"created_at\":\"2024-01-01T00:00:00.000Z\",\"updated_at\":\"2024-01-01T00:00:00.000Z\",\"embedding\":\"ready\"}\n");
    assert!(place.succeed(&["import", "colours", &file]).stderr.contains("1 document written"));
    let found = place.succeed(&["search", "colours", "--vector", "[1,0,0]", "--json"]).stdout;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["hits"][0]["metadata"], serde_json::json!({"price": 1}));
}

#[test]
fn thousands_of_lines_go_through_a_pipe() {
    let place = Place::with_colours();
    let text: String = (0..5_000)
        .map(|n| format!("{{\"id\":\"{n}\",\"vector\":[{},{},1],\"price\":{n}}}\n", n % 71, n % 13))
        .collect();
    let ran = place.run_with_input(&["import", "colours", "-"], &text);
    assert!(ran.stderr.contains("5,000 documents written"), "{}", ran.stderr);
    let stats = place.succeed(&["collection", "show", "colours", "--json"]).stdout;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["stats"]["documents"], 5_000);
}

impl super::Ran {
    #[track_caller]
    fn succeeds_with_nothing(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
        assert!(self.stderr.contains("0 documents written"), "{}", self.stderr);
    }
}

#[test]
fn a_field_that_is_given_must_be_the_one_that_is_declared() {
    let place = Place::with_colours();
    let file = place.write("a.csv", "id,vector,stock\nred,\"[1,0,0]\",true\nblue,\"[0,0,1]\",false\n");
    let declares = ["import", "colours", &file, "--create", "--field"];
    place.run(&[&declares[..], &["stock:boolean"]].concat()).failed_with(1, &["stock", "is there already"]);
    place.run(&[&declares[..], &["stock:bool"]].concat()).failed_with(2, &["price:number"]);
    place.run(&["import", "colours", &file, "--field", "stock:boolean"]).failed_with(2, &["--create"]);
    place.succeed(&[&declares[..], &["price:number"]].concat());
}

#[test]
fn ids_of_a_csv_file_are_as_they_are_written_also_where_the_field_is_a_number() {
    let place = Place::with_colours();
    place.succeed(&["collection", "create", "numbered", "--dim", "1", "--field", "id:number", "--field", "n:number"]);
    let file = place.write("a.csv", "id,vector,n\n7,[1],07\n007,[1],1\n");
    place.succeed(&["import", "numbered", &file]);
    let lines = place.succeed(&["export", "numbered"]).stdout;
    assert!(lines.contains(r#""id":"007""#) && lines.contains(r#""id":"7","metadata":{"n":7}"#), "{lines}");
}
