//! What a command is about: a key, or a place inside the map that a key holds; and how what is there is printed.

use serde::Serialize;
use shoal_client::{Client, Key, Snapshot, nested};
use shoal_protocol::address::Address;
use shoal_protocol::client::Written;
use shoal_protocol::object::{Conflict, ContentType, Operation, TypeTag, Value, View};

use super::connect::{Connect, address};
use super::failure::Failure;
use super::output::{Output, note};
use super::record::{self, Typed};
use super::value::plain_view;

/// A key, or a place inside the map that it holds.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Target {
    /// KEYSPACE/COLLECTION/KEY or KEYSPACE/KEY
    #[arg(value_parser = address)]
    pub(super) address: Address,
    /// A field of the map at the key; once more for a field of the map in that field.
    #[arg(long = "field", value_name = "FIELD")]
    pub(super) path: Vec<String>,
}

impl Target {
    /// The place in a field of the map at this place.
    pub(super) fn field(mut self, field: String) -> Self {
        self.path.push(field);
        self
    }

    /// An operation on this place, as one on the key.
    pub(super) fn wrap(&self, operation: Operation) -> Operation {
        nested::wrap(&self.path, operation)
    }

    /// What is at this place; several where concurrent writes used several types.
    pub(super) fn views(&self, snapshot: &Snapshot) -> Result<Vec<View>, Failure> {
        Ok(nested::views_at(snapshot.view().clone(), &self.path)?)
    }

    /// Reads the key.
    pub(super) async fn read(&self, connect: &Connect) -> Result<Snapshot, Failure> {
        Ok(self.key(&connect.open().await?).await?.read().await?)
    }

    /// What is at this place, if it is of type `wanted`.
    pub(super) async fn read_as(&self, connect: &Connect, wanted: TypeTag) -> Result<Option<View>, Failure> {
        let snapshot = self.read(connect).await?;
        Ok(nested::only(self.views(&snapshot)?, wanted)?)
    }

    /// Applies `operations` to this place, one after the other, and prints the acknowledgement of the last.
    pub(super) async fn operate(
        &self,
        operations: Vec<Operation>,
        connect: &Connect,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let apply = async |client: Client| {
            let key = self.key(&client).await?;
            let mut last = None;
            for operation in operations {
                last = Some(key.operate(self.wrap(operation)).await?);
            }
            Ok(last)
        };
        let written = connect.in_session(apply).await?;
        written.map_or(Ok(()), |written| print_written(&self.address, &written, out))
    }

    /// The keyspace's way with concurrent values.
    pub(super) async fn conflict(&self, client: &Client) -> Result<Conflict, Failure> {
        Ok(client.keyspace(self.address.keyspace.as_str()).await?.info().spec.conflict)
    }

    async fn key(&self, client: &Client) -> Result<Key, Failure> {
        Ok(client.key(&self.address).await?)
    }

    /// Prints what is at this place: JSON with everything known of it, or the plain value.
    pub(super) fn print(&self, snapshot: &Snapshot, out: &mut Output) -> Result<(), Failure> {
        let views = self.views(snapshot)?;
        if views.is_empty() {
            return Err(Failure::not_found(&self.address));
        }
        if out.is_json() {
            return views.iter().flat_map(record::typed).try_for_each(|content| {
                let field = &self.path;
                let (address, context) = (self.address.to_string(), snapshot.context().to_string());
                out.document(&Shown { address, field, content, context })
            });
        }
        if views.len() > 1 {
            note(format_args!("note: {} types are live; `shoal del` removes them all", views.len()));
        }
        views.iter().try_for_each(|view| print_view(view, out))
    }
}

/// Prints a view plainly: one line, but each sibling on its own.
pub(super) fn print_view(view: &View, out: &mut Output) -> Result<(), Failure> {
    if let View::Register { values } = view {
        if let [value] = &values[..] {
            return print_value(value, out);
        }
        note(format_args!("note: {} siblings; `shoal put` replaces them all", values.len()));
    }
    out.line(plain_view(view))
}

/// Nothing in plain form: a write that succeeds is silent.
pub(super) fn print_written(address: &Address, written: &Written, out: &mut Output) -> Result<(), Failure> {
    if written.weak {
        note("note: fewer acks than the keyspace asks for; the write may be lost with the nodes that have it");
    }
    if written.fallbacks > 0 {
        let (acks, fallbacks) = (written.acks, written.fallbacks);
        note(format_args!(
            "note: {fallbacks} of {acks} acks by fallbacks; reads may miss the write until they have handed it on"
        ));
    }
    if !out.is_json() {
        return Ok(());
    }
    out.document(&serde_json::json!({
        "address": address.to_string(), "acks": written.acks, "fallbacks": written.fallbacks, "weak": written.weak,
        "context": written.context.to_string(),
    }))
}

/// One value: bytes as they are, anything else as a line.
fn print_value(value: &Value, out: &mut Output) -> Result<(), Failure> {
    let is_line = value.content_type == ContentType::Json || value.content_type.name().starts_with("text/");
    if !is_line && out.is_terminal() {
        let (bytes, kind) = (value.bytes.len(), &value.content_type);
        return Err(Failure::usage(format!("{bytes} bytes of {kind} are nothing for a terminal"))
            .hint("redirect standard output, or use --json"));
    }
    out.bytes(&value.bytes)?;
    if is_line { out.bytes(b"\n") } else { Ok(()) }
}

#[derive(Serialize)]
struct Shown<'a> {
    address: String,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    field: &'a [String],
    #[serde(flatten)]
    content: Typed<'a>,
    context: String,
}
