//! LiveStore's MessagePack, line by line, for tests against npm's msgpackr: `d HEX` gives messages
//! as a list of JSON, `e [MESSAGE, …]` gives bytes as hex; what cannot be read gives `error …`.

use partysync::livestore::msgpack::{decode, encode};
use serde_json::value::RawValue;
use std::fmt::Write as _;
use std::io::{BufRead, Write as _};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn answer(line: &str) -> partysync::Result<String> {
    let (what, rest) = line.split_once(' ').unwrap();
    if what == "d" {
        let messages = decode(&bytes(rest), 1 << 26)?;
        return Ok(format!("[{}]", messages.join(",")));
    }
    let messages: Vec<&RawValue> = serde_json::from_str(rest).unwrap();
    encode(messages.iter().map(|message| message.get())).map(|bytes| hex(&bytes))
}

fn main() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let line = answer(&line).unwrap_or_else(|error| format!("error {error}"));
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    }
}
