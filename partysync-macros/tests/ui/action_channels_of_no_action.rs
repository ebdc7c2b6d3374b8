use partysync::Action;

#[derive(Action, Clone, Debug)]
#[action(channels)]
enum AppAction {
    Todos(String),
}

fn main() {}
