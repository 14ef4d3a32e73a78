//! Flags: of a concurrent enable and disable, enable wins.
//!
//! `SHOAL_URL='shoal://127.0.0.1:7400/?ca=sha256:...' cargo run -p shoal-client --example flag`

use shoal_client::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::var("SHOAL_URL").map_err(|_| Error::Config { reason: "set SHOAL_URL".into() })?;
    let client = Client::connect(&url).await?;
    let dark = client.keyspace("app").await?.collection("settings")?.flag("ada:dark-mode")?;
    dark.enable().await?;
    println!("dark mode: {}", dark.read().await?);
    dark.disable().await?;
    println!("dark mode: {}", dark.read().await?);
    Ok(())
}
