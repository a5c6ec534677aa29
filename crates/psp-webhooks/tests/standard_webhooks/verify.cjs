// Verifies requests as a receiver does: reads a list of them, and says for each what it holds, or why it is refused.

const { readFileSync } = require("node:fs");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

function verified({ secret, headers, body }) {
  try {
    return new Webhook(secret).verify(body, headers).id;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return `refused: ${error.message}`;
    throw error;
  }
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(verified)));
