//! One node of a development cluster: a child process whose life hangs on its standard input.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{ChildStdin, Command};
use tokio::time::timeout;

use super::super::connect::DevNode;
use super::super::failure::{ENDED, Failure};
use super::Directory;

/// A node, running or not.
pub(super) struct Child {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    running: Option<Running>,
    pid: u32,
    status: Option<ExitStatus>,
}

struct Running {
    process: tokio::process::Child,
    /// Dropping it tells the child to stop.
    stdin: Option<ChildStdin>,
}

impl Child {
    /// The node with this index and address, not started. All meet at the first of `addresses` (DESIGN §5, Formation).
    pub(super) fn new(
        directory: &Directory,
        (index, address): (usize, SocketAddr),
        addresses: &[SocketAddr],
        (log, stores): (&str, Option<u8>),
    ) -> Result<Self, Failure> {
        let name = format!("n{}", index + 1);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments: Vec<String> =
            ["server", "--until-stdin-closes", "--cluster", "dev"].map(str::to_owned).into();
        let settings = [
            ("--name", name.clone()),
            ("--zone", name.clone()),
            ("--listen", address.to_string()),
            ("--data-dir", text(directory.data(&name))),
            ("--secret-file", text(directory.secret_file())),
            ("--expect", addresses.len().to_string()),
            ("--log", log.to_owned()),
        ];
        arguments.extend(settings.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
        if let Some(stores) = stores {
            arguments.extend(["--stores".to_owned(), stores.to_string()]);
        }
        match addresses {
            [] | [_] => arguments.push("--found-alone".to_owned()),
            [seed, ..] => arguments.extend(["--seeds".to_owned(), seed.to_string()]),
        }
        let log = directory.log(&name);
        let program = std::env::current_exe()?;
        Ok(Self { name, address, program, arguments, log, running: None, pid: 0, status: None })
    }

    /// Starts the process. It is in a group of its own, so that ctrl-C reaches only its parent, which then stops all.
    pub(super) fn spawn(&mut self) -> Result<(), Failure> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| Failure::file(&self.log, &error))?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SHOAL_") {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().map_err(|error| Failure::file(&self.program, &error))?;
        let stdin = process.stdin.take();
        self.pid = process.id().unwrap_or(0);
        self.running = Some(Running { process, stdin });
        Ok(())
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn info(&self) -> DevNode {
        DevNode { name: self.name.clone(), address: self.address.to_string(), pid: self.pid }
    }

    /// Waits for the end of a process that runs; its name.
    pub(super) async fn ended(&mut self) -> Result<String, Failure> {
        if let Some(running) = &mut self.running {
            self.status = Some(running.process.wait().await?);
            self.running = None;
        }
        Ok(self.name.clone())
    }

    pub(super) fn how_it_ended(&self) -> String {
        self.status.map_or_else(|| "unknown".to_owned(), |status| status.to_string())
    }

    pub(super) fn order_stop(&mut self) {
        if let Some(running) = &mut self.running {
            running.stdin = None;
        }
    }

    /// Waits for the end after `order_stop`; kills what takes longer.
    pub(super) async fn stopped(&mut self, within: Duration) -> Result<(), Failure> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let Ok(status) = timeout(within, running.process.wait()).await else {
            running.process.kill().await?;
            return Err(Failure::new(ENDED, format!("{} did not stop within {} s", self.name, within.as_secs())));
        };
        let status = status?;
        self.running = None;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(ENDED, format!("{} has ended with {status}; see {}", self.name, self.log.display())))
    }
}
