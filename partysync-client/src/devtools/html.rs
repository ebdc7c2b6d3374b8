//! What the panel says of a client, as HTML.

#![cfg_attr(not(all(feature = "web", target_arch = "wasm32")), allow(dead_code))]

use super::{Direction, Inspection};
use crate::{Phase, Status};
use partysync::Timestamp;
use std::fmt::{Display, Write};

/// The parts of a client's section.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Section {
    /// `live`, as a word to style by.
    pub(super) phase: &'static str,
    pub(super) facts: String,
    pub(super) pending: List,
    pub(super) queries: List,
    pub(super) frames: List,
}

/// A table, and how many rows it has.
#[derive(Debug, Default, PartialEq)]
pub(super) struct List {
    pub(super) count: usize,
    pub(super) html: String,
}

impl Section {
    /// Times of day are so many minutes behind UTC.
    pub(super) fn new(now: &Inspection, zone: f64) -> Self {
        let clock = |at| clock(at, zone);
        let pending = now.pending.iter().map(|action| {
            let whose = if action.elsewhere { "another tab" } else { "this one" };
            [clock(action.made_at), escaped(&action.action), escaped(&action.channel), whose.into()]
        });
        let queries = now.queries.iter().map(|query| {
            let others = query.tables.iter().filter(|table| **table != query.table);
            let mut with = others.copied().collect::<Vec<_>>().join(", ");
            if query.totals {
                with = format!("totals {with}");
            }
            let limit = query.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
            [escaped(&query.table), format!("{}{limit}", query.rows), escaped(with.trim())]
        });
        let frames = now.frames.iter().rev().map(|frame| {
            let (direction, bytes) = match frame.direction {
                Direction::In => ("in", size(frame.bytes)),
                Direction::Out => ("out", size(frame.bytes)),
                Direction::Connection => ("", String::new()),
            };
            [clock(frame.at), direction.into(), escaped(&frame.kind), bytes]
        });
        Self {
            phase: phase(&now.status).0,
            facts: facts(now),
            pending: table(["Made", "Action", "Channel", "By"], pending, "Nothing is pending."),
            queries: table(["Table", "Rows", "With"], queries, "Nothing is asked."),
            frames: table(["Time", "Way", "Frame", "Bytes"], frames, "Nothing was sent."),
        }
    }
}

fn phase(status: &Status) -> (&'static str, String) {
    match &status.phase {
        Phase::Loading => ("wait", "Loading".into()),
        Phase::Connecting => ("wait", "Connecting".into()),
        Phase::CatchingUp { received, total } => {
            ("wait", format!("Catching up {received}/{total}"))
        }
        Phase::Live => ("live", "Live".into()),
        Phase::Offline { error, .. } => ("bad", format!("Offline: {error}")),
        Phase::Refused(error) => ("bad", format!("Refused: {error}")),
        Phase::Closed => ("bad", "Closed".into()),
    }
}

fn facts(now: &Inspection) -> String {
    let mut out = String::from("<dl>");
    let mut fact = |name: &str, value: &dyn Display| {
        let value = escaped(&value.to_string());
        // A String takes everything.
        let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    };
    fact("Status", &phase(&now.status).1);
    let millis = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"));
    fact("Round trip", &millis(now.ping_ms));
    fact("Last answer", &millis(now.answer_ms));
    for channel in &now.channels {
        let version = channel.version.map_or_else(|| "–".to_owned(), |version| version.to_string());
        fact(&escaped(channel.name), &format!("version {version}, {} rows", channel.rows));
    }
    fact("Epoch", &now.epoch.as_deref().unwrap_or("–"));
    if let Some(identity) = &now.identity {
        fact("Identity", &serde_json::to_string(identity).unwrap_or_default());
    }
    if now.status.abandoned > 0 {
        fact("Given up", &now.status.abandoned);
    }
    if let Some(warning) = &now.status.warning {
        fact("Store", warning);
    }
    out.push_str("</dl>");
    out
}

fn table<const N: usize>(
    heads: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    nothing: &str,
) -> List {
    let (mut count, mut html) = (0, String::from("<table><thead><tr>"));
    heads.iter().for_each(|head| {
        let _ = write!(html, "<th scope=col>{head}</th>");
    });
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        count += 1;
        html.push_str("<tr>");
        row.iter().for_each(|cell| {
            let _ = write!(html, "<td>{cell}</td>");
        });
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    if count == 0 {
        html = format!("<p>{nothing}</p>");
    }
    List { count, html }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..10_000 => bytes.to_string(),
        _ => format!("{} K", bytes / 1024),
    }
}

/// A time of day, to the millisecond.
fn clock(at: Timestamp, zone: f64) -> String {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    #[allow(clippy::cast_possible_truncation)]
    let millis = (at.as_millis() - (zone * 60_000.0) as i64).rem_euclid(DAY);
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{millis:03}")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devtools::{Frame, Pending};
    use partysync::{Code, Error};

    fn inspection() -> Inspection {
        let phase = Phase::Refused(Error::new(Code::Forbidden, "<b>no</b>"));
        Inspection {
            status: Status { phase, pending: 1, abandoned: 0, unreadable: 0, warning: None },
            identity: None,
            epoch: None,
            channels: Vec::new(),
            pending: Vec::new(),
            queries: Vec::new(),
            frames: Vec::new(),
            ping_ms: Some(12),
            answer_ms: None,
        }
    }

    #[test]
    fn what_comes_from_outside_is_text_and_no_markup() {
        let mut now = inspection();
        now.pending.push(Pending {
            channel: "notes".into(),
            action: "<img src=x onerror='1'>".into(),
            made_at: Timestamp::default(),
            elsewhere: false,
        });
        let section = Section::new(&now, 0.0);
        assert!(section.facts.contains("Refused: &lt;b&gt;no&lt;/b&gt;"), "{}", section.facts);
        let escaped = "<td>&lt;img src=x onerror=&#39;1&#39;&gt;</td>";
        assert!(section.pending.html.contains(escaped), "{}", section.pending.html);
        assert_eq!((section.pending.count, section.queries.count), (1, 0));
        assert_eq!(section.queries.html, "<p>Nothing is asked.</p>");
    }

    #[test]
    fn the_newest_frame_comes_first_at_the_time_of_day_that_it_is_here() {
        let mut now = inspection();
        for (millis, kind) in [(1_000, "hello"), (3_723_004, "welcome")] {
            let (at, kind) = (Timestamp::from_millis(millis), kind.to_owned());
            now.frames.push(Frame { at, direction: Direction::In, kind, bytes: 20_480 });
        }
        let html = Section::new(&now, -60.0).frames.html;
        let newest =
            "<tbody><tr><td>02:02:03.004</td><td>in</td><td>welcome</td><td>20 K</td></tr>";
        assert!(html.contains(newest), "{html}");
        let before = Section::new(&now, 60.0).frames.html;
        assert!(before.contains("<td>23:00:01.000</td>"), "{before}");
    }
}
