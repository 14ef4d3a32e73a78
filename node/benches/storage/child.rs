//! Children: what has to happen in a process of its own.
//!
//! Shape: the bench starts itself with `--child TASK DIR`; the child works, prints one number, and waits for its standard
//! input to end. `write` fills the log and is killed; `touch` reads and writes everywhere and says how much memory it
//! takes. Invariant: no child outlives the bench, whose end closes its input.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use shoal_node::storage::Budget;

use crate::closed_loop::{End, puts};
use crate::keys::Keys;
use crate::meter::resident_bytes;
use crate::shoal::{Memory, ShoalStore};
use crate::{Options, Outcome, disk};

/// A child that is done and waits.
pub(crate) struct Child {
    process: std::process::Child,
    number: u64,
}

impl Child {
    /// Starts a child and returns once it is done.
    pub(crate) fn start(task: &str, directory: &Path, options: &Options) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--keys".into(), options.keys.to_string()])
            .args(["--value-bytes".into(), options.value_bytes.to_string()])
            .args(["--log-records".into(), options.log_records.to_string()])
            .args(["--generation".into(), options.generation.to_string()])
            .args(["--child", task])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("the child has no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        match line.trim().parse() {
            Ok(number) => Ok(Self { process, number }),
            Err(_) => {
                process.wait()?;
                Err(format!("the child `{task}` ended early").into())
            }
        }
    }

    /// Kills it as it stands.
    pub(crate) fn kill(mut self) -> Outcome<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Lets it end; what it said.
    pub(crate) fn resident_bytes(mut self) -> Outcome<u64> {
        drop(self.process.stdin.take());
        self.process.wait()?;
        Ok(self.number)
    }
}

/// What a child does.
pub(crate) fn run(task: &str, directory: &Path, options: &Options) -> Outcome<()> {
    let number = match task {
        "write" => return write(directory, options),
        "touch" => touch(directory, options)?,
        other => return Err(format!("no task `{other}`").into()),
    };
    wait(number)
}

/// So many records of different keys into the log, none of which is flushed.
fn write(directory: &Path, options: &Options) -> Outcome<()> {
    let memory = Memory { budget: Budget { bytes: 8 << 30, log_bytes: 8 << 30 }, cache_bytes: 64 << 20 };
    let mut keys = Keys::new(options.keys, options.value_bytes, options.generation);
    let mut store = ShoalStore::open(&disk(directory)?, memory)?;
    let mut order = keys.shuffled().into_iter().cycle();
    puts(&mut store, WRITERS, End::Count(options.log_records as u64), || Some(keys.put(order.next()?)))?;
    wait(options.log_records as u64)
}

fn touch(directory: &Path, options: &Options) -> Outcome<u64> {
    let mut keys = Keys::new(options.keys, options.value_bytes, options.generation);
    let mut store = ShoalStore::open(&disk(directory)?, TOUCH_MEMORY)?;
    let touches = (options.keys as u64).min(TOUCHES_MAX);
    puts(&mut store, WRITERS, End::Count(touches), || Some(keys.random_put()))?;
    store.reads(&mut keys, WRITERS, TOUCH_TIME)?;
    Ok(resident_bytes().saturating_sub(keys.resident_bytes()))
}

fn wait(number: u64) -> Outcome<()> {
    println!("{number}");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Small beside the keys, so that it is full both times.
pub(crate) const TOUCH_MEMORY: Memory =
    Memory { budget: Budget { bytes: 64 << 20, log_bytes: 512 << 20 }, cache_bytes: 64 << 20 };
const TOUCHES_MAX: u64 = 300_000;
const TOUCH_TIME: std::time::Duration = std::time::Duration::from_secs(3);
const WRITERS: usize = 64;
