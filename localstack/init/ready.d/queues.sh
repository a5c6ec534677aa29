#!/usr/bin/env bash
# Creates the queues of psp, as Terraform does on AWS. LocalStack runs this at each start, when it is ready; it holds no
# queue across a restart. A queue that exists stays as it is.
set -euo pipefail

days14=$((14 * 24 * 3600)) # the longest that SQS keeps a message

for queue in psp-transactions psp-payables-settlement psp-gateway-callbacks psp-refunds psp-orders; do
    url=$(awslocal sqs create-queue --queue-name "$queue-dlq" --attributes "MessageRetentionPeriod=$days14" \
        --query QueueUrl --output text)
    arn=$(awslocal sqs get-queue-attributes --queue-url "$url" --attribute-names QueueArn \
        --query Attributes.QueueArn --output text)
    redrive="{\\\"deadLetterTargetArn\\\":\\\"$arn\\\",\\\"maxReceiveCount\\\":5}"
    awslocal sqs create-queue --queue-name "$queue" \
        --attributes "{\"MessageRetentionPeriod\":\"$days14\",\"RedrivePolicy\":\"$redrive\"}"
done
