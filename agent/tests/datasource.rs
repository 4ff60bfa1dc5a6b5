//! Datasources against what they will meet: real file systems and real HTTP.
//!
//! The drive tests make images with the tools that Nova uses, so they need `genisoimage`,
//! `mkfs.vfat` and `mcopy`; one attaches an image to a loop device, and needs root. Without these
//! they fail: a test that skips itself on the machine where it matters is worse than none.

#[path = "datasource/places.rs"]
mod places;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use heliograph_agent::datasource::config_drive::{self, ConfigDrive};
use heliograph_agent::datasource::drive::Drive;
use heliograph_agent::datasource::ec2::Ec2;
use heliograph_agent::datasource::file::UserDataFile;
use heliograph_agent::datasource::nocloud::{self, NoCloud};
use heliograph_agent::datasource::openstack::OpenStack;
use heliograph_agent::datasource::{Datasource, Found, MAX_USER_DATA_BYTES, Outcome, race};

const DOCUMENT: &[u8] = b"#docker\nimage: centos\n";
const INSTANCE_ID: &str = "4f3c0e3e-2a57-4d0b-9f6d-0f5f0c3f6a11";

fn metadata_json() -> String {
    format!(
        "{{\"uuid\": \"{INSTANCE_ID}\", \"name\": \"web\", \"project_id\": \"p1\", \
         \"meta\": {{\"role\": \"db\"}}, \"random_seed\": \"…\"}}"
    )
}

fn found(outcome: Outcome) -> Found {
    match outcome {
        Outcome::Found(found) => found,
        other => panic!("{other:?}"),
    }
}

fn broken(outcome: Outcome) -> String {
    match outcome {
        Outcome::Broken(reason) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The files of a config drive, in a directory.
fn config_drive_files(root: &Path, user_data: Option<&[u8]>) {
    let latest = root.join("openstack/latest");
    std::fs::create_dir_all(&latest).expect("making a directory");
    std::fs::write(latest.join("meta_data.json"), metadata_json()).expect("writing a file");
    if let Some(user_data) = user_data {
        std::fs::write(latest.join("user_data"), user_data).expect("writing a file");
    }
}

fn nocloud_files(root: &Path) {
    let metadata = "instance-id: i-1\nlocal-hostname: web\n";
    std::fs::write(root.join("meta-data"), metadata).expect("writing a file");
    std::fs::write(root.join("user-data"), DOCUMENT).expect("writing a file");
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("making a directory")
}

fn check_config_drive(found: &Found) {
    assert_eq!(found.datasource, "config-drive");
    assert_eq!(found.instance_id.as_deref(), Some(INSTANCE_ID));
    assert_eq!(found.user_data.as_deref(), Some(DOCUMENT));
    assert_eq!(found.facts["name"], "web");
    assert_eq!(found.facts["project_id"], "p1");
    assert_eq!(found.facts["meta.role"], "db");
}

#[tokio::test]
async fn a_file() {
    let directory = directory();
    let path = directory.path().join("user-data");
    assert!(broken(UserDataFile::new(&path).probe().await).contains("user-data"));
    std::fs::write(&path, DOCUMENT).expect("writing a file");
    let file = found(UserDataFile::new(&path).probe().await);
    assert_eq!((file.instance_id, file.user_data.as_deref()), (None, Some(DOCUMENT)));
    let too_large = vec![b'#'; usize::try_from(MAX_USER_DATA_BYTES).expect("it is small") + 1];
    std::fs::write(&path, too_large).expect("writing a file");
    assert!(broken(UserDataFile::new(&path).probe().await).contains("larger than 1024 KiB"));
}

#[tokio::test]
async fn a_config_drive_in_a_directory() {
    let directory = directory();
    let source = ConfigDrive::new(Drive::directory(directory.path()));
    assert!(broken(source.probe().await).contains("meta_data.json is missing"));
    config_drive_files(directory.path(), Some(DOCUMENT));
    check_config_drive(&found(source.probe().await));
    config_drive_files(directory.path(), Some(b""));
    assert_eq!(found(source.probe().await).user_data, None);
    let metadata = directory.path().join("openstack/latest/meta_data.json");
    for bad in ["", "[]", "{}", "{\"uuid\": \"../../x\"}", "{\"uuid\": \"\"}"] {
        std::fs::write(&metadata, bad).expect("writing a file");
        assert!(broken(source.probe().await).starts_with("meta_data.json"), "{bad}");
    }
    let nowhere = ConfigDrive::new(Drive::directory(directory.path().join("none")));
    assert_eq!(nowhere.probe().await, Outcome::Absent);
}

#[tokio::test]
async fn a_nocloud_drive_in_a_directory() {
    let directory = directory();
    let source = NoCloud::new(Drive::directory(directory.path()));
    assert!(broken(source.probe().await).contains("neither"));
    nocloud_files(directory.path());
    let drive = found(source.probe().await);
    assert_eq!((drive.datasource, drive.instance_id.as_deref()), ("nocloud", Some("i-1")));
    assert_eq!(drive.user_data.as_deref(), Some(DOCUMENT));
}

/// A file attached as a block device, as long as it lives.
struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    fn attach(image: &Path) -> LoopDevice {
        let image = image.to_str().expect("a plain path");
        let output = run("losetup", &["--find", "--show", "--read-only", image]);
        LoopDevice { path: PathBuf::from(output.trim()) }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!(
            "this test needs {program} ({error}): install the packages genisoimage, dosfstools, \
             mtools and mount"
        )
    });
    assert!(
        output.status.success(),
        "{program} failed; this test needs root and loop devices: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// With Nova's own options, and with or without Joliet's and Rock Ridge's names.
fn iso_image(label: &str, names: &[&str], files: &Path, image: &Path) {
    let (files, image) = (files.to_str().expect("plain"), image.to_str().expect("plain"));
    let options = ["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l"];
    run("genisoimage", &[&options[..], names, &["-V", label, "-o", image, files]].concat());
}

fn vfat_image(label: &str, size_mib: u64, files: &Path, image: &Path) {
    let file = std::fs::File::create(image).expect("making a file");
    file.set_len(size_mib << 20).expect("setting the size");
    let image = image.to_str().expect("a plain path");
    run("mkfs.vfat", &["-n", label, image]);
    for entry in std::fs::read_dir(files).expect("listing a directory") {
        let path = entry.expect("listing a directory").path();
        run("mcopy", &["-s", "-i", image, path.to_str().expect("a plain path"), "::/"]);
    }
}

/// The sizes at which `mkfs.vfat` chooses FAT12, FAT16 (Nova's size) and FAT32.
const VFAT_MIB: [u64; 3] = [2, 64, 600];

/// Makes an image with a label out of a folder.
type Make<'a> = &'a dyn Fn(&str, &Path, &Path);

#[tokio::test]
async fn real_config_drives() {
    let directory = directory();
    let files = directory.path().join("files");
    // Longer than a cluster.
    let document = [DOCUMENT, &vec![b'#'; 60_000], b"\n"].concat();
    config_drive_files(&files, Some(&document));
    let make: [(&str, Make<'_>); 6] = [
        ("config-2", &|label, files, image| iso_image(label, &["-J", "-r"], files, image)),
        ("config-2", &|label, files, image| iso_image(label, &["-r"], files, image)),
        ("config-2", &|label, files, image| iso_image(label, &[], files, image)),
        ("config-2", &|label, files, image| vfat_image(label, VFAT_MIB[0], files, image)),
        ("CONFIG-2", &|label, files, image| vfat_image(label, VFAT_MIB[1], files, image)),
        ("config-2", &|label, files, image| vfat_image(label, VFAT_MIB[2], files, image)),
    ];
    for (index, (label, make)) in make.into_iter().enumerate() {
        let image = directory.path().join(format!("image-{index}"));
        make(label, &files, &image);
        let devices = vec!["/dev/null".into(), files.clone(), image.clone()];
        let drive = Drive::devices(devices, config_drive::LABELS);
        let found = found(ConfigDrive::new(drive).probe().await);
        assert!(found.user_data.as_ref() == Some(&document), "image {index}");
        assert_eq!(found.instance_id.as_deref(), Some(INSTANCE_ID), "image {index}");
        let other = Drive::devices(vec![image], nocloud::LABELS);
        assert_eq!(NoCloud::new(other).probe().await, Outcome::Absent, "image {index}");
    }
}

/// As cloud-init's own tool makes it: without options, plain ISO 9660 would cut `user-data`.
#[tokio::test]
async fn real_nocloud_drives() {
    let directory = directory();
    let files = directory.path().join("files");
    std::fs::create_dir(&files).expect("making a directory");
    nocloud_files(&files);
    for options in [&["-joliet", "-rock"][..], &["-joliet"], &["-rock"]] {
        let image = directory.path().join(options.concat());
        let (from, to) = (files.to_str().expect("plain"), image.to_str().expect("plain"));
        run("genisoimage", &[&["-quiet", "-V", "cidata", "-o", to], options, &[from]].concat());
        let drive = Drive::devices(vec![image], nocloud::LABELS);
        let drive = found(NoCloud::new(drive).probe().await);
        assert_eq!(drive.instance_id.as_deref(), Some("i-1"), "{options:?}");
        assert_eq!(drive.user_data.as_deref(), Some(DOCUMENT), "{options:?}");
    }
}

#[tokio::test]
async fn a_real_block_device() {
    let directory = directory();
    let files = directory.path().join("files");
    config_drive_files(&files, Some(DOCUMENT));
    let image = directory.path().join("image");
    iso_image("config-2", &["-J", "-r"], &files, &image);
    let device = LoopDevice::attach(&image);
    let drive = Drive::devices(vec![device.path.clone()], config_drive::LABELS);
    check_config_drive(&found(ConfigDrive::new(drive).probe().await));
}

/// A drive with the right label and nothing behind it is broken, not absent.
#[tokio::test]
async fn damaged_drives() {
    let directory = directory();
    let files = directory.path().join("files");
    config_drive_files(&files, Some(DOCUMENT));
    let image = directory.path().join("image");
    iso_image("config-2", &["-r"], &files, &image);
    let whole = std::fs::read(&image).expect("reading the image");
    let cut = &whole[..20 * 2048];
    let mut overwritten = whole.clone();
    overwritten[18 * 2048..].fill(0xff);
    for bytes in [cut, &overwritten] {
        std::fs::write(&image, bytes).expect("writing the image");
        let drive = Drive::devices(vec![image.clone()], config_drive::LABELS);
        let reason = broken(ConfigDrive::new(drive).probe().await);
        assert!(reason.contains("damaged"), "{reason}");
    }
}

/// A source that makes its drive appear after it was asked once.
struct Late {
    source: ConfigDrive,
    staging: PathBuf,
    root: PathBuf,
}

#[async_trait::async_trait]
impl Datasource for Late {
    fn name(&self) -> &'static str {
        self.source.name()
    }

    async fn probe(&self) -> Outcome {
        let outcome = self.source.probe().await;
        if outcome == Outcome::Absent {
            std::fs::rename(&self.staging, &self.root).expect("renaming a directory");
        }
        outcome
    }
}

/// A drive that appears while the race runs is found.
#[tokio::test]
async fn a_drive_that_appears_late() {
    let directory = directory();
    let (staging, root) = (directory.path().join("staging"), directory.path().join("drive"));
    config_drive_files(&staging, Some(DOCUMENT));
    let source = ConfigDrive::new(Drive::directory(&root));
    let late: Vec<Box<dyn Datasource>> = vec![Box::new(Late { source, staging, root })];
    let race = race(late, Duration::from_secs(20)).await;
    check_config_drive(&race.found.expect("the drive is found"));
}

/// Serves one handler on a free port of the loopback.
async fn serve<H>(handler: H) -> SocketAddr
where
    H: Fn(&Request) -> Response + Clone + Send + Sync + 'static,
{
    // The agent's main does this; a client cannot be made before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let app = Router::new().fallback(move |request: Request| {
        let response = handler(&request);
        async move { response }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A metadata service as Nova's; None for the user data is a 404.
fn nova(path: &str, user_data: Option<Vec<u8>>) -> Response {
    match path {
        "/openstack/latest/meta_data.json" => metadata_json().into_response(),
        "/openstack/latest/user_data" | "/latest/user-data" => match user_data {
            Some(user_data) => user_data.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        "/latest/meta-data/instance-id" => "i-00000001\n".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test]
async fn openstack_metadata() {
    let address = serve(|request| {
        assert_eq!(request.headers()["host"], "127.0.0.1");
        assert!(!request.headers().contains_key("x-forwarded-for"));
        nova(request.uri().path(), Some(DOCUMENT.to_vec()))
    });
    let instance = found(OpenStack::at(address.await).probe().await);
    assert_eq!(instance.instance_id.as_deref(), Some(INSTANCE_ID));
    assert_eq!(instance.user_data.as_deref(), Some(DOCUMENT));
    assert_eq!(instance.facts["meta.role"], "db");

    let address = serve(|request| nova(request.uri().path(), None)).await;
    let instance = found(OpenStack::at(address).probe().await);
    assert_eq!((instance.instance_id.as_deref(), instance.user_data), (Some(INSTANCE_ID), None));

    let address = serve(|_| StatusCode::NOT_FOUND.into_response()).await;
    assert_eq!(OpenStack::at(address).probe().await, Outcome::Absent);
    assert_eq!(Ec2::at(address).probe().await, Outcome::Absent);
}

#[tokio::test]
async fn broken_metadata_services() {
    type Handler = fn(&Request) -> Response;
    let cases: [(Handler, &str); 7] = [
        (|_| vec![b' '; 2 << 20].into_response(), "larger than 1024 KiB"),
        (|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), "answered 500"),
        (|_| StatusCode::TOO_MANY_REQUESTS.into_response(), "answered 429"),
        (
            |_| (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
            "redirects are not followed",
        ),
        (|_| "<html>portal</html>".into_response(), "meta_data.json is not as expected"),
        (|request| nova(request.uri().path(), Some(vec![b'#'; 2 << 20])), "larger than 1024 KiB"),
        (
            // Without a Content-Length.
            |request| match request.uri().path() {
                "/openstack/latest/user_data" => {
                    let chunks = (0..64).map(|_| Ok::<_, std::io::Error>(vec![b'#'; 64 << 10]));
                    Body::from_stream(futures_util::stream::iter(chunks)).into_response()
                }
                path => nova(path, None),
            },
            "larger than 1024 KiB",
        ),
    ];
    for (handler, expected) in cases {
        let address = serve(handler).await;
        let reason = broken(OpenStack::at(address).probe().await);
        assert!(reason.contains(expected), "{reason} instead of {expected}");
    }
    // Nobody listens: the network may still come up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    broken(OpenStack::at(address).probe().await);
}

#[tokio::test]
async fn a_service_that_recovers() {
    let n_requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_requests);
    let address = serve(move |request| match counter.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => nova(request.uri().path(), Some(DOCUMENT.to_vec())),
    })
    .await;
    let sources: Vec<Box<dyn Datasource>> = vec![Box::new(OpenStack::at(address))];
    let race = race(sources, Duration::from_secs(20)).await;
    assert_eq!(race.found.expect("it recovered").user_data.as_deref(), Some(DOCUMENT));
    assert_eq!(n_requests.load(Ordering::Relaxed), 4);
}

/// The deadline holds although the service holds on to the connection.
#[tokio::test]
async fn a_service_that_never_answers() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let sources: Vec<Box<dyn Datasource>> = vec![Box::new(OpenStack::at(address))];
    let start = std::time::Instant::now();
    let race = race(sources, Duration::from_millis(300)).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!((race.found, race.reports[0].summary.as_str()), (None, "not answered yet"));
}

#[tokio::test]
async fn ec2_metadata_with_and_without_tokens() {
    let address = serve(|request| nova(request.uri().path(), Some(DOCUMENT.to_vec()))).await;
    let instance = found(Ec2::at(address).probe().await);
    assert_eq!(instance.instance_id.as_deref(), Some("i-00000001"));
    assert_eq!(instance.user_data.as_deref(), Some(DOCUMENT));

    let address = serve(|request| {
        let path = request.uri().path();
        if request.method() == Method::PUT && path == "/latest/api/token" {
            assert_eq!(request.headers()["x-aws-ec2-metadata-token-ttl-seconds"], "60");
            return "the-token".into_response();
        }
        match request.headers().get("x-aws-ec2-metadata-token") {
            Some(token) if token == "the-token" => nova(path, Some(DOCUMENT.to_vec())),
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    })
    .await;
    assert_eq!(found(Ec2::at(address).probe().await).user_data.as_deref(), Some(DOCUMENT));

    let address = serve(|_| StatusCode::UNAUTHORIZED.into_response()).await;
    assert!(broken(Ec2::at(address).probe().await).contains("answered 401"));
}

/// A drive wins over a metadata service that answers at the same time.
#[tokio::test]
async fn the_drive_wins_the_race() {
    let directory = directory();
    config_drive_files(directory.path(), Some(DOCUMENT));
    let address = serve(|request| nova(request.uri().path(), Some(b"#docker\n".to_vec()))).await;
    let sources: Vec<Box<dyn Datasource>> = vec![
        Box::new(ConfigDrive::new(Drive::directory(directory.path()))),
        Box::new(OpenStack::at(address)),
    ];
    check_config_drive(
        &race(sources, Duration::from_secs(20)).await.found.expect("both are there"),
    );
}
