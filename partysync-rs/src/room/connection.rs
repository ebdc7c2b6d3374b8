//! One client's socket, as the room remembers it through hibernation.

use super::project::Followed;
use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

/// Which frames a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TypeScript `partysync`.
    V1,
    /// `partysync.v2`.
    V2,
}

/// One client's socket.
///
/// It survives hibernation with all that is in it: keep it small, a Durable Object gives a
/// connection 2 KiB in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    id: String,
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    state: Json,
    /// The replica behind it, from `hello` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The channels that it follows, from `hello` on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<Followed>,
    /// How much of its rate of actions it has used, and when that was worked out. Forgotten in
    /// hibernation, which takes longer than any rate.
    #[serde(skip)]
    pub(crate) used: Option<(f64, crate::Timestamp)>,
    /// Bytes that it was sent and has not read, as far as it has said. Forgotten in hibernation,
    /// when nothing is under way.
    #[serde(skip)]
    pub(crate) unread: u64,
    /// Bytes of its catch-up: what takes long to read because there is much is no fault of its.
    #[serde(skip)]
    pub(crate) catch_up: u64,
    /// Whether it was closed for reading too slowly: it is sent nothing more.
    #[serde(skip)]
    pub(crate) dropped: bool,
    /// Whether it changed since the host last stored it.
    #[serde(skip)]
    pub(crate) changed: bool,
}

impl Connection {
    /// A new connection; for hosts.
    #[must_use]
    pub fn new(id: impl Into<String>, protocol: Protocol) -> Self {
        Self {
            id: id.into(),
            protocol,
            tags: Vec::new(),
            state: Json::Null,
            client: None,
            channels: Vec::new(),
            used: None,
            unread: 0,
            catch_up: 0,
            dropped: false,
            changed: true,
        }
    }

    /// The connection's id: `_pk` of its URL where that is free, else one made for it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Which frames it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The id of the replica behind it; one stays the same over reconnects. `None` before
    /// `hello`, and for v1.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// The tags given to it.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Gives it a tag, by which [`Room::connections_with_tag`](crate::Room::connections_with_tag)
    /// finds it.
    pub fn add_tag(&mut self, tag: impl Into<String>) {
        let tag = tag.into();
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
            self.changed = true;
        }
    }

    /// The application's state of it.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when what is stored does not fit `T`.
    ///
    /// ```
    /// use partysync::{Connection, Protocol};
    ///
    /// let mut connection = Connection::new("c1", Protocol::V2);
    /// connection.set_state(&("ada", 7))?;
    /// assert_eq!(connection.state::<(String, u8)>()?, Some(("ada".into(), 7)));
    /// # Ok::<(), partysync::Error>(())
    /// ```
    pub fn state<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        match &self.state {
            Json::Null => Ok(None),
            state => serde_json::from_value(state.clone())
                .map(Some)
                .map_err(|e| Error::new(Code::InvalidValue, format!("connection state: {e}"))),
        }
    }

    /// Sets the application's state of it.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn set_state<T: Serialize>(&mut self, state: &T) -> Result<()> {
        self.state = serde_json::to_value(state)
            .map_err(|e| Error::new(Code::InvalidValue, format!("connection state: {e}")))?;
        self.changed = true;
        Ok(())
    }
}
