//! [`Event`]: what happened, as an application names it.

use crate::Result;
use serde_json::Value as Json;

/// The events of an application: what its clients commit, and what every client makes rows of.
///
/// Derive it on an enum with a variant for each event. An event's name in the log is the variant's,
/// or what `name` says; its fields are the arguments, of any types that serde knows.
///
/// # Attributes
///
/// On the enum, in `#[event(...)]`: `rename_all = "camelCase"` names the arguments as JavaScript
/// does; `crate = "path"` says where this crate is, if not at `::partysync`.
///
/// On a variant: `name = "v1.TodoCreated"`. A variant without fields and braces is an event
/// without arguments.
///
/// On a field: `rename = "name"`; `optional` leaves an argument that is `None` out, where it would
/// be null (`Schema.optional` in LiveStore, where `Schema.NullOr` takes null).
///
/// ```
/// use partysync::Event;
///
/// #[derive(Event, Clone, Debug, PartialEq)]
/// #[event(rename_all = "camelCase")]
/// enum TodoEvent {
///     #[event(name = "v1.TodoCreated")]
///     Created { id: String, text: String, #[event(optional)] due_at: Option<i64> },
///     #[event(name = "v1.TodosCleared")]
///     Cleared,
/// }
///
/// let event = TodoEvent::from_parts("v1.TodoCreated", Some(r#"{"id":"a","text":"b"}"#))?;
/// let created = TodoEvent::Created { id: "a".into(), text: "b".into(), due_at: None };
/// assert_eq!(event, Some(created.clone()));
/// assert_eq!(created.args()?.unwrap().to_string(), r#"{"id":"a","text":"b"}"#);
/// assert_eq!(TodoEvent::from_parts("v2.Unknown", None)?, None);
/// # Ok::<_, partysync::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an enum of events",
    note = "derive it: #[derive(partysync::Event)]"
)]
pub trait Event: Clone + 'static {
    /// The names of all events.
    const NAMES: &'static [&'static str];

    /// The event's name in the log.
    fn name(&self) -> &'static str;

    /// The event's arguments; `None` for one that has none.
    ///
    /// # Errors
    /// [`Code::InvalidValue`](crate::Code::InvalidValue) when a field has no JSON form.
    fn args(&self) -> Result<Option<Json>>;

    /// The event of this name with these arguments, which are JSON; `None` for a name that is not
    /// one of these events'.
    ///
    /// # Errors
    /// [`Code::InvalidValue`](crate::Code::InvalidValue) when an argument is missing or of the
    /// wrong type.
    fn from_parts(name: &str, args: Option<&str>) -> Result<Option<Self>>;
}
