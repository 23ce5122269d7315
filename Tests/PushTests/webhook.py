"""A webhook that behaves as its path says, and prints what it gets as JSON lines. With CERT and KEY it speaks TLS."""
import http.server, json, ssl, sys, threading, time

seen, lock, total, under_way = {}, threading.Lock(), 0, 0

class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global under_way
        with lock: under_way += 1
        try: self.behave()
        finally:
            with lock: under_way -= 1

    def behave(self):
        global total
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        with lock:
            seen[key] = attempt = seen.get(key, 0) + 1
            total += 1
            number = total
            print(json.dumps({"path": self.path, "key": key, "attempt": attempt, "at": time.time(), "at_once": under_way,
                              "signature": self.headers["X-Fanout-Signature"], "body": body.decode()}), flush=True)
        if self.path == "/flaky" and attempt < 3: return self.answer(503)
        if self.path.startswith("/down/") and number <= int(self.path[6:]): return self.answer(503)
        if self.path.startswith("/status/"): return self.answer(int(self.path[8:]))
        if self.path == "/later" and attempt < 2: return self.answer(429, {"Retry-After": "1"})
        if self.path == "/refuses": return self.answer(400)
        if self.path == "/redirects": return self.answer(302, {"Location": "/ok"})
        if self.path == "/garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
            return
        if self.path == "/large": return self.answer(200, body=b"x" * 1000000)
        if self.path == "/hangs": time.sleep(30)
        if self.path == "/slow": time.sleep(0.1)
        if self.path == "/gone":
            tokens = [device["token"] for device in json.loads(body).get("devices", [])]
            return self.answer(200, body=json.dumps({"gone": tokens, "more": [1]}).encode())
        self.answer(200)

    def answer(self, status, headers={}, body=b""):
        self.send_response(status)
        for name, value in headers.items(): self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

server = Server(("127.0.0.1", 0), Webhook)
if len(sys.argv) == 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(json.dumps({"port": server.server_port}), flush=True)

server.serve_forever()
