use partysync::{Action, Column, Draft, Record, Reduce, Result, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Column, Clone, PartialEq, Debug)]
pub struct Id(String);

#[derive(Column, Clone, PartialEq, Debug)]
pub enum Size {
    Small,
    #[column(rename = "XL")]
    ExtraLarge,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Point {
    x: f64,
    y: f64,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "shapes", index = "layer, visible", unique = "name, print")]
#[record(check = "scale > 0 AND layer <> 13")]
pub struct Shape {
    #[record(key)]
    id: Id,
    size: Size,
    #[record(json)]
    points: Vec<Point>,
    #[record(json, rename = "centre")]
    center: Option<Point>,
    #[record(default = -2147483648)]
    layer: i32,
    #[record(default = 1.5)]
    scale: f32,
    #[record(default = true, index)]
    visible: bool,
    #[record(default = "XL")]
    print: Size,
    #[record(unique)]
    name: Option<String>,
    #[record(references = "shapes", on_delete = "set_null", index)]
    inside: Option<Id>,
    #[record(references = "shapes", check = "beside <> id")]
    beside: Option<Id>,
    r#type: Option<Vec<u8>>,
    #[record(created_at)]
    created_at: Timestamp,
    #[record(updated_at)]
    updated_at: Timestamp,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Shape)]
pub enum ShapeAction {
    #[action(insert)]
    Draw {
        id: Id,
        size: Size,
        #[action(json)]
        points: Vec<Point>,
        #[action(rename = "centre", json)]
        center: Option<Point>,
    },
    #[action(update)]
    Move {
        id: Id,
        #[action(json)]
        points: Option<Vec<Point>>,
        name: Option<Option<String>>,
        layer: i32,
    },
    #[action(upsert, rename = "put")]
    Upsert { id: Id, size: Size, layer: i32 },
    #[action(delete)]
    Erase { id: Id },
    #[action(custom)]
    Scale { by: f32, around: Option<Point>, quick: bool },
    /// Columns are as in any action, and what is no column is as serde has it.
    #[action(custom)]
    Resize { ids: Vec<String>, to: Size, unless: Option<Size>, near: Vec<Point> },
}

impl Reduce for ShapeAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Shape>) -> Result<()> {
        let ShapeAction::Scale { by, .. } = self else { return Ok(()) };
        for shape in draft.rows()? {
            draft.update(shape.id.0.as_str(), |shape| shape.scale *= by)?;
        }
        Ok(())
    }
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
pub enum AppAction {
    Shapes(ShapeAction),
}

fn main() {
    let action = ShapeAction::Move { id: Id("a".into()), points: None, name: Some(None), layer: 2 };
    let json = serde_json(&action);
    assert_eq!(json, r#"{"payload":{"id":"a","layer":2,"name":null},"type":"move"}"#);
    let app = AppAction::from(action.clone());
    assert_eq!(app.channel(), "shapes");
    let back = AppAction::from_json("shapes", &app.to_json().unwrap().to_string()).unwrap();
    assert_eq!(back, AppAction::Shapes(action));

    let action = ShapeAction::Resize {
        ids: vec!["a".into()],
        to: Size::ExtraLarge,
        unless: Some(Size::Small),
        near: vec![Point { x: 1.0, y: 2.0 }],
    };
    let json = serde_json(&action);
    let payload = r#"{"ids":["a"],"near":[{"x":1.0,"y":2.0}],"to":"XL","unless":"small"}"#;
    assert_eq!(json, format!(r#"{{"payload":{payload},"type":"resize"}}"#));
    assert_eq!(ShapeAction::from_json("shapes", &json).unwrap(), action);
}

fn serde_json(action: &ShapeAction) -> String {
    action.to_json().unwrap().to_string()
}
