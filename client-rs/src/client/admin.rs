//! Keyspaces, layouts, routes and status.

use std::sync::Arc;

use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{
    ClientRequest, ClientResponse, KeyspaceChange, KeyspaceInfo, KeyspaceSpec, MemberView, Routes, Status,
};
use shoal_protocol::cluster::{LayoutChange, Layouts};
use shoal_protocol::id::{Class, KeyspaceId};

use super::Client;
use super::engine::{Ask, Engine};
use super::operate::not_a;
use crate::error::Error;
use crate::retry::Repeat;
use crate::transport::locked;

impl Client {
    /// Creates a keyspace.
    ///
    /// # Errors
    /// `keyspace_exists`, `bad_request`, `unknown` (then look it up), or no node answered.
    pub async fn create_keyspace(&self, name: &str, spec: KeyspaceSpec) -> Result<KeyspaceInfo, Error> {
        let name = KeyspaceName::new(name)?;
        self.administer(ClientRequest::CreateKeyspace { name, spec }, Repeat::CountsAgain).await
    }

    /// The keyspace of this name, as the cluster knows it now.
    ///
    /// # Errors
    /// `unknown_keyspace`, or no node answered.
    pub async fn show_keyspace(&self, name: &str) -> Result<KeyspaceInfo, Error> {
        let name = KeyspaceName::new(name)?;
        self.administer(ClientRequest::ShowKeyspace { name }, Repeat::Reads).await
    }

    /// Every keyspace.
    ///
    /// # Errors
    /// No node answered.
    pub async fn list_keyspaces(&self) -> Result<Vec<KeyspaceInfo>, Error> {
        let answer = self.engine.question(ClientRequest::ListKeyspaces, Repeat::Reads).await?;
        if let ClientResponse::Keyspaces(keyspaces) = answer { Ok(keyspaces) } else { Err(not_a("list of keyspaces")) }
    }

    /// Changes what may be changed of a keyspace.
    ///
    /// # Errors
    /// `unknown_keyspace`, `unknown`, or no node answered.
    pub async fn set_keyspace(&self, name: &str, change: KeyspaceChange) -> Result<KeyspaceInfo, Error> {
        let name = KeyspaceName::new(name)?;
        self.administer(ClientRequest::SetKeyspace { name, change }, Repeat::CountsOnce).await
    }

    /// Drops a keyspace with everything in it; the answer is what was dropped. A new one of the same name starts empty.
    ///
    /// # Errors
    /// `unknown_keyspace`, `unknown`, or no node answered.
    pub async fn drop_keyspace(&self, name: &str) -> Result<KeyspaceInfo, Error> {
        let name = KeyspaceName::new(name)?;
        self.administer(ClientRequest::DropKeyspace { name }, Repeat::CountsAgain).await
    }

    /// Who holds which partition of a class of keyspaces.
    ///
    /// # Errors
    /// No node answered.
    pub async fn routes(&self, class: Class) -> Result<Arc<Routes>, Error> {
        self.engine.fetch_routes(class).await
    }

    /// What one node, any node, says of itself and of the others.
    ///
    /// # Errors
    /// No node answered.
    pub async fn status(&self) -> Result<Status, Error> {
        let answer = self.engine.question(ClientRequest::Status, Repeat::Reads).await?;
        if let ClientResponse::Status(status) = answer { Ok(status) } else { Err(not_a("status")) }
    }

    /// What every node believes of every member, side by side; a node that cannot be asked is listed without a view.
    ///
    /// # Errors
    /// No node answered.
    pub async fn member_views(&self) -> Result<Vec<MemberView>, Error> {
        let answer = self.engine.question(ClientRequest::MemberViews, Repeat::Reads).await?;
        if let ClientResponse::MemberViews(views) = answer { Ok(views) } else { Err(not_a("list of member views")) }
    }

    /// Who is to hold data, what is staged, and how far the transition is, as one node knows it.
    ///
    /// # Errors
    /// No node answered.
    pub async fn layouts(&self) -> Result<Layouts, Error> {
        layouts(self.engine.question(ClientRequest::Layouts, Repeat::Reads).await?)
    }

    /// Changes who is to hold data. Done once a majority stored the change; data moves afterwards, see `layouts`.
    ///
    /// # Errors
    /// `layout_refused`, `bad_request`, `unknown` (then look at `layouts`), or no node answered.
    pub async fn change_layout(&self, change: LayoutChange) -> Result<Layouts, Error> {
        layouts(self.engine.question(ClientRequest::ChangeLayout(change), Repeat::CountsAgain).await?)
    }

    async fn administer(&self, request: ClientRequest, repeat: Repeat) -> Result<KeyspaceInfo, Error> {
        let info = keyspace(self.engine.question(request, repeat).await?)?;
        self.engine.forget_keyspace(&info.name);
        Ok(info)
    }
}

impl Engine {
    /// The keyspace of this name: remembered, or looked up.
    pub(super) async fn keyspace(&self, name: &KeyspaceName) -> Result<Arc<KeyspaceInfo>, Error> {
        if let Some(known) = locked(&self.keyspaces).get(name) {
            return Ok(Arc::clone(known));
        }
        let request = ClientRequest::ShowKeyspace { name: name.clone() };
        let info = Arc::new(keyspace(self.question(request, Repeat::Reads).await?)?);
        locked(&self.keyspaces).insert(name.clone(), Arc::clone(&info));
        Ok(info)
    }

    pub(super) fn forget_keyspace(&self, name: &KeyspaceName) {
        locked(&self.keyspaces).remove(name);
    }

    /// The class of a keyspace that was looked up before.
    pub(super) fn class_of(&self, keyspace: KeyspaceId) -> Option<Class> {
        locked(&self.keyspaces).values().find(|info| info.id == keyspace).map(|info| info.spec.class)
    }

    pub(super) async fn fetch_routes(&self, class: Class) -> Result<Arc<Routes>, Error> {
        let answer = self.question(ClientRequest::Routes { class }, Repeat::Reads).await?;
        let ClientResponse::Routes(routes) = answer else { return Err(not_a("table of routes")) };
        let routes = Arc::new(routes);
        if !self.settings.unrouted {
            self.routes.learn(class, Arc::clone(&routes), &self.pool, self.clock.instant());
        }
        Ok(routes)
    }

    /// A request that belongs to no key.
    async fn question(&self, request: ClientRequest, repeat: Repeat) -> Result<ClientResponse, Error> {
        let deadline = self.deadline(None);
        let session = self.session(deadline).await?;
        let ask = Ask { request, repeat, partition: None, deadline, again: false };
        self.ask(session.grant(), ask).await.map_err(|failure| failure.into_error(None))
    }
}

fn layouts(response: ClientResponse) -> Result<Layouts, Error> {
    if let ClientResponse::Layouts(layouts) = response { Ok(layouts) } else { Err(not_a("report on layouts")) }
}

fn keyspace(response: ClientResponse) -> Result<KeyspaceInfo, Error> {
    if let ClientResponse::Keyspace(info) = response { Ok(info) } else { Err(not_a("keyspace")) }
}
