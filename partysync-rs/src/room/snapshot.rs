//! Rows for a client to begin with: [`Room::snapshot`].

use super::sight;
use crate::wire::snapshot::{Channel, Snapshot};
use crate::{Code, Error, Result, Room, SyncServer};
use serde_json::Value as Json;
use std::collections::BTreeMap;

impl<S: SyncServer> Room<'_, S> {
    /// The rows of these channels as they are, for a client to begin with: as when a server renders
    /// a page, and its client is to show the same. They are all in memory at once.
    ///
    /// In a hook for a request or a connection they are those that its caller may see
    /// ([`SyncServer::visible`]); where the room acts by itself, as for an alarm, all rows. A
    /// [handle](crate::Handle) sees what whoever was behind its hook may see, and one of the room's own
    /// hooks what nobody in particular may: take the snapshot in the hook itself. See to it that no cache gives a page that holds them to another one.
    ///
    /// ```
    /// # use partysync::{Action, Handle, Record, Result, Room, SyncServer};
    /// # #[derive(Record, Clone, Debug)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String, text: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(upsert)] Put { id: String, text: String } }
    /// struct Notes;
    ///
    /// impl SyncServer for Notes {
    ///     type Action = NoteAction;
    /// #   fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    /// #       action.apply(room.sql())
    /// #   }
    ///
    ///     async fn on_request(
    ///         &self,
    ///         room: &Handle<Self>,
    ///         _: http::Request<Vec<u8>>,
    ///     ) -> Result<http::Response<Vec<u8>>> {
    ///         let snapshot = room.run(|room| room.snapshot(&["notes"])).await?;
    ///         Ok(http::Response::new(serde_json::to_vec(&snapshot).unwrap_or_default()))
    ///     }
    /// }
    /// # let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// # room.act(NoteAction::Put { id: "a".into(), text: "hi".into() })?;
    /// # let response = room.request(http::Request::new(Vec::new()))?;
    /// # let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    /// # assert_eq!(json["channels"]["notes"]["rows"], serde_json::json!([["a", "hi"]]));
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Code::UnknownChannel`] for one that is not there; those of the database.
    pub fn snapshot(&self, channels: &[&str]) -> Result<Snapshot> {
        let mut found = BTreeMap::new();
        for name in channels {
            let plan =
                self.plans.iter().find(|plan| plan.schema.table == *name).ok_or_else(|| {
                    Error::new(Code::UnknownChannel, format!("there is no channel `{name}`"))
                })?;
            let seen = self.sees(plan)?;
            let (mut rows, mut after) = (Vec::new(), None);
            loop {
                let (plan, given) = sight::plan(&seen, plan);
                let page = plan.page(self.sql, given, after.as_ref())?;
                let json = serde_json::from_str::<Vec<Json>>(&format!("[{}]", page.rows));
                rows.extend(json.map_err(|e| Error::new(Code::Internal, format!("rows: {e}")))?);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let view = sight::token(&seen).map(str::to_owned);
            let channel = Channel { schema: plan.schema.hash(), version: self.version, view, rows };
            found.insert((*name).to_owned(), channel);
        }
        let (room, epoch) = (self.name.to_owned(), self.epoch.to_owned());
        Ok(Snapshot { room, epoch, channels: found })
    }
}
