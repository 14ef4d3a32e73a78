//! Sets: of a concurrent add and remove of one element, the add wins.
//!
//! `SHOAL_URL='shoal://127.0.0.1:7400/?ca=sha256:...' cargo run -p shoal-client --example set`

use shoal_client::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::var("SHOAL_URL").map_err(|_| Error::Config { reason: "set SHOAL_URL".into() })?;
    let client = Client::connect(&url).await?;
    let basket = client.keyspace("app").await?.collection("baskets")?.set("ada")?;
    basket.clear().await?;
    basket.add("apples").await?;
    basket.add("pears").await?;
    basket.add(7).await?;
    basket.remove("pears").await?;
    println!("apples in it: {}", basket.contains("apples").await?);
    println!("basket: {:?}", basket.read().await?);
    Ok(())
}
