use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::migrate::{Side, contents};
use crate::store::embedded::EmbeddedStore;
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Key, KeyKind, Store};

async fn put(store: &dyn Store, kind: KeyKind, name: &str, value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(Key::new(kind, &[name.as_bytes()]), value.into());
    store.commit(batch).await.expect("a commit");
}

/// The file that `backups` gives, as a client would write it.
async fn save(backups: &Backups, path: &Path) {
    let mut pieces = backups.take().expect("a backup");
    let mut file = Vec::new();
    while let Some(piece) = pieces.recv().await {
        file.extend_from_slice(&piece.expect("a piece"));
    }
    std::fs::write(path, file).expect("a file");
}

/// A backup of three records, and where it is.
async fn small() -> (TempDir, PathBuf) {
    let store = MemoryStore::new();
    for (kind, name) in [(KeyKind::Signal, "a"), (KeyKind::Signal, "b"), (KeyKind::Account, "c")] {
        put(&store, kind, name, b"value".to_vec()).await;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("backup");
    save(&Backups::new(Arc::new(store)), &path).await;
    (directory, path)
}

#[tokio::test]
async fn what_was_there_at_one_moment_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let embedded = EmbeddedStore::open(&directory.path().join("embedded")).expect("a store");
    let stores: [Arc<dyn Store>; 2] = [Arc::new(embedded), Arc::new(MemoryStore::new())];
    for (number, store) in stores.into_iter().enumerate() {
        for kind in KeyKind::ALL {
            put(store.as_ref(), *kind, "one", b"x".to_vec()).await;
        }
        for number in 0..300 {
            put(store.as_ref(), KeyKind::Signal, &format!("{number:04}"), b"signal".to_vec()).await;
        }
        for number in 0..4 {
            put(store.as_ref(), KeyKind::SignalBody, &number.to_string(), vec![b'x'; 600_000])
                .await;
        }
        put(store.as_ref(), KeyKind::Seen, "empty", Vec::new()).await;
        let expect = contents(store.as_ref(), Side::First).await.expect("contents");

        let backups = Backups::new(store.clone());
        let mut pieces = backups.take().expect("a backup");
        assert!(matches!(backups.take(), Err(TakeError::Busy)), "one at a time");
        // What happens from now on is not in it.
        put(store.as_ref(), KeyKind::Signal, "0007", b"another value".to_vec()).await;
        put(store.as_ref(), KeyKind::Seen, "later", b"x".to_vec()).await;
        let mut batch = Batch::new();
        batch.delete(Key::new(KeyKind::SignalBody, &[b"3"]));
        store.commit(batch).await.expect("a commit");
        let mut file = Vec::new();
        while let Some(piece) = pieces.recv().await {
            file.extend_from_slice(&piece.expect("a piece"));
        }
        let path = directory.path().join(format!("{number}.backup"));
        std::fs::write(&path, file).expect("a file");
        assert_eq!(check(&path).expect("a whole backup"), expect);

        let restored = directory.path().join(format!("restored-{number}"));
        assert_eq!(restore(&path, &restored).await.expect("a restore"), expect);
        let again = EmbeddedStore::open(&restored).expect("a store");
        assert_eq!(contents(&again, Side::Second).await.expect("contents"), expect);
    }
}

#[tokio::test]
async fn a_backup_that_is_cut_short_anywhere_is_refused() {
    let (directory, path) = small().await;
    let whole = std::fs::read(&path).expect("a backup");
    let data_dir = directory.path().join("data");
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).expect("a file");
        let error = restore(&path, &data_dir).await.expect_err("cut short");
        let is_told = match length < MAGIC.len() {
            true => matches!(error, BackupError::NotABackup { .. }),
            false => matches!(error, BackupError::CutShort { .. }),
        };
        assert!(is_told, "{length}: {error}");
        assert!(!data_dir.exists(), "{length}: something was made of it");
    }
}

#[tokio::test]
async fn a_backup_in_which_one_byte_is_another_is_refused() {
    let (directory, path) = small().await;
    let whole = std::fs::read(&path).expect("a backup");
    let data_dir = directory.path().join("data");
    for place in 0..whole.len() {
        for change in [1, 0x80] {
            let mut broken = whole.clone();
            broken[place] ^= change;
            std::fs::write(&path, broken).expect("a file");
            assert!(restore(&path, &data_dir).await.is_err(), "byte {place}");
            assert!(!data_dir.exists(), "byte {place}: something was made of it");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_told_with_its_place() {
    let (_directory, path) = small().await;
    let whole = std::fs::read(&path).expect("a backup");
    // The first record: 2 bytes, 4 bytes, "Ac", "value".
    let first = MAGIC.len();
    let put = |place: usize, bytes: &[u8]| {
        let mut broken = whole.clone();
        broken.splice(place..place + bytes.len(), bytes.iter().copied());
        broken
    };
    let cases = [
        (
            b"something else, of more than twenty bytes".to_vec(),
            "is not a backup that this version reads",
        ),
        (whole[..first + 3].to_vec(), "is cut short: it ends at byte 23, in record 1"),
        (
            put(first + 2, &[0, 0, 0, 0x7f]),
            "record 1, at byte 20, is longer than any that a relay writes",
        ),
        (put(first + 6, b"?"), "record 1, at byte 20, has a key of no known kind"),
        (put(first + 6, b"Z"), "record 1, at byte 20, has a key of no known kind"),
        (put(first + 6, b"X"), "record 2, at byte 33, does not follow the one before it"),
        (put(first + 8, b"V"), "is damaged: its end names 3 records, sha256 "),
        ([whole.clone(), b"x".to_vec()].concat(), "there are bytes behind its end, at byte 101"),
    ];
    for (broken, expect) in cases {
        std::fs::write(&path, broken).expect("a file");
        let error = check(&path).expect_err("a broken file").to_string();
        assert!(error.contains(expect), "{error}: not {expect}");
    }
}

#[tokio::test]
async fn only_an_empty_directory_is_restored_into() {
    let (directory, path) = small().await;
    let data_dir = directory.path().join("data");
    std::fs::create_dir(&data_dir).expect("a directory");
    std::fs::write(data_dir.join("operator.token"), "token").expect("a file");
    restore(&path, &data_dir).await.expect("the token may be there");
    let error = restore(&path, &data_dir).await.expect_err("it is not empty");
    assert!(crate::error::chain(&error).to_string().contains("is not empty: there is"), "{error}");
    assert!(EmbeddedStore::open(&data_dir).is_ok(), "what was there is there");
}

#[tokio::test]
async fn a_restore_that_was_interrupted_is_not_served() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("restoring")).expect("a directory");
    let error = EmbeddedStore::open(directory.path()).expect_err("half a store");
    assert!(error.to_string().contains("has a restore in it that was interrupted"), "{error}");
}

/// Nobody reads, so the snapshot is let go and another backup may be taken.
#[tokio::test(start_paused = true)]
async fn a_reader_that_sleeps_is_given_up() {
    let store = MemoryStore::new();
    for number in 0..4 {
        put(&store, KeyKind::SignalBody, &number.to_string(), vec![b'x'; 600_000]).await;
    }
    let backups = Backups::new(Arc::new(store));
    let mut pieces = backups.take().expect("a backup");
    while matches!(backups.take(), Err(TakeError::Busy)) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let mut file = Vec::new();
    while let Some(Ok(piece)) = pieces.recv().await {
        file.extend_from_slice(&piece);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("backup");
    std::fs::write(&path, file).expect("a file");
    assert!(matches!(check(&path), Err(BackupError::CutShort { .. })));
}
