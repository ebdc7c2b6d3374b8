use partysync::query::{exists, exists_one};
use partysync::{Column, Record};

#[derive(Column, Clone)]
struct CardId(String);

#[derive(Record, Clone)]
#[record(table = "users")]
struct User {
    #[record(key)]
    id: i64,
}

#[derive(Record, Clone)]
#[record(table = "cards")]
struct Card {
    #[record(key)]
    id: CardId,
    author: Option<i64>,
    editor: String,
}

#[derive(Record, Clone)]
#[record(table = "comments")]
struct Comment {
    #[record(key)]
    id: String,
    card: CardId,
    instead: Option<CardId>,
    number: i64,
}

/// Whose key has several columns: nothing refers to one of them.
#[derive(Record, Clone)]
#[record(table = "votes")]
struct Vote {
    #[record(key)]
    card: CardId,
    #[record(key)]
    user: i64,
}

#[derive(Record, Clone)]
#[record(table = "reasons")]
struct Reason {
    #[record(key)]
    id: String,
    vote: CardId,
}

fn main() {
    let _ = Card::query()
        .with(Vote::card, |votes| votes)
        .with_one::<User, _, _>(Card::author, |users| users);
    let _ = Vote::query().with_one::<Card, _, _>(Vote::card, |cards| cards);
    let _ = Card::query()
        .with(Comment::card, |comments| comments)
        .with_count(Comment::instead, |comments| comments)
        .with_one::<User, _, _>(Card::author, |users| users)
        .filter(exists(Comment::instead, |comments| comments))
        .filter(exists_one::<_, User, _, _>(Card::author, |users| users));

    let _ = Card::query().with(Comment::number, |comments| comments);
    let _ = Card::query().with_count(Comment::id, |comments| comments);
    let _ = Card::query().with_one::<User, _, _>(Card::editor, |users| users);
    let _ = Card::query().filter(exists(Comment::number, |comments| comments));
    let _ = Card::query().filter(exists_one::<_, User, _, _>(Card::editor, |users| users));
    let _ = Vote::query().with(Reason::vote, |reasons| reasons);
}
