//! Actions of clients that were built before: under older names they are done, and what the room does
//! not know is refused as a whole, and kept by whoever made it.

use futures::FutureExt;
use partysync::{Action, Code, Draft, Record, Reduce, Result, Room, SyncServer};
use partysync_client::testing::Served;
use partysync_client::{Options, SyncClient};
use serde_json::{Value as Json, json};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "cards")]
pub struct Card {
    #[record(key)]
    pub id: String,
    #[record(renamed_from = "title")]
    pub name: String,
    pub points: Option<i64>,
}

mod now {
    use super::*;

    #[derive(Action, Clone, PartialEq, Debug)]
    #[action(record = Card)]
    pub enum CardAction {
        #[action(insert)]
        Create { id: String, name: String },
        #[action(update, alias = "rename")]
        Edit {
            id: String,
            name: Option<String>,
            #[action(alias = "weight", alias = "size")]
            points: Option<i64>,
        },
        #[action(custom)]
        Archive {
            #[action(alias = "title")]
            name: String,
        },
    }

    impl Reduce for CardAction {
        fn reduce_custom(&self, cards: &mut Draft<'_, Card>) -> Result<()> {
            let Self::Archive { name } = self else { return Ok(()) };
            cards.delete_where(|card| card.name == *name)
        }
    }

    #[derive(Default)]
    pub struct Cards;

    impl SyncServer for Cards {
        type Action = CardAction;

        fn on_action(&self, room: &mut Room<'_, Self>, action: CardAction) -> Result<()> {
            match &action {
                CardAction::Archive { name } => {
                    let sql = "DELETE FROM cards WHERE name = ?";
                    room.sql().execute(sql, partysync::params![name.as_str()]).map(drop)
                }
                action => action.apply(room.sql()),
            }
        }
    }
}

use now::{CardAction, Cards};

fn read(name: &str, payload: Json) -> Result<CardAction> {
    CardAction::from_json("cards", &json!({ "type": name, "payload": payload }).to_string())
}

fn edit(name: Option<&str>, points: Option<i64>) -> CardAction {
    CardAction::Edit { id: "a".into(), name: name.map(Into::into), points }
}

#[test]
fn what_was_called_otherwise_is_taken_under_its_older_names() {
    assert_eq!(read("edit", json!({ "id": "a", "title": "x" })), Ok(edit(Some("x"), None)));
    assert_eq!(read("rename", json!({ "id": "a", "title": "x" })), Ok(edit(Some("x"), None)));
    for older in ["weight", "size", "points"] {
        assert_eq!(
            read("edit", json!({ "id": "a", older: 3 })),
            Ok(edit(None, Some(3))),
            "{older}"
        );
    }
    assert_eq!(
        read("create", json!({ "id": "a", "title": "x" })),
        Ok(CardAction::Create { id: "a".into(), name: "x".into() })
    );
    let archive = CardAction::Archive { name: "x".into() };
    assert_eq!(read("archive", json!({ "title": "x" })), Ok(archive.clone()));
    // It is sent under the names of today.
    assert_eq!(
        archive.to_json().unwrap().to_string(),
        r#"{"payload":{"name":"x"},"type":"archive"}"#
    );
}

#[test]
fn a_field_that_is_not_known_is_refused_and_named() {
    let wrong = [
        (
            read("edit", json!({ "id": "a", "nmae": "x" })),
            "`nmae` of `edit`: there is no such field",
        ),
        (read("edit", json!({ "id": "a", "": 1 })), "`` of `edit`"),
        (
            read("edit", json!({ "id": "a", "name": "x", "title": "y" })),
            "`name` of `edit`: it is there twice",
        ),
        (
            read("edit", json!({ "id": "a", "size": 1, "weight": 1 })),
            "`points` of `edit`: it is there twice",
        ),
        // A custom action's fields are no columns.
        (
            read("archive", json!({ "name": "x", "id": "a" })),
            "`id` of `archive`: there is no such field",
        ),
    ];
    for (read, why) in wrong {
        let error = read.unwrap_err();
        assert_eq!(error.code(), Code::ActionMismatch);
        assert!(error.message().starts_with(why), "{error}");
    }
    let long = read("edit", json!({ "id": "a", ("x".repeat(100_000)): 1 })).unwrap_err();
    assert!(long.message().len() < 500, "{}", long.message().len());
}

/// The application as it was: other names, and an action that is no more.
mod before {
    use super::*;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "cards")]
    pub struct Card {
        #[record(key)]
        pub id: String,
        pub title: String,
    }

    #[derive(Action, Clone, PartialEq, Debug)]
    #[action(record = Card)]
    pub enum CardAction {
        #[action(insert)]
        Create { id: String, title: String },
        #[action(update)]
        Rename { id: String, title: Option<String> },
        #[action(custom)]
        Shout { id: String, loud: bool },
    }

    impl Reduce for CardAction {
        fn reduce_custom(&self, cards: &mut Draft<'_, Card>) -> Result<()> {
            let Self::Shout { id, .. } = self else { return Ok(()) };
            cards.update(id.as_str(), |card| card.title = card.title.to_uppercase()).map(drop)
        }
    }
}

#[test]
fn an_old_page_s_edit_is_done_and_what_its_server_does_not_know_is_kept() -> Result<()> {
    use before::CardAction as Old;
    let mut served = Served::new(Cards)?;
    let endpoint = Served::<Cards>::endpoint();
    let (client, driver) =
        SyncClient::<Old>::make(endpoint, Options::default(), served.transport());
    let mut driver = Box::pin(driver);
    let mut run = || -> Result<()> {
        while (&mut driver).now_or_never().is_none() && served.deliver()? {}
        Ok(())
    };
    let title = || client.get::<before::Card>("a").map(|card| card.map(|card| card.title));
    let create = client.send(Old::Create { id: "a".into(), title: "One".into() });
    let rename = client.send(Old::Rename { id: "a".into(), title: Some("Two".into()) });
    run()?;
    assert_eq!((create.now_or_never(), rename.now_or_never()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(title()?.as_deref(), Some("Two"));

    let shout = Old::Shout { id: "a".into(), loud: true };
    let answer = client.send(shout.clone());
    assert_eq!(title()?.as_deref(), Some("TWO"));
    run()?;
    let error = answer.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Outdated);
    assert!(error.message().contains("reload"), "{error}");
    assert_eq!(title()?.as_deref(), Some("Two"));
    assert_eq!(client.status().abandoned, 1);
    let kept = client.abandoned().into_values().next().unwrap();
    assert_eq!((&kept.action, kept.error().code()), (&shout.to_json()?, Code::UnknownAction));
    assert_eq!(served.room().rows::<Card>()?[0].name, "Two");
    Ok(())
}

#[test]
fn a_value_that_the_room_refuses_is_a_rejection_and_not_another_version() -> Result<()> {
    let mut served = Served::new(Cards)?;
    let (endpoint, transport) = (Served::<Cards>::endpoint(), served.transport());
    let (client, driver) = SyncClient::<CardAction>::make(endpoint, Options::default(), transport);
    let mut driver = Box::pin(driver);
    let answer = client.send(CardAction::Create { id: "a".into(), name: "a\0b".into() });
    while (&mut driver).now_or_never().is_none() && served.deliver()? {}
    let error = answer.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.code(), Code::InvalidAction);
    assert!(client.abandoned().is_empty());
    Ok(())
}

#[test]
fn a_field_that_an_older_client_does_not_send_is_of_another_version() {
    let error = read("create", json!({ "id": "a" })).unwrap_err();
    assert_eq!(error.code(), Code::ActionMismatch);
}
