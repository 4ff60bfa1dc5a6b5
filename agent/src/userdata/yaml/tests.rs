use super::*;

fn code_of(text: &str) -> (&'static str, usize, usize) {
    match parse(text) {
        Ok(_) => ("ok", 0, 0),
        Err(diagnostic) => (diagnostic.code, diagnostic.line, diagnostic.column),
    }
}

#[test]
fn refusals_have_codes_and_positions() {
    let cases = [
        ("image: a\nimage: b\n", ("duplicate_key", 2, 1)),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ("duplicate_key", 4, 3)),
        ("\"a\": 1\na: 2\n", ("duplicate_key", 2, 1)),
        ("a: !!str 1\n", ("yaml_tag", 1, 4)),
        ("a: !foo\n  b: 1\n", ("yaml_tag", 1, 4)),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", ("yaml_merge_key", 3, 3)),
        ("a: 1\n---\nb: 2\n", ("yaml_multiple_documents", 2, 1)),
        ("%YAML 1.1\n---\na: 1\n", ("yaml_directive", 1, 1)),
        ("a:\n\tb: 1\n", ("yaml_tab", 2, 2)),
        ("a: *x\n", ("yaml_alias", 1, 4)),
        ("a: &x [*x]\n", ("yaml_alias", 1, 8)),
        ("? [a, b]\n: 1\n", ("yaml_key", 1, 3)),
        (": 1\n", ("yaml_key", 1, 1)),
        ("a: b: c\n", ("yaml_syntax", 1, 5)),
        ("a: \"b\n", ("yaml_syntax", 2, 1)),
    ];
    for (text, expected) in cases {
        assert_eq!(code_of(text), expected, "{text:?}");
    }
}

#[test]
fn positions_and_styles_are_kept() {
    let text = "\u{feff}# c\r\nimage: centos\r\ncmd: \"é: yes\"\r\nports: [80, '81']\r\n";
    let root = parse(text).unwrap().unwrap();
    let Content::Map(entries) = &root.content else { panic!("not a map") };
    let seen: Vec<_> = entries
        .iter()
        .map(|e| (e.key.as_str(), e.key_position.line, e.value.position.column))
        .collect();
    assert_eq!(seen, [("image", 2, 8), ("cmd", 3, 6), ("ports", 4, 8)]);
    assert_eq!(root.to_json()["ports"], serde_json::json!([80, "81"]));
    assert_eq!(root.to_json()["cmd"], "é: yes");
}

#[test]
fn only_core_schema_booleans_and_nulls() {
    let root = parse("[true, yes, no, on, null, ~, 'true', 0o7, 1.10]").unwrap().unwrap();
    let expected = serde_json::json!([true, "yes", "no", "on", null, null, "true", "0o7", 1.1]);
    assert_eq!(root.to_json(), expected);
}

#[test]
fn json_is_yaml() {
    let text = r#"signal: {"alarm_url":"http:\/\/a/b?c=d&e=f","n":[1,2]}"#;
    let json = parse(text).unwrap().unwrap().to_json();
    assert_eq!(json["signal"]["alarm_url"], "http://a/b?c=d&e=f");
}

#[test]
fn budgets_hold() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
    }
    assert_eq!(code_of(&bomb).0, "yaml_too_large");
    let fat = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(20));
    assert_eq!(code_of(&fat).0, "yaml_too_large");
    let many = format!("a: [{}]\n", "1, ".repeat(MAX_NODES));
    assert_eq!(code_of(&many).0, "yaml_too_large");
    let large = "#".repeat(MAX_DOCUMENT_BYTES + 1);
    assert_eq!(code_of(&large).0, "document_too_large");
    let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(code_of(&nest(MAX_DEPTH)).0, "ok");
    assert_eq!(code_of(&nest(MAX_DEPTH + 1)).0, "yaml_too_deep");
    assert_eq!(code_of(&nest(100_000)).0, "yaml_too_deep");
    let by_alias = format!("a: &a {}\nb: {}*a{}\n", nest(20), "[".repeat(20), "]".repeat(20));
    assert_eq!(code_of(&by_alias).0, "yaml_too_deep");
}

#[test]
fn nothing_is_none() {
    for text in ["", "# only a comment\n", "---\n# nothing\n"] {
        let root = parse(text).unwrap();
        assert!(root.is_none_or(|node| node.is_null()), "{text:?}");
    }
}
