"""A server on loopback that counts every request that it has read, and misbehaves as it is told."""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLASSES = 3


def brightness(rows):
    """Scores that a test can compute: sums over the first pixels of a row."""
    return [[float(row[0]), float(row[1]), float(sum(row[2:]))] for row in rows]


class RecordingServer:
    """``faults`` are taken one a request, in order: a function of the handler, or ``None`` for a good answer."""

    def __init__(self, answer=None, port=0):
        self.requests, self.rows, self.bodies, self.headers, self.times = 0, 0, [], [], []
        self.most, self._now, self.connections = 0, 0, 0
        self.faults, self.always, self.latency = [], None, 0.0
        self.answer = answer or (lambda body: {"predictions": brightness(body["instances"])})
        self.lock = threading.Lock()
        self._open = set()
        handler = type("Handler", (_Handler,), {"books": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/predict"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._open):
            _shut(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    books: RecordingServer

    def setup(self):
        super().setup()
        self.books._open.add(self.connection)
        self.books.connections += 1

    def finish(self):
        self.books._open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self):
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def do_POST(self):
        books = self.books
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with books.lock:
            books.requests += 1
            books.rows += len(body.get("instances", [0]))
            books.bodies.append(body)
            books.headers.append(dict(self.headers))
            books.times.append(time.monotonic())
            books._now += 1
            books.most = max(books.most, books._now)
            fault = books.faults.pop(0) if books.faults else books.always
        try:
            time.sleep(books.latency)
            if fault is None or fault(self, body) is None:
                self.say(200, json.dumps(books.answer(body)))
        finally:
            with books.lock:
                books._now -= 1

    def say(self, status, text="", **headers):
        content = text.encode() if isinstance(text, str) else text
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return True

    def log_message(self, *_):
        pass


def status(code, text="", **headers):
    return lambda handler, body: handler.say(code, text, **headers)


def drop(handler, body):
    """Close the connection after the request was read, without an answer."""
    handler.close_connection = True
    _shut(handler.connection)
    return True


def slow(seconds):
    def fault(handler, body):
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return fault


def poison(value, code=422):
    """Refuse a request that holds a row whose first pixel is this one."""

    def fault(handler, body):
        if any(abs(row[0] - value) < 1e-6 for row in body["instances"]):
            return handler.say(code, '{"error": "bad row"}')
        return None

    return fault


def at_most(rows):
    """Refuse a request that holds more rows than these, as Triton does."""
    return lambda handler, body: handler.say(400, "too many") if len(body["instances"]) > rows else None


def _shut(connection):
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
