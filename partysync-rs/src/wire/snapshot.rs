//! [`Snapshot`]: rows of a room, for a client that begins with them.

use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// All rows of some channels as they are at one moment: what a server puts into a page that it
/// renders, for the client there to begin with. It goes on from where they are.
///
/// [`Room::snapshot`](crate::Room::snapshot) makes one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The room.
    #[serde(default)]
    pub room: String,
    /// Its epoch.
    pub epoch: String,
    /// The channels.
    pub channels: BTreeMap<String, Channel>,
}

impl Snapshot {
    /// As JSON that may stand in a page's `<script type="application/json">`: whatever is in the
    /// rows, it does not end there.
    ///
    /// ```
    /// use partysync::wire::snapshot::{Channel, Snapshot};
    /// use serde_json::json;
    ///
    /// let channel = Channel { rows: vec![json!(["</script><!--"])], ..Channel::default() };
    /// let snapshot = Snapshot { room: "r".into(), epoch: "e".into(), channels: [("a".into(), channel)].into() };
    /// let script = snapshot.to_script()?;
    /// assert!(!script.contains('<'));
    /// assert_eq!(serde_json::from_str::<Snapshot>(&script).unwrap(), snapshot);
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// None that is known: rows are JSON.
    pub fn to_script(&self) -> Result<String> {
        let json = serde_json::to_string(self);
        let json = json.map_err(|e| Error::new(Code::Internal, format!("a snapshot: {e}")))?;
        // In JSON it is only in strings.
        Ok(json.replace('<', "\\u003c"))
    }
}

/// The rows of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// The hash of the columns that they have.
    pub schema: String,
    /// The version that they are of.
    pub version: u64,
    /// What is seen of them, if not all: see
    /// [`CatchUp::view`](crate::wire::v2::CatchUp::view).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Each an array of its columns.
    pub rows: Vec<Json>,
}
