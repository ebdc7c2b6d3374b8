//! [`Draft`]: a record's rows, as a reducer sees and changes them.

use crate::action::{Tables, set};
use crate::record::{Key, Role};
use crate::sql::Value;
use crate::store::apply;
use crate::{Code, Error, Identity, Record, Result, Timestamp, referring};
use std::marker::PhantomData;

/// A record's rows while a reducer changes them: those of the action's own record, and with
/// [`of`](Self::of) those of any other of the same server.
///
/// Soft deletes are settled: a deleted row is gone here. What `references` another row goes with it, is
/// changed or keeps it, as in SQL: see [`Record`](Record#references).
pub struct Draft<'a, R> {
    tables: &'a mut dyn Tables,
    record: PhantomData<R>,
}

impl<R> std::fmt::Debug for Draft<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").finish_non_exhaustive()
    }
}

impl<'a, R: Record> Draft<'a, R> {
    /// A draft over these rows.
    pub fn new(tables: &'a mut dyn Tables) -> Self {
        Self { tables, record: PhantomData }
    }

    /// The rows of another record of the same server, with the same time and identity.
    ///
    /// ```
    /// # use partysync::{Action, Draft, Record, Reduce, Result};
    /// # #[derive(Record, Clone)] #[record(table = "cards")]
    /// # struct Card { #[record(key)] id: String, comments: u32 }
    /// # #[derive(Record, Clone)] #[record(table = "comments")]
    /// # struct Comment { #[record(key)] id: String, card: String }
    /// #[derive(Action, Clone, Debug)]
    /// #[action(record = Comment)]
    /// enum CommentAction {
    ///     #[action(custom)]
    ///     Write { id: String, card: String },
    /// }
    ///
    /// impl Reduce for CommentAction {
    ///     fn reduce_custom(&self, comments: &mut Draft<'_, Comment>) -> Result<()> {
    ///         let CommentAction::Write { id, card } = self;
    ///         comments.insert(&Comment { id: id.clone(), card: card.clone() })?;
    ///         comments.of::<Card>().update(card, |card| card.comments += 1)?;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// Each call of it fails with [`Code::UnknownChannel`] where the server has no such record.
    #[must_use]
    pub fn of<S: Record>(&mut self) -> Draft<'_, S> {
        Draft { tables: &mut *self.tables, record: PhantomData }
    }

    fn known(&self) -> Result<()> {
        let table = R::SCHEMA.table;
        if self.tables.schemas().iter().any(|schema| schema.table == table) {
            return Ok(());
        }
        let message = format!(
            "`{table}` is no record of this server: add its actions to the enum of `channels`"
        );
        Err(Error::new(Code::UnknownChannel, message))
    }

    /// The time that the action's rows get.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.tables.now()
    }

    /// Who does this, as [`Router::identify`](crate::worker::Router::identify) has told the client
    /// when it was connected last; `None` before that, and where nobody was asked. `on_action` reads
    /// the same from [`Room::identity`](crate::Room::identity).
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type.
    pub fn identity<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        self.tables.identity().map(Identity::read).transpose()
    }

    /// The row with this key.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the stored row does not fit the type.
    pub fn get(&self, key: impl Into<Key>) -> Result<Option<R>> {
        self.known()?;
        self.tables.get(R::SCHEMA.table, &key.into()).map(R::from_row).transpose()
    }

    /// All rows, by key, without those that do not fit the type, as of a newer version of the
    /// application. Costs the whole table, and again when any of its rows changes while the action has
    /// no answer.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn rows(&self) -> Result<Vec<R>> {
        let mut rows = Vec::new();
        self.each(|row| rows.push(row))?;
        Ok(rows)
    }

    /// Calls `f` with each of these rows.
    ///
    /// # Errors
    /// [`Code::UnknownChannel`] when the server has no such record. What cannot be read is left out.
    pub fn each(&self, mut f: impl FnMut(R)) -> Result<()> {
        self.known()?;
        self.tables.each(R::SCHEMA.table, &mut |row| {
            if let Ok(row) = R::from_row(row.to_vec()) {
                f(row);
            }
        });
        Ok(())
    }

    /// Puts a new row in.
    ///
    /// # Errors
    /// [`Code::KeyExists`] when there is one with its key, and as [`put`](Self::put).
    pub fn insert(&mut self, row: &R) -> Result<()> {
        self.known()?;
        let key = row.key();
        if self.tables.get(R::SCHEMA.table, &key).is_some() {
            return Err(apply::key_exists(R::SCHEMA, &key));
        }
        set(R::SCHEMA, self.tables, key, row.to_row()?)
    }

    /// Puts a row in, over one with its key if there is one.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a `json` field cannot be written as JSON, [`Code::Constraint`]
    /// when it refers to a row that is not there, or a float is NaN, which SQLite stores as NULL, and
    /// its column takes none.
    pub fn put(&mut self, row: &R) -> Result<()> {
        self.known()?;
        set(R::SCHEMA, self.tables, row.key(), row.to_row()?)
    }

    /// Changes the row with this key; `false` when there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`put`](Self::put); [`Code::InvalidValue`] when `change` gives the
    /// row another key. Nothing is changed then.
    pub fn update(&mut self, key: impl Into<Key>, change: impl FnOnce(&mut R)) -> Result<bool> {
        let key = key.into();
        let Some(mut row) = self.get(key.clone())? else { return Ok(false) };
        change(&mut row);
        if row.key() != key {
            let message = format!(
                "an update of `{}` changed a row's key: `delete` the row and `put` one with the \
                 new key instead",
                R::SCHEMA.table
            );
            return Err(Error::new(Code::InvalidValue, message));
        }
        let mut cells = row.to_row()?;
        if let Some((index, _)) = R::SCHEMA.role(Role::UpdatedAt)
            && let Some(cell) = cells.get_mut(index)
        {
            *cell = Value::Integer(self.now().as_millis());
        }
        set(R::SCHEMA, self.tables, key, cells)?;
        Ok(true)
    }

    /// Takes the row with this key out, if it is there, with what hangs on it.
    ///
    /// # Errors
    /// [`Code::Constraint`] when a row that stays refers to it; nothing is changed then.
    pub fn delete(&mut self, key: impl Into<Key>) -> Result<()> {
        self.known()?;
        referring::delete(R::SCHEMA, self.tables, vec![key.into()])
    }

    /// Takes every row out that fits, as one statement. Costs the whole table once; while the action has
    /// no answer, a row that changes is judged again alone, unless other tables refer to this one. So
    /// `fits` has to say the same of the same row, and to note nothing of what it sees.
    ///
    /// # Errors
    /// As [`rows`](Self::rows) and [`delete`](Self::delete).
    pub fn delete_where(&mut self, fits: impl Fn(&R) -> bool) -> Result<()> {
        self.known()?;
        if referring::is_referred(R::SCHEMA, self.tables) {
            let mut keys = Vec::new();
            self.each(|row| keys.extend(fits(&row).then(|| row.key())))?;
            return referring::delete(R::SCHEMA, self.tables, keys);
        }
        let mut fits = |row: &[Value]| Ok(R::from_row(row.to_vec()).is_ok_and(|row| fits(&row)));
        self.tables.delete_where(R::SCHEMA.table, &mut fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;
    use std::collections::BTreeMap;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    struct Note {
        #[record(key)]
        id: String,
        text: String,
    }

    #[derive(Default)]
    struct Rows {
        rows: BTreeMap<(String, Key), Vec<Value>>,
        identity: Option<Identity>,
    }

    impl Tables for Rows {
        fn schemas(&self) -> &'static [&'static Schema] {
            &[Note::SCHEMA, Measure::SCHEMA]
        }

        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1)
        }

        fn identity(&self) -> Option<&Identity> {
            self.identity.as_ref()
        }

        fn get(&self, channel: &str, key: &Key) -> Option<Vec<Value>> {
            self.rows.get(&(channel.to_owned(), key.clone())).cloned()
        }

        fn set(&mut self, channel: &str, key: Key, row: Option<Vec<Value>>) {
            let at = (channel.to_owned(), key);
            match row {
                Some(row) => self.rows.insert(at, row),
                None => self.rows.remove(&at),
            };
        }

        fn keys(&self, channel: &str) -> Vec<Key> {
            let keys = self.rows.keys().filter(|(table, _)| table == channel);
            keys.map(|(_, key)| key.clone()).collect()
        }
    }

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "strangers")]
    struct Stranger {
        #[record(key)]
        id: String,
    }

    #[test]
    fn a_draft_of_another_record_has_its_rows_and_the_same_time_and_identity() {
        let mut rows = Rows { identity: Some(Identity::new("ada").unwrap()), ..Rows::default() };
        let mut notes = Draft::<Note>::new(&mut rows);
        notes.insert(&Note { id: "a".into(), text: "text".into() }).unwrap();
        let mut measures = notes.of::<Measure>();
        assert_eq!(measures.now(), Timestamp::from_millis(1));
        assert_eq!(measures.identity::<String>().unwrap().as_deref(), Some("ada"));
        assert_eq!(measures.get("a").unwrap(), None);
        let measure = Measure { id: "a".into(), may_lack: None, has: 1.0 };
        measures.insert(&measure).unwrap();
        let error = measures.insert(&measure).unwrap_err();
        assert_eq!(error.code(), Code::KeyExists);
        assert!(measures.update("a", |measure| measure.has = 2.0).unwrap());
        let mut sum = 0.0;
        measures.each(|measure| sum += measure.has).unwrap();
        assert_eq!(sum, 2.0);
        measures.delete_where(|measure| measure.has > 1.0).unwrap();
        assert!(measures.rows().unwrap().is_empty());
        assert_eq!(notes.rows().unwrap().len(), 1);
        notes.delete("a").unwrap();
        assert!(notes.rows().unwrap().is_empty());
    }

    #[test]
    fn a_draft_of_what_is_no_record_of_the_server_says_so_and_changes_nothing() {
        let mut rows = Rows::default();
        let mut notes = Draft::<Note>::new(&mut rows);
        let mut strangers = notes.of::<Stranger>();
        let stranger = Stranger { id: "a".into() };
        for error in [
            strangers.get("a").unwrap_err(),
            strangers.rows().unwrap_err(),
            strangers.insert(&stranger).unwrap_err(),
            strangers.put(&stranger).unwrap_err(),
            strangers.update("a", |_| ()).unwrap_err(),
            strangers.delete("a").unwrap_err(),
            strangers.delete_where(|_| true).unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::UnknownChannel);
            assert!(error.message().contains("`strangers`"), "{error}");
        }
        assert!(rows.rows.is_empty());
    }

    #[test]
    fn an_update_that_changes_the_key_is_an_error_and_changes_nothing() {
        let mut rows = Rows::default();
        let mut draft = Draft::<Note>::new(&mut rows);
        let note = Note { id: "a".into(), text: "text".into() };
        draft.put(&note).unwrap();
        let error = draft.update("a", |note| note.id = "b".into()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidValue);
        assert!(error.message().contains("`delete`"), "{error}");
        assert_eq!(draft.rows().unwrap(), [note]);
        assert!(draft.update("a", |note| note.text.push('!')).unwrap());
        assert_eq!(draft.get("a").unwrap().unwrap().text, "text!");
    }

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "measures")]
    struct Measure {
        #[record(key)]
        id: String,
        may_lack: Option<f64>,
        has: f64,
    }

    #[test]
    fn what_is_no_number_is_null_as_in_sqlite_or_an_error() {
        let mut rows = Rows::default();
        let mut draft = Draft::<Measure>::new(&mut rows);
        let measure = |may_lack, has| Measure { id: "a".into(), may_lack, has };
        draft.put(&measure(Some(f64::NAN), 1.0)).unwrap();
        assert_eq!(draft.rows().unwrap(), [measure(None, 1.0)]);
        let error = draft.put(&measure(None, f64::NAN)).unwrap_err();
        assert_eq!(error.code(), Code::Constraint);
        let error = draft.update("a", |measure| measure.has = f64::NAN).unwrap_err();
        assert!(error.message().contains("`has`"), "{error}");
        draft.update("a", |measure| measure.may_lack = Some(2.0)).unwrap();
        draft.update("a", |measure| measure.may_lack = Some(f64::NAN)).unwrap();
        assert_eq!(draft.rows().unwrap(), [measure(None, 1.0)]);
    }
}
