//! [`Other`]: one of the others who are here.

use crate::SyncClient;
use crate::peer::Known;
use partysync::{Action, Code, Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One of the others who are here: `W` is who it is, as the server says
/// ([`SyncServer::presence`](partysync::SyncServer::presence)), `P` the state that it gives itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Other<W, P> {
    /// A name for it, which stays the same while its connection comes back, unless the room has ended or
    /// slept meanwhile. Tabs have one each.
    pub id: String,
    /// Who it is.
    pub who: W,
    /// Its state.
    pub state: P,
}

impl<W: DeserializeOwned, P: DeserializeOwned> Other<W, P> {
    /// The one that is known so; `None` where it is of another version of the application.
    pub(crate) fn read(id: &str, known: &Known) -> Option<Self> {
        let who = serde_json::from_value(known.who.clone()).ok()?;
        let state = serde_json::from_value(known.state.clone()).ok()?;
        Some(Self { id: id.to_owned(), who, state })
    }

    /// All of those that are known.
    pub(crate) fn all(known: &BTreeMap<String, Arc<Known>>) -> Vec<Self> {
        known.iter().filter_map(|(id, known)| Self::read(id, known)).collect()
    }
}

/// A state as the room is told it.
pub(crate) fn state<P: Serialize + ?Sized>(state: &P) -> Result<Json> {
    serde_json::to_value(state)
        .map_err(|e| Error::new(Code::InvalidValue, format!("presence: {e}")))
}

impl<A: Action> SyncClient<A> {
    /// Says that this client is here, with this state: where its pointer is, what it looks at. All
    /// others who have said so are told it, and this client is told of them ([`others`](Self::others)).
    /// It holds until [`leave`](Self::leave): also after a connection was lost, when it is said anew.
    ///
    /// It may be called as often as the state changes: others are told
    /// [every 60 ms](crate::Timing::presence_ms) at most, and the server every 20 s while there are none.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form. That the room does not take it is told to
    /// [`Update::errors`](crate::Update::errors): a state has 1 KiB at most, and a server has to have a
    /// [`presence`](partysync::SyncServer::presence).
    ///
    /// ```no_run
    /// # use partysync::{Action, Record};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String } }
    /// # use serde::{Deserialize, Serialize};
    /// # fn example(client: partysync_client::SyncClient<NoteAction>) -> partysync::Result<()> {
    /// #[derive(Serialize, Deserialize)]
    /// struct Here { note: Option<String> }
    ///
    /// client.set_presence(&Here { note: Some("a".into()) })?;
    /// for other in client.others::<String, Here>() {
    ///     println!("{} looks at {:?}", other.who, other.state.note);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn set_presence<P: Serialize + ?Sized>(&self, presence: &P) -> Result<()> {
        self.set_presence_at("", presence)
    }

    /// As [`set_presence`](Self::set_presence), at a topic: a part of the room, as a board or a document.
    /// Those who are at the same one are told of each other; a client is at one. The server says who may
    /// be there.
    ///
    /// # Errors
    /// As [`set_presence`](Self::set_presence).
    pub fn set_presence_at<P: Serialize + ?Sized>(&self, topic: &str, presence: &P) -> Result<()> {
        let own = (topic.to_owned(), state(presence)?);
        self.with_peer(|inner, now| inner.peer.set_presence(Some(own), now));
        Ok(())
    }

    /// Says that this client is not here any more, and hears no more of others.
    pub fn leave(&self) {
        self.with_peer(|inner, now| inner.peer.set_presence(None, now));
    }

    /// The others who are here, without those whose state is not of this type, as of another version of
    /// the application. None before this client is here itself; a moment longer than the connection.
    #[must_use]
    pub fn others<W: DeserializeOwned, P: DeserializeOwned>(&self) -> Vec<Other<W, P>> {
        Other::all(self.inner().peer.others())
    }

    /// How many connections the room has, this one among them: those of who is
    /// [here](Self::set_presence), and all others. 0 while this client is not here itself. In a large
    /// room it is known roughly.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.inner().peer.connections()
    }
}
