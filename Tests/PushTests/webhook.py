"""A webhook that behaves as its path says, and prints what it gets as JSON lines."""
import http.server, json, threading, time

seen, lock = {}, threading.Lock()

class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        with lock:
            seen[key] = attempt = seen.get(key, 0) + 1
            print(json.dumps({"path": self.path, "key": key, "attempt": attempt, "at": time.time(),
                              "signature": self.headers["X-Fanout-Signature"], "body": body.decode()}), flush=True)
        if self.path == "/flaky" and attempt < 3: return self.answer(503)
        if self.path == "/later" and attempt < 2: return self.answer(429, {"Retry-After": "1"})
        if self.path == "/refuses": return self.answer(400)
        if self.path == "/redirects": return self.answer(302, {"Location": "/ok"})
        if self.path == "/garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
            return
        if self.path == "/hangs": time.sleep(30)
        self.answer(200)

    def answer(self, status, headers={}):
        self.send_response(status)
        for name, value in headers.items(): self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_): pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

server = Server(("127.0.0.1", 0), Webhook)
print(json.dumps({"port": server.server_port}), flush=True)

server.serve_forever()
