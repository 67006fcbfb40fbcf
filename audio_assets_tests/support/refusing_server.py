"""An S3 server that answers everything alike, on loopback."""

import contextlib
import http.server
import threading
from collections.abc import Iterator


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status: int
    code: str

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # As S3 does, which repeats the token and whatever was signed.
        body = (
            f"<Error><Code>{self.code}</Code><Message>The server says {self.code}.</Message>"
            f"<Token-0>{self.headers.get('x-amz-security-token')}</Token-0>"
            f"<StringToSign>{self.headers.get('Authorization')}</StringToSign></Error>"
        ).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def server_that_answers(status: int, code: str = "") -> Iterator[str]:
    """The address of one; `code` is what S3 calls the error."""
    handler = type("Handler", (_Answer,), {"status": status, "code": code})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
