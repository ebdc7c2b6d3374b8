use partysync::Event;

#[derive(Event, Clone)]
#[event(rename_all = "snake_case")]
enum UnknownCase {
    Created { id: String },
}

#[derive(Event, Clone)]
#[event(camel_case)]
enum UnknownOnEnum {
    Created { id: String },
}

#[derive(Event, Clone)]
enum UnknownElsewhere {
    #[event(rename = "v1.Created")]
    Created { id: String },
    Renamed {
        #[event(name = "newId")]
        id: String,
    },
    #[event(name = "one", name = "two")]
    Twice,
}

#[derive(Event, Clone)]
enum Nameless {
    #[event(name = "")]
    Created,
}

fn main() {}
