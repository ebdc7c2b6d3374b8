//! Rows of a newer version that an older client cannot read: the others are shown, and that there are
//! some is seen, once.

use futures::{FutureExt, StreamExt};
use partysync::query::Found;
use partysync::{Action, Code, Column, Key, Record, Result, Room, SyncServer};
use partysync_client::query::{Difference, Live};
use partysync_client::testing::Served;
use partysync_client::{Options, SyncClient, Update, Updates};
use serde::{Deserialize, Serialize};
use std::pin::Pin;

macro_rules! version {
    ($module:ident, [$($level:ident),*], $label:ty) => {
        #[allow(dead_code)]
        mod $module {
            use super::*;

            #[derive(Column, Clone, Copy, PartialEq, Debug)]
            pub enum Level { $($level),* }

            #[derive(Record, Clone, PartialEq, Debug)]
            #[record(table = "tickets")]
            pub struct Ticket {
                #[record(key)]
                pub id: String,
                pub level: Level,
                #[record(json)]
                pub labels: Vec<$label>,
                /// The ticket that it is a part of.
                pub part_of: Option<String>,
            }

            #[derive(Action, Clone, PartialEq, Debug)]
            #[action(record = Ticket)]
            pub enum TicketAction {
                #[action(upsert)]
                Put { id: String, level: Level, #[action(json)] labels: Vec<$label>, part_of: Option<String> },
                #[action(delete)]
                Delete { id: String },
            }

            #[derive(Default)]
            pub struct Tickets;

            impl SyncServer for Tickets {
                type Action = TicketAction;

                fn on_action(&self, room: &mut Room<'_, Self>, action: TicketAction) -> Result<()> {
                    action.apply(room.sql())
                }
            }
        }
    };
}

/// What a label is in the newer version.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Label {
    name: String,
}

version!(older, [Low, High], String);
version!(newer, [Low, High, Urgent], Label);

use newer::{Level, TicketAction, Tickets};

/// An older client of a newer room.
struct Page {
    client: SyncClient<older::TicketAction>,
    driver: Pin<Box<dyn Future<Output = ()>>>,
    served: Served<Tickets>,
    updates: Updates,
}

impl Page {
    fn new() -> Result<Self> {
        let served = Served::new(Tickets)?;
        let (endpoint, transport) = (Served::<Tickets>::endpoint(), served.transport());
        let (client, driver) = SyncClient::make(endpoint, Options::default(), transport);
        let updates = client.updates();
        let mut page = Self { client, driver: Box::pin(driver), served, updates };
        page.run()?;
        Ok(page)
    }

    fn run(&mut self) -> Result<()> {
        while (&mut self.driver).now_or_never().is_none() && self.served.deliver()? {}
        Ok(())
    }

    /// Somebody with the newer version puts a ticket in.
    fn put(&mut self, id: &str, level: Level, label: Option<&str>) -> Result<()> {
        self.put_part(id, level, label, None)
    }

    fn put_part(
        &mut self,
        id: &str,
        level: Level,
        label: Option<&str>,
        part_of: Option<&str>,
    ) -> Result<()> {
        let labels = label.into_iter().map(|name| Label { name: name.into() }).collect();
        let part_of = part_of.map(Into::into);
        self.served.room().act(TicketAction::Put { id: id.into(), level, labels, part_of })?;
        self.run()
    }

    fn shown(&self) -> String {
        self.client.rows::<older::Ticket>().into_iter().map(|ticket| ticket.id).collect()
    }

    fn errors(&mut self) -> Vec<(Code, String)> {
        let updates = std::iter::from_fn(|| self.updates.try_recv());
        let errors = updates.flat_map(|Update { errors, .. }| errors);
        errors.map(|error| (error.code(), error.message().to_owned())).collect()
    }
}

fn ids(live: &Live<older::Ticket>) -> String {
    live.rows().into_iter().map(|found| found.row.id).collect()
}

#[test]
fn rows_that_an_older_client_cannot_read_are_told_of_once_and_the_others_are_shown() -> Result<()> {
    let mut page = Page::new()?;
    let live = page.client.query(&older::Ticket::query())?;
    let mut changes = live.changes();
    let mut told: Vec<Found<older::Ticket>> = Vec::new();
    for id in ["b", "d"] {
        page.put(id, Level::Low, None)?;
    }
    assert_eq!((page.errors(), page.client.status().unreadable), (vec![], 0));

    page.put("a", Level::Urgent, None)?;
    page.put("c", Level::Low, Some("new"))?;
    page.put("e", Level::High, None)?;
    assert_eq!((page.shown().as_str(), ids(&live).as_str()), ("bde", "bde"));
    assert_eq!(page.client.status().unreadable, 2);
    let errors = page.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].0, Code::Outdated);
    for part in ["`tickets`", "reload", "`a`: column `level`", "found `urgent`"] {
        assert!(errors[0].1.contains(part), "{errors:?}");
    }
    let unreadable = page.client.unreadable::<older::Ticket>();
    assert_eq!(
        unreadable.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        ["a", "c"].map(Key::from)
    );
    assert!(page.client.get::<older::Ticket>("a").is_err());

    // Whoever listens has the same, and hears of one that can be read again.
    page.put("a", Level::High, None)?;
    page.put("b", Level::Urgent, None)?;
    while let Some(Some(differences)) = changes.next().now_or_never() {
        differences.into_iter().for_each(|difference: Difference<_>| difference.apply(&mut told));
    }
    let heard: String = told.iter().map(|found| found.id.as_str()).collect();
    assert_eq!((heard.as_str(), page.shown().as_str()), ("ade", "ade"));
    assert_eq!((page.client.status().unreadable, page.errors()), (2, vec![]));

    // When there is none any more, the next one is told of again.
    page.put("b", Level::Low, None)?;
    page.served.room().act(TicketAction::Delete { id: "c".into() })?;
    page.run()?;
    assert_eq!((page.client.status().unreadable, page.shown().as_str()), (0, "abde"));
    page.put("c", Level::Urgent, None)?;
    assert_eq!(page.errors().len(), 1);
    Ok(())
}

#[test]
fn related_rows_that_cannot_be_read_are_left_out_of_what_they_come_with() -> Result<()> {
    let mut page = Page::new()?;
    page.put("a", Level::Low, None)?;
    page.put_part("b", Level::Low, None, Some("a"))?;
    page.put_part("c", Level::Urgent, None, Some("a"))?;
    let parts = older::Ticket::query().with(older::Ticket::part_of, |all| all);
    let live = page.client.query(&parts.filter(older::Ticket::part_of.is_null()))?;
    let rows = live.rows();
    let found: Vec<_> =
        rows.iter().map(|found| (found.id.as_str(), found.related.0.len())).collect();
    assert_eq!(found, [("a", 1)]);
    Ok(())
}

#[test]
fn what_a_client_of_another_version_does_with_values_that_the_room_does_not_know_is_kept()
-> Result<()> {
    let mut page = Page::new()?;
    let action = older::TicketAction::Put {
        id: "a".into(),
        level: older::Level::Low,
        labels: vec!["a text".into()],
        part_of: None,
    };
    let answer = page.client.send(action.clone());
    page.run()?;
    assert_eq!(answer.now_or_never().unwrap().unwrap_err().code(), Code::Outdated);
    let kept = page.client.abandoned().into_values().next().unwrap();
    assert_eq!((&kept.action, kept.error().code()), (&action.to_json()?, Code::ActionMismatch));
    // The same of a variant, the other way round.
    let urgent =
        TicketAction::Put { id: "a".into(), level: Level::Urgent, labels: vec![], part_of: None };
    let error =
        older::TicketAction::from_json("tickets", &urgent.to_json()?.to_string()).unwrap_err();
    assert_eq!(error.code(), Code::ActionMismatch);
    Ok(())
}
