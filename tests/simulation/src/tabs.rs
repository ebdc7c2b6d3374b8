//! The tabs of the world: what happens to them and their stores, and how their machines' outputs
//! are carried out.

use crate::app::{AppAction, result_of};
use crate::tab::{Ask, Health, Link, Tab, Told};
use crate::world::{Known, World};
use partysync::{Code, Result, Timestamp};
use partysync_client::store::{Kept, Store, StoreEvent};
use partysync_client::{Input, Note, Output, Peer};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    pub(crate) fn link(&mut self, tab: usize) -> Option<&mut Link> {
        self.tabs[tab].as_mut()?.link.as_mut()
    }

    pub(crate) fn health(&mut self, tab: usize, change: impl FnOnce(&mut Health)) {
        if let Some(tab) = &mut self.tabs[tab] {
            change(&mut tab.health);
        }
    }

    pub(crate) fn open_tab(&mut self, tab: usize) {
        if self.tabs[tab].is_some() {
            return;
        }
        let browser = tab / self.shared_by;
        let store = self.browsers[browser].0.clone();
        self.clients += 1;
        let random = [u64::from(self.clients), 0x5eed];
        let peer = Peer::new(random, self.timing, self.client_now());
        self.tabs[tab] = Some(Tab {
            browser,
            client: peer.replica().client().to_owned(),
            peer,
            events: store.events(),
            store,
            health: Health::default(),
            asked: None,
            link: None,
            here: None,
            frozen: false,
            tokens: BTreeMap::new(),
            adopted: BTreeSet::new(),
        });
        self.outputs(tab);
    }

    pub(crate) fn close_tab(&mut self, tab: usize) -> Result<()> {
        if self.tabs[tab].is_none() {
            return Ok(());
        }
        self.stats.client_crashes += 1;
        self.cut(tab)?;
        if let Some(gone) = self.tabs[tab].take() {
            self.unstored |= gone.asked.is_some();
            self.forget_unstored(&gone.client, &gone.store.kept()?);
        }
        Ok(())
    }

    /// What a client has made and its store does not hold ends with it.
    pub(crate) fn forget_unstored(&mut self, client: &str, kept: &Kept) {
        let stored = kept.outboxes.get(client);
        let Some(made) = self.made.get_mut(client) else { return };
        made.retain(|seq, action| {
            let is_stored = stored.is_some_and(|outbox| outbox.pending.contains_key(seq));
            if !is_stored && let Some((_, known)) = self.known.get_mut(&action.token()) {
                *known = Known::Unknown;
            }
            is_stored
        });
    }

    /// The power is gone, and the browser's disk holds what it held once.
    pub(crate) fn set_back(&mut self, browser: usize) -> Result<()> {
        let Some(kept) = self.browsers[browser].1.clone() else { return Ok(()) };
        for tab in 0..self.tabs.len() {
            if tab / self.shared_by == browser {
                self.close_tab(tab)?;
            }
        }
        let (store, _) = &self.browsers[browser];
        let clients: BTreeSet<_> = store.kept()?.outboxes.into_keys().collect();
        store.set_kept(kept.clone())?;
        clients.iter().for_each(|client| self.forget_unstored(client, &kept));
        Ok(())
    }

    /// Another tab of the browser gets what this one has, which lives on.
    pub(crate) fn lose_lock(&mut self, tab: usize) {
        let Some(tab) = &mut self.tabs[tab] else { return };
        tab.lose_lock(&self.browsers[tab.browser].0);
        self.locks_lost = true;
    }

    pub(crate) fn thaw(&mut self, tab: usize) {
        let now = self.client_now();
        if let Some(tab) = &mut self.tabs[tab] {
            tab.frozen = false;
            tab.time(now);
        }
        self.outputs(tab);
    }

    /// Time passes, and timers ring when they are due; a timer that would ring for ever is late.
    pub(crate) fn wait(&mut self, millis: i64) {
        let end = self.now.plus_millis(millis);
        for _ in 0..12 {
            let awake = self.tabs.iter().flatten().filter(|tab| !tab.frozen);
            let next = awake.filter_map(|tab| tab.peer.timeout()).min();
            let next = next.and_then(|at| i64::try_from(at).ok()).map(Timestamp::from_millis);
            let Some(at) = next.filter(|at| *at < end) else { break };
            self.now = self.now.max(at);
            self.ring();
        }
        self.now = end;
        self.ring();
    }

    pub(crate) fn ring(&mut self) {
        let now = self.client_now();
        for tab in 0..self.tabs.len() {
            if self.tabs[tab].as_mut().is_some_and(|tab| tab.time(now)) {
                self.outputs(tab);
            }
        }
    }

    pub(crate) fn act(&mut self, index: usize, action: &AppAction) {
        let now = self.client_now();
        let Some(tab) = &mut self.tabs[index] else { return };
        self.stats.actions += 1;
        let client = tab.client.clone();
        let seq = tab.peer.act(action.clone(), now).expect("an action that fits");
        tab.tokens.insert(seq, action.token());
        self.known.insert(action.token(), (client.clone(), Known::Waiting));
        self.made.entry(client).or_default().insert(seq, action.clone());
        self.outputs(index);
    }

    pub(crate) fn handle(&mut self, index: usize, input: Input<'_>) {
        let now = self.client_now();
        if let Some(tab) = &mut self.tabs[index]
            && !tab.frozen
        {
            tab.peer.handle(input, now);
            self.outputs(index);
        }
    }

    /// What its store tells a tab, of others too.
    pub(crate) fn hear(&mut self, index: usize) {
        while let Some(tab) = self.tabs[index].as_mut().filter(|tab| !tab.frozen)
            && let Some(event) = tab.event()
        {
            if let StoreEvent::Orphan(outbox) = &event
                && !outbox.pending.is_empty()
                && outbox.client != tab.client
            {
                self.stats.adopted += 1;
                tab.adopted.insert(outbox.client.clone());
            }
            self.handle(index, Input::Store(event));
        }
    }

    pub(crate) fn store_answers(&mut self, index: usize, forced: bool) {
        let Some(tab) = self.tabs[index].as_mut().filter(|tab| !tab.frozen) else { return };
        match tab.answer(forced) {
            None => {}
            Some(Told::Stored(stored)) => self.handle(index, Input::Stored(stored)),
            Some(Told::Opened(opened)) => {
                for outbox in opened.iter().flat_map(|saved| &saved.outboxes) {
                    self.stats.adopted += 1;
                    tab.adopted.insert(outbox.client.clone());
                }
                self.handle(index, Input::Opened(opened));
            }
        }
    }

    /// Carries out what a tab's machine wants done.
    pub(crate) fn outputs(&mut self, index: usize) {
        while let Some(tab) = &mut self.tabs[index]
            && let Some(output) = tab.peer.poll_output()
        {
            match output {
                Output::OpenStore(client) => tab.asked = Some(Ask::Open(client)),
                Output::Store(writes) => tab.asked = Some(Ask::Write(writes)),
                Output::TakeOver(others) => tab.store.take_over(others),
                Output::Tell(note) => {
                    tab.store.tell(&note);
                    if let Note::Answered { client, seqs, held_by } = note {
                        for seq in seqs {
                            self.answered(&client, seq, held_by.is_some());
                        }
                    }
                }
                Output::Connect => {
                    self.links += 1;
                    tab.link = Some(Link::new(format!("link-{}", self.links)));
                }
                Output::Send(text) => {
                    if !self.locks_lost && !tab.has_stored(&text) {
                        self.wrong = Some(format!("it sends what is not stored: {text}"));
                    }
                    if let Some(link) = &mut tab.link {
                        link.up.push_back(text);
                    }
                }
                // The server notices later, if at all: a half-open socket.
                Output::Disconnect => tab.link = None,
                Output::Error(error) if error.code() == Code::ClientForgotten => {
                    self.stats.forgotten += 1;
                }
                Output::Answer(seq, Ok(result)) => {
                    let wanted = tab.tokens.get(&seq).and_then(|token| result_of(*token));
                    let result = result.as_ref().and_then(|result| result.as_str());
                    self.stats.results += u64::from(result.is_some());
                    // Where another tab pushes what this one pushes, too, it hears in its place.
                    if result != wanted.as_deref() && !self.locks_lost {
                        self.wrong = Some(format!(
                            "action {seq} of tab {index} was answered with {result:?}, and not {wanted:?}"
                        ));
                    }
                }
                Output::Changed(_)
                | Output::Wake(_)
                | Output::Answer(_, Err(_))
                | Output::Message(_)
                | Output::Presence
                | Output::Error(_) => {}
            }
        }
        self.store_answers(index, false);
    }

    /// A client's action has its answer. One that came twice was heard the first time.
    pub(crate) fn answered(&mut self, client: &str, seq: u64, done: bool) {
        let action = self.made.get_mut(client).and_then(|made| made.remove(&seq));
        let Some(action) = action else { return };
        let abandoned = format!("{client}-{seq}");
        let mut tabs = self.tabs.iter().flatten();
        let unknown = tabs.find_map(|tab| tab.peer.abandoned().get(&abandoned));
        let known = match unknown {
            _ if done => Known::Committed,
            Some(abandoned) if abandoned.error().code() == Code::ClientForgotten => Known::Unknown,
            _ => Known::Rejected,
        };
        self.stats.rejected += u64::from(known == Known::Rejected);
        self.known.insert(action.token(), (client.to_owned(), known));
    }
}
