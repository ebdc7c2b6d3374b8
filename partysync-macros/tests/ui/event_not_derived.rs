use partysync::Event;

#[derive(Clone)]
enum NotDerived {
    Created,
}

fn takes<E: Event>() {}

fn main() {
    takes::<NotDerived>();
}
