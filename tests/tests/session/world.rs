//! A session and a room, with the frames between them in the test's hands.

use partysync::testing::TestRoom;
use partysync::{Action, Error, Key, Protocol, Record, Result, Room, SyncServer, Timestamp};
use partysync_client::{Effect, Phase, Replica, Session, Timing};

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

/// A session and the room, with the frames between them in the test's hands.
pub struct World {
    pub room: TestRoom<Notes>,
    pub session: Session<NoteAction>,
    pub now: Timestamp,
    pub socket: Option<String>,
    pub sockets: u32,
    pub sent: Vec<String>,
    pub frames: Vec<String>,
    pub connects: u32,
    /// A push that holds this text kills the server before it does anything.
    pub poison: Option<&'static str>,
}

impl World {
    pub fn new() -> Self {
        let now = Timestamp::from_millis(1_000);
        let session = Session::new(Replica::new("client"), Timing::default(), 7, now);
        let mut world = Self {
            room: TestRoom::new(Notes).unwrap(),
            session,
            now,
            socket: None,
            sockets: 0,
            sent: Vec::new(),
            frames: Vec::new(),
            connects: 0,
            poison: None,
        };
        world.effects();
        world
    }

    pub fn effects(&mut self) {
        for effect in self.session.take_effects() {
            match effect {
                Effect::Connect => self.connects += 1,
                Effect::Send(text) => {
                    if let Some(socket) = &self.socket {
                        self.sent.push(text.clone());
                        if self.poison.is_some_and(|poison| text.contains(poison)) {
                            continue;
                        }
                        let answers = self.room.frame(socket, &text).unwrap();
                        let own = answers.into_iter().filter(|(to, _)| to == socket);
                        self.frames.extend(own.map(|(_, text)| text));
                    }
                }
                Effect::Disconnect => self.cut_server(),
            }
        }
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
        self.session.opened(self.now);
        self.effects();
    }

    /// All frames under way arrive.
    pub fn deliver(&mut self) {
        while !self.frames.is_empty() {
            let frame = self.frames.remove(0);
            match frame.strip_prefix("close ").and_then(|close| close.split_once(' ')) {
                Some((code, reason)) => {
                    self.session.closed(code.parse().unwrap(), reason, self.now);
                }
                None => self.session.received(&frame, self.now),
            }
            self.effects();
        }
    }

    /// The connection breaks: what is under way is lost.
    pub fn cut(&mut self) {
        self.cut_server();
        self.session.closed(1006, "", self.now);
        self.effects();
    }

    pub fn live(&mut self) {
        self.open();
        self.deliver();
        assert_eq!(self.session.status().phase, Phase::Live);
    }

    pub fn reconnect(&mut self) {
        self.wait(60_000);
        self.live();
    }

    pub fn wait(&mut self, millis: i64) {
        self.now = self.now.plus_millis(millis);
        self.session.tick(self.now);
        self.effects();
    }

    pub fn act(&mut self, action: NoteAction) -> u64 {
        let seq = self.session.act(action, self.now);
        self.effects();
        seq
    }

    pub fn shown(&self) -> Vec<(String, String)> {
        let rows: Vec<Note> = self.session.replica().rows().unwrap();
        rows.into_iter().map(|note| (note.id, note.text)).collect()
    }

    pub fn stored(&self) -> Vec<(String, String)> {
        let rows: Vec<Note> = self.room.rows().unwrap();
        rows.into_iter().map(|note| (note.id, note.text)).collect()
    }

    pub fn is_pending(&self, id: &str) -> bool {
        self.session.replica().is_pending("notes", &Key::from(id))
    }
}

pub fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}
