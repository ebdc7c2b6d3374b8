//! What `visible` may not say, and who is refused for it.

use super::*;

#[test]
fn a_condition_that_is_none_lets_nobody_in_and_the_log_says_why() {
    for (visible, why) in [
        (
            Visible::rows("text = 'hi'", []),
            "may name are the key, and those that are marked `#[record(scope)]`: no such column: text",
        ),
        (Visible::rows("\"text\" = 'hi'", []), "there is no column `text` that it may name"),
        (Visible::rows("owner = ?", []), "has 1 parameters, and 0 are given"),
        (Visible::rows("owner = ?", params![vec![1_u8]]), "bytes as a parameter"),
        (Visible::rows("1) OR (1", []), "a `)` without its `(`"),
        (Visible::rows("owner IN (SELECT who FROM grants)", []), "it reads `grants`"),
        (Visible::rows("owner = ?1", params!["a"]), "a parameter with a number"),
        (Visible::rows("owner = ", []), "syntax error"),
    ] {
        let mut world = World::new(server(own));
        let says = visible.clone();
        *world.visible.borrow_mut() = Box::new(move |_, channel| match channel {
            "notes" => Ok(says.clone()),
            _ => Ok(Visible::all()),
        });
        world.room.take_logged();
        world.connect("ada");
        let logged = world.room.take_logged().join("\n");
        assert!(
            logged.contains(why) && logged.contains("`visible` of `notes`"),
            "{visible:?}: {logged}"
        );
        let (_, told) = world.frames.last().unwrap();
        assert_eq!(told["type"], "error");
        assert!(told["message"].as_str().unwrap().starts_with("Something went wrong"), "{told}");
        assert_eq!(world.closed.get("ada").map(String::as_str), Some("close 1011 sql"));
        assert_eq!(world.connect_as("ada", Protocol::V1).map(|()| world.closed.len()).unwrap(), 1);
    }
}

#[test]
fn a_record_without_scope_is_seen_whole_or_not_at_all() {
    let mut world = World::new(server(own));
    *world.visible.borrow_mut() = Box::new(|_, channel| match channel {
        "grants" => Ok(Visible::rows("id = 1", [])),
        _ => Ok(Visible::all()),
    });
    world.room.take_logged();
    world.connect("ada");
    let logged = world.room.take_logged().join("\n");
    assert!(logged.contains("#[record(scope)]"), "{logged}");
    *world.visible.borrow_mut() = Box::new(|room, channel| match channel {
        "grants" if room.identity::<String>()?.as_deref() != Some("root") => Ok(Visible::nothing()),
        _ => Ok(Visible::all()),
    });
    world.connect("ada");
    world.run(&["INSERT INTO grants VALUES (1, 'ada', 1)"]);
    world.run(&["DELETE FROM grants"]);
    assert!(world.frames.iter().any(|(_, frame)| frame["type"] == "patch"));
    let grants = world.frames.iter().flat_map(|(_, frame)| frame["changes"].as_array().cloned());
    assert!(!grants.flatten().any(|change| change["channel"] == "grants"));
    assert_eq!(world.closed.len(), 0);
}

#[test]
fn who_may_not_be_asked_is_refused_as_by_on_connect() {
    let mut world = World::new(server(own));
    *world.visible.borrow_mut() =
        Box::new(|room, channel| match room.identity::<String>()?.as_deref() {
            Some("eve") => Err(Error::new(Code::Forbidden, "go away")),
            _ => own(room, channel),
        });
    world.connect("eve");
    assert_eq!(world.closed.get("eve").map(String::as_str), Some("close 4403 go away"));
    assert!(world.frames.iter().all(|(_, frame)| frame["type"] != "welcome"));
}

#[test]
fn visible_only_reads() {
    let mut world = World::new(server(own));
    for sql in ["DELETE FROM notes", "WITH a AS (SELECT 1) INSERT INTO grants VALUES (1, '', 1)"] {
        *world.visible.borrow_mut() = Box::new(move |room, _| {
            room.sql().exec(sql, &[])?;
            Ok(Visible::all())
        });
        world.room.take_logged();
        world.connect("ada");
        let logged = world.room.take_logged().join("\n");
        assert!(logged.contains("`visible` only reads"), "{logged}");
    }
    *world.visible.borrow_mut() = Box::new(move |room, _| {
        let with = "WITH RECURSIVE a(n) AS (SELECT 1 UNION SELECT n + 1 FROM a WHERE n < 3) SELECT max(n) FROM a";
        let most: i64 = room.sql().query_one(with, [], |row| row.get(0))?;
        Ok(if most == 3 { Visible::all() } else { Visible::nothing() })
    });
    world.connect("ada");
    assert_eq!(world.closed.len(), 0);
}

#[test]
fn a_condition_that_fails_for_a_row_closes_those_who_see_by_it_alone() {
    let mut world =
        World::new(server(|room, channel| match room.identity::<String>()?.as_deref() {
            Some("eve") if channel == "notes" => Ok(Visible::rows("abs(board) = 1", [])),
            _ => own(room, channel),
        }));
    for who in ["ada", "eve"] {
        world.connect(who);
    }
    world.run(&[
        "INSERT INTO notes (id, owner, board, text) VALUES ('x', 'ada', -9223372036854775808, '')",
    ]);
    assert_eq!(world.notes("ada"), ["x"]);
    assert_eq!(world.closed.get("eve").map(String::as_str), Some("close 1011 sql"));
    // Nor is it let in as long as the row is there.
    world.connect("eve");
    assert_eq!(world.closed.get("eve").map(String::as_str), Some("close 1011 sql"));
}
