//! One client's socket, as the room remembers it through hibernation.

use super::project::Followed;
use super::whereabouts::Own;
use crate::{Code, Error, Identity, Result, store};
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
/// It survives hibernation with all that is in it. A Durable Object keeps 16 KiB for each
/// connection: one whose tags, state and identity are larger is refused, or closed with 1009.
///
/// Its [`id`](Self::id) is a name, not an identity: a client may wish for any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    id: String,
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    state: Json,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Identity>,
    /// The replica behind it, from `hello` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The channels that it follows, from `hello` on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<Followed>,
    /// What it has said of itself, if it has said that it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own: Option<Box<Own>>,
    /// Whether it was sent only a part of what it lacks: in another life of the room nobody
    /// would know which.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) behind: bool,
}

impl Connection {
    /// A new connection; for tests of what takes one.
    #[must_use]
    pub fn new(id: impl Into<String>, protocol: Protocol) -> Self {
        Self {
            id: id.into(),
            protocol,
            tags: Vec::new(),
            state: Json::Null,
            identity: None,
            client: None,
            channels: Vec::new(),
            own: None,
            behind: false,
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

    /// Whether it is known who it is: v1 says so nowhere.
    pub(super) fn is_known(&self) -> bool {
        self.protocol == Protocol::V1 || self.client.is_some()
    }

    /// A name for the client behind it, which stays the same over reconnects; `None` before
    /// `hello`, and for v1. It is made of the client's id, which is a secret: whoever knows that can
    /// push in the client's name.
    #[must_use]
    pub fn client(&self) -> Option<String> {
        let id = self.client.as_ref()?;
        Some(format!("{:08x}{:08x}", store::hash(id), store::hash(&format!("{id}/"))))
    }

    /// Who is behind it, as [`Router::identify`](crate::worker::Router::identify) has said; `None`
    /// where nobody was asked.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type.
    pub fn identity<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.identity.as_ref().map(Identity::read).transpose()
    }

    /// The same connection with another behind it; for tests of what takes one.
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The state that its client gives for those who are here; `None` when it has not said that it is
    /// here. `on_close` finds the last one. Changed by [clients](crate::SyncServer::presence) only.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type.
    pub fn presence<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let state = self.own.as_ref().map(|own| serde_json::from_value(own.state.clone()));
        state.transpose().map_err(|e| Error::new(Code::InvalidValue, format!("presence: {e}")))
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
        Ok(())
    }
}

/// What a runtime keeps with a socket (workerd: 16,384 bytes).
const ATTACHMENT_BYTES: usize = 16_384;

impl Connection {
    /// The connection as it is kept with its socket.
    ///
    /// # Errors
    /// [`Code::TooLarge`] when the runtime would not keep it.
    pub(crate) fn attachment(&self) -> Result<String> {
        let text = serde_json::to_string(self)
            .map_err(|e| Error::new(Code::Internal, format!("an attachment: {e}")))?;
        // JavaScript keeps a text with one byte a character, or with two if one needs them; some
        // bytes say which.
        let narrow = text.chars().all(|c| u32::from(c) < 0x100);
        let size = if narrow { text.chars().count() } else { text.encode_utf16().count() * 2 };
        if size + 32 > ATTACHMENT_BYTES {
            let message = format!(
                "the connection's tags, state and identity take {size} bytes; {ATTACHMENT_BYTES} are kept: \
                 keep what is larger in a table"
            );
            return Err(Error::new(Code::TooLarge, message));
        }
        Ok(text)
    }

    /// The connection that was kept so.
    pub(crate) fn from_attachment(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
