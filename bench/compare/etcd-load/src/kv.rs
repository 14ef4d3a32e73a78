//! etcd's key-value calls, as far as they are measured: gRPC by hand over HTTP/2.
//!
//! Shape: a call is a POST whose body is one message (flag byte, length, protobuf), and whose trailers say how it went.
//! Source: etcd 3.4 `rpc.proto` and `kv.proto` (field numbers), gRPC over HTTP2. Fields that are neither set nor looked at
//! are left out: protobuf skips them.

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Uri};
use prost::Message;
use tokio::net::TcpStream;

/// One connection to a member; clones share it.
#[derive(Clone)]
pub struct Member {
    requests: SendRequest<Bytes>,
    authority: String,
}

/// Why a call did not succeed.
pub type CallError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

/// Without `serializable`, so that the answer is linearizable.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pairs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

impl Member {
    /// Connects to `host:port`.
    pub async fn connect(authority: &str) -> Result<Self, CallError> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        tokio::task::spawn_local(async move {
            // Its end fails the calls, which tell.
            let _ = connection.await;
        });
        Ok(Self { requests, authority: authority.to_owned() })
    }

    /// Puts; returns when etcd has committed it.
    pub async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), CallError> {
        self.call::<PutResponse>("Put", &PutRequest { key, value }).await.map(drop)
    }

    /// The value of a key, linearizable.
    pub async fn value(&mut self, key: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let found = self.call::<RangeResponse>("Range", &RangeRequest { key }).await?;
        Ok(found.pairs.into_iter().next().ok_or("no such key")?.value)
    }

    async fn call<A: Message + Default>(&mut self, name: &str, question: &impl Message) -> Result<A, CallError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.as_str())
            .path_and_query(format!("/etcdserverpb.KV/{name}"))
            .build()?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(framed(question)?, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut message = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            message.extend_from_slice(&chunk);
        }
        // A failed call has its status among the headers.
        let trailers = body.trailers().await?;
        check(trailers.as_ref().unwrap_or(&head.headers))?;
        Ok(A::decode(message.get(PREFIX_BYTES..).ok_or("an answer without a message")?)?)
    }
}

fn framed(message: &impl Message) -> Result<Bytes, CallError> {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    framed.put_u8(0); // not compressed
    framed.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut framed)?;
    Ok(framed.freeze())
}

fn check(trailers: &HeaderMap) -> Result<(), CallError> {
    match trailers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        Some(status) => Err(format!("gRPC status {status:?}: {:?}", trailers.get("grpc-message")).into()),
        None => Err("an answer without a gRPC status".into()),
    }
}

const PREFIX_BYTES: usize = 5;
