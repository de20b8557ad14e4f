"""Stub of Gunicorn on a Unix socket: returns the request, and misbehaves on some paths."""

import json
import os
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler

next_event = threading.Event()
lock = threading.Lock()
requests = {"current": 0, "highest": 0}


class Handler(BaseHTTPRequestHandler):
    """Returns the request as JSON, except for paths with an answer_ method."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.strip("/").split("/")[0].split("?")[0]
        if answer := getattr(self, f"answer_{name}", None):
            answer()
        else:
            seen = {"path": self.path, "headers": self.headers.items(), "body": len(body)}
            self.reply(json.dumps(seen), "application/json")

    do_POST = do_PUT = do_GET

    def answer_large(self):
        self.reply("large " * 10_000)

    def answer_slow(self):
        """Answer later than any timeout of the tests."""
        threading.Event().wait(20)
        self.reply("late")

    def answer_moment(self):
        """Wait a moment, and return the highest number of concurrent requests."""
        with lock:
            requests["current"] += 1
            requests["highest"] = max(requests.values())
        threading.Event().wait(0.5 if "long" in self.path else 0.05)
        with lock:
            requests["current"] -= 1
            text, requests["highest"] = str(requests["highest"]), requests["current"]
        self.reply(text)

    def answer_failed(self):
        self.reply("an error page of the app", status=503)

    def answer_stream(self):
        """Send one event, and another after a request for /continue."""
        next_event.clear()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b"data: first\n\n")
        next_event.wait(10)
        self.wfile.write(b"data: second\n\n")

    def answer_continue(self):
        next_event.set()
        self.reply("ok")

    def answer_download(self):
        """Send X-Accel-Redirect to a file of an internal directory."""
        self.send_response(200)
        self.send_header("X-Accel-Redirect", self.path.removeprefix("/download"))
        self.send_header("Content-Type", "text/x-shop")
        self.send_header("Content-Disposition", "attachment")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_policies(self):
        """Send security headers of the app, with X-Accel-Redirect if the path names a file."""
        self.send_response(200)
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.send_header("X-Powered-By", "an old language")
        if file := self.path.removeprefix("/policies"):
            self.send_header("X-Accel-Redirect", file)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_ws(self):
        if "Upgrade" not in self.headers:
            self.reply("no upgrade", status=426)
            return
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.close_connection = True
        while data := self.rfile.readline():
            self.wfile.write(data)

    def reply(self, text, content_type="text/plain", status=200):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Request-ID", "id-of-the-app")
        self.end_headers()
        self.wfile.write(text.encode())

    def address_string(self):
        """Return a name, since clients of a Unix socket have no address."""
        return "nginx"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 2048


if __name__ == "__main__":
    server = Server(sys.argv[1], Handler)
    os.chmod(sys.argv[1], 0o666)
    server.serve_forever()
