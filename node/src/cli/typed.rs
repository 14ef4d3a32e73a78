//! Typed operations: `register`, `counter`, `set`, `map`, `flag`.
//!
//! A counter, set, flag or map that is not there reads as zero, empty, off and empty: that is what it would hold. What
//! depends on what was observed (remove, clear, reset, disable, delete) reads first, inside the client.

use std::collections::BTreeMap;

use serde_json::json;
use shoal_protocol::object::{Element, Operation, TypeTag, View};

use super::connect::Connect;
use super::data::{self, DelArgs, GetArgs, PutArgs};
use super::failure::Failure;
use super::output::Output;
use super::target::{Target, print_view};
use super::value::{ValueArgs, element_json, source};

/// Registers: a value, or siblings.
#[derive(Debug, clap::Subcommand)]
pub(super) enum RegisterCommand {
    /// Read it: as `shoal get`.
    Get(GetArgs),
    /// Write it: as `shoal put`.
    Put(PutArgs),
    /// Write a value beside whatever is there.
    AddSibling {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// Delete it: as `shoal del`.
    Del(DelArgs),
}

pub(super) async fn register(command: RegisterCommand, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    match command {
        RegisterCommand::Get(args) => data::get(args, connect, out).await,
        RegisterCommand::Put(args) => data::put(args, connect, out).await,
        RegisterCommand::Del(args) => data::del(args, connect, out).await,
        RegisterCommand::AddSibling { target, value } => {
            let value = value.read()?;
            target.operate(vec![Operation::AddSibling { value }], connect, out).await
        }
    }
}

/// Counters: numbers that are added to.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CounterCommand {
    /// Print its value.
    Get(Target),
    /// Add to it.
    Add {
        #[command(flatten)]
        target: Target,
        /// How much; negative to subtract.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Take away what is counted so far; what others add meanwhile stays.
    Reset(Target),
}

pub(super) async fn counter(command: CounterCommand, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    match command {
        CounterCommand::Get(target) => {
            let value = match target.read_as(connect, TypeTag::Counter).await? {
                Some(View::Counter(value)) => value,
                _ => 0,
            };
            if out.is_json() { out.document(&json!({ "value": value })) } else { out.line(value) }
        }
        CounterCommand::Add { target, by } => target.operate(vec![Operation::CounterAdd { by }], connect, out).await,
        CounterCommand::Reset(target) => target.operate(vec![Operation::CounterReset], connect, out).await,
    }
}

/// Sets of strings, whole numbers or bytes.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SetCommand {
    /// Print its elements.
    Get(Target),
    /// Add elements.
    Add(Elements),
    /// Remove elements.
    Remove(Elements),
    /// Remove every element there is now.
    Clear(Target),
}

/// Some elements of a set.
#[derive(Debug, clap::Args)]
pub(super) struct Elements {
    #[command(flatten)]
    target: Target,
    /// The elements: strings, unless said otherwise; `@FILE` is what a file holds, `-` is standard input.
    #[arg(required = true, value_name = "ELEMENT", allow_negative_numbers = true)]
    elements: Vec<String>,
    /// They are whole numbers.
    #[arg(long, conflicts_with = "bytes")]
    int: bool,
    /// They are raw bytes.
    #[arg(long)]
    bytes: bool,
}

impl Elements {
    fn read(&self) -> Result<Vec<Element>, Failure> {
        self.elements.iter().map(|element| self.element(element)).collect()
    }

    fn element(&self, argument: &str) -> Result<Element, Failure> {
        let bytes = source(argument)?;
        if self.bytes {
            return Ok(Element::Bytes(bytes.into()));
        }
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| Failure::usage("an element is not UTF-8").hint("use --bytes"))?;
        if !self.int {
            return Ok(Element::Text(text));
        }
        let int = text.trim().parse().map_err(|_| Failure::usage(format!("`{text}` is no whole number of 64 bits")))?;
        Ok(Element::Int(int))
    }
}

pub(super) async fn set(command: SetCommand, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    match command {
        SetCommand::Get(target) => {
            let elements = match target.read_as(connect, TypeTag::Set).await? {
                Some(View::Set(elements)) => elements,
                _ => Vec::new(),
            };
            let elements: Vec<_> = elements.iter().map(element_json).collect();
            if out.is_json() {
                out.document(&elements)
            } else {
                elements.iter().try_for_each(|element| out.line(element))
            }
        }
        SetCommand::Add(elements) => {
            let operations = elements.read()?.into_iter().map(|element| Operation::SetAdd { element });
            elements.target.operate(operations.collect(), connect, out).await
        }
        SetCommand::Remove(elements) => {
            let operations = elements.read()?.into_iter().map(|element| Operation::SetRemove { element });
            elements.target.operate(operations.collect(), connect, out).await
        }
        SetCommand::Clear(target) => target.operate(vec![Operation::SetClear], connect, out).await,
    }
}

/// Maps: fields of any type.
///
/// Fields that are counters, sets, flags or maps are changed with those commands and --field.
#[derive(Debug, clap::Subcommand)]
pub(super) enum MapCommand {
    /// Print it, or with --field one of its fields.
    Get(GetArgs),
    /// Print the names of its fields.
    Fields(Target),
    /// Write a field that is a register.
    SetField {
        #[command(flatten)]
        target: Target,
        /// The field.
        #[arg(value_name = "FIELD")]
        name: String,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// Remove a field, whatever it holds.
    RemoveField {
        #[command(flatten)]
        target: Target,
        /// The field.
        #[arg(value_name = "FIELD")]
        name: String,
    },
}

pub(super) async fn map(command: MapCommand, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    match command {
        MapCommand::Get(args) => data::get(args, connect, out).await,
        MapCommand::Fields(target) => {
            let fields = match target.read_as(connect, TypeTag::Map).await? {
                Some(View::Map(fields)) => fields,
                _ => BTreeMap::new(),
            };
            let names: Vec<&String> = fields.keys().collect();
            if out.is_json() { out.document(&names) } else { names.iter().try_for_each(|name| out.line(name)) }
        }
        MapCommand::SetField { target, name: field, value } => {
            let target = target.field(field);
            data::put(PutArgs { target, value, blind: false, w: None, sloppy: false }, connect, out).await
        }
        MapCommand::RemoveField { target, name: field } => {
            target.operate(vec![Operation::MapRemove { field }], connect, out).await
        }
    }
}

/// Flags: on or off.
#[derive(Debug, clap::Subcommand)]
pub(super) enum FlagCommand {
    /// Print whether it is on.
    Get(Target),
    /// Turn it on.
    Enable(Target),
    /// Turn it off; somebody who turns it on at the same time wins.
    Disable(Target),
}

pub(super) async fn flag(command: FlagCommand, connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    match command {
        FlagCommand::Get(target) => {
            let on = target.read_as(connect, TypeTag::Flag).await?.unwrap_or(View::Flag(false));
            if out.is_json() { out.document(&json!({ "value": on == View::Flag(true) })) } else { print_view(&on, out) }
        }
        FlagCommand::Enable(target) => target.operate(vec![Operation::Enable], connect, out).await,
        FlagCommand::Disable(target) => target.operate(vec![Operation::Disable], connect, out).await,
    }
}
