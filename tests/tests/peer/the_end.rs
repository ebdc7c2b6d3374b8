//! Clients that end, with their SQLite files.

use super::*;
use std::path::Path;

fn store(path: &Path) -> SqliteStore {
    SqliteStore::open(path, &Place::new("notes", "mine", User::new("ada"))).unwrap()
}

async fn client(path: &Path) -> SyncClient<NoteAction> {
    // Nobody listens there.
    let options = Options::new(store(path));
    SyncClient::<NoteAction>::with("ws://127.0.0.1:9/parties/notes/mine", options).await.unwrap()
}

#[tokio::test]
async fn a_client_that_has_closed_lets_go_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replica.sqlite");
    for seen in 0..2 {
        let client = client(&path).await;
        assert_eq!(client.rows::<Row>().len(), seen);
        drop(client.send(put(&format!("{seen}"), "x")));
        client.close();
        client.closed().await;
        client.closed().await;
    }
}

#[tokio::test]
async fn what_was_forgotten_is_neither_shown_nor_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replica.sqlite");
    let client = client(&path).await;
    drop(client.send(put("a", "a secret of Ada's")));
    client.stored().await.unwrap();
    let holds = |what: &str| {
        let files = std::fs::read_dir(folder.path()).unwrap();
        files.flatten().any(|file| {
            let bytes = std::fs::read(file.path()).unwrap();
            bytes.windows(what.len()).any(|window| window == what.as_bytes())
        })
    };
    assert!(holds("a secret of Ada's"));
    let mut updates = client.updates();
    client.forget().await.unwrap();
    assert!(!holds("a secret of Ada's"));
    assert_eq!(client.rows::<Row>(), []);
    assert_eq!(client.status().pending, 0);
    let mut changed = false;
    while let Some(update) = updates.try_recv() {
        changed |= update.changes.contains_key("notes");
    }
    assert!(changed, "whoever shows rows hears of it");
    client.closed().await;
    assert_eq!(client.forget().await.unwrap_err().code(), partysync::Code::Closed);
}
