//! The hooks over a room in this process: what components see, and when they run again.

mod page;

use leptos::prelude::*;
use page::{Item, ItemAction, Page};
use partysync::query::Query;
use partysync::query::plan::Plan;
use partysync::wire::snapshot::Snapshot;
use partysync::{Code, Error, Record};
use partysync_client::leptos::{Listing, Loaded, Presence, use_presence, use_sync};
use partysync_client::{Options, Phase, Place, User};
use serde_json::json;
use std::sync::{Arc, Mutex};

fn put(id: &str, text: &str) -> ItemAction {
    ItemAction::Put { id: id.into(), text: text.into(), done: false }
}

/// Everything that is said, in order.
type Log<T> = Arc<Mutex<Vec<T>>>;

fn log<T>() -> (Log<T>, impl Fn(T) + Clone) {
    let log = Log::default();
    let to = log.clone();
    (log, move |item| to.lock().unwrap().push(item))
}

fn take<T>(log: &Log<T>) -> Vec<T> {
    std::mem::take(&mut log.lock().unwrap())
}

#[tokio::test(flavor = "current_thread")]
async fn a_list_is_loading_then_empty_then_there() {
    Page::test(async |page| {
        let sync = page.sync();
        let items = sync.query(|| Item::query().order_by(Item::text.asc()));
        let (seen, see) = log();
        Effect::new(move |_| see(items.listing()));
        page.rest().await;
        assert_eq!(take(&seen), [Listing::Loading]);
        page.settle().await;
        assert_eq!(take(&seen), [Listing::Empty]);
        sync.send(put("1", "b"));
        sync.send(put("2", "a"));
        page.settle().await;
        assert_eq!(take(&seen), [Listing::Rows]);
        assert_eq!(items.keys(), ["2".into(), "1".into()]);
        assert_eq!(items.all().iter().map(|item| &*item.text).collect::<Vec<_>>(), ["a", "b"]);
        sync.send(ItemAction::Delete { id: "1".into() });
        sync.send(ItemAction::Delete { id: "2".into() });
        page.settle().await;
        assert_eq!(take(&seen), [Listing::Empty]);
        assert!(items.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_shows_a_row_runs_for_that_row_only_and_what_shows_the_list_for_neither() {
    Page::test(async |page| {
        let sync = page.sync();
        sync.send(put("1", "a"));
        sync.send(put("2", "b"));
        page.settle().await;
        let items = sync.query(Item::query);
        let (first, second) = (items.get(&"1".into()).unwrap(), items.get(&"2".into()).unwrap());
        let (lists, list) = log();
        let (rows, row) = log();
        Effect::new(move |_| list(items.keys().len()));
        for (name, item) in [("first", first), ("second", second)] {
            let row = row.clone();
            Effect::new(move |_| row((name, item.get().text.clone(), item.pending())));
        }
        page.settle().await;
        assert_eq!(take(&lists), [2]);
        take(&rows);
        sync.send(put("2", "c"));
        page.rest().await;
        assert_eq!(take(&rows), [("second", "c".into(), true)]);
        page.settle().await;
        assert_eq!(take(&rows), [("second", "c".into(), false)]);
        assert_eq!(take(&lists), [0; 0]);
        // A row that was asked for twice, and mounted once still.
        let owner = Owner::new();
        owner.with(|| items.get(&"2".into()).unwrap());
        owner.cleanup();
        sync.send(put("2", "d"));
        page.settle().await;
        assert_eq!(take(&rows).last(), Some(&("second", "d".into(), false)));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_row_that_is_not_here_yet_is_another_thing_than_none() {
    Page::test(async |page| {
        let sync = page.sync();
        let key = RwSignal::new("1".to_owned());
        let row = sync.row::<Item>(move || key.get().into());
        let (seen, see) = log();
        Effect::new(move |_| {
            see(match row.get() {
                Loaded::Ready(Some(item)) => item.text.clone(),
                other => format!("{other:?}"),
            });
        });
        page.rest().await;
        assert_eq!(take(&seen), ["Loading"]);
        page.settle().await;
        assert_eq!(take(&seen), ["Ready(None)"]);
        sync.send(put("1", "a"));
        sync.send(put("2", "b"));
        page.settle().await;
        assert_eq!(take(&seen).last().unwrap(), "a");
        key.set("2".into());
        page.settle().await;
        assert_eq!(take(&seen), ["b"]);
        sync.send(ItemAction::Delete { id: "2".into() });
        page.settle().await;
        assert_eq!(take(&seen), ["Ready(None)"]);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn counts_follow_and_a_query_is_asked_anew_when_a_signal_changes() {
    Page::test(async |page| {
        let sync = page.sync();
        let text = RwSignal::new("a".to_owned());
        let query = move || Item::query().filter(Item::text.starts_with(text.get()));
        let (items, count) = (sync.query(query), sync.count(query));
        let (seen, see) = log();
        Effect::new(move |_| see((items.keys().len(), count.get())));
        page.rest().await;
        assert_eq!(take(&seen), [(0, Loaded::Loading)]);
        for (id, text) in [("1", "ab"), ("2", "ac"), ("3", "b")] {
            sync.send(put(id, text));
        }
        page.settle().await;
        assert_eq!(take(&seen).last(), Some(&(2, Loaded::Ready(2))));
        text.set("b".into());
        page.settle().await;
        assert_eq!(take(&seen).last(), Some(&(1, Loaded::Ready(1))));
        // What was asked before is not followed any more.
        sync.send(put("4", "ad"));
        page.settle().await;
        assert_eq!(take(&seen), []);
        sync.send(put("5", "bd"));
        page.settle().await;
        assert_eq!(take(&seen).last(), Some(&(2, Loaded::Ready(2))));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_query_that_cannot_be_asked_and_a_refusal_are_errors_and_not_empty() {
    Page::test(async |page| {
        let sync = page.sync();
        let unknown = sync.query(Query::<page::Other>::new);
        let Listing::Failed(error) = unknown.listing() else { panic!("it failed") };
        assert_eq!(error.code(), Code::UnknownChannel);
        page.settle().await;
        assert!(matches!(unknown.listing(), Listing::Failed(_)));

        // Also when it could be asked before.
        sync.send(put("1", "a"));
        let limit = RwSignal::new(None);
        let asked = sync.query(move || match limit.get() {
            None => Item::query(),
            Some(after) => {
                Query::from_plan(Plan { after: Some(after), ..Item::query().plan().unwrap() })
                    .unwrap()
            }
        });
        page.settle().await;
        assert_eq!(asked.listing(), Listing::Rows);
        limit.set(Some(Vec::new()));
        page.settle().await;
        assert!(matches!(asked.listing(), Listing::Failed(_)) && asked.keys().is_empty());

        page.refuse(true);
        let refused = page.sync();
        let items = refused.query(Item::query);
        let count = refused.count(Item::query);
        page.settle().await;
        assert!(matches!(refused.status().get().phase, Phase::Refused(_)));
        let Listing::Failed(error) = items.listing() else { panic!("it failed") };
        assert_eq!(error.code(), Code::Forbidden);
        assert_eq!(count.get(), Loaded::Failed(error));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn of_errors_and_messages_none_is_lost() {
    Page::test(async |page| {
        let sync = page.sync();
        let (errors, error) = log();
        let (messages, message) = log();
        sync.on_error(move |e: Error| error(e.message().to_owned()));
        sync.on_message(message);
        page.settle().await;
        for n in 0..200 {
            drop(sync.send(put(&format!("{n:03}"), "")));
        }
        page.settle().await;
        assert_eq!(take(&errors), vec!["write something"; 200]);
        sync.send(ItemAction::Tell { times: 200 });
        page.settle().await;
        assert_eq!(take(&messages), (0..200).map(|n| json!(n)).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn components_that_follow_the_same_room_share_a_client_until_the_last_is_gone() {
    Page::test(async |page| {
        let place = Place::new("items", "one", User::anyone());
        let [one, two, three] = [Owner::new(), Owner::new(), Owner::new()];
        let sync = one.with(|| use_sync::<ItemAction>(&place));
        let same = two.with(|| use_sync::<ItemAction>(&place));
        let other =
            two.with(|| use_sync::<ItemAction>(&Place::new("items", "two", User::anyone())));
        let items = two.with(|| same.query(Item::query));
        page.rest().await;
        sync.send(put("1", "a"));
        page.rest().await;
        assert_eq!(items.len(), 1);
        assert!(other.client().keys("items").is_empty());
        // Nothing connects where there is no page.
        assert_eq!(page.served().opened(), 0);

        let client = sync.client();
        one.cleanup();
        page.rest().await;
        assert!(client.status().phase != Phase::Closed);
        assert_eq!(sync.send(put("2", "b")).await.unwrap_err().code(), Code::Closed);
        same.send(put("2", "b"));
        page.rest().await;
        assert_eq!(items.len(), 2);
        // One route takes the place of another.
        two.cleanup();
        let next = three.with(|| use_sync::<ItemAction>(&place));
        page.rest().await;
        assert_eq!(next.client().keys("items").len(), 2);
        three.cleanup();
        page.rest().await;
        assert_eq!(client.status().phase, Phase::Closed);
        let last = Owner::new();
        let anew = last.with(|| use_sync::<ItemAction>(&place));
        page.rest().await;
        assert!(anew.client().status().phase != Phase::Closed);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_row_that_does_not_fit_its_type_is_told_and_others_are_shown() {
    Page::test(async |page| {
        let sync = page.sync_as::<page::Older>(Options::default());
        for (id, level) in [("1", "low"), ("2", "high"), ("3", "low")] {
            page.act(ItemAction::Level { id: id.into(), level: level.into() });
        }
        page.settle().await;
        let rows = sync.query(Query::<page::OlderItem>::new);
        assert_eq!(rows.keys().len(), 3);
        assert!(rows.get(&"1".into()).is_some() && rows.get(&"3".into()).is_some());
        assert_eq!(rows.unreadable().get(), None);
        assert!(rows.get(&"2".into()).is_none());
        assert_eq!(rows.unreadable().get().unwrap().code(), Code::InvalidValue);
        assert_eq!(rows.keys(), ["1".into(), "3".into()]);
        let row = sync.row::<page::OlderItem>(|| "2".into());
        assert!(matches!(row.get(), Loaded::Failed(_)));
        // It fits again, and another one does not any more.
        page.act(ItemAction::Level { id: "2".into(), level: "low".into() });
        page.settle().await;
        assert_eq!(rows.keys().len(), 3);
        assert!(rows.get(&"2".into()).is_some() && rows.unreadable().get().is_none());
        assert!(matches!(row.get(), Loaded::Ready(Some(_))));
        page.act(ItemAction::Level { id: "2".into(), level: "high".into() });
        page.settle().await;
        assert_eq!(rows.keys(), ["1".into(), "3".into()]);
        assert!(matches!(row.get(), Loaded::Failed(_)));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_page_that_begins_with_rows_shows_them_at_once_and_goes_on_from_there() {
    Page::test(async |page| {
        page.act(put("1", "a"));
        let snapshot = page.snapshot();
        // It crosses as JSON.
        let json = serde_json::to_string(&snapshot).unwrap();
        let options = Options::default().initial(serde_json::from_str::<Snapshot>(&json).unwrap());
        page.act(put("2", "b"));
        let sync = page.sync_as::<ItemAction>(options);
        let items = sync.query(Item::query);
        let count = sync.count(Item::query);
        // Before anything has happened, as where a server renders.
        assert_eq!(items.listing(), Listing::Rows);
        assert_eq!((items.len(), count.get()), (1, Loaded::Ready(1)));
        page.settle().await;
        assert_eq!((items.len(), count.get()), (2, Loaded::Ready(2)));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn whoever_has_an_answer_finds_what_came_with_it() {
    Page::test(async |page| {
        let sync = page.sync();
        page.settle().await;
        let (seen, see) = log();
        leptos::task::spawn_local(async move {
            sync.send(put("1", "a")).await.unwrap();
            see((sync.status().get_untracked().pending, sync.client().is_pending::<Item>("1")));
        });
        page.settle().await;
        assert_eq!(take(&seen), [(0, false)]);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_row_of_one_s_own_says_nothing_of_the_others() {
    Page::test(async |page| {
        let sync = page.sync();
        let items = sync.query(Item::query);
        sync.send(put("1", "a"));
        page.rest().await;
        assert_eq!((items.listing(), items.loaded()), (Listing::Rows, Loaded::Loading));
        page.settle().await;
        assert_eq!((items.listing(), items.loaded()), (Listing::Rows, Loaded::Ready(())));
    })
    .await;
    Page::test(async |page| {
        page.refuse(true);
        let sync = page.sync();
        let items = sync.query(Item::query);
        page.settle().await;
        sync.send(put("1", "a"));
        page.settle().await;
        assert_eq!(items.listing(), Listing::Rows);
        assert!(matches!(items.loaded(), Loaded::Failed(_)));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn who_else_is_here_is_told_one_by_one() {
    Page::test(async |page| {
        let options = || {
            let mut options = Options::default();
            // Time stands still.
            options.timing.presence_ms = 0;
            options
        };
        let (sync, other) = (page.sync_as::<ItemAction>(options()), page.sync_as(options()));
        let (x, set_x) = signal(1);
        let here: Presence<(), i32> = use_presence(sync, move || 0);
        assert_eq!((here.keys().len(), here.connections()), (0, 0));
        let owner = Owner::new();
        let _ = owner.with(|| use_presence::<ItemAction, (), i32>(other, move || x.get()));
        page.settle().await;
        let (keys, key) = log();
        let (states, state) = log();
        Effect::new(move |_| key(here.keys().len()));
        let one = here.get(&here.keys()[0]).unwrap();
        Effect::new(move |_| state(one.get().state));
        page.settle().await;
        assert_eq!((take(&keys), take(&states)), (vec![1], vec![1]));
        // One that changes is no reason to look at the list again.
        set_x.set(2);
        page.settle().await;
        assert_eq!((take(&keys), take(&states)), (vec![], vec![2]));
        assert_eq!(here.others()[0].state, 2);
        // Another component of the same page says something else, until it is gone.
        let inner = Owner::new();
        let _ = inner.with(|| use_presence::<ItemAction, (), i32>(other, || 9));
        page.settle().await;
        set_x.set(3);
        page.settle().await;
        assert_eq!(take(&states), [9]);
        inner.cleanup();
        page.settle().await;
        assert_eq!((take(&keys), take(&states)), (vec![], vec![3]));
        owner.cleanup();
        page.settle().await;
        assert_eq!((take(&keys), here.connections()), (vec![0], 3), "it is still connected");
    })
    .await;
}

/// As docs/leptos.md says.
#[tokio::test(flavor = "current_thread")]
async fn a_test_is_written_as_the_docs_say() {
    use partysync_client::leptos::use_sync_over;
    use partysync_client::testing::Served;
    let body = async {
        let _ = any_spawner::Executor::init_tokio();
        let owner = Owner::new();
        let mut served = Served::new(page::Items::default()).unwrap();
        let transport = served.transport();
        transport.login("ada").unwrap();
        let (sync, items) = owner.with(|| {
            let endpoint = Served::<page::Items>::endpoint();
            let sync = use_sync_over::<ItemAction, _>(endpoint, Options::default(), transport);
            (sync, sync.query(Item::query))
        });
        assert_eq!(items.listing(), Listing::Loading);
        drop(sync.send(put("a", "hi")));
        served.settle().await.unwrap();
        assert_eq!(items.all()[0].text, "hi");
        assert_eq!(sync.client().identity::<String>(), Ok(Some("ada".to_owned())));
        owner.cleanup();
    };
    tokio::task::LocalSet::new().run_until(body).await;
}
