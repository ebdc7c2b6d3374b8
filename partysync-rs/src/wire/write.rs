//! JSON objects written field by field: a room's frames carry rows that SQLite has written as
//! JSON already, which nobody parses again.

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Object {
    out: String,
}

impl Object {
    pub(crate) fn new() -> Self {
        Self { out: String::from("{") }
    }

    /// An object with room for this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut out = String::with_capacity(bytes + 128);
        out.push('{');
        Self { out }
    }

    fn name(&mut self, name: &str) -> &mut String {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        string(&mut self.out, name);
        self.out.push(':');
        &mut self.out
    }

    /// A string.
    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        string(self.name(name), value);
        self
    }

    /// `true`.
    pub(crate) fn flag(&mut self, name: &str) -> &mut Self {
        self.name(name).push_str("true");
        self
    }

    /// A boolean.
    pub(crate) fn bool(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name).push_str(if value { "true" } else { "false" });
        self
    }

    /// A number; `null` for none.
    pub(crate) fn number(&mut self, name: &str, value: impl Into<Option<u64>>) -> &mut Self {
        let out = self.name(name);
        match value.into() {
            Some(value) => out.push_str(&value.to_string()),
            None => out.push_str("null"),
        }
        self
    }

    /// A value that is JSON already.
    pub(crate) fn json(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name).push_str(value);
        self
    }

    /// An array whose elements are JSON already, with commas between them.
    pub(crate) fn list(&mut self, name: &str, elements: &str) -> &mut Self {
        let out = self.name(name);
        out.push('[');
        out.push_str(elements);
        out.push(']');
        self
    }

    /// An array of strings.
    pub(crate) fn texts<'t>(
        &mut self,
        name: &str,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> &mut Self {
        let mut elements = String::new();
        for text in texts {
            separate(&mut elements);
            string(&mut elements, text);
        }
        self.list(name, &elements)
    }

    /// The object's text.
    pub(crate) fn end(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

/// A comma, unless nothing is there yet.
pub(crate) fn separate(elements: &mut String) {
    if !elements.is_empty() {
        elements.push(',');
    }
}

/// A JSON string.
pub(crate) fn string(out: &mut String, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_string_reads_back_as_it_was(text in any::<String>()) {
            let mut out = String::new();
            string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn an_object_is_json_with_its_fields_in_order() {
        let mut object = Object::new();
        object.text("a", "\"").number("b", 7).number("c", None).flag("d").list("e", "1,[2]");
        object.texts("f", ["x", "y"]).bool("g", false);
        let wanted = r#"{"a":"\"","b":7,"c":null,"d":true,"e":[1,[2]],"f":["x","y"],"g":false}"#;
        assert_eq!(object.end(), wanted);
    }
}
