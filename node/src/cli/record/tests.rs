//! Records and their lines: golden forms, what is refused, and that nothing gets lost on the way.

use proptest::prelude::*;

use super::*;

fn register(values: Vec<Value>) -> View {
    View::Register { values }
}

fn round_trip(record: &Record) -> Record {
    let collection = record.collection.clone().unwrap_or_default();
    let lines = lines(&collection, &record.key, &record.view).unwrap();
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].contains('\n'));
    Record::parse(&lines[0]).unwrap_or_else(|error| panic!("{}: {error}", lines[0]))
}

#[test]
fn the_natural_form_of_each_type_is_golden() {
    let values = vec![
        Value { expires_at: Some(WallTime(1_700_000_000_000)), ..Value::json(r#"{"b":1,"a":2.50}"#) },
        Value { content_type: ContentType::Bytes, bytes: Bytes::from_static(b"\xff"), expires_at: None },
    ];
    let set = View::Set(vec![Element::Text("a".into()), Element::Int(-1), Element::Bytes("b".into())]);
    let map = BTreeMap::from([
        ("n".to_owned(), vec![View::Counter(3)]),
        ("x".to_owned(), vec![View::Flag(true), View::Counter(1)]),
    ]);
    let (collection, key) = (Bytes::from_static(b"c"), Bytes::from_static(b"\xfe"));
    let shown: Vec<String> = [register(values), set, View::Counter(-5), View::Flag(true), View::Map(map)]
        .iter()
        .map(|view| lines(&collection, &key, view).unwrap().remove(0))
        .collect();
    let head = r#"{"collection":"c","key":{"base64":"/g=="},"type":"#;
    assert_eq!(
        shown,
        [
            r#""register","values":[{"json":{"b":1,"a":2.50},"expires_at":1700000000000},{"base64":"/w==","content_type":"application/octet-stream"}]}"#,
            r#""set","value":{"json":["a",-1,{"base64":"Yg=="}]}}"#,
            r#""counter","value":-5}"#,
            r#""flag","value":true}"#,
            r#""map","value":{"n":{"type":"counter","value":3},"x":[{"type":"flag","value":true},{"type":"counter","value":1}]}}"#,
        ]
        .map(|tail| format!("{head}{tail}"))
    );
}

#[test]
fn shorthands_are_understood() {
    let record = Record::parse(r#"{"key":"k","value":{"json":null}}"#).unwrap();
    let expected = Record { collection: None, key: "k".into(), view: register(vec![Value::json("null")]) };
    assert_eq!(record, expected);
    for (line, view) in [
        (r#"{"key":"k","type":"counter","value":{"json":7}}"#, View::Counter(7)),
        (r#"{"key":"k","type":"flag","value":false}"#, View::Flag(false)),
        (r#"{"key":"k","type":"set","value":["x"]}"#, View::Set(vec![Element::Text("x".into())])),
    ] {
        assert_eq!(Record::parse(line).unwrap().view, view, "{line}");
    }
}

#[test]
fn several_live_types_are_several_lines() {
    let conflict = View::Conflict(vec![View::Flag(true), View::Counter(2)]);
    let shown = lines(&Bytes::new(), &Bytes::from_static(b"k"), &conflict).unwrap();
    assert_eq!(shown, [r#"{"key":"k","type":"flag","value":true}"#, r#"{"key":"k","type":"counter","value":2}"#]);
}

#[test]
fn json_that_is_no_single_line_keeps_its_bytes_in_base64() {
    for text in ["{\n}", " 1", "not json"] {
        let record = Record { collection: None, key: "k".into(), view: register(vec![Value::json(text)]) };
        assert_eq!(round_trip(&record), record, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (line, why) in [
        ("", "EOF"),
        ("{}", "missing field `key`"),
        (r#"{"key":"k"}"#, "`values` (or `value`) is missing"),
        (r#"{"key":"k","values":[]}"#, "`values` is empty"),
        (r#"{"key":"k","value":{"json":1},"values":[{"json":1}]}"#, "at once"),
        (r#"{"key":"k","value":{"json":1,"base64":""}}"#, "either `json` or `base64`"),
        (r#"{"key":"k","value":{"json":1,"content_type":"text/plain"}}"#, "not text/plain"),
        (r#"{"key":"k","value":{"base64":"*"}}"#, "not base64"),
        (r#"{"key":"k","value":{"json":1},"colour":1}"#, "unknown field `colour`"),
        (r#"{"key":"k","type":"list","value":1}"#, "unknown variant `list`"),
        (r#"{"key":"k","type":"counter","value":1.5}"#, "invalid type"),
        (r#"{"key":"k","type":"counter","values":[{"json":1}]}"#, "only a register has `values`"),
        (r#"{"key":"k","type":"set","value":[1.5]}"#, "a set is a list"),
        (r#"{"key":"k","type":"map","value":{"f":{"type":"flag"}}}"#, "field \"f\": `value` is missing"),
        (r#"{"key":"k","value":{"json":1}} x"#, "trailing characters"),
    ] {
        let said = Record::parse(line).unwrap_err();
        assert!(said.contains(why), "{line}: {said}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from);
    let raw = (bytes, prop_oneof![Just(ContentType::Bytes), Just(ContentType::new("text/x").unwrap())])
        .prop_map(|(bytes, content_type)| Value { content_type, bytes, expires_at: None });
    let json = any::<String>().prop_map(|text| Value::json(serde_json::Value::from(text).to_string()));
    (prop_oneof![raw, json], proptest::option::of(any::<u64>().prop_map(WallTime)))
        .prop_map(|(value, expires_at)| Value { expires_at, ..value })
}

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        any::<String>().prop_map(Element::Text),
        any::<i64>().prop_map(Element::Int),
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(|bytes| Element::Bytes(bytes.into())),
    ]
}

fn view() -> impl Strategy<Value = View> {
    let leaf = prop_oneof![
        proptest::collection::vec(value(), 1..4).prop_map(register),
        any::<bool>().prop_map(View::Flag),
        any::<i64>().prop_map(View::Counter),
        proptest::collection::vec(element(), 0..4).prop_map(View::Set),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        proptest::collection::btree_map(any::<String>(), proptest::collection::vec(inner, 1..3), 0..3)
            .prop_map(View::Map)
    })
}

proptest! {
    #[test]
    fn a_record_survives_its_line(
        view in view(),
        collection in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..6)),
        key in proptest::collection::vec(any::<u8>(), 1..6),
    ) {
        let record = Record { collection: collection.map(Bytes::from), key: key.into(), view };
        prop_assert_eq!(round_trip(&record), record);
    }

    #[test]
    fn any_line_is_read_or_refused(line in ".{0,80}") {
        let _ = Record::parse(&line);
    }
}
