//! The frames of v2 that carry rows, as a room writes them: [`CatchUp`](super::v2::CatchUp) and
//! [`Patch`](super::v2::Patch) around rows that SQLite has written.

use super::v2::Ack;
use super::write::{Object, separate};

/// Rows and keys of one channel; both are JSON values with commas between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) rows: String,
    pub(crate) gone: String,
}

impl Rows {
    /// Puts a row in, or a key that is gone.
    pub(crate) fn add(&mut self, text: &str, gone: bool) {
        let list = if gone { &mut self.gone } else { &mut self.rows };
        separate(list);
        list.push_str(text);
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len() + self.gone.len()
    }
}

/// A page of catch-up for one channel.
#[derive(Debug)]
pub(crate) struct CatchUpPage<'a> {
    pub(crate) channel: &'a str,
    pub(crate) from: Option<u64>,
    /// What is seen of the channel, in a snapshot.
    pub(crate) view: Option<&'a str>,
    pub(crate) to: u64,
    pub(crate) rows: &'a Rows,
    pub(crate) sent: u64,
    pub(crate) total: u64,
    pub(crate) more: bool,
}

impl CatchUpPage<'_> {
    /// The frame as text.
    pub(crate) fn to_text(&self) -> String {
        let mut out = Object::with_capacity(self.rows.len());
        out.text("type", "catch_up").text("channel", self.channel);
        out.number("from", self.from);
        if let Some(view) = self.view {
            out.text("view", view);
        }
        out.number("to", self.to);
        out.list("rows", &self.rows.rows).list("gone", &self.rows.gone);
        out.number("sent", self.sent).number("total", self.total).bool("more", self.more);
        out.end()
    }
}

/// The `changes` of a patch, as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes(String);

impl Changes {
    /// Adds what changed in one channel.
    pub(crate) fn add(&mut self, channel: &str, rows: &Rows) {
        let mut out = Object::with_capacity(rows.len());
        out.text("channel", channel).list("rows", &rows.rows).list("gone", &rows.gone);
        separate(&mut self.0);
        self.0.push_str(&out.end());
    }
}

/// What changed between two versions, with answers.
#[derive(Debug)]
pub(crate) struct PatchPage<'a> {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) changes: &'a Changes,
    pub(crate) acks: &'a [Ack],
    /// How many frames with the same versions came before.
    pub(crate) page: u64,
    pub(crate) more: bool,
}

impl PatchPage<'_> {
    /// The frame as text.
    pub(crate) fn to_text(&self) -> String {
        let mut acks = String::new();
        for ack in self.acks {
            separate(&mut acks);
            let mut out = Object::new();
            if let Some(client) = &ack.client {
                out.text("client", client);
            }
            out.number("seq", ack.seq);
            if let Some(code) = &ack.code {
                out.text("code", code).text("message", ack.message.as_deref().unwrap_or_default());
            }
            if let Some(result) = &ack.result {
                out.json("result", &result.to_string());
            }
            acks.push_str(&out.end());
        }
        let mut out = Object::with_capacity(self.changes.0.len() + acks.len());
        out.text("type", "patch").number("from", self.from).number("to", self.to);
        out.list("changes", &self.changes.0).list("acks", &acks);
        if self.page > 0 {
            out.number("page", self.page);
        }
        out.bool("more", self.more);
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::v2::{Change, Patch, ServerFrame};
    use super::*;
    use crate::Error;

    #[test]
    fn what_a_room_writes_is_what_a_client_reads() {
        let mut rows = Rows::default();
        rows.add(r#"["a",1]"#, false);
        rows.add(r#""b""#, true);
        let other = Ack { client: Some("other".into()), ..Ack::new(7, &Ok(())) };
        let result = Some(serde_json::json!({"number": 7, "link": "\"x\""}));
        let gave = Ack { result, ..Ack::new(3, &Ok(())) };
        let acks = [Ack::new(1, &Ok(())), Ack::new(2, &Err(Error::reject("\"no\""))), gave, other];
        let mut changes = Changes::default();
        changes.add("todos", &rows);
        let text =
            PatchPage { from: 1, to: 2, changes: &changes, acks: &acks, page: 1, more: true }
                .to_text();
        let wanted = Patch {
            from: 1,
            to: 2,
            changes: vec![Change {
                channel: "todos".into(),
                rows: vec![serde_json::json!(["a", 1])],
                gone: vec!["b".into()],
            }],
            acks: acks.to_vec(),
            page: 1,
            more: true,
        };
        assert_eq!(ServerFrame::parse(&text).unwrap(), Some(ServerFrame::Patch(wanted)));
        let page = CatchUpPage {
            channel: "todos",
            from: None,
            view: Some("v"),
            to: 3,
            rows: &rows,
            sent: 2,
            total: 4,
            more: false,
        };
        let Some(ServerFrame::CatchUp(read)) = ServerFrame::parse(&page.to_text()).unwrap() else {
            panic!("not a page");
        };
        assert_eq!((read.from, read.to, read.sent, read.total), (None, 3, 2, 4));
        assert_eq!((read.rows.len(), read.gone.len()), (1, 1));
    }
}
