"""moto as a server for tests: HTTP/1.1, and one request at a time.

moto's own server handles requests in threads that share lists without a lock, which now and then fails or loses a
message. Here a lock is around every request, and a long poll is a series of short ones, so that it does not hold the lock
and ends when its client is gone. And moto counts every message of a queue for every message that it takes or gives, by a
slow clock; see make_faster. And it lacks answers for which Terraform waits; see make_complete.

With --no-lookahead, another HTTP server is used: the usual one notices when a client is gone, but now and then drops an answer
under load, whereupon Terraform repeats what was done.
"""

import io
import json
import os
import sys
import threading
import time

# Before moto is imported: policies of AWS itself that roles may be given.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse as AutoScaling
from moto.sqs import models
from moto.server import DomainDispatcherApplication, create_backend_app
from waitress import serve
from werkzeug.serving import run_simple

LOCK = threading.Lock()
PAUSE_SECONDS = 0.02


ALL_ATTRIBUTES = models.Queue.BASE_ATTRIBUTES
UNCOUNTED = [name for name in ALL_ATTRIBUTES if not name.startswith("ApproximateNumberOf")]


def make_faster():
    """Takes work away that grows with a queue, and that these tests do not need."""
    models.unix_time = lambda moment=None: time.time()
    models.unix_time_millis = lambda moment=None: time.time() * 1000
    # Messages are kept for days, tests run for minutes.
    models.SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True


def make_complete():
    """Adds the tags of scalable targets; moto answers 500 to questions about them."""
    tags = {}
    register = AutoScaling.register_scalable_target

    def register_with_tags(self):
        answer = register(self)
        tags.setdefault(json.loads(answer)["ScalableTargetARN"], {}).update(self._get_param("Tags") or {})
        return answer

    AutoScaling.register_scalable_target = register_with_tags
    AutoScaling.list_tags_for_resource = lambda self: json.dumps({"Tags": tags.get(self._get_param("ResourceARN"), {})})


def one_at_a_time(app):
    def ask(environ, body):
        answer = {}

        def start_response(status, headers, exc_info=None):
            answer.update(status=status, headers=headers)

        environ = dict(environ, CONTENT_LENGTH=str(len(body)), **{"wsgi.input": io.BytesIO(body)})
        with LOCK:
            counted = environ.get("HTTP_X_AMZ_TARGET") == "AmazonSQS.GetQueueAttributes"
            models.Queue.BASE_ATTRIBUTES = ALL_ATTRIBUTES if counted else UNCOUNTED
            parts = app(environ, start_response)
            answer["body"] = b"".join(parts)
        return answer

    def handle(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        wait = 0
        if environ.get("HTTP_X_AMZ_TARGET") == "AmazonSQS.ReceiveMessage":
            request = json.loads(body)
            wait = request.pop("WaitTimeSeconds", 0)
            body = json.dumps(dict(request, WaitTimeSeconds=0)).encode()
        end = time.monotonic() + wait
        answer = ask(environ, body)
        gone = environ.get("waitress.client_disconnected", lambda: False)
        while wait and not gone() and b'"Messages"' not in answer["body"] and answer["status"].startswith("200") and time.monotonic() < end:
            time.sleep(PAUSE_SECONDS)
            answer = ask(environ, body)
        if environ["QUERY_STRING"].startswith("lifecycle"):
            # S3 tells this with the rules of a bucket; Terraform waits for it.
            answer["headers"].append(("x-amz-transition-default-minimum-object-size", "all_storage_classes_128K"))
        start_response(answer["status"], answer["headers"])
        return [answer["body"]]

    return handle


if __name__ == "__main__":
    make_faster()
    make_complete()
    app = DomainDispatcherApplication(create_backend_app)
    port = int(sys.argv[1])
    if sys.argv[2:] == ["--no-lookahead"]:
        run_simple("127.0.0.1", port, one_at_a_time(app), threaded=True)
    else:
        serve(one_at_a_time(app), host="127.0.0.1", port=port, threads=64, channel_request_lookahead=1)
