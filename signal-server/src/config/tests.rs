use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};

use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: ServeArgs,
}

fn parse_flags(flags: &[&str]) -> ServeArgs {
    let words = std::iter::once("serve").chain(flags.iter().copied());
    Flags::try_parse_from(words).expect("valid flags").args
}

/// Resolves flags and a configuration file; the result is the part that `show` picks.
fn check(flags: &[&str], file: &str, show: impl Fn(&Config) -> String, expect: &str) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("relay.toml");
    fs::write(&path, file).expect("file is written");
    let mut args = parse_flags(flags);
    args.config = Some(path);
    let seen = match Config::resolve(&args) {
        Ok(config) => show(&config),
        Err(error) => {
            let text = crate::error::chain(&error).to_string();
            let text = text.replace(&dir.path().display().to_string(), "DIR");
            // The list of all keys grows; that it is there is enough.
            match text.split_once("expected one of ") {
                Some((before, _keys)) => format!("{before}expected one of …"),
                None => text,
            }
        }
    };
    assert_eq!(seen, expect, "{flags:?} {file}");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let listen = |config: &Config| config.listen.to_string();
    check(&[], "", listen, "127.0.0.1:8090");
    check(&[], "listen = '[::1]:1'", listen, "[::1]:1");
    check(&["--listen", "0.0.0.0:2"], "listen = '[::1]:1'", listen, "0.0.0.0:2");
    let grace = |config: &Config| format!("{:?}", config.shutdown_grace);
    check(&[], "", grace, "10s");
    check(&[], "shutdown_grace = '2m'", grace, "120s");
    check(&[], "shutdown_grace = 3", grace, "3s");
    check(&["--shutdown-grace", "500ms"], "shutdown_grace = 3", grace, "500ms");
}

#[test]
fn an_error_in_the_file_names_line_column_and_key() {
    let anything = |config: &Config| format!("{config:?}");
    check(
        &[],
        "store = 'memory'\nlissten = '127.0.0.1:1'\n",
        anything,
        "DIR/relay.toml, line 2, column 1, key lissten: unknown field `lissten`, expected one of …",
    );
    check(
        &[],
        "[[tokens]]\naccount = 'AUTH_a'\ntoken_file = 7\n",
        anything,
        "DIR/relay.toml, line 3, column 14, key tokens[0].token_file: invalid type: integer `7`, \
         expected path string",
    );
    check(
        &[],
        "\n  store = 'etched'",
        anything,
        "DIR/relay.toml, line 2, column 11, key store: unknown variant `etched`, expected one \
         of …",
    );
    check(
        &[],
        "log_level = 'loud'",
        anything,
        "DIR/relay.toml, line 1, column 13, key log_level: a log level is one of off, error, \
         warn, info, debug, trace, or a comma-separated list of levels and target=level",
    );
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_bound() {
    let anything = |config: &Config| format!("{config:?}");
    check(
        &["--max-in-flight", "0"],
        "",
        anything,
        "max_in_flight is zero: the relay would refuse every request",
    );
    check(
        &["--listen", "127.0.0.1:8091"],
        "",
        anything,
        "listen and admin_listen are both 127.0.0.1:8091",
    );
    check(
        &[],
        "[[tokens]]\naccount = 'AUTH_a'\ntoken_file = '/nonexistent/token'\n",
        anything,
        "failed to read the token file /nonexistent/token: No such file or directory (os error 2)",
    );
}

#[test]
fn a_token_is_never_printed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let token_file = dir.path().join("token");
    fs::write(&token_file, "correct-horse-battery-staple\n").expect("file is written");
    let file = format!("[[tokens]]\naccount = 'AUTH_a'\ntoken_file = '{}'", token_file.display());
    let path = dir.path().join("relay.toml");
    fs::write(&path, file).expect("file is written");
    let args = ServeArgs { config: Some(path), ..ServeArgs::default() };
    let config = Config::resolve(&args).expect("valid configuration");
    assert_eq!(config.tokens[0].token.expose(), "correct-horse-battery-staple");
    assert!(!format!("{config:?}").contains("horse"));

    fs::write(&token_file, "short\n").expect("file is written");
    let text = Config::resolve(&args).expect_err("a short token").to_string();
    assert!(text.contains("16 to 4096") && !text.contains("short"), "{text}");
}

#[test]
fn a_public_url_is_a_prefix() {
    let parse = |text: &str| text.parse::<PublicUrl>().map(|url| url.as_str().to_owned()).ok();
    assert_eq!(parse("https://relay.example/"), Some("https://relay.example".to_owned()));
    assert_eq!(parse("http://[::1]:80/a/"), Some("http://[::1]/a".to_owned()));
    for text in ["", "relay", "ftp://relay", "http://u@relay", "http://relay/?a", "http://relay/#a"]
    {
        assert_eq!(parse(text), None, "{text}");
    }
}

/// One of every table that the file may have, so that their keys can be listed.
const EVERY_TABLE: &str = "
[[tokens]]
account = 'AUTH_a'
token_file = '/dev/null'

[metadata]
listen = '127.0.0.1:1'
nova_urls = ['http://127.0.0.1:2']
secret_files = ['/dev/null']

[metadata.tls]
certificate_file = '/dev/null'
key_file = '/dev/null'

[keystone]

[heat]
";

/// The keys of a table: `key`, `table.key`, `list[].key`.
fn keys_of(table: &serde_json::Value) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table.as_object().expect("a table") {
        let (inner, joint) = match value {
            serde_json::Value::Object(_) => (Some(value), "."),
            serde_json::Value::Array(items) => {
                (items.first().filter(|item| item.is_object()), "[].")
            }
            _ => (None, ""),
        };
        match inner {
            Some(inner) => {
                keys.extend(keys_of(inner).iter().map(|below| format!("{key}{joint}{below}")));
            }
            None => keys.push(key.clone()),
        }
    }
    keys
}

/// The first column of the settings table in docs/relay.md holds the key, the second the flag, the
/// third the environment variable.
#[test]
fn the_documentation_lists_every_key_flag_and_variable() {
    let page = include_str!("../../../docs/relay.md");
    let mut documented = BTreeSet::new();
    let rows = page
        .lines()
        .skip_while(|line| *line != "## Settings")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `") || line.starts_with("| –"));
    for row in rows {
        let names = row.split('|').skip(1).take(3);
        documented.extend(names.map(|name| name.trim().trim_matches('`').to_owned()));
    }
    documented.remove("–");

    let mut expected = BTreeSet::new();
    let file = FileConfig::parse(EVERY_TABLE, Path::new("relay.toml")).expect("a valid file");
    let file = serde_json::to_value(&file).expect("serialises");
    expected.extend(keys_of(&file));
    expected.insert(PASSWORD_VARIABLE.to_owned());
    let command = Flags::command();
    for argument in command.get_arguments() {
        expected.extend(argument.get_long().map(|long| format!("--{long}")));
        expected.extend(argument.get_env().map(|env| env.to_string_lossy().into_owned()));
    }
    assert_eq!(documented, expected);
}
