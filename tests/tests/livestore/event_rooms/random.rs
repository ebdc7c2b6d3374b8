//! Many orders of what can happen.

use super::{ItemEvent, World};
use partysync::Event;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// What happens in one of many orders.
fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new(3);
    let ids = ["a", "b", "c", "d"];
    let mut committed: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for step in 0..120 {
        let node = rng.usize(..3);
        let mut pick = || ids[rng.usize(..4)].to_owned();
        let (one, two) = (pick(), pick());
        let text = step.to_string();
        let event = match rng.usize(..9) {
            0..3 => ItemEvent::Created { id: one, text },
            3 => ItemEvent::Placed { id: one, place: rng.i64(1..3) },
            4 => ItemEvent::Renamed { id: one, text },
            5 => ItemEvent::Moved { id: one, to: two },
            6 => ItemEvent::Swapped { id: one, with: two },
            7 => ItemEvent::Deleted { id: one },
            _ => ItemEvent::Copied { from: one, new_id: two, text: rng.bool().then_some(text) },
        };
        match rng.usize(..20) {
            0..5 => {
                world.nodes[node].act(&event).unwrap();
                let own = committed.entry(format!("client of n{node}-0")).or_default();
                own.push(json!([event.name(), event.args().unwrap()]));
            }
            5 => world.foreign(&[event]),
            6..9 => world.serve(node, usize::MAX),
            9 => world.serve(node, rng.usize(..2)),
            10..14 => world.hear(node),
            14..16 => world.update(true, true),
            16 => world.update(rng.bool(), false),
            17 => world.nodes[node].restart(),
            18 => match rng.bool() {
                true => world.store.hibernate(),
                false => world.store.kill(),
            },
            _ => {
                world.advance(rng.i64(0..20_000));
                world.alarms();
            }
        }
    }
    world.settle();
    world.check();
    // Each event that was committed is there once, in the order of its room.
    for (client, own) in committed {
        let log = world.log();
        let there = log.iter().filter(|(.., of)| *of == client);
        let there: Vec<_> = there.map(|(name, args, _)| json!([name, args])).collect();
        assert_eq!(there, own, "{client}");
    }
}

#[test]
fn whatever_happens_each_event_is_there_once_and_every_room_shows_what_the_log_says() {
    for seed in 0..60 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
