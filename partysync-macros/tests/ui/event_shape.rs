use partysync::Event;

#[derive(Event, Clone)]
struct NotAnEnum {
    id: String,
}

#[derive(Event, Clone)]
enum Empty {}

#[derive(Event, Clone)]
enum Generic<T> {
    Created { id: T },
}

#[derive(Event, Clone)]
enum Unnamed {
    Created(String),
}

#[derive(Event, Clone)]
#[event(rename_all = "camelCase")]
enum SameNames {
    #[event(name = "v1.Created")]
    Created { new_id: String, #[event(rename = "newId")] other: String },
    #[event(name = "v1.Created")]
    AlsoCreated,
}

#[derive(Event, Clone)]
enum NoOption {
    Created { #[event(optional)] id: String },
}

fn main() {}
