"""The nginx configuration under `deploy/`, with a real nginx before a stand-in that says what it was sent."""

from __future__ import annotations

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.rig import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed"
)


class Behind(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an nginx with the configuration, but for ports and addresses."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    behind = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    text = CONFIGURATION.read_text()
    for given, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("127.0.0.1:8080", f"127.0.0.1:{behind.server_port}"),
        ("client_header_timeout 5s", "client_header_timeout 200ms"),
        ("allow 127.0.0.1;", ""),
        ("worker_processes auto;", "worker_processes 1; daemon off; master_process off;"),
    ):
        assert given in text
        text = text.replace(given, here)
    (folder / "nginx.conf").write_text(text)
    certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    certificate += [
        "-subj",
        "/CN=recommendations.example",
        "-days",
        "1",
        "-keyout",
        "key.pem",
        "-out",
        "certificate.pem",
    ]
    subprocess.run(certificate, cwd=folder, check=True, capture_output=True)
    command = ["nginx", "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0 and "[warn]" not in checked.stderr, checked.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.02)
    yield port
    process.terminate()
    process.wait()
    behind.shutdown()
    behind.server_close()


def ask(port: int, head: bytes, *, first: bool = False) -> bytes:
    """What is answered to bytes sent over TLS, or what of it comes first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), 10)
    found = b""
    with context.wrap_socket(plain) as connection:
        try:
            connection.sendall(head)
            while piece := connection.recv(65536):
                found += piece
                if first:
                    break
        except (ConnectionError, ssl.SSLError):
            pass
    return found


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: recommendations.example", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def test_requests_pass_with_the_address_of_their_client_and_no_invented_one(proxy: int) -> None:
    answer = ask(proxy, get("/v1/features/u", "X-Forwarded-For: 1.2.3.4", "Authorization: Bearer k"))
    assert answer.startswith(b"HTTP/1.1 200") and b"X-Forwarded-For: 127.0.0.1" in answer and b"1.2.3.4" not in answer
    assert b"Authorization: Bearer k" in answer and b"nginx/" not in answer


def test_a_large_head_is_refused(proxy: int) -> None:
    assert ask(proxy, get("/", "X: " + "a" * 20_000)).startswith(b"HTTP/1.1 400")
    assert ask(proxy, get("/", *(f"X-{number}: " + "a" * 500 for number in range(100)))).startswith(b"HTTP/1.1 400")


def test_an_unfinished_head_and_a_large_body_end(proxy: int) -> None:
    start = time.monotonic()
    assert b"200" not in ask(proxy, b"GET / HTTP/1.1\r\nHost: a\r\nX: ")[:20] and time.monotonic() - start < 8
    post = b"POST /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2000000\r\n\r\n"
    assert ask(proxy, post, first=True).startswith(b"HTTP/1.1 413")


def test_metrics_and_administration_stay_inside(proxy: int) -> None:
    assert ask(proxy, get("/metrics")).startswith(b"HTTP/1.1 404")
    assert ask(proxy, get("/v1/admin/releases")).startswith(b"HTTP/1.1 403")
    assert ask(proxy, get("/healthz")).startswith(b"HTTP/1.1 200")
