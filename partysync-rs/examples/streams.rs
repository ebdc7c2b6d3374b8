//! A native server of Durable Streams.
//!
//! ```sh
//! cargo run --features axum --example streams -- [--port 4437] [--file streams.db] [--local-webhooks]
//! ```
//!
//! Without a file the streams end with the process.

use partysync::sql::Sqlite;
use partysync::streams::{MemoryStore, Options, SqlStore, router};
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut port, mut file, mut options) = (4437, None, Options::default());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = |words: &mut dyn Iterator<Item = String>| {
            words.next().ok_or_else(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--port" => port = value(&mut words)?.parse()?,
            "--file" => file = Some(value(&mut words)?),
            "--local-webhooks" => options.local_webhooks = true,
            other => return Err(format!("{other} is not an option").into()),
        }
    }
    let app = match file {
        Some(file) => router(|| SqlStore::new(Sqlite::open(file)?), options).await?,
        None => router(|| Ok(MemoryStore::new()), options).await?,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/v1/stream", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
