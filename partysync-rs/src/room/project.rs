//! Rows for clients that were built for other columns: an older client is sent the columns that
//! it knows, as long as each of them is still there and still holds the same.

use crate::record::{ColumnDef, Schema};
use crate::wire::clip;
use crate::wire::v2::Subscription;
use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A channel that a connection follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Followed {
    pub(crate) channel: String,
    /// The places of the client's columns among this room's; `None` when they are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) columns: Option<Vec<u16>>,
    /// What it sees of the rows, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) view: Option<String>,
}

impl Followed {
    /// What a subscription follows.
    ///
    /// # Errors
    /// [`Code::SchemaMismatch`] when the client has columns that this room does not.
    pub(crate) fn new(schema: &Schema, subscription: &Subscription) -> Result<Self> {
        let channel = subscription.channel.clone();
        if subscription.schema == schema.hash() {
            return Ok(Self { channel, columns: None, view: None });
        }
        let mismatch = |what: &str| {
            let message = format!("`{channel}` has other columns here ({what}): reload the app");
            Error::new(Code::SchemaMismatch, message)
        };
        let (of, here) = (subscription.record, schema.version);
        if !(schema.compatible..=here).contains(&of) {
            let message = format!(
                "`{channel}` has rows of version {here} here, and the client is of version {of}: \
                 reload the app"
            );
            return Err(Error::new(Code::SchemaMismatch, message));
        }
        if subscription.columns.is_empty() {
            return Err(mismatch("the client did not say which it has"));
        }
        let place = |wanted: &String| {
            let place = schema.columns.iter().position(|column| serves(column, wanted));
            let place = place.and_then(|place| u16::try_from(place).ok());
            place.ok_or_else(|| mismatch(&format!("no `{}`", clip(wanted))))
        };
        let columns = subscription.columns.iter().map(place).collect::<Result<Vec<_>>>()?;
        let key = schema.key().len();
        if !columns.iter().take(key).map(|place| usize::from(*place)).eq(0..key) {
            return Err(mismatch("the key is another"));
        }
        Ok(Self { channel, columns: Some(columns), view: None })
    }
}

/// Whether what this column holds is what a client's column may hold.
fn serves(column: &ColumnDef, wanted: &str) -> bool {
    let names = std::iter::once(column.name).chain(column.renamed_from.iter().copied());
    names.into_iter().any(|name| {
        let own = column.signature(name);
        // A client that takes null takes less, too.
        own == wanted || (!column.nullable && own.replacen(':', "?:", 1) == wanted)
    })
}

/// A row's JSON array with these columns only.
pub(crate) fn row(row: &str, columns: &[u16]) -> Result<String> {
    pick(&serde_json::from_str::<Vec<&RawValue>>(row).map_err(broken)?, columns)
}

/// As [`row`], for rows with commas between them.
pub(crate) fn rows(rows: &str, columns: &[u16]) -> Result<String> {
    let rows = format!("[{rows}]");
    let rows: Vec<Vec<&RawValue>> = serde_json::from_str(&rows).map_err(broken)?;
    let rows: Vec<_> = rows.iter().map(|row| pick(row, columns)).collect::<Result<_>>()?;
    Ok(rows.join(","))
}

#[allow(clippy::needless_pass_by_value)]
pub(super) fn broken(error: serde_json::Error) -> Error {
    Error::new(Code::Internal, format!("a row: {error}"))
}

fn pick(cells: &[&RawValue], columns: &[u16]) -> Result<String> {
    let cell = |place: &u16| cells.get(usize::from(*place)).map(|cell| cell.get());
    let picked: Option<Vec<_>> = columns.iter().map(cell).collect();
    let picked = picked.ok_or_else(|| Error::new(Code::Internal, "a row is too short"))?;
    Ok(format!("[{}]", picked.join(",")))
}
