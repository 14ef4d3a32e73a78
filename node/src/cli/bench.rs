//! x
use super::connect::Connect;
use super::failure::Failure;
use super::output::Output;
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) async fn run(_args: Args, _connect: &Connect, _out: &mut Output) -> Result<(), Failure> {
    Ok(())
}
