//! Templates against examples, and against hostile ones.

use std::collections::BTreeMap;

use super::*;
use crate::types::{FieldsTemplate, Value};

fn id() -> DocumentId {
    DocumentId::new("a").unwrap()
}

fn object(fields: &[(&str, Value)]) -> Metadata {
    fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn string(text: &str) -> Value {
    Value::String(text.into())
}

fn example() -> Metadata {
    let features = object(&[
        ("total_jobs", Value::Int(12)),
        ("total_revenue", Value::Float(3_400.0)),
        ("rate", Value::Float(0.25)),
    ]);
    object(&[
        ("industry_key", string("plumbing")),
        ("source", string("crm")),
        ("features", Value::Object(features)),
        ("tags", Value::Array(vec![string("hot"), Value::Null, Value::Int(3)])),
        ("active", Value::Bool(true)),
        ("note", Value::Null),
    ])
}

fn jinja(source: &str, metadata: &Metadata) -> Result<String, TemplateError> {
    let definition = TemplateDefinition::Jinja(source.to_owned());
    Templater::new(&definition)?.render(&id(), metadata).map(|rendered| rendered.text)
}

#[test]
fn jinja_writes_what_the_fields_hold() {
    let cases = [
        (
            "{{industry_key}} {{source}} {{features.total_jobs}} jobs ${{features.total_revenue}} revenue",
            "plumbing crm 12 jobs $3400 revenue",
        ),
        ("{{ tags }}|{{ tags | join(' ') }}", "hot, , 3|hot  3"),
        ("{{ missing }}{{ missing.deeper.still }}{{ note }}.", "."),
        (
            "{{ industry_key | upper }} {{ features.rate * 100 }}% {{ active | yes_no }} {{ note | default('-') }}",
            "PLUMBING 25% yes",
        ),
        ("{% for tag in tags if tag %}{{ loop.index }}={{ tag }};{% endfor %}", "1=hot;2=3;"),
        ("{% if features.total_jobs > 10 %}big{% elif active %}small{% else %}none{% endif %}", "big"),
        ("{{ id }} {{ metadata.source }} {{ metadata['industry_key'] | truncate(5) }}", "a crm plumb"),
        ("{{ source | replace('c', 'CC') }} {{ features }}", "CCrm rate: 0.25, total_jobs: 12, total_revenue: 3400"),
        ("  <b>{{ source }}</b> & co\n", "<b>crm</b> & co"),
    ];
    for (source, wanted) in cases {
        assert_eq!(jinja(source, &example()).as_deref(), Ok(wanted), "{source}");
    }
}

#[test]
fn filters_of_texts_and_joins_work_on_what_plain_expressions_write() {
    let fields = object(&[
        ("null", Value::Null),
        ("whole", Value::Float(2.0)),
        ("large", Value::Float(1e21)),
        ("numbers", Value::Array(vec![Value::Float(1.0)])),
        ("words", Value::Array(vec![string("a"), string("b")])),
    ]);
    for name in fields.keys().map(String::as_str).chain(["gone", "(whole / 1)", "{'a': {'b': whole}}"]) {
        let plain = jinja(&format!("{{{{ {name} }}}}"), &fields).unwrap();
        let rendered = |expression: String| jinja(&format!("{{{{ {expression} }}}}"), &fields).unwrap();
        for filter in ["lower", "trim", "trim('-')", "replace('-', null)", "replace(null, '-')", "truncate(99)", "join"]
        {
            let wanted = if filter == "join" { plain.replace(", ", "") } else { plain.clone() };
            if filter != "join" || ["null", "gone", "words"].contains(&name) {
                assert_eq!(rendered(format!("{name} | {filter}")), wanted, "{name} | {filter}");
            }
        }
        for filter in ["upper", "title", "capitalize"] {
            assert_eq!(rendered(format!("{name} | {filter} | lower")), plain, "{name} | {filter}");
        }
        assert_eq!(rendered(format!("'<' ~ {name} ~ '>'")), format!("<{plain}>"), "{name}");
    }
    assert_eq!(
        jinja("{{ null is none }} {{ null is defined }} {{ null == none }}", &fields).unwrap(),
        "True True True"
    );
}

#[test]
fn what_cannot_be_read_is_named_by_line() {
    for source in ["a\n{{ a", "a\n{% if a %}", "a\n{{ 1 + }}", "a\n{{ a | }}", "a\n{% for a %}{% endfor %}"] {
        assert!(matches!(jinja(source, &example()), Err(TemplateError::Syntax { line: 2, .. })), "{source}");
    }
    for source in ["\n{{ a | nothing }}", "\n{{ range(3) }}", "\n{{ source.upper() }}"] {
        let error = jinja(source, &example()).unwrap_err();
        assert!(matches!(error, TemplateError::Unknown { line: 2, .. }), "{source}: {error}");
    }
    let error = jinja("\n{{ tags | join(1, 2, 3) }}", &example()).unwrap_err();
    assert!(matches!(error, TemplateError::Failed { line: 2, .. }), "{error}");
}

#[test]
fn every_filter_and_test_that_is_named_is_there() {
    for name in filters::FILTERS {
        let said = jinja(&format!("{{{{ source | {name} }}}}"), &example()).unwrap_or_else(|e| e.to_string());
        assert!(!said.contains("unknown"), "{name}: {said}");
    }
    for name in filters::TESTS {
        assert!(jinja(&format!("{{{{ source is {name} }}}}"), &example()).is_ok(), "{name}");
    }
}

#[test]
fn an_error_does_not_repeat_the_document() {
    for source in
        ["{{ source | int }}", "{{ source | float }}", "{{ source - 1 }}", "{{ source() }}", "{{ source | sum }}"]
    {
        let error = jinja(source, &example()).unwrap_err().to_string();
        assert!(!error.contains("crm"), "{source}: {error}");
    }
    let largest = i128::MAX;
    let of_numbers = ["/ 0", "// 0", "% 0", "** 100"].map(str::to_owned).into_iter();
    for operation in of_numbers.chain([format!("* {largest}"), format!("+ {largest}"), format!("- -{largest}")]) {
        let source = format!("{{{{ salary {operation} }}}}");
        let error = jinja(&source, &object(&[("salary", Value::Int(85_000))])).unwrap_err().to_string();
        assert!(!error.contains("85000"), "{operation}: {error}");
    }
    let error = jinja("{{ source | int(**features) }}", &example()).unwrap_err().to_string();
    assert!(!["rate", "total_jobs", "total_revenue"].iter().any(|name| error.contains(name)), "{error}");
}

#[test]
fn no_template_takes_all_time_or_memory() {
    let long = object(&[("a", string(&"x".repeat(600_000))), ("n", Value::Array(vec![Value::Int(1); 1_000]))]);
    let nested = "{% for x in n %}{% for y in n %}{{ x }}{% endfor %}{% endfor %}";
    assert!(matches!(jinja(nested, &long), Err(TemplateError::TooSlow { .. })));
    assert!(matches!(jinja("{{ a }}{{ a }}", &long), Err(TemplateError::TooLong { .. })));
    assert!(matches!(jinja("{{ n | join(a) }}", &long), Err(TemplateError::Failed { .. })));
    assert!(matches!(jinja("{{ a | replace('x', a) }}", &long), Err(TemplateError::Failed { .. })));
    assert!(matches!(
        jinja("{{ a * 100000 }}", &long),
        Err(TemplateError::Failed { .. } | TemplateError::TooLong { .. })
    ));
    assert!(matches!(jinja("{{ a ~ a }}", &long), Err(TemplateError::TooLong { .. })));
    let within = format!("{{{{ {{'b': {{'c': 1}}}} {} }}}}", "~ a".repeat(17));
    assert!(matches!(jinja(&within, &long), Err(TemplateError::TooManyOperators { .. })));
    let deep = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(jinja(&format!("{{{{ {deep} }}}}"), &long).is_err());
}

fn fields(template: &FieldsTemplate, metadata: &Metadata) -> Rendered {
    Templater::new(&TemplateDefinition::Fields(template.clone())).unwrap().render(&id(), metadata).unwrap()
}

#[test]
fn fields_become_names_and_values() {
    let exclude = crate::types::DEFAULT_EXCLUDED_FIELDS.map(str::to_owned).to_vec();
    let template = FieldsTemplate { exclude, ..FieldsTemplate::default() };
    let mut metadata = example();
    metadata.extend([("updated_at".to_owned(), string("now")), ("product_id".to_owned(), Value::Int(7))]);
    let wanted = "active: yes. features.rate: 0.25. features.total_jobs: 12. features.total_revenue: 3400. \
                  industry_key: plumbing. source: crm. tags: hot, 3.";
    assert_eq!(fields(&template, &metadata), Rendered { text: wanted.into(), parts: vec![] });
    let only = ["source", "features.rate", "note", "gone", "product_id"].map(str::to_owned).to_vec();
    let template = FieldsTemplate { only, ..template };
    assert_eq!(fields(&template, &metadata).text, "source: crm. features.rate: 0.25.");
    assert_eq!(fields(&template, &Metadata::new()).text, "");
}

#[test]
fn weighted_fields_are_parts() {
    let weight = |number| Weight::of(number).unwrap();
    let weights = BTreeMap::from([("name".to_owned(), weight(3.0)), ("code".to_owned(), weight(0.5))]);
    let template = FieldsTemplate { weights, ..FieldsTemplate::default() };
    let metadata =
        object(&[("code", string("X1")), ("name", string("pump")), ("a", Value::Int(1)), ("z", Value::Int(2))]);
    let part = |text: &str, number| Part { text: text.into(), weight: weight(number) };
    let rendered = fields(&template, &metadata);
    assert_eq!(rendered.text, "a: 1. code: X1. name: pump. z: 2.");
    assert_eq!(rendered.parts, [part("code: X1.", 0.5), part("name: pump.", 3.0), part("a: 1. z: 2.", 1.0)]);
    let none = object(&[("a", Value::Int(1)), ("name", Value::Null)]);
    assert_eq!(fields(&template, &none), Rendered { text: "a: 1.".into(), parts: vec![] });
}

#[test]
fn sums_are_weighted_and_of_length_1() {
    let weight = |number| Weight::of(number).unwrap();
    for lengths in [(1.0, 1.0), (0.5, 7.0)] {
        let sum = weighted_sum(&[(weight(3.0), vec![lengths.0, 0.0]), (weight(4.0), vec![0.0, lengths.1])]).unwrap();
        assert!((sum[0] - 0.6).abs() < 1e-6 && (sum[1] - 0.8).abs() < 1e-6, "{sum:?}");
    }
    assert_eq!(weighted_sum(&[(weight(3.0), vec![0.0, 5.0])]), Ok(vec![0.0, 1.0]));
    assert!(weighted_sum(&[(Weight::ONE, vec![1.0, 0.0]), (Weight::ONE, vec![-1.0, 0.0])]).is_err());
}
