//! What is Nova's passes unchanged, and what is nobody's is refused as Nova refuses it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use e2e::neutron::{Kind, Pace, exchange_raw, instance_id, sign};

use crate::{Scene, Set};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        ("novas_tree_is_the_same_with_and_without_the_gateway", novas_tree),
        ("instances_see_novas_tree_through_every_agent", through_every_agent),
        ("the_password_is_written_once_and_refused_the_same_way", password),
        ("who_is_nobody_is_refused_as_nova_refuses", nobody),
    ]
}

fn answer(set: &Set, server: &str, request: &str) -> Result<String> {
    answer_of(set.lab.fact(server)?, request)
}

/// An answer without what differs from one time to the next.
pub(crate) fn answer_of(address: &str, request: &str) -> Result<String> {
    let source = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let answer = exchange_raw(source, address.parse()?, request, Pace::Whole)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let (status, headers) = head.split_once("\r\n").context("no headers")?;
    // Nova's test server speaks HTTP/1.0; which version is spoken is each connection's own affair.
    let status = status.replace("HTTP/1.0", "HTTP/1.1");
    let kept = headers.lines().filter(|line| {
        let line = line.to_ascii_lowercase();
        !line.starts_with("date:") && !line.starts_with("connection:")
    });
    let mut body = body.to_owned();
    // meta_data.json has a new random seed each time.
    if let Some((before, rest)) = body.split_once("\"random_seed\": \"") {
        let after = rest.split_once('"').map_or("", |(_, after)| after);
        body = format!("{before}{after}");
    }
    // The order of headers with different names means nothing.
    let mut kept: Vec<&str> = kept.collect();
    kept.sort_unstable();
    Ok(format!("{status}\n{}\n\n{body}", kept.join("\n")))
}

fn compare(set: &Set, request: &str) -> Result<String> {
    let direct = answer(set, "nova", request)?;
    let passed = answer(set, "gateway", request)?;
    ensure!(
        direct == passed,
        "{request}\n--- Nova alone:\n{direct}\n--- by the gateway:\n{passed}"
    );
    Ok(direct)
}

pub(crate) fn get(set: &Set, path: &str) -> Result<String> {
    let headers = set.lab.signed_headers(&instance_id(5))?;
    Ok(format!("GET {path} HTTP/1.1\r\nHost: nova\r\n{headers}Connection: close\r\n\r\n"))
}

/// Follows every listing of the tree down to its leaves.
fn novas_tree(set: &Set) -> Result<()> {
    let roots = ["/", "/openstack", "/openstack/"];
    let mut pending: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = pending.pop() {
        if !seen.insert(path.clone()) || seen.len() > 2_000 {
            continue;
        }
        let answer = compare(set, &get(set, &path)?)?;
        let body = answer.split_once("\n\n").map_or("", |(_, body)| body);
        let is_listing = answer.contains(" 200 ")
            && body.lines().all(|line| line.len() < 40 && !line.contains([' ', '{', '#', '=']));
        let is_leaf =
            path.contains("user") || path.contains("password") || path.matches('/').count() > 6;
        if !is_listing || is_leaf {
            continue;
        }
        for line in body.lines().filter(|line| !line.is_empty()) {
            pending.push(format!("{}/{line}", path.trim_end_matches('/')));
        }
    }
    for odd in [
        "/nothing",
        "/latest/nothing",
        "/openstack/2031-01-01",
        "/latest/%2e%2e/x?a=%2F&b",
        "//",
        "/v1",
    ] {
        compare(set, &get(set, odd)?)?;
    }
    ensure!(seen.len() > 100, "the tree has only {} paths: {seen:?}", seen.len());
    for wanted in [
        "/openstack/latest/user_data",
        "/openstack/latest/vendor_data.json",
        "/openstack/latest/network_data.json",
        "/latest/meta-data/instance-id",
        "/2009-04-04/user-data",
    ] {
        compare(set, &get(set, wanted)?)?;
    }
    Ok(())
}

fn through_every_agent(set: &Set) -> Result<()> {
    for kind in Kind::ALL {
        let ask = |path: &str| {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n"
            );
            set.lab.ask(kind, 5, &request, Pace::Whole)
        };
        let (status, body) = ask("/openstack/latest/user_data")?;
        ensure!(status == 200 && body.contains("#docker"), "{kind:?}: {status} {body}");
        let (status, body) = ask("/latest/meta-data/local-ipv4")?;
        ensure!(status == 200 && body.contains("10.77.0.5"), "{kind:?}: {status} {body}");
        let (status, body) = ask("/heliograph/v1/hello")?;
        ensure!(status == 200 && body.contains("\"hello\""), "{kind:?}: {status} {body}");
        let (status, _) = ask("/latest/nothing")?;
        ensure!(status == 404, "{kind:?}: {status}");
        // No route but the one: what is not the metadata address is nowhere.
        let elsewhere = std::process::Command::new("ip")
            .args(["netns", "exec", set.lab.guest(kind)?, "ip", "route", "get", "10.0.0.1"])
            .output()?;
        ensure!(!elsewhere.status.success(), "{kind:?} has a route to elsewhere");
    }
    Ok(())
}

/// Two instances that nobody else uses: one is asked with the gateway, one without.
fn password(set: &Set) -> Result<()> {
    let post = |server: &str, byte: u8, body: &str| {
        let headers = set.lab.signed_headers(&instance_id(byte))?;
        let request = format!(
            "POST /openstack/latest/password HTTP/1.1\r\nHost: nova\r\n{headers}Content-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        answer(set, server, &request)
    };
    for (body, status) in [("x".repeat(2_000), " 400 "), ("secret".to_owned(), " 200 ")] {
        let (direct, passed) = (post("nova", 23, &body)?, post("gateway", 24, &body)?);
        ensure!(direct == passed && direct.contains(status), "{direct}\n---\n{passed}");
    }
    Ok(())
}

fn nobody(set: &Set) -> Result<()> {
    let (id, project) = (instance_id(5), set.lab.fact("project")?);
    let good = sign(set.lab.fact("secret")?, &id)?;
    let wrong = sign("another secret", &id)?;
    let id = format!("X-Instance-ID: {id}\r\n");
    let tenant = format!("X-Tenant-ID: {project}\r\n");
    let signature = |value: &str| format!("X-Instance-ID-Signature: {value}\r\n");
    let other = "X-Tenant-ID: ffffffffffffffffffffffffffffffff\r\n".to_owned();
    let unknown = "00000000-0000-4000-8000-000000000000";
    let unknown_signed = sign(set.lab.fact("secret")?, unknown)?;
    let cases = [
        String::new(),
        tenant.clone(),
        format!("{id}{tenant}"),
        format!("{id}{}", signature(&good)),
        format!("{id}{tenant}{}", signature("0")),
        format!("{id}{tenant}{}", signature("")),
        format!("{id}{tenant}{}", signature(&wrong)),
        format!("{id}{id}{tenant}{}", signature(&good)),
        format!("{id}{tenant}{tenant}{}", signature(&good)),
        format!("{id}{tenant}{}{}", signature(&good), signature(&good)),
        format!("{id}{other}{}", signature(&good)),
        format!("X-Instance-ID: {unknown}\r\n{tenant}{}", signature(&unknown_signed)),
    ];
    for headers in cases {
        let request = |path: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: nova\r\nAccept: text/html\r\n{headers}Connection: close\r\n\r\n"
            )
        };
        let by_nova = compare(set, &request("/openstack/latest/meta_data.json"))?;
        let by_us = answer(set, "gateway", &request("/heliograph/v1/hello"))?;
        let page = |answer: &str| {
            let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
            (status, answer.split_once("\n\n").map(|(_, body)| body.to_owned()))
        };
        ensure!(
            page(&by_nova) == page(&by_us),
            "{headers}\n--- Nova:\n{by_nova}\n--- ours:\n{by_us}"
        );
        ensure!(!by_us.contains(" 200 "), "{headers} was let in");
    }
    let log = set.gateway.log()?;
    for secret in [good.as_str(), wrong.as_str(), set.lab.fact("secret")?] {
        ensure!(!log.contains(secret), "the relay's log holds a signature or the secret");
    }
    Ok(())
}
