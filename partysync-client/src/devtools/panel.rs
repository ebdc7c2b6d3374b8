//! The panel in a page: a shadow tree of its own, which the page's styles do not reach.

use super::Look;
use super::html::{List, Section};
use std::cell::RefCell;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Document, Element, HtmlElement, KeyboardEvent, ShadowRootInit, ShadowRootMode};

/// How often it looks again, ms.
const EVERY: u32 = 250;

const STYLE: &str = include_str!("panel.css");

thread_local! {
    static PANEL: RefCell<Panel> = RefCell::default();
}

#[derive(Default)]
struct Panel {
    watched: Vec<Watched>,
    /// How many were watched so far.
    serials: u64,
    shown: Option<Shown>,
}

/// A client.
struct Watched {
    serial: u64,
    name: String,
    look: Look,
}

/// The panel that is in the page.
struct Shown {
    host: HtmlElement,
    rooms: Element,
    sections: Vec<(u64, Parts)>,
    /// What had the focus before the panel was opened.
    before: Option<HtmlElement>,
    _click: Closure<dyn FnMut()>,
    _key: Closure<dyn FnMut(KeyboardEvent)>,
}

/// A client's section, of which only what has changed is written anew: what is folded stays so.
struct Parts {
    section: Element,
    facts: Part,
    lists: [(Part, Part); 3],
    phase: &'static str,
}

struct Part {
    element: Element,
    html: String,
}

impl Part {
    fn show(&mut self, html: String) {
        if self.html != html {
            self.element.set_inner_html(&html);
            self.html = html;
        }
    }
}

pub(super) fn watch(name: String, look: Look) {
    let first = PANEL.with_borrow_mut(|panel| {
        panel.serials += 1;
        panel.watched.push(Watched { serial: panel.serials, name, look });
        panel.serials == 1
    });
    // One that was closed stays so when another room is followed.
    if first && is_asked_for() {
        open();
    }
}

/// Whether the page's address says `?partysync`.
fn is_asked_for() -> bool {
    let search = web_sys::window().and_then(|window| window.location().search().ok());
    let search = search.unwrap_or_default();
    let mut names = search.trim_start_matches('?').split('&').map(|part| part.split('=').next());
    names.any(|name| name == Some("partysync"))
}

/// Shows the panel, whatever the page's address says.
pub fn open() {
    let opened = PANEL.with_borrow_mut(|panel| {
        if panel.shown.is_some() {
            return false;
        }
        panel.shown = Shown::new();
        panel.shown.is_some()
    });
    if opened {
        spawn_local(async {
            while refresh() {
                gloo_timers::future::TimeoutFuture::new(EVERY).await;
            }
        });
    }
}

/// Closes the panel. The focus goes back to where it was.
pub fn close() {
    let Some(shown) = PANEL.with_borrow_mut(|panel| panel.shown.take()) else { return };
    shown.host.remove();
    if let Some(before) = &shown.before {
        // An element that is gone takes no focus.
        let _ = before.focus();
    }
    // A handler may be what has called: it ends with the turn.
    spawn_local(async move { drop(shown) });
}

/// Looks at all clients; `false` when the panel was closed.
fn refresh() -> bool {
    PANEL.with_borrow_mut(|panel| {
        let Panel { watched, shown: Some(shown), .. } = panel else { return false };
        let zone = js_sys::Date::new_0().get_timezone_offset();
        watched.retain(|Watched { serial, name, look }| match look() {
            Some(now) => {
                shown.show(*serial, name, Section::new(&now, zone));
                true
            }
            None => {
                shown.drop(*serial);
                false
            }
        });
        true
    })
}

fn document() -> Option<Document> {
    web_sys::window()?.document()
}

fn element(name: &str, within: &Element) -> Option<Element> {
    let element = document()?.create_element(name).ok()?;
    within.append_child(&element).ok()?;
    Some(element)
}

impl Shown {
    fn new() -> Option<Self> {
        let document = document()?;
        let before = document.active_element().and_then(|element| element.dyn_into().ok());
        let host: HtmlElement = document.create_element("partysync-panel").ok()?.dyn_into().ok()?;
        let root = host.attach_shadow(&ShadowRootInit::new(ShadowRootMode::Open)).ok()?;
        root.set_inner_html(&format!(
            "<style>{STYLE}</style><aside aria-label=partysync><header><h2>partysync</h2>\
             <button type=button aria-label=\"Close the partysync panel\">×</button></header>\
             <div class=rooms></div></aside>"
        ));
        let rooms = root.query_selector(".rooms").ok()??;
        let button: HtmlElement = root.query_selector("button").ok()??.dyn_into().ok()?;
        let click = Closure::<dyn FnMut()>::new(close);
        button.set_onclick(Some(click.as_ref().unchecked_ref()));
        let key = Closure::<dyn FnMut(KeyboardEvent)>::new(|event: KeyboardEvent| {
            if event.key() == "Escape" {
                event.stop_propagation();
                close();
            }
        });
        host.set_onkeydown(Some(key.as_ref().unchecked_ref()));
        document.body()?.append_child(&host).ok()?;
        Some(Self { host, rooms, sections: Vec::new(), before, _click: click, _key: key })
    }

    fn show(&mut self, serial: u64, name: &str, section: Section) {
        if !self.sections.iter().any(|(known, _)| *known == serial) {
            self.sections.extend(Parts::new(&self.rooms, name).map(|parts| (serial, parts)));
        }
        if let Some((_, parts)) = self.sections.iter_mut().find(|(known, _)| *known == serial) {
            parts.show(section);
        }
    }

    fn drop(&mut self, serial: u64) {
        for (_, parts) in self.sections.extract_if(.., |(known, _)| *known == serial) {
            parts.section.remove();
        }
    }
}

impl Parts {
    fn new(rooms: &Element, name: &str) -> Option<Self> {
        let section = element("section", rooms)?;
        element("h3", &section)?.set_text_content(Some(name));
        let part = |name, within: &Element| {
            Some(Part { element: element(name, within)?, html: String::new() })
        };
        let facts = part("div", &section)?;
        let list = |title: &str| {
            let details = element("details", &section)?;
            details.set_attribute("open", "").ok()?;
            let summary = element("summary", &details)?;
            summary.set_text_content(Some(&format!("{title} ")));
            Some((part("span", &summary)?, part("div", &details)?))
        };
        let lists = [list("Pending")?, list("Queries")?, list("Frames")?];
        Some(Self { section, facts, lists, phase: "" })
    }

    fn show(&mut self, section: Section) {
        let Section { phase, facts, pending, queries, frames } = section;
        if self.phase != phase {
            self.phase = phase;
            // Only how it looks depends on it.
            let _ = self.section.set_attribute("data-phase", phase);
        }
        self.facts.show(facts);
        for ((count, rows), list) in self.lists.iter_mut().zip([pending, queries, frames]) {
            let List { count: number, html } = list;
            count.show(number.to_string());
            rows.show(html);
        }
    }
}
