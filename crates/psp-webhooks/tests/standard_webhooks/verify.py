"""Verifies requests as a receiver does: reads a list of them, and says for each what it holds, or why it is refused."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def verified(request):
    try:
        return Webhook(request["secret"]).verify(request["body"], request["headers"])["id"]
    except WebhookVerificationError as error:
        return f"refused: {error}"


json.dump([verified(request) for request in json.load(sys.stdin)], sys.stdout)
