//! `docs/document.md` says what the parser does, and the example documents load.

use std::path::Path;

use heliograph_agent::plan::Plan;
use heliograph_agent::userdata;
use heliograph_agent::userdata::reference;

const BEGIN: &str = "<!-- keys: begin -->\n";
const END: &str = "<!-- keys: end -->\n";

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// With `HELIOGRAPH_UPDATE=1` the document is rewritten instead of compared.
#[test]
fn the_reference_is_up_to_date() {
    let path = repository().join("docs/document.md");
    let text = std::fs::read_to_string(&path).expect("docs/document.md is there");
    let (before, rest) = text.split_once(BEGIN).expect("the first marker is there");
    let (_, after) = rest.split_once(END).expect("the second marker is there");
    let expected = format!("{before}{BEGIN}\n{}\n{END}{after}", reference::markdown());
    if std::env::var_os("HELIOGRAPH_UPDATE").is_some_and(|value| !value.is_empty()) {
        std::fs::write(&path, &expected).expect("docs/document.md can be written");
        return;
    }
    assert!(
        text == expected,
        "docs/document.md is not up to date; run HELIOGRAPH_UPDATE=1 cargo test -p \
         heliograph-agent --test reference"
    );
}

#[test]
fn every_example_loads() {
    let mut n_examples = 0;
    for entry in std::fs::read_dir(repository().join("examples")).expect("examples/ is there") {
        let path = entry.expect("examples/ can be listed").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        n_examples += 1;
        let bytes = std::fs::read(&path).expect("an example can be read");
        let document =
            userdata::load(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let n_warnings = usize::from(path.ends_with("line-form.yaml"));
        assert_eq!(document.warnings.len(), n_warnings, "{}", path.display());
        assert_eq!(Plan::new(&document, std::path::Path::new("/state")).containers.len(), 1);
    }
    assert!(n_examples >= 6, "{n_examples} examples");
}
