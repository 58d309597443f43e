"""Google Cloud Storage for tests: moto's S3 server, spoken to as Google's XML API has it.

That API is S3's but for two things that we use: who asks shows a token instead of a signature, and "only if
there is none" stands in another header. No emulator in the package indexes speaks it: fake-gcs-server 1.54
refuses to store (its pull request 1164 is open), gcp-storage-emulator 2026.7 neither lists nor deletes.

Runs under the server's own Python: `python google_server.py PORT BUCKET EMAIL`.
"""

import base64
import json
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import Client

SIGNED = (
    "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)

port, bucket, email = sys.argv[1:]
moto = DomainDispatcherApplication(create_backend_app)
one_at_a_time = threading.Lock()  # moto looks and then stores; with Google it is one step


def issuer(authorization):
    """Who signed a token; the signature itself is not looked at."""
    claims = authorization.removeprefix("Bearer ").split(".")[1:2]
    return json.loads(base64.urlsafe_b64decode(claims[0] + "=="))["iss"] if claims else None


def google(environ, start_response):
    if environ["PATH_INFO"] != "/moto-api/" and issuer(environ.get("HTTP_AUTHORIZATION", "")) != email:
        start_response("401 Unauthorized", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AuthenticationRequired</Code></Error>"]
    environ["HTTP_AUTHORIZATION"] = SIGNED
    if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"
    with one_at_a_time:
        return moto(environ, start_response)


Client(moto).put(f"/{bucket}", headers={"Authorization": SIGNED})
run_simple("127.0.0.1", int(port), google, threaded=True)
