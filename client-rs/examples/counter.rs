//! Counters: additions from anywhere all count; a reset removes what it has seen.
//!
//! `SHOAL_URL='shoal://127.0.0.1:7400/?ca=sha256:...' cargo run -p shoal-client --example counter`

use shoal_client::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::var("SHOAL_URL").map_err(|_| Error::Config { reason: "set SHOAL_URL".into() })?;
    let client = Client::connect(&url).await?;
    let likes = client.keyspace("app").await?.collection("posts")?.counter("42:likes")?;
    likes.reset().await?;
    for _ in 0..3 {
        likes.add(1).await?;
    }
    likes.add(-1).await?;
    println!("likes: {}", likes.read().await?);
    Ok(())
}
