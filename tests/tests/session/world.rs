//! A client and a room, with the frames and the store between them in the test's hands.

use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Draft, Error, Key, Protocol, Record, Reduce, Result, Room, SyncServer, Timestamp,
};
use partysync_client::store::{MemoryStore, Write};
use partysync_client::{Cause, Changes, Input, Now, Output, Peer, Phase, Timing};
use std::collections::VecDeque;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
pub struct Note {
    #[record(key)]
    pub id: String,
    pub text: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
pub enum NoteAction {
    #[action(upsert)]
    Put { id: String, text: String },
    #[action(delete)]
    Delete { id: String },
    #[action(custom)]
    Panic,
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Note>) -> Result<()> {
        panic!("a reducer's own fault")
    }
}

#[derive(Default)]
pub struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        if matches!(&action, NoteAction::Put { text, .. } if text == "refuse") {
            return Err(Error::reject("refused"));
        }
        if matches!(&action, NoteAction::Put { text, .. } if text == "not now") {
            return Err(Error::retry("come again"));
        }
        action.apply(room.sql())
    }
}

pub fn put(id: &str, text: &str) -> NoteAction {
    NoteAction::Put { id: id.into(), text: text.into() }
}

/// A client and the room, with the frames and the store between them in the test's hands.
pub struct World {
    pub room: TestRoom<Notes>,
    pub peer: Peer<NoteAction>,
    pub now: Now,
    pub socket: Option<String>,
    pub sockets: u32,
    pub sent: Vec<String>,
    pub frames: Vec<String>,
    pub connects: u32,
    /// A push that holds this text kills the server before it does anything.
    pub poison: Option<&'static str>,
    /// Frames that hold this text are lost on the way to the client.
    pub loses: Option<&'static str>,
    pub store: MemoryStore,
    /// What the store was asked for, and has not answered.
    pub asked: VecDeque<Asked>,
    pub disk: Disk,
    pub answers: Vec<(u64, Result<()>)>,
    pub errors: Vec<Error>,
    pub changes: Changes,
    pub notes: Vec<partysync_client::Note>,
    lives: u64,
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disk {
    Works,
    /// It answers when the test says so.
    Slow,
    Fails,
}

pub enum Asked {
    Open(String),
    Write(Vec<Write>),
}

impl World {
    pub fn new() -> Self {
        let now = Now { monotonic: 1_000, wall: Timestamp::from_millis(1_000) };
        let mut world = Self {
            room: TestRoom::new(Notes).unwrap(),
            peer: Peer::new([1, 7], Timing::default(), now),
            now,
            socket: None,
            sockets: 0,
            sent: Vec::new(),
            frames: Vec::new(),
            connects: 0,
            poison: None,
            loses: None,
            store: MemoryStore::new(),
            asked: VecDeque::new(),
            disk: Disk::Works,
            answers: Vec::new(),
            errors: Vec::new(),
            changes: Changes::new(),
            notes: Vec::new(),
            lives: 1,
        };
        world.outputs();
        world
    }

    /// The program ends, and starts anew with what its store holds.
    pub fn restart(&mut self) {
        self.cut_server();
        self.asked.clear();
        self.lives += 1;
        self.store = self.store.clone();
        self.peer = Peer::new([self.lives, 7], Timing::default(), self.now);
        self.outputs();
    }

    pub fn store_answers(&mut self) {
        let failed = || Error::new(Code::Store, "the disk is full");
        while let Some(asked) = self.asked.pop_front() {
            let input = match (asked, self.disk) {
                (Asked::Open(_), Disk::Fails) => Input::Opened(Err(failed())),
                (Asked::Open(client), _) => Input::Opened(self.store.open_now(&client)),
                (Asked::Write(_), Disk::Fails) => Input::Stored(Err(failed())),
                (Asked::Write(writes), _) => Input::Stored(self.store.write_now(writes)),
            };
            self.handle(input);
        }
    }

    pub fn handle(&mut self, input: Input<'_>) {
        self.peer.handle(input, self.now);
        self.outputs();
    }

    pub fn outputs(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::OpenStore(client) => self.asked.push_back(Asked::Open(client)),
                Output::Store(writes) => self.asked.push_back(Asked::Write(writes)),
                Output::Tell(note) => self.notes.push(note),
                // It shares its store with nobody.
                Output::TakeOver(_) => {}
                Output::Connect => {
                    self.cut_server();
                    self.connects += 1;
                }
                Output::Send(text) => self.send(&text),
                Output::Disconnect => self.cut_server(),
                Output::Changed(changes) => {
                    for (channel, keys) in changes {
                        self.changes.entry(channel).or_default().merge(keys);
                    }
                }
                Output::Answer(seq, outcome) => self.answers.push((seq, outcome.map(drop))),
                Output::Message(_) | Output::Wake(_) | Output::Presence => {}
                Output::Error(error) => self.errors.push(error),
            }
        }
        if self.disk != Disk::Slow && !self.asked.is_empty() {
            self.store_answers();
        }
    }

    fn send(&mut self, text: &str) {
        let Some(socket) = &self.socket else { return };
        self.sent.push(text.to_owned());
        if self.poison.is_some_and(|poison| text.contains(poison)) {
            return;
        }
        let answers = self.room.frame(socket, text).unwrap();
        let lost = |text: &str| self.loses.is_some_and(|loses| text.contains(loses));
        let own = answers.into_iter().filter(|(to, text)| to == socket && !lost(text));
        self.frames.extend(own.map(|(_, text)| text));
    }

    pub fn cut_server(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.room.disconnect(&socket).unwrap();
        }
        self.frames.clear();
    }

    /// The socket that was asked for opens.
    pub fn open(&mut self) {
        self.sockets += 1;
        let id = format!("socket-{}", self.sockets);
        self.room.connect(&id, Protocol::V2).unwrap();
        self.socket = Some(id);
        self.handle(Input::Connected);
    }

    pub fn receive(&mut self, frame: &str) {
        self.handle(Input::Frame(frame));
    }

    pub fn close(&mut self, code: u16, reason: &str) {
        self.handle(Input::Disconnected(Cause::Code { code, reason: reason.to_owned() }));
    }

    /// All frames under way arrive.
    pub fn deliver(&mut self) {
        while !self.frames.is_empty() {
            let frame = self.frames.remove(0);
            match frame.strip_prefix("close ").and_then(|close| close.split_once(' ')) {
                Some((code, reason)) => self.close(code.parse().unwrap(), reason),
                None => self.receive(&frame),
            }
        }
    }

    /// The connection breaks: what is under way is lost.
    pub fn cut(&mut self) {
        self.cut_server();
        self.handle(Input::Disconnected(Cause::gone()));
    }

    pub fn live(&mut self) {
        self.open();
        self.deliver();
        assert_eq!(self.phase(), Phase::Live);
    }

    pub fn reconnect(&mut self) {
        self.wait(60_000);
        self.live();
    }

    /// Time passes; timers ring when they are due.
    pub fn wait(&mut self, millis: u64) {
        let end = self.now.monotonic + millis;
        while let Some(at) = self.peer.timeout().filter(|at| *at <= end)
            && (self.phase() != Phase::Connecting || at <= self.now.monotonic + millis)
        {
            self.set_time(at);
            self.handle(Input::Time);
            if self.phase() == Phase::Connecting {
                break;
            }
        }
        if self.phase() != Phase::Connecting {
            self.set_time(end);
        }
    }

    /// The page sleeps: no timer rings before it is over.
    pub fn sleep(&mut self, millis: u64) {
        self.set_time(self.now.monotonic + millis);
        self.handle(Input::Time);
    }

    fn set_time(&mut self, monotonic: u64) {
        let passed = monotonic.saturating_sub(self.now.monotonic);
        self.now.monotonic += passed;
        self.now.wall = self.now.wall.plus_millis(i64::try_from(passed).unwrap());
    }

    pub fn act(&mut self, action: NoteAction) -> u64 {
        let seq = self.peer.act(action, self.now).unwrap();
        self.outputs();
        seq
    }

    pub fn phase(&self) -> Phase {
        self.peer.status().phase
    }

    pub fn answers(&mut self) -> Vec<(u64, Result<()>)> {
        std::mem::take(&mut self.answers)
    }

    pub fn shown(&self) -> Vec<(String, String)> {
        let rows: Vec<Note> = self.peer.replica().rows().unwrap();
        rows.into_iter().map(|note| (note.id, note.text)).collect()
    }

    pub fn stored(&self) -> Vec<(String, String)> {
        let rows: Vec<Note> = self.room.rows().unwrap();
        rows.into_iter().map(|note| (note.id, note.text)).collect()
    }

    pub fn is_pending(&self, id: &str) -> bool {
        self.peer.replica().is_pending("notes", &Key::from(id))
    }
}

pub fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}
