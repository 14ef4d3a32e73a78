//! The first five minutes: connect, write, read, merge what concurrent writers left.
//!
//! `SHOAL_URL='shoal://127.0.0.1:7400/?ca=sha256:...' cargo run -p shoal-client --example quickstart`

use shoal_client::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::var("SHOAL_URL").map_err(|_| Error::Config { reason: "set SHOAL_URL".into() })?;
    let client = Client::connect(&url).await?;
    let users = client.keyspace("app").await?.collection("users")?;

    // What two people write without knowing of each other is kept side by side.
    let city = users.register("ada:city")?;
    city.delete().await?;
    city.add_sibling("London").await?;
    city.add_sibling("Turin").await?;
    println!("siblings: {:?}", city.read().await?.siblings::<String>()?);

    // `update` shows all of them and replaces exactly those.
    city.update(|cities: Vec<String>| cities.join(", ")).await?;
    println!("merged: {:?}", city.read().await?.value::<String>()?);

    // A write whose outcome is unknown can be repeated: it counts once.
    match users.counter("ada:visits")?.add(1).await {
        Err(error) if error.operation().is_some() => {
            if let Some(operation) = error.operation() {
                client.repeat(operation).await?;
            }
        }
        verdict => {
            verdict?;
        }
    }
    println!("visits: {}", users.counter("ada:visits")?.read().await?);
    Ok(())
}
