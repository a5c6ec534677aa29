use anyhow::ensure;
use psp_sqs::SqsQueue;

use super::answer;
use crate::settings::Settings;

/// Creates the SQS queues on a local server.
pub(crate) async fn create(settings: &Settings) -> anyhow::Result<()> {
    let Some(options) = &settings.sqs else { return answer("nothing to create: the queue is the database") };
    let config = psp_sqs::config().load().await;
    ensure!(
        config.endpoint_url().is_some(),
        "AWS_ENDPOINT_URL is not set: this is for a local server; on AWS, Terraform creates the queues"
    );
    let names = SqsQueue::create(&config, options).await?;
    answer(names.join("\n"))
}
