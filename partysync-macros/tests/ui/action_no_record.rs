use partysync::Action;

struct Plain;

#[derive(Action, Clone, Debug)]
#[action(record = Plain)]
enum PlainAction {
    #[action(delete)]
    Delete { id: String },
}

fn main() {}
