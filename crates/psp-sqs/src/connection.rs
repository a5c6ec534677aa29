use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::operation::get_queue_url::GetQueueUrlError;
use aws_sdk_sqs::types::QueueAttributeName;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use psp_domain::QueueName;
use psp_domain::ports::{Clock, Health, StoreError};

use crate::leases::Leases;

/// How to reach the queues.
#[derive(Debug, Clone)]
pub struct SqsOptions {
    /// Before every queue's name: `psp-` makes `psp-transactions` and `psp-transactions-dlq`.
    pub prefix: String,
    /// How long a received message stays invisible: whole seconds.
    pub visibility_timeout: Duration,
    /// How long one attempt of a request may take; a long poll may take its wait more.
    pub attempt_timeout: Duration,
}

impl SqsOptions {
    /// The defaults for a prefix.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            visibility_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(5),
        }
    }

    fn name(&self, queue: QueueName) -> String {
        format!("{}{queue}", self.prefix)
    }
}

/// A queue and its dead-letter queue, by their addresses.
pub(crate) struct Addresses {
    pub(crate) live: String,
    pub(crate) dead: String,
}

/// The queues of the product on SQS.
pub struct SqsQueue {
    pub(crate) client: Client,
    pub(crate) options: SqsOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leases: Leases,
    addresses: HashMap<QueueName, Addresses>,
}

/// Why the queues cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Some do not exist.
    #[error("there are no SQS queues {}", .0.join(", "))]
    Missing(Vec<String>),
    /// SQS cannot be reached, or says no.
    #[error("SQS: {0}")]
    Failed(String),
}

impl OpenError {
    fn failed<E: std::error::Error + 'static>(error: E) -> Self {
        Self::Failed(DisplayErrorContext(error).to_string())
    }
}

impl SqsQueue {
    /// Looks the queues up by their names.
    ///
    /// # Errors
    /// [`OpenError::Missing`] names every queue that does not exist.
    pub async fn open(config: &SdkConfig, options: SqsOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        let client = client(config, &options);
        let (mut addresses, mut missing) = (HashMap::new(), Vec::new());
        for queue in QueueName::ALL {
            let name = options.name(queue);
            let mut find = async |name: String| {
                let found = find(&client, &name).await?;
                missing.extend(found.is_none().then_some(name));
                Ok::<_, OpenError>(found.unwrap_or_default())
            };
            let (live, dead) = (find(name.clone()).await?, find(format!("{name}-dlq")).await?);
            addresses.insert(queue, Addresses { live, dead });
        }
        if !missing.is_empty() {
            return Err(OpenError::Missing(missing));
        }
        let leases = Leases::default();
        Ok(Arc::new(Self { client, options, clock, leases, addresses }))
    }

    /// Creates the queues with their dead-letter queues, for a local server; those that exist stay as they are. On AWS that is
    /// Terraform's work. Returns their names.
    ///
    /// # Errors
    /// [`OpenError::Failed`].
    pub async fn create(config: &SdkConfig, options: &SqsOptions) -> Result<Vec<String>, OpenError> {
        let (client, mut names) = (client(config, options), Vec::new());
        for queue in QueueName::ALL {
            let (live, dead) = (options.name(queue), format!("{}-dlq", options.name(queue)));
            let fourteen_days = (14 * 24 * 3600).to_string();
            let created = client.create_queue().queue_name(&dead);
            let created = created.attributes(QueueAttributeName::MessageRetentionPeriod, fourteen_days.clone());
            let url = created.send().await.map_err(OpenError::failed)?.queue_url.unwrap_or_default();
            let arn = client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::QueueArn);
            let mut arn = arn.send().await.map_err(OpenError::failed)?.attributes.unwrap_or_default();
            let arn = arn.remove(&QueueAttributeName::QueueArn).unwrap_or_default();
            let redrive = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{}}}"#, QueueName::MAX_RECEIVES);
            let created = client.create_queue().queue_name(&live);
            let created = created
                .attributes(QueueAttributeName::MessageRetentionPeriod, fourteen_days)
                .attributes(QueueAttributeName::RedrivePolicy, redrive)
                .attributes(QueueAttributeName::VisibilityTimeout, options.visibility_timeout.as_secs().to_string());
            created.send().await.map_err(OpenError::failed)?;
            names.extend([live, dead]);
        }
        Ok(names)
    }

    pub(crate) fn addresses(&self, queue: QueueName) -> &Addresses {
        &self.addresses[&queue]
    }

    /// The limits of one attempt that may also wait for messages.
    pub(crate) fn with_wait(&self, wait: Duration) -> aws_sdk_sqs::config::Builder {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(self.options.attempt_timeout + wait);
        aws_sdk_sqs::config::Builder::new().timeout_config(timeouts.build())
    }
}

/// The SDK's configuration from the environment (`AWS_REGION`, `AWS_ENDPOINT_URL`, credentials as every AWS SDK finds them),
/// with an HTTP client on ring.
pub fn config() -> ConfigLoader {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http)
}

fn client(config: &SdkConfig, options: &SqsOptions) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(options.attempt_timeout)
        .build();
    Client::from_conf(aws_sdk_sqs::config::Builder::from(config).timeout_config(timeouts).build())
}

async fn find(client: &Client, name: &str) -> Result<Option<String>, OpenError> {
    match client.get_queue_url().queue_name(name).send().await {
        Ok(found) => Ok(found.queue_url),
        Err(error) if error.as_service_error().is_some_and(GetQueueUrlError::is_queue_does_not_exist) => Ok(None),
        Err(error) => Err(OpenError::failed(error)),
    }
}

#[async_trait]
impl Health for SqsQueue {
    async fn check(&self) -> Result<(), StoreError> {
        let address = &self.addresses(QueueName::Transactions).live;
        let asked = self.client.get_queue_attributes().queue_url(address).attribute_names(QueueAttributeName::QueueArn);
        asked.send().await.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        Ok(())
    }
}
