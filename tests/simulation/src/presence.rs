//! Who is here: when all is calm, each of those who have said so knows the others, and nobody who is
//! not; and nobody is ever told of one who is hidden, or told anything while hidden.

use crate::world::World;
use partysync::Result;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Whoever is hidden from the others.
pub(crate) const HIDDEN: &str = "u1";

/// Where a tab is that says this: a third of them at a board of their own.
fn topic(state: i64) -> String {
    if state % 3 == 0 { "board".to_owned() } else { String::new() }
}

impl World {
    /// A tab says that it is here, or that it is no more.
    pub(crate) fn say_here(&mut self, index: usize, state: Option<i64>) {
        let now = self.client_now();
        let Some(tab) = self.tabs[index].as_mut().filter(|tab| !tab.frozen) else { return };
        tab.here = state;
        let own = state.map(|state| (topic(state), json!({ "of": tab.client, "is": state })));
        tab.peer.set_presence(own, now);
        self.outputs(index);
    }

    /// What a tab says of itself at a topic, with who it is.
    fn said(&self, index: usize, at: &str) -> Option<(Json, Json)> {
        let tab =
            self.tabs[index].as_ref().filter(|tab| tab.here.map(topic).as_deref() == Some(at))?;
        Some((self.who(index).into(), json!({ "of": tab.client, "is": tab.here? })))
    }

    /// What is wrong with what tabs know of the others.
    pub(crate) fn present_wrong(&self) -> Option<String> {
        (0..self.tabs.len()).find_map(|index| {
            let tab = self.tabs[index].as_ref()?;
            let known = tab.peer.others().values();
            let known: Vec<_> =
                known.map(|other| (other.who.clone(), other.state.clone())).collect();
            let sees = tab.here.is_some() && self.who(index) != HIDDEN;
            let others = (0..self.tabs.len()).filter(|other| *other != index && sees);
            let others = others.filter(|other| self.who(*other) != HIDDEN);
            let at = tab.here.map(topic).unwrap_or_default();
            let expected: Vec<_> = others.filter_map(|other| self.said(other, &at)).collect();
            let by_text = |list: Vec<(Json, Json)>| -> BTreeMap<String, usize> {
                let mut counts = BTreeMap::new();
                for (who, state) in list {
                    *counts.entry(format!("{who} {state}")).or_default() += 1;
                }
                counts
            };
            let (known, expected) = (by_text(known), by_text(expected));
            (known != expected).then(|| format!("tab {index} knows {known:?}, not {expected:?}"))
        })
    }

    /// When all is calm: what is said to a room that has slept, or that one leaves, is told to all.
    pub(crate) fn present_after_sleep(&mut self) -> Result<Option<String>> {
        let here = |world: &Self| -> Vec<usize> {
            let tabs = world.tabs.iter().enumerate();
            let here = tabs.filter(|(_, tab)| tab.as_ref().is_some_and(|tab| tab.here.is_some()));
            here.map(|(index, _)| index).collect()
        };
        for index in here(self) {
            self.server.hibernate();
            self.say_here(index, Some(1_000 + index as i64 % 2 * 2));
        }
        // Who is alone says so later.
        for _ in 0..3 {
            self.settle()?;
            self.wait(10_000);
        }
        self.settle()?;
        if let Some(wrong) = self.present_wrong() {
            return Ok(Some(wrong));
        }
        self.server.hibernate();
        if let Some(index) = here(self).pop() {
            self.say_here(index, None);
        }
        self.settle()?;
        Ok(self.present_wrong())
    }

    /// Looks at a frame on its way to a connection.
    pub(crate) fn check_present(&mut self, to: &str, text: &str) {
        if !text.contains(r#""type":"presence""#) {
            return;
        }
        let Ok(frame) = serde_json::from_str::<Json>(text) else { return };
        let here = || frame["here"].as_array().into_iter().flatten();
        let gone = frame["gone"].as_array().map_or(0, Vec::len);
        let tabs = self.tabs.iter().enumerate();
        let mut tabs = tabs.filter_map(|(tab, open)| Some((tab, open.as_ref()?.link.as_ref()?)));
        let who = tabs.find(|(_, link)| link.id == to).map(|(tab, _)| self.who(tab));
        let told_all = who.as_deref() == Some(HIDDEN) && (here().next().is_some() || gone > 0);
        let names: BTreeSet<_> = here().map(|other| other["id"].as_str()).collect();
        let twice = names.len() < here().count();
        if told_all || twice || here().any(|other| other["who"] == HIDDEN) {
            self.wrong = Some(format!("{who:?} is told {text}"));
        }
    }
}
