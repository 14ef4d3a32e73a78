//! Maps: fields of any type, each merged by its own rules.
//!
//! `SHOAL_URL='shoal://127.0.0.1:7400/?ca=sha256:...' cargo run -p shoal-client --example map`

use shoal_client::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::var("SHOAL_URL").map_err(|_| Error::Config { reason: "set SHOAL_URL".into() })?;
    let client = Client::connect(&url).await?;
    let room = client.keyspace("app").await?.collection("rooms")?.map("lobby")?;
    room.register("topic").update(|_: Vec<String>| "welcome".into()).await?;
    room.counter("messages").add(2).await?;
    room.set("members").add("ada").await?;
    room.map("settings").flag("muted").enable().await?;
    println!("fields: {:?}", room.read().await?.keys().collect::<Vec<_>>());
    room.remove("settings").await?;
    println!("members: {:?}", room.set("members").read().await?);
    println!("messages: {}", room.counter("messages").read().await?);
    Ok(())
}
