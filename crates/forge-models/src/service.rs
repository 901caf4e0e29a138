//! The adapter: the configured providers behind the port `Model`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forge_catalog::Catalog;
use forge_catalog::vendors::EmbeddingApi;
use forge_ports::model::Error;
use forge_ports::{DeltaSink, Embedder, Model, async_trait};
use forge_types::{
    EmbedRequest, Embeddings, ErrorKind, ModelReply, ModelRequest, NextStep, PartKind, Payload,
};

use crate::errors;
use crate::http::{self, HttpTransport};
use crate::key::ApiKey;
use crate::options::Options;
use crate::probe::{self, ConnectionTest, LocalServerInfo};
use crate::provider::{ConfiguredProvider, ProviderSetupError};

/// All configured providers. Creation is cheap: nothing is read, resolved or connected before the first call.
#[derive(Debug)]
pub struct ModelProviders {
    providers: BTreeMap<String, ConfiguredProvider>,
    transport: HttpTransport,
    probe_timeout: Duration,
    catalog: Arc<Catalog>,
}

impl ModelProviders {
    /// Sets up the configured providers. Those with an invalid configuration are left out, and the second value holds
    /// the error of each.
    pub fn new(options: &Options) -> (Self, Vec<ProviderSetupError>) {
        let mut providers = BTreeMap::new();
        let mut faults = Vec::new();
        for provider in &options.providers {
            match ConfiguredProvider::new(provider) {
                Ok(configured) => {
                    providers.insert(provider.name.clone(), configured);
                }
                Err(fault) => faults.push(fault),
            }
        }
        let models = Self {
            providers,
            transport: HttpTransport::new(options),
            probe_timeout: options.probe_timeout,
            catalog: options.catalog.clone().unwrap_or_else(|| Arc::clone(Catalog::builtin())),
        };
        (models, faults)
    }

    /// Detects the local server of a provider. An open port is no proof, because any program could own it; the server
    /// is recognized by a response specific to it. `None` for providers that are detected by their API key.
    pub async fn find_local_server(&self, provider: &str) -> Option<LocalServerInfo> {
        let provider = self.providers.get(provider)?;
        probe::find_local_server(&self.transport, provider, self.probe_timeout).await
    }

    /// Requests the list of models, the cheapest request that needs the API key. The result also reports if the list is
    /// complete and does not contain `model`.
    pub async fn test_connection(&self, provider: &str, model: Option<&str>) -> ConnectionTest {
        match self.providers.get(provider) {
            Some(known) => probe::test_connection(&self.transport, known, model).await,
            None => ConnectionTest::failed(format!("provider `{provider}` is not configured")),
        }
    }

    async fn ask_provider(
        &self,
        provider: &ConfiguredProvider,
        key: Option<&ApiKey>,
        request: &ModelRequest,
        deltas: &dyn DeltaSink,
    ) -> Result<ModelReply, Error> {
        http::request_reply(&self.transport, &self.catalog, provider, key, request, deltas).await
    }

    fn find_provider(&self, name: &str) -> Result<&ConfiguredProvider, Error> {
        self.providers.get(name).ok_or_else(|| {
            let error = errors::invalid_request(format!("provider `{name}` is not configured"));
            Error { next_steps: vec![NextStep::CheckSetup], ..error }
        })
    }
}

#[async_trait]
impl Model for ModelProviders {
    async fn request_reply(
        &self,
        request: ModelRequest,
        deltas: &dyn DeltaSink,
    ) -> Result<ModelReply, Error> {
        let provider = self.find_provider(&request.route.provider)?;
        if !is_loaded(&request) {
            return Err(errors::invalid_request(
                "a text of the request is not loaded from the store".to_owned(),
            ));
        }
        if let Some(script) = &provider.script {
            return script.reply_for(&request, deltas);
        }
        let key = provider.require_credential().await?;
        match self.ask_provider(provider, key.as_ref(), &request, deltas).await {
            // The token was revoked or expired early. Nothing has been streamed yet.
            Err(error) if error.kind == ErrorKind::Auth => {
                match provider.refresh_after_rejection(key.as_ref()).await? {
                    Some(renewed) => self.ask_provider(provider, Some(&renewed), &request, deltas).await,
                    None => Err(error),
                }
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl Embedder for ModelProviders {
    async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Error> {
        let provider = self.find_provider(&request.route.provider)?;
        if request.texts.is_empty() {
            return Err(errors::invalid_request("no texts were given for embedding".to_owned()));
        }
        let key = match provider.vendor.embedding {
            // Reported before a missing API key, because a key would not help.
            EmbeddingApi::None => None,
            _ => provider.require_credential().await?,
        };
        match http::request_embeddings(&self.transport, provider, key.as_ref(), &request).await {
            Err(error) if error.kind == ErrorKind::Auth => {
                match provider.refresh_after_rejection(key.as_ref()).await? {
                    Some(renewed) => {
                        http::request_embeddings(&self.transport, provider, Some(&renewed), &request).await
                    }
                    None => Err(error),
                }
            }
            answer => answer,
        }
    }
}

fn is_loaded(request: &ModelRequest) -> bool {
    let inline = |payload: &Payload| payload.inline_text().is_some();
    request.messages.iter().flat_map(|message| &message.parts).all(|part| match &part.kind {
        PartKind::Text { text } | PartKind::Reasoning { text } => inline(text),
        PartKind::Result(result) => inline(&result.content),
        PartKind::Call(_) => true,
    })
}
