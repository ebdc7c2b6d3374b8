//! Who may see what: nobody is ever sent a note, nor the key of one, that they might not have seen.

use crate::app::notes::sees;
use crate::app::{Grant, Note};
use crate::world::{Rows, World};
use partysync::Record;
use serde_json::Value as Json;

impl Rows {
    /// What somebody sees of these.
    pub(crate) fn seen_by(&self, who: &str) -> Self {
        let mut rows = self.clone();
        rows.notes.retain(|note| sees(who, note, &self.grants));
        rows.grants.retain(|grant| grant.who == who);
        rows
    }
}

impl World {
    /// Who is behind a tab: those of a browser are the same user.
    pub(crate) fn who(&self, tab: usize) -> String {
        format!("u{}", tab / self.shared_by)
    }

    /// Who is behind a client of version 1.
    pub(crate) fn v1_who(which: usize) -> String {
        format!("u{which}")
    }

    /// Notes who might have seen which note: any state that it had, by the rights of then or by those
    /// that there are now. A view that is what it was when a client was here last shows what has come
    /// and gone since, whatever its rights were in between.
    pub(crate) fn look_who_might_see(&mut self) {
        let sql = self.server.sql();
        let might = "SELECT who, id FROM might UNION SELECT g.who, s.id FROM states AS s \
                     JOIN grants AS g ON g.board IN (s.board, 3)";
        // A process that died while it made its tables has none.
        let read = |row: &partysync::sql::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        if let Ok(might) = sql.query_map(might, [], read) {
            self.might.extend(might);
        }
    }

    /// Looks at a frame on its way to a connection.
    pub(crate) fn check_sight(&mut self, to: &str, text: &str) {
        let Ok(frame) = serde_json::from_str::<Json>(text) else { return };
        let tabs = self.tabs.iter().enumerate();
        let mut tabs = tabs.filter_map(|(tab, open)| Some((tab, open.as_ref()?.link.as_ref()?)));
        let tab = tabs.find(|(_, link)| link.id == to).map(|(tab, _)| self.who(tab));
        let mut watchers = self.watchers.iter().enumerate();
        let v1 = watchers.find(|(_, watcher)| watcher.link.as_ref().is_some_and(|l| l.id == to));
        let Some(who) = tab.or_else(|| v1.map(|(which, _)| Self::v1_who(which))) else {
            // Nobody, or somebody who is gone: that is no reason to send it anything.
            if keys(&frame, "notes").chain(keys(&frame, "grants")).next().is_some()
                && to.starts_with("evil")
            {
                self.wrong = Some(format!("somebody unknown is sent {text}"));
            }
            return;
        };
        let hidden = |id: &&str| !self.might.contains(&(who.clone(), (*id).to_owned()));
        let note = keys(&frame, "notes").find(hidden);
        let grant = keys(&frame, "grants").find(|id| !id.starts_with(&format!("{who}/")));
        if let Some(id) = note.or(grant) {
            self.wrong = Some(format!("{who} is told of `{id}`: {text}"));
        }
    }
}

/// The keys of rows, and those that are gone, of a channel in a frame of either version.
fn keys<'a>(frame: &'a Json, channel: &'static str) -> impl Iterator<Item = &'a str> {
    debug_assert!([Note::SCHEMA.table, Grant::SCHEMA.table].contains(&channel));
    let changes = frame["changes"].as_array().into_iter().flatten();
    let of = move |part: &&Json| part["channel"] == channel;
    std::iter::once(frame).chain(changes).filter(of).flat_map(|part| {
        let lists = ["rows", "gone", "payload", "result"].into_iter();
        let entries = lists.filter_map(|list| part[list].as_array()).flatten();
        entries.filter_map(|entry| entry.as_str().or_else(|| entry[0].as_str()))
    })
}
