use partysync::Event;

#[derive(Clone)]
struct Opaque;

#[derive(Event, Clone)]
enum NoSerde {
    Created { id: Opaque },
}

fn main() {}
