"""A push service and the browsers behind it: takes Web Push messages, decrypts them with libraries that nobody here
wrote, and prints what they say as JSON lines. The path says how it answers: /STATUS/NAME."""
import base64, http.server, json, os, threading
import http_ece
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02

key = ec.generate_private_key(ec.SECP256R1())
secret = os.urandom(16)
lock = threading.Lock()

def b64(data): return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

def claims(authorization):
    token = authorization.split("t=", 1)[1].split(",")[0]
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))

class PushService(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        authorization = self.headers["Authorization"]
        said = {"path": self.path, "bytes": len(body), "ttl": self.headers["TTL"], "urgency": self.headers["Urgency"],
                "topic": self.headers["Topic"], "encoding": self.headers["Content-Encoding"]}
        try:
            # py_vapid wants no blank behind the comma, which RFC 9110 allows.
            said["signed"] = bool(Vapid02.verify(authorization.replace(", k=", ",k=")))
            said["claims"] = claims(authorization)
            said["text"] = http_ece.decrypt(body, private_key=key, auth_secret=secret, version="aes128gcm").decode()
        except Exception as error:
            said["error"] = repr(error)
        with lock: print(json.dumps(said), flush=True)
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_): pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

server = Server(("127.0.0.1", 0), PushService)
point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
print(json.dumps({"port": server.server_port, "p256dh": b64(point), "auth": b64(secret)}), flush=True)
server.serve_forever()
