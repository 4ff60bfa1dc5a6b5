//! `serve`: what it prints, what it refuses.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::harness::{Process, program};

fn serve(data_dir: &Path, flags: &[&str]) -> Output {
    let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"];
    program().arg("serve").args(listen).arg(data_dir).args(flags).output().expect("it runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_first_start_makes_a_token_for_its_owner_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let data_dir = dir.path().join("new/data");
    let relay = Process::start(&data_dir, &["--listen", "127.0.0.1:0"]);
    assert!(relay.url.starts_with("http://127.0.0.1:"), "{}", relay.url);
    let token = data_dir.join("operator.token");
    let mode = std::fs::metadata(&token).expect("a token").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = std::fs::read_to_string(&token).expect("a token");
    relay.terminate();
    assert_eq!(relay.exit_code(), Some(0));
    let _relay = Process::start(&data_dir, &["--listen", "127.0.0.1:0"]);
    assert_eq!(std::fs::read_to_string(&token).expect("a token"), first);
}

#[test]
fn a_second_relay_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let _first = Process::start(dir.path(), &["--listen", "127.0.0.1:0"]);
    let second = serve(dir.path(), &[]);
    assert_eq!(second.status.code(), Some(4));
    assert!(stderr(&second).contains("in use by another relay"), "{}", stderr(&second));
    assert!(second.stdout.is_empty(), "it bound nothing");
}

#[test]
fn an_address_in_use_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = program()
        .args(["serve", "--store", "memory", "--admin-listen", "127.0.0.1:0", "--listen", &address])
        .arg("--data-dir")
        .arg(dir.path())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(4));
    let expect = format!("failed to listen on {address}: Address already in use");
    assert!(stderr(&output).contains(&expect), "{}", stderr(&output));
}

#[test]
fn a_configuration_can_be_checked_without_being_used() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let data_dir = dir.path().join("data");
    let config = dir.path().join("relay.toml");
    let check = |file: &str, expect: Result<(), &str>| {
        std::fs::write(&config, file).expect("file is written");
        let path = config.to_str().expect("a path");
        let output = serve(&data_dir, &["--check-config", "--config", path]);
        match expect {
            Ok(()) => assert_eq!(output.status.code(), Some(0), "{file}: {}", stderr(&output)),
            Err(text) => {
                assert_eq!(output.status.code(), Some(4), "{file}");
                assert!(stderr(&output).contains(text), "{file}: {}", stderr(&output));
            }
        }
        assert!(!data_dir.exists(), "nothing was touched");
    };
    check("store = 'embedded'\nlog_format = 'json'\n", Ok(()));
    check("store = 1", Err("relay.toml, line 1, column 9, key store: "));
    check("\nlimits = 1", Err("relay.toml, line 2, column 1, key limits: unknown field"));
    check("store = ", Err("relay.toml, line 1, column "));
    check("public_url = 'relay'", Err("key public_url: a public URL is http:// or https://"));
    check(
        "[[tokens]]\naccount = 'AUTH_a'\ntoken_file = '/nonexistent'",
        Err("failed to read the token file /nonexistent: No such file"),
    );
    check("[[tokens]]\naccount = 'a/b'\ntoken_file = '/dev/null'", Err("account \"a/b\""));
}

#[test]
fn the_environment_is_read_and_flags_win() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let run = |variables: &[(&str, &str)], flags: &[&str]| {
        let mut command = program();
        command.args(["serve", "--check-config"]).args(flags).envs(variables.iter().copied());
        command.current_dir(dir.path()).output().expect("it runs").status.code()
    };
    assert_eq!(run(&[("HELIOGRAPH_LISTEN", "nonsense")], &[]), Some(3));
    assert_eq!(run(&[("HELIOGRAPH_LISTEN", "nonsense")], &["--listen", "127.0.0.1:0"]), Some(0));
    assert_eq!(run(&[("HELIOGRAPH_CONFIG", "/nonexistent")], &[]), Some(4));
}
