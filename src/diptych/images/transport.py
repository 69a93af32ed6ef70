"""Files over https, in bounded time and bounded memory."""

import http.client
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from diptych.images.integrity import DataError

_CHUNK_BYTES = 1 << 16
_LOOK_UP_SECONDS = 1.0
_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})

# All that https needs; without the handlers of file:, ftp: and data:, to which a server could
# redirect.
_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
)

T = TypeVar("T")


class TransportError(DataError):
    """A file cannot be had from here."""


class NotFoundError(TransportError):
    """The server answers and does not have the file."""


class _TransientError(TransportError):
    """It may work the next time."""


@dataclass(frozen=True, slots=True)
class Transport:
    """An https client.

    Attributes:
        timeout_seconds: Longest wait for a connection and an answer, and for each next byte.
        min_bytes_per_second: A transfer that is slower on the whole is given up.
        num_attempts: Tries per file, for what may pass: a broken connection, a busy server. What
            will not pass, such as an unknown host or a missing file, is tried once.
        backoff_seconds: Wait after the first failed try; it doubles with each.
        plain_http_origin: The one `http://host:port` that needs no TLS; for tests on loopback.
    """

    timeout_seconds: float = 4.0
    min_bytes_per_second: float = 20_000.0
    num_attempts: int = 3
    backoff_seconds: float = 1.0
    plain_http_origin: str | None = None

    def get(self, url: str, max_bytes: int) -> bytes:
        """Return the body at `url`, whole.

        Raises:
            NotFoundError: when the server says 404.
            TransportError: when it cannot be had, is larger than `max_bytes`, comes too slowly, or
                would come unencrypted.
        """
        for attempt in range(1, self.num_attempts + 1):
            try:
                return self._get_once(url, max_bytes)
            except _TransientError as error:
                if attempt == self.num_attempts:
                    raise TransportError(f"{error}, {attempt} times") from None
            time.sleep(self.backoff_seconds * 2 ** (attempt - 1))
        raise AssertionError("num_attempts must be >= 1")

    def _get_once(self, url: str, max_bytes: int) -> bytes:
        try:
            response = _within(self.timeout_seconds + _LOOK_UP_SECONDS, lambda: self._open(url))
            with response:
                return self._read(response, max_bytes)
        except urllib.error.HTTPError as error:
            error.close()
            raise _from_status(error) from None
        except urllib.error.URLError as error:
            raise _from_reason(error.reason) from None
        except TransportError:
            raise
        except (ValueError, http.client.InvalidURL):
            raise TransportError("no valid address") from None
        except TimeoutError:
            raise _TransientError(f"no answer within {self.timeout_seconds:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(f"the connection broke ({type(error).__name__})") from None

    def _open(self, url: str) -> http.client.HTTPResponse:
        opener = urllib.request.OpenerDirector()
        opener.addheaders = [("User-Agent", "diptych")]
        for handler in (_EncryptionRequired(self.plain_http_origin), *(new() for new in _HANDLERS)):
            opener.add_handler(handler)
        response: http.client.HTTPResponse = opener.open(url, timeout=self.timeout_seconds)
        return response

    def _read(self, response: http.client.HTTPResponse, max_bytes: int) -> bytes:
        num_expected = response.length
        if num_expected is not None and num_expected > max_bytes:
            raise TransportError(f"must have at most {max_bytes} bytes (got {num_expected})")
        longest_seconds = (num_expected or max_bytes) / self.min_bytes_per_second
        deadline = time.monotonic() + self.timeout_seconds + longest_seconds
        body = bytearray()
        from tqdm import tqdm  # a measuring machine may have none

        with tqdm(
            total=num_expected, unit="B", unit_scale=True, leave=False, disable=None
        ) as progress:
            while chunk := response.read1(_CHUNK_BYTES):
                body += chunk
                progress.update(len(chunk))
                if len(body) > max_bytes:
                    raise TransportError(f"must have at most {max_bytes} bytes (got more)")
                if time.monotonic() > deadline:
                    raise TransportError(f"slower than {self.min_bytes_per_second:g} bytes/s")
        if num_expected is not None and len(body) < num_expected:
            raise _TransientError(f"cut off after {len(body)} of {num_expected} bytes")
        return bytes(body)


class _EncryptionRequired(urllib.request.BaseHandler):
    """Stops every plain http request, the ones after a redirect too."""

    def __init__(self, plain_http_origin: str | None) -> None:
        self._plain_http_origin = plain_http_origin

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        origin = f"http://{request.host}"
        if origin != self._plain_http_origin:
            raise TransportError(f"must stay on https (got {origin})")
        return request


def _from_status(error: urllib.error.HTTPError) -> TransportError:
    message = f"the server answers {error.code} {error.reason}"
    if error.code == http.HTTPStatus.NOT_FOUND:
        return NotFoundError(message)
    return _TransientError(message) if error.code in _TRANSIENT_STATUS else TransportError(message)


def _from_reason(reason: str | BaseException) -> TransportError:
    """Return the error for a connection that was not made, which urllib wraps whatever it was."""
    message = f"no connection ({getattr(reason, 'strerror', None) or reason})"
    may_pass = isinstance(reason, (TimeoutError, ConnectionError, ssl.SSLEOFError))
    if may_pass and not isinstance(reason, ConnectionRefusedError):
        return _TransientError(message)
    return TransportError(message)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise a final error when it takes longer.

    A socket's timeout does not cover the look-up of its host's name, which may take a minute on a
    machine that is cut off. The thread that is left behind ends by itself, or with the process.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TransportError(f"no connection (no answer within {seconds:g} s)")
    return results[0]
