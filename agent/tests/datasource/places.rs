//! The datasources that are named or reached otherwise: Google's, a seed, IPv6.

use std::process::Command;

use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use heliograph_agent::datasource::gce::Gce;
use heliograph_agent::datasource::openstack::LinkLocalV6;
use heliograph_agent::datasource::seed::Seed;
use heliograph_agent::datasource::{Datasource, Outcome};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::{DOCUMENT, INSTANCE_ID, broken, directory, found, nova, serve};

const DECLARATION: &str = "spec:\n  containers:\n  - image: centos\n";

#[tokio::test]
async fn google_metadata() {
    let check = async |attributes: serde_json::Value, expect: Option<&str>| {
        let address = serve(move |request| {
            if request.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
                return StatusCode::FORBIDDEN.into_response();
            }
            assert_eq!(request.headers()["host"], "metadata.google.internal");
            let path = "/computeMetadata/v1/instance/?recursive=true&alt=json";
            assert_eq!(request.uri(), &Uri::from_static(path));
            let instance = json!({"id": 4_520_031_799_277_581_759_u64, "name": "web",
                "hostname": "web.c.project.internal", "zone": "projects/12/zones/europe-west1-b",
                "attributes": attributes, "disks": []});
            instance.to_string().into_response()
        })
        .await;
        let instance = found(Gce::at(address).probe().await);
        let user_data = instance.user_data.map(|bytes| String::from_utf8(bytes).expect("text"));
        assert_eq!(user_data.as_deref(), expect);
        assert_eq!(instance.instance_id.as_deref(), Some("4520031799277581759"));
        assert_eq!(instance.facts["availability_zone"], "europe-west1-b");
        assert_eq!(instance.facts.get("meta.role").map(String::as_str), Some("db"));
        assert!(!instance.facts.contains_key("meta.user-data"));
    };
    let declared = format!("#docker\n{DECLARATION}");
    let user_data = "#cloud-config\n";
    let role = "db";
    check(
        json!({"role": role, "gce-container-declaration": DECLARATION, "user-data": user_data}),
        Some(&declared),
    )
    .await;
    check(json!({"role": role, "gce-container-declaration": declared}), Some(&declared)).await;
    check(json!({"role": role, "user-data": user_data}), Some(user_data)).await;
    check(json!({"role": role}), None).await;

    let address = serve(|request| nova(request.uri().path(), None)).await;
    assert_eq!(Gce::at(address).probe().await, Outcome::Absent);
    let address = serve(|_| "<html>portal</html>".into_response()).await;
    assert!(broken(Gce::at(address).probe().await).contains("not as expected"));
}

#[tokio::test]
async fn a_seed_that_the_hypervisor_names() {
    let address = serve(|request| match request.uri().path() {
        "/seed/meta-data" => "instance-id: i-1\nlocal-hostname: web\n".into_response(),
        "/seed/user-data" => DOCUMENT.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    let directory = directory();
    let hint = directory.path().join("product_serial");
    let seed = |text: String| {
        std::fs::write(&hint, text).expect("writing a file");
        Seed::hinted_at(vec!["/nonexistent".into(), hint.clone()], &[])
    };

    let instance = found(seed(format!("ds=nocloud;s=http://{address}/seed/\n")).probe().await);
    assert_eq!(
        (instance.datasource, instance.instance_id.as_deref()),
        ("nocloud-seed", Some("i-1"))
    );
    assert_eq!(instance.user_data.as_deref(), Some(DOCUMENT));
    assert_eq!(instance.facts["name"], "web");
    let named = format!("quiet ds=nocloud-net;s=http://{address}/seed;i=i-2;h=db");
    let instance = found(seed(named).probe().await);
    assert_eq!(instance.instance_id.as_deref(), Some("i-2"));
    assert_eq!(instance.facts["name"], "db");

    super::nocloud_files(directory.path());
    for place in
        [format!("file://{}", directory.path().display()), directory.path().display().to_string()]
    {
        let instance = found(seed(format!("ds=nocloud;s={place}")).probe().await);
        assert_eq!(instance.user_data.as_deref(), Some(DOCUMENT));
    }
    let known = found(seed("ds=nocloud;i=i-3".to_owned()).probe().await);
    assert_eq!((known.instance_id.as_deref(), known.user_data), (Some("i-3"), None));

    assert_eq!(seed("QEMU 42".to_owned()).probe().await, Outcome::Absent);
    let elsewhere = seed(format!("ds=nocloud;s=http://{address}/elsewhere"));
    assert!(broken(elsewhere.probe().await).contains("neither"));
    let nowhere = seed("ds=nocloud;s=ftp://h/".to_owned());
    assert!(broken(nowhere.probe().await).contains("neither a URL nor a directory"));
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {arguments}: this test needs root");
}

/// The link-local address exists on every link, so only the interface says which is meant. The
/// service is on the far side of the second of two.
#[test]
fn openstack_metadata_over_ipv6() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Both ends are in network namespaces of one thread each, which end with the threads.
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let service = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        ready.send(nix::unistd::gettid()).expect("the test waits");
        runtime.block_on(async move {
            let app = axum::Router::new()
                .fallback(|uri: Uri| async move { nova(uri.path(), Some(DOCUMENT.to_vec())) });
            let listener = tokio::net::TcpListener::bind("[::]:80").await.expect("port 80");
            let serving = tokio::spawn(async move { axum::serve(listener, app).await });
            let until_done = tokio::task::spawn_blocking(move || is_done.recv().is_ok());
            let _ = until_done.await;
            serving.abort();
        });
    });
    let far = is_ready.recv().expect("the service's thread");
    let client = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        ip("link set lo up");
        ip("link add empty type veth peer name empty-end");
        ip("link set empty up");
        ip("link add near type veth peer name far");
        ip(&format!("link set far netns {far}"));
        // What is set in the other namespace is set by its name.
        let far = format!("--net=/proc/{}/task/{far}/ns/net", std::process::id());
        for arguments in ["address add fe80::a9fe:a9fe/64 dev far nodad", "link set far up"] {
            let status =
                Command::new("nsenter").arg(&far).arg("ip").args(arguments.split(' ')).status();
            assert!(status.is_ok_and(|status| status.success()), "{arguments}");
        }
        // Without duplicate address detection the address is good at once.
        ip("link set near addrgenmode none");
        ip("link set near up");
        ip("address add fe80::1/64 dev near nodad");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let instance = runtime.expect("a runtime").block_on(async {
            let source: Vec<Box<dyn Datasource>> = vec![Box::new(LinkLocalV6)];
            let limit = std::time::Duration::from_secs(30);
            heliograph_agent::datasource::race(source, limit).await
        });
        done.send(()).expect("the service waits");
        instance
    });
    let race = client.join().expect("the client's thread");
    service.join().expect("the service's thread");
    let instance = race.found.unwrap_or_else(|| panic!("{:?}", race.reports));
    assert_eq!(instance.datasource, "openstack-ipv6");
    assert_eq!(instance.instance_id.as_deref(), Some(INSTANCE_ID));
    assert_eq!(instance.user_data.as_deref(), Some(DOCUMENT));
}
