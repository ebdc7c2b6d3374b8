use partysync::livestore::EventServer;

#[derive(Clone)]
enum NotDerived {
    Created,
}

fn takes<S: EventServer<Event = NotDerived>>() {}

fn main() {}
