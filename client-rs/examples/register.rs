//! Registers: a struct as JSON, in a keyspace that keeps siblings and in one that keeps the last write.
//!
//! `SHOAL_URL='shoal://127.0.0.1:7400/?ca=sha256:...' cargo run -p shoal-client --example register`

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_client::{Client, Error, value};

#[derive(Debug, Serialize, Deserialize)]
struct Profile {
    name: String,
    age: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::var("SHOAL_URL").map_err(|_| Error::Config { reason: "set SHOAL_URL".into() })?;
    let client = Client::connect(&url).await?;

    let profile = client.keyspace("app").await?.collection("users")?.register("ada")?;
    let entry = profile.read().await?;
    entry.replace(&Profile { name: "Ada".into(), age: 36 }).await?;
    println!("profile: {:?}", profile.read().await?.value::<Profile>()?);
    let older = |seen: Vec<Profile>| {
        let age = seen.iter().map(|profile| profile.age).max().unwrap_or(0);
        Profile { name: "Ada".into(), age: age + 1 }
    };
    profile.update(older).await?;
    println!("a year later: {:?}", profile.read().await?.value::<Profile>()?);

    let page = client.keyspace("cache").await?.register("page:/")?;
    page.expires_in(Duration::from_secs(60)).put_value(value::text("<h1>hello</h1>")?).await?;
    println!("page: {:?}", page.r(1).read().await?.value::<String>()?);
    page.delete().await?;
    println!("deleted: {}", page.read().await?.is_absent());
    Ok(())
}
