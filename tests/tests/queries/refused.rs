//! Queries that do not say what they seem to say: an error tells so.

use super::{AnyAction, Tracker, comment, issue, put};
use partysync::query::plan::{Filter, Join, Plan, Related, Shape, Totals as TotalsPlan};
use partysync::query::{Query, Totals, exists, exists_one};
use partysync::{Code, Error, Record, Result};
use partysync_client::testing::World;
use partysync_simulation::queries::app::{Comment, Issue, User};

fn refused<T: std::fmt::Debug>(result: Result<T>, names: &str) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.message().contains(names), "{error}");
}

#[test]
fn a_count_that_has_an_order_a_limit_or_more_with_it_is_an_error() {
    let row = Issue {
        id: "i".into(),
        author: None,
        title: String::new(),
        open: true,
        rank: None,
        points: 0,
    };
    refused(Issue::query().limit(1).count().plan(), "`limit`");
    refused(Issue::query().order_by(Issue::points.asc()).count().plan(), "`order_by`");
    refused(Issue::query().start_after(&row).count().by(Issue::open).plan(), "`start_after`");
    refused(Issue::query().with(Comment::issue, |c| c).count().sum(Issue::points).plan(), "`with`");
    let counted = |query: Query<Comment>| query.limit(99);
    refused(Issue::query().with_count(Comment::issue, counted).plan(), "`limit`");
    refused(Issue::query().filter(exists(Comment::issue, counted)).plan(), "`limit`");
    let by = |users: Query<User>| users.order_by(User::name.asc());
    let by_users = exists_one::<_, User, _, _>(Issue::author, by);
    refused(Issue::query().filter(by_users.clone()).plan(), "`order_by`");
    refused(Issue::query().filter(!by_users.or(Issue::open.eq(true))).count().plan(), "`order_by`");
    // Within what comes with a row, too; there an order is as good as anywhere.
    let within = |comments: Query<Comment>| {
        comments.limit(1).with_one::<Issue, _, _>(Comment::issue, |issues| {
            issues.limit(1).with_count(Comment::issue, counted)
        })
    };
    refused(Issue::query().with(Comment::issue, within).plan(), "`limit`");
    let plain = Issue::query().with(Comment::issue, |c| c.order_by(Comment::by.asc()).limit(1));
    assert!(plain.plan().is_ok());
}

#[test]
fn plain_data_is_no_exception() {
    let mut world = World::new(Tracker).unwrap();
    let client = world.client();
    let join = || Join { here: "id".into(), there: "issue".into() };
    let of = |table: &str| Plan { table: table.into(), ..Plan::default() };
    let one = Plan { limit: Some(1), ..of("comments") };
    let shape = Shape::Count;
    let related = vec![Related { join: join(), shape, plan: one.clone() }];
    let counts = Plan { related, ..of("issues") };
    refused(world.query(client, &Query::<Issue, (u64,)>::from_plan(counts).unwrap()), "`limit`");
    let filter = Filter::Any(vec![Filter::Not(Box::new(Filter::Exists(join(), Box::new(one))))]);
    let finds = Plan { filter: filter.clone(), ..of("issues") };
    refused(world.query(client, &Query::<Issue>::from_plan(finds).unwrap()), "`limit`");
    let totals = TotalsPlan { table: "issues".into(), filter, ..TotalsPlan::default() };
    refused(world.totals(client, &Totals::<Issue>::from_plan(totals).unwrap()), "`limit`");
}

#[test]
fn columns_of_two_types_that_are_to_be_equal_are_an_error() {
    let mut world = World::new(Tracker).unwrap();
    let client = world.client();
    put(&mut world, client, AnyAction::Issue(issue(1, None)));
    put(&mut world, client, AnyAction::Comment(comment(1, 1)));
    // An issue's key is a text, and whoever has made a comment is a number.
    let join = || Join { here: "id".into(), there: "by".into() };
    let comments = || Plan { table: "comments".into(), ..Plan::default() };
    let related = |shape| vec![Related { join: join(), shape, plan: comments() }];
    for shape in [Shape::Many, Shape::One, Shape::Count] {
        let plan = Plan { table: "issues".into(), related: related(shape), ..Plan::default() };
        refused(world.query(client, &Query::<Issue>::from_plan(plan).unwrap()), "`comments.by`");
    }
    let filter = Filter::Exists(join(), Box::new(comments()));
    let plan = Plan { table: "issues".into(), filter: filter.clone(), ..Plan::default() };
    refused(world.query(client, &Query::<Issue>::from_plan(plan).unwrap()), "`comments.by`");
    let totals = TotalsPlan { table: "issues".into(), filter, ..TotalsPlan::default() };
    refused(world.totals(client, &Totals::<Issue>::from_plan(totals).unwrap()), "`comments.by`");
}
