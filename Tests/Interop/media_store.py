"""An S3 store that nobody here wrote, for media: media_store.py BUCKET ACCESS_KEY SECRET_KEY.

moto keeps the objects but believes every signature. In front of it each request's signature is made again with Amazon's own
client library, from what has arrived: whoever sends anything else than was signed is refused, as S3 does it. Prints its port.
"""

import datetime
import sys
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import moto.server
import werkzeug.serving
import werkzeug.test

bucket, access_key, secret_key = sys.argv[1:4]
region = "us-east-1"
store = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)


def fault(environ):
    """The code of what is wrong with a request, if anything is."""
    query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    signature = query.pop("X-Amz-Signature", None)
    if signature is None or not query["X-Amz-Credential"].startswith(access_key + "/"):
        return "AccessDenied"
    made = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    age = datetime.datetime.now(datetime.timezone.utc) - made
    if not -60 < age.total_seconds() < int(query["X-Amz-Expires"]):
        return "AccessDenied"
    headers = {}
    for name in query["X-Amz-SignedHeaders"].split(";"):
        key = name.upper().replace("-", "_")
        headers[name] = environ.get(key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + key, "")
    request = botocore.awsrequest.AWSRequest(
        environ["REQUEST_METHOD"], f"http://{environ['HTTP_HOST']}{environ['REQUEST_URI'].split('?')[0]}", headers,
        params=query)
    request.context["timestamp"] = query["X-Amz-Date"]
    signer = botocore.auth.S3SigV4QueryAuth(botocore.credentials.Credentials(access_key, secret_key), "s3", region)
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return None if expected == signature else "SignatureDoesNotMatch"


def application(environ, start_response):
    code = fault(environ)
    if code is None:
        return store(environ, start_response)
    start_response("403 Forbidden", [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code></Error>".encode()]


made = werkzeug.test.Client(store).put(f"/{bucket}")
assert made.status_code == 200, made.text
server = werkzeug.serving.make_server("127.0.0.1", 0, application, threaded=True)
print(server.port, flush=True)
server.serve_forever()
