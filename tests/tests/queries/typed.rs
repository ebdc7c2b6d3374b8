//! Queries as an application writes them.

use super::{issue, put};
use partysync::query::plan::{Filter, Order, Plan, Scalar};
use partysync::query::{Query, exists, exists_one};
use partysync::sql::Value;
use partysync::{Code, Record};
use partysync_client::query::Live;
use partysync_client::testing::{ClientId, World};
use partysync_simulation::queries::app::{
    AnyAction, Comment, CommentAction, Issue, IssueAction, Tracker, User, UserAction,
};

fn world() -> (World<Tracker>, ClientId) {
    let mut world = World::new(Tracker).unwrap();
    let client = world.client();
    world.deliver().unwrap();
    for (id, name) in [(1, "ada"), (2, "bob")] {
        let (name, admin) = (name.to_owned(), id == 1);
        put(&mut world, client, AnyAction::User(UserAction::Put { id, name, admin }));
    }
    for n in 0..5_i64 {
        put(
            &mut world,
            client,
            AnyAction::Issue(IssueAction::Put {
                id: format!("i{n}"),
                author: (n > 0).then_some(n % 2 + 1),
                title: format!("issue {n}"),
                open: n != 2,
                rank: None,
                points: n,
            }),
        );
        put(
            &mut world,
            client,
            AnyAction::Comment(CommentAction::Put {
                id: format!("c{n}"),
                issue: "i4".to_owned(),
                by: Some(2),
                note: None,
            }),
        );
    }
    (world, client)
}

#[test]
fn rows_come_with_what_they_were_asked_with() {
    let (mut world, client) = world();
    let query = Issue::query()
        .filter(Issue::open.eq(true).and(Issue::author.ne(None)))
        .order_by(Issue::points.desc())
        .limit(2)
        .with_one::<User, _, _>(Issue::author, |users| users)
        .with(Comment::issue, |comments| comments.order_by(Comment::id.desc()).limit(3))
        .with_count(Comment::issue, |comments| comments);
    let live = world.query(client, &query).unwrap();
    let rows = live.rows();
    let [four, three] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((four.id.as_str(), three.id.as_str()), ("i4", "i3"));
    let (author, comments, count) = &four.related;
    assert_eq!(author.as_ref().unwrap().name, "ada");
    assert_eq!(comments.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["c4", "c3", "c2"]);
    assert_eq!(*count, 5);
    // The next page.
    let next = world.query(client, &query.clone().start_after(&three.row)).unwrap();
    assert_eq!(next.rows()[0].id, "i1");
    // Also of a query that was kept as plain data.
    let kept = Query::<Issue>::from_plan(query.plan().unwrap()).unwrap();
    let next = world.query(client, &kept.start_after(&three.row)).unwrap();
    assert_eq!(next.rows()[0].id, "i1");
    // Equal queries share a result, and a clone of one is the same.
    put(
        &mut world,
        client,
        AnyAction::User(UserAction::Put { id: 1, name: "eve".into(), admin: true }),
    );
    let again = world.query(client, &query).unwrap();
    assert_eq!(again.rows(), live.rows());
    assert_eq!(live.rows()[0].related.0.as_ref().unwrap().name, "eve");
}

#[test]
fn rows_are_found_by_what_they_are_related_to() {
    let (mut world, client) = world();
    let with_comments =
        world.query(client, &Issue::query().filter(exists(Comment::issue, |c| c))).unwrap();
    assert_eq!(with_comments.len(), 1);
    let by_admins =
        exists_one::<_, User, _, _>(Issue::author, |users| users.filter(User::admin.eq(true)));
    let by_admins = world.query(client, &Issue::query().filter(by_admins)).unwrap();
    assert_eq!(by_admins.len(), 2);
    put(
        &mut world,
        client,
        AnyAction::User(UserAction::Put { id: 2, name: "bob".into(), admin: true }),
    );
    assert_eq!(by_admins.len(), 4);
}

#[test]
fn totals_are_counted_by_group() {
    let (mut world, client) = world();
    let all = Issue::query().count();
    let counted = world.totals(client, &all).unwrap();
    assert_eq!(counted.count(), 5);
    let points = world.totals(client, &all.by(Issue::open).sum(Issue::points)).unwrap();
    let of = |group, count, sum| partysync_client::query::Total { group, count, sum };
    assert_eq!(points.totals().unwrap(), [of(false, 1, 2), of(true, 4, 8)]);
    put(&mut world, client, AnyAction::Issue(IssueAction::Delete { id: "i2".into() }));
    assert_eq!(points.totals().unwrap(), [of(true, 4, 8)]);
}

#[test]
fn plain_data_that_does_not_fit_is_refused_or_finds_nothing() {
    let (mut world, client) = world();
    let order = vec![Order { column: "points".into(), descending: false }];
    let after = Some(vec![Scalar::from(Value::Integer(1))]);
    let plan = Plan { table: "issues".into(), order, after, ..Plan::default() };
    let query = Query::<Issue>::from_plan(plan).unwrap();
    let error = world.query(client, &query).unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.message().contains("not 2"), "{error}");
    // The bits of 1.5 are those of an integer.
    let points = i64::from_be_bytes(1.5_f64.to_be_bytes());
    let (id, title) = ("bits".to_owned(), "bits".to_owned());
    let bits = IssueAction::Put { id, author: None, title, open: false, rank: None, points };
    put(&mut world, client, AnyAction::Issue(bits));
    let filter = Filter::In("points".into(), vec![Scalar::from(Value::Real(1.5))]);
    let plan = Plan { table: "issues".into(), filter, ..Plan::default() };
    let found = world.query(client, &Query::<Issue>::from_plan(plan).unwrap()).unwrap();
    assert!(found.is_empty());
    assert!(serde_json::from_str::<Plan>(r#"{"table": "issues", "fliter": 1}"#).is_err());
    assert!(Query::<User>::from_plan(Plan { table: "issues".into(), ..Plan::default() }).is_err());
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    let (mut world, client) = world();
    #[derive(Record, Clone)]
    #[record(table = "issues")]
    struct Large {
        #[record(key)]
        id: String,
        points: u64,
    }
    let error =
        world.query(client, &Large::query().filter(Large::points.eq(u64::MAX))).unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.to_string().contains("points"), "{error}");
    let _ = Large { id: String::new(), points: 0 };
    #[derive(Record, Clone)]
    #[record(table = "others")]
    struct Other {
        #[record(key)]
        id: i64,
    }
    let error = world.query(client, &Other::query()).unwrap_err();
    assert_eq!(error.code(), Code::UnknownChannel);
    assert!(error.message().contains("others"), "{error}");
    let _ = Other { id: 0 }.id;
}

#[test]
fn what_is_no_number_is_null_as_in_sqlite() {
    let (mut world, client) = world();
    let ranked = Issue::query().filter(Issue::rank.gt(f64::NEG_INFINITY));
    let none = Issue::query().filter(Issue::rank.is_null()).count();
    let ordered = Issue::query().order_by(Issue::rank.asc()).limit(7);
    put(&mut world, client, AnyAction::Issue(issue(5, Some(1.0))));
    let ranked = world.query(client, &ranked).unwrap();
    let none = world.totals(client, &none).unwrap();
    let ordered = world.query(client, &ordered).unwrap();
    for delivered in [false, true] {
        if delivered {
            world.deliver().unwrap();
        } else {
            put(&mut world, client, AnyAction::Issue(issue(6, Some(f64::NAN))));
        }
        let ids = |live: &Live<Issue>| -> Vec<String> {
            live.rows().iter().map(|issue| issue.id.clone()).collect()
        };
        assert_eq!(ids(&ordered), ["i0", "i1", "i2", "i3", "i4", "i6", "i5"]);
        assert_eq!(ids(&ranked), ["i5"]);
        assert_eq!(none.count(), 6);
        assert_eq!(ordered.rows()[5].rank, None);
    }
}
