use partysync::Action;

#[derive(Action, Clone, Debug)]
#[action(channels)]
enum AppAction {
    Todos { id: String },
    Notes,
    Two(String, String),
}

fn main() {}
