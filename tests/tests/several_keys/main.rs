//! Records whose key has several columns: how they reach clients, and what clients ask of them.

mod room;

use partysync::{
    Action, Draft, Key, Limits, Record, Reduce, Result, Room, SyncServer, Timestamp, Visible,
    params,
};
use partysync_client::testing::{ClientId, World};
use partysync_tests::crowd::request_by as by;
use std::collections::BTreeSet;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "teams")]
struct Team {
    #[record(key)]
    id: String,
}

/// Who is in a team, and what as.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "members")]
struct Member {
    #[record(key)]
    team: String,
    #[record(key, index)]
    user: String,
    #[record(scope, default = "guest")]
    role: String,
    #[record(updated_at)]
    updated_at: Timestamp,
}

/// A square of a map that is as large as numbers are.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "squares")]
struct Square {
    #[record(key)]
    x: i64,
    #[record(key)]
    y: i64,
    #[record(key)]
    layer: String,
    #[record(default = 0)]
    n: i64,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Team)]
enum TeamAction {
    #[action(upsert)]
    Put { id: String },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Member)]
enum MemberAction {
    #[action(upsert)]
    Put { team: String, user: String, role: String },
    #[action(delete)]
    Leave { user: String, team: String },
    /// Any statement, which a client cannot foresee.
    #[action(custom)]
    Sql { sql: String },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Square)]
enum SquareAction {
    #[action(upsert)]
    Put { x: i64, y: i64, layer: String, n: i64 },
    #[action(delete)]
    Drop { x: i64, y: i64, layer: String },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum Any {
    Teams(TeamAction),
    Members(MemberAction),
    Squares(SquareAction),
}

impl Reduce for MemberAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Member>) -> Result<()> {
        Ok(())
    }
}

struct Server(Limits);

impl Default for Server {
    fn default() -> Self {
        let limits = Limits { actions_burst: 1_000_000, page_bytes: 512, ..Limits::default() };
        Self(Limits { retention_ms: 1_000, log_entries: 100, ..limits })
    }
}

impl SyncServer for Server {
    type Action = Any;

    fn limits(&self) -> Limits {
        self.0
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: Any) -> Result<()> {
        match action {
            Any::Members(MemberAction::Sql { sql }) => {
                room.sql().execute(&sql, params![]).map(drop)
            }
            action => action.apply(room.sql()),
        }
    }

    /// Who says who it is sees its own memberships, and those of editors.
    fn visible(&self, room: &Room<'_, Self>, channel: &str) -> Result<Visible> {
        Ok(match room.identity::<String>()? {
            Some(who) if channel == "members" => {
                Visible::rows("user = ? OR role = 'editor'", params![who])
            }
            _ => Visible::all(),
        })
    }
}

fn put(team: &str, user: &str, role: &str) -> Any {
    MemberAction::Put { team: team.into(), user: user.into(), role: role.into() }.into()
}

fn leave(team: &str, user: &str) -> Any {
    MemberAction::Leave { team: team.into(), user: user.into() }.into()
}

fn sql(sql: &str) -> Any {
    MemberAction::Sql { sql: sql.into() }.into()
}

fn square(x: i64, y: i64, layer: &str, n: i64) -> Any {
    SquareAction::Put { x, y, layer: layer.into(), n }.into()
}

fn members(world: &World<Server>, client: ClientId) -> Vec<(String, String)> {
    let rows = world.rows::<Member>(client).unwrap().into_iter();
    rows.map(|member| (member.team, member.user)).collect()
}

/// Texts that JSON, SQL or an order by letters may get wrong.
const TEXTS: [&str; 9] = ["", "a", "B", "\"]", "a\",\"b", "[1]", "{}", "ä\u{1f600}", "a'b\\"];
const NUMBERS: [i64; 6] = [i64::MIN, -1, 0, 1, (1 << 53) + 1, i64::MAX];

/// That a client shows what the room has.
fn agree(world: &mut World<Server>, client: ClientId) {
    let rows = world.room().rows::<Member>().unwrap();
    assert_eq!(world.rows::<Member>(client).unwrap(), rows);
    let mut rows = world.room().rows::<Square>().unwrap();
    rows.retain(|square| square.deleted_at.is_none());
    assert_eq!(world.rows::<Square>(client).unwrap(), rows);
}

#[test]
fn rows_come_in_pages_and_in_deltas_whatever_their_keys_hold() {
    let mut world = World::new(Server::default()).unwrap();
    let writer = world.client();
    for team in TEXTS {
        for user in TEXTS {
            world.act(writer, put(team, user, "guest")).unwrap();
        }
    }
    for x in NUMBERS {
        for y in NUMBERS {
            for layer in ["", "0", "roads"] {
                world.act(writer, square(x, y, layer, 0)).unwrap();
            }
        }
    }
    world.settle().unwrap();
    agree(&mut world, writer);
    let reader = world.client();
    world.settle().unwrap();
    agree(&mut world, reader);
    assert_eq!(world.rows::<Square>(reader).unwrap().len(), 6 * 6 * 3);
    // What has changed while it was away, in its store and out of it.
    world.set_offline(reader, true).unwrap();
    for text in TEXTS {
        world.act(writer, leave("a", text)).unwrap();
        world.act(writer, put(text, "new", "editor")).unwrap();
    }
    for x in NUMBERS {
        world.act(writer, square(x, 0, "roads", 7)).unwrap();
        let drop = SquareAction::Drop { x, y: 1, layer: "0".into() };
        world.act(writer, drop.into()).unwrap();
    }
    world.settle().unwrap();
    world.restart(reader).unwrap();
    world.set_offline(reader, false).unwrap();
    world.settle().unwrap();
    agree(&mut world, reader);
    assert_eq!(world.rows::<Member>(reader).unwrap().len(), 9 * 9 - 9 + 9);
}

#[test]
fn a_row_that_gets_another_key_is_another_row() {
    let mut world = World::new(Server::default()).unwrap();
    let (writer, reader) = (world.client(), world.client());
    world.act(writer, put("a", "x", "guest")).unwrap();
    world.act(writer, put("a", "y", "guest")).unwrap();
    world.settle().unwrap();
    world.act(writer, sql("UPDATE members SET user = user || '2', team = 'b'")).unwrap();
    world.settle().unwrap();
    assert_eq!(members(&world, reader), [("b".into(), "x2".into()), ("b".into(), "y2".into())]);
    agree(&mut world, reader);
}

#[test]
fn a_text_that_a_statement_makes_as_json_is_a_text() {
    let mut world = World::new(Server::default()).unwrap();
    let (writer, reader) = (world.client(), world.client());
    let insert = "INSERT INTO members (team, user) VALUES (json('[1]'), json('\"x\"'))";
    world.act(writer, sql(insert)).unwrap();
    world.settle().unwrap();
    assert_eq!(members(&world, reader), [("[1]".into(), "\"x\"".into())]);
    world.act(writer, sql("UPDATE members SET team = json('{}')")).unwrap();
    world.settle().unwrap();
    assert_eq!(members(&world, reader), [("{}".into(), "\"x\"".into())]);
    world.act(writer, sql("DELETE FROM members")).unwrap();
    world.settle().unwrap();
    assert_eq!(members(&world, reader), []);
}

#[test]
fn views_name_each_column_of_a_key() {
    let mut world = World::new(Server::default()).unwrap();
    let (root, ada) = (world.client(), world.client_by(by("ada")));
    for team in TEXTS {
        for user in ["ada", "bob"] {
            world.act(root, put(team, user, "guest")).unwrap();
        }
    }
    world.settle().unwrap();
    let own = |(_, user): &(String, String)| user == "ada";
    assert_eq!(members(&world, ada).len(), TEXTS.len());
    assert!(members(&world, ada).iter().all(own));
    // One comes into the view, and leaves it; one is deleted; a key becomes another one's.
    world.act(root, put("a", "bob", "editor")).unwrap();
    world.settle().unwrap();
    assert!(members(&world, ada).contains(&("a".into(), "bob".into())));
    world.act(root, put("a", "bob", "guest")).unwrap();
    world.act(root, leave("[1]", "ada")).unwrap();
    world
        .act(root, sql("UPDATE members SET user = 'eve' WHERE team = '' AND user = 'ada'"))
        .unwrap();
    world.settle().unwrap();
    assert!(members(&world, ada).iter().all(own));
    assert_eq!(members(&world, ada).len(), TEXTS.len() - 2);
    // And while it is away.
    world.set_offline(ada, true).unwrap();
    world.act(root, leave("a", "ada")).unwrap();
    world.act(root, put("B", "bob", "editor")).unwrap();
    world.settle().unwrap();
    world.set_offline(ada, false).unwrap();
    world.settle().unwrap();
    let shown: BTreeSet<_> = members(&world, ada).into_iter().collect();
    assert!(shown.contains(&("B".into(), "bob".into())));
    assert!(!shown.contains(&("a".into(), "ada".into())));
    assert_eq!(shown.len(), TEXTS.len() - 2);
}

#[test]
fn queries_find_rows_by_a_whole_key_and_by_its_parts() {
    let mut world = World::new(Server::default()).unwrap();
    let client = world.client();
    world.act(client, TeamAction::Put { id: "a".into() }.into()).unwrap();
    world.act(client, TeamAction::Put { id: "c".into() }.into()).unwrap();
    for (team, user) in [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("b", "z")] {
        world.act(client, put(team, user, if user == "y" { "editor" } else { "guest" })).unwrap();
    }
    let all = Member::query;
    let one = world.query(client, &partysync::query::Query::by_key(("b", "x"))).unwrap();
    let ordered = world.query(client, &all().order_by(Member::user.desc()).limit(3)).unwrap();
    let of_b = world.query(client, &all().filter(Member::team.eq("b"))).unwrap();
    let last = all().order_by(Member::role.asc()).start_after(&Member {
        team: "b".into(),
        user: "x".into(),
        role: "guest".into(),
        updated_at: Timestamp::default(),
    });
    let last = world.query(client, &last).unwrap();
    let teams = Team::query().with(Member::team, |members| members.order_by(Member::role.asc()));
    let teams = world.query(client, &teams).unwrap();
    let known = partysync::query::exists_one::<Member, Team, _, _>(Member::team, |teams| teams);
    let known = world.query(client, &all().filter(known.clone())).unwrap();
    let counted = world.totals(client, &all().count().by(Member::user)).unwrap();
    world.settle().unwrap();
    let shown = |live: &partysync_client::query::Live<Member>| -> Vec<Key> {
        live.rows().iter().map(|found| found.row.key()).collect()
    };
    assert_eq!(shown(&one), [Key::from(("b", "x"))]);
    assert_eq!(shown(&ordered), [("b", "z"), ("a", "y"), ("b", "y")].map(Key::from));
    assert_eq!(shown(&of_b), [("b", "x"), ("b", "y"), ("b", "z")].map(Key::from));
    assert_eq!(shown(&last), [Key::from(("b", "z"))]);
    assert_eq!(shown(&known), [("a", "x"), ("a", "y")].map(Key::from));
    let of_teams: Vec<_> = teams
        .rows()
        .into_iter()
        .map(|team| {
            let (members,) = team.related;
            (team.row.id, members.into_iter().map(|member| member.row.user).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        of_teams,
        [("a".into(), vec!["y".to_owned(), "x".to_owned()]), ("c".into(), vec![])]
    );
    assert_eq!(counted.totals().unwrap().len(), 3);
    // They follow what changes.
    world.act(client, leave("b", "x")).unwrap();
    world.act(client, put("a", "x", "editor")).unwrap();
    world.act(client, TeamAction::Put { id: "b".into() }.into()).unwrap();
    assert!(world.is_pending::<Member>(client, ("a", "x")));
    assert!(!world.is_pending::<Member>(client, ("a", "y")));
    world.settle().unwrap();
    assert_eq!(shown(&one), []);
    assert_eq!(shown(&ordered), [("b", "z"), ("a", "y"), ("b", "y")].map(Key::from));
    assert_eq!(shown(&known), [("a", "x"), ("a", "y"), ("b", "y"), ("b", "z")].map(Key::from));
    assert_eq!(teams.rows()[1].related.0.len(), 2);
    for wrong in [Key::from("b"), Key::from(("b", "x", "y"))] {
        let error = partysync::query::Query::<Member>::by_key(wrong).plan().unwrap_err();
        assert!(error.message().contains("has 2 columns"), "{error}");
    }
}
