//! Any order of pushes, pulls, acknowledgements, kills and hibernation leaves one log, without
//! gaps, and every live pull with exactly that log.

use crate::harness::{Plain, Store, ack, exit, pull, push, seqs};
use partysync::room::Slot;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Connect,
    /// A client's live pull from where it is, or from the beginning.
    Pull(usize, bool),
    /// Pushes so many events behind what it believes is the head.
    Push(usize, u64),
    Ack(usize),
    Interrupt(usize),
    Disconnect(usize),
    Hibernate,
    Kill,
}

/// A client: its socket, what it has, and the pulls on this connection.
#[derive(Default)]
struct Client {
    slot: Option<Slot>,
    has: Vec<u64>,
    pulls: u32,
    live: bool,
    /// Chunks that it did not acknowledge yet.
    unread: u32,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..4_usize;
    let step = prop_oneof![
        3 => Just(Step::Connect),
        4 => (client.clone(), any::<bool>()).prop_map(|(c, all)| Step::Pull(c, all)),
        8 => (client.clone(), 1..250_u64).prop_map(|(c, n)| Step::Push(c, n)),
        12 => client.clone().prop_map(Step::Ack),
        1 => client.clone().prop_map(Step::Interrupt),
        1 => client.prop_map(Step::Disconnect),
        2 => Just(Step::Hibernate),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..80)
}

struct World {
    store: Store<Plain>,
    clients: Vec<Client>,
    head: u64,
    requests: u32,
}

impl World {
    fn id(&mut self) -> String {
        self.requests += 1;
        self.requests.to_string()
    }

    /// Reads what has come: each event has to follow the one before it.
    fn read(&mut self, index: usize) -> Result<(), TestCaseError> {
        let client = &mut self.clients[index];
        let Some(slot) = client.slot else { return Ok(()) };
        for frame in self.store.take(slot) {
            if frame["_tag"] != "Chunk" {
                continue;
            }
            let id = frame["requestId"].as_str().unwrap().to_owned();
            prop_assert_eq!(&id, &client.pulls.to_string(), "a pull that has ended is sent more");
            for seq in seqs(std::slice::from_ref(&frame), &id) {
                prop_assert_eq!(seq, client.has.last().copied().unwrap_or_default() + 1);
                client.has.push(seq);
            }
            client.unread += 1;
        }
        Ok(())
    }

    fn gone(&mut self, index: usize) {
        let client = &mut self.clients[index];
        (client.slot, client.live, client.unread) = (None, false, 0);
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Connect => {
                if let Some(index) = self.clients.iter().position(|c| c.slot.is_none()) {
                    self.clients[index].slot = Some(self.store.connect());
                }
            }
            Step::Pull(index, all) => {
                let Some(slot) = self.clients[index].slot.filter(|_| !self.clients[index].live)
                else {
                    return Ok(());
                };
                let id = self.id();
                let client = &mut self.clients[index];
                if all {
                    client.has.clear();
                }
                (client.live, client.pulls, client.unread) = (true, id.parse().unwrap(), 0);
                let cursor = client.has.last().map(|last| ("backend-1", *last));
                let text = pull(&id, true, cursor);
                self.store.turn(partysync::livestore::Input::Frame(
                    slot,
                    partysync::room::Incoming::Text(&text),
                ));
            }
            Step::Push(index, count) => {
                let Some(slot) = self.clients[index].slot else { return Ok(()) };
                let id = self.id();
                let from = self.clients[index].has.last().copied().unwrap_or_default();
                let text = push(&id, from + 1..=from + count);
                self.store.turn(partysync::livestore::Input::Frame(
                    slot,
                    partysync::room::Incoming::Text(&text),
                ));
                let frames = &self.store.sockets[&slot].frames;
                let done = exit(frames, &id).expect("an answer")["_tag"] == "Success";
                prop_assert_eq!(done, from == self.head);
                if done {
                    self.head += count;
                }
            }
            Step::Ack(index) => {
                let client = &mut self.clients[index];
                let Some(slot) = client.slot.filter(|_| client.live && client.unread > 0) else {
                    return Ok(());
                };
                client.unread -= 1;
                let text = ack(&client.pulls.to_string());
                self.store.turn(partysync::livestore::Input::Frame(
                    slot,
                    partysync::room::Incoming::Text(&text),
                ));
            }
            Step::Interrupt(index) => {
                self.read(index)?;
                let client = &mut self.clients[index];
                let Some(slot) = client.slot.filter(|_| client.live) else { return Ok(()) };
                (client.live, client.unread) = (false, 0);
                let text = format!(r#"{{"_tag":"Interrupt","requestId":"{}"}}"#, client.pulls);
                self.store.frame(slot, &text);
            }
            Step::Disconnect(index) => {
                if let Some(slot) = self.clients[index].slot {
                    self.store.disconnect(slot);
                    self.gone(index);
                }
            }
            Step::Hibernate => self.store.hibernate(),
            Step::Kill => {
                self.store.kill();
                (0..self.clients.len()).for_each(|index| self.gone(index));
            }
        }
        (0..self.clients.len()).try_for_each(|index| self.read(index))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_live_pull_has_the_log_exactly_once(steps in steps()) {
        let clients = (0..4).map(|_| Client::default()).collect();
        let mut world = World { store: Store::new(Plain), clients, head: 0, requests: 0 };
        world.step(&Step::Connect)?;
        for step in &steps {
            world.step(step)?;
        }
        // All acknowledge until nothing comes any more.
        for _ in 0..2_000 {
            let waits = |client: &Client| client.live && client.unread > 0;
            let Some(index) = world.clients.iter().position(waits) else { break };
            world.step(&Step::Ack(index))?;
        }
        let log: Vec<_> = (1..=world.head).collect();
        prop_assert_eq!(&world.store.log(), &log);
        for client in world.clients.iter().filter(|client| client.live) {
            prop_assert_eq!(&client.has, &log);
        }
    }
}
