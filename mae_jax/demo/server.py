"""The local server of the page. No path of a request opens a file, and browsers never send names of
the user's files. Requests of other pages are refused by their `Origin`; those of a page whose
name was made to resolve to this machine (DNS rebinding), by their `Host`.
"""

import contextlib
import functools
import importlib.util
import ipaddress
import json
import socket
import threading
import webbrowser
from collections.abc import Callable, Collection, Mapping
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mae_jax.demo.images import MAX_BYTES
from mae_jax.demo.trial import Trial
from mae_jax.types import UserError

FILES = {
    "/": ("page.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/bytes.js": ("bytes.js", "text/javascript"),
    "/backend.js": ("server.js", "text/javascript"),
}
"""Path of a request -> file in `assets`, and its type. They are read when the server starts."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
BINARY = "application/octet-stream"
"""Type of the bodies of requests. Forms of other pages cannot send it."""
WARM_UP = 60
"""Seconds to compile masks of other ratios in the background."""
WAITING = 64
"""Connections at once, at most."""


class Refused(Exception):
    """A request that is not answered: the status, and the reason."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def make_app(trial: Trial, host: str = "127.0.0.1"):
    """The application, for any ASGI server. It computes one answer at a time.

    Args:
        trial: the model to try.
        host: name or address that it is bound to.
    """
    from anyio import CapacityLimiter, to_thread
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    folder = resources.files("mae_jax.demo") / "assets"
    pages = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
    info = json.dumps(trial.info()).encode()
    names, turns = own_names(host), CapacityLimiter(1)

    async def answer(request):
        try:
            check_sender(request.headers, names)
            if request.method == "GET":
                content, kind = pages.get(request.url.path, (info, "application/json"))
                return Response(content, media_type=kind, headers=HEADERS)
            function, limit = functions(trial)[request.url.path]
            body = await read(request, limit)
            content = await to_thread.run_sync(
                function, body, dict(request.query_params), limiter=turns
            )
            status = 200
        except Refused as error:
            status, content = error.status, {"error": str(error)}
        except UserError as error:
            status, content = 422, {"error": " ".join(str(error).split())}
        return Response(json.dumps(content), status, HEADERS, "application/json")

    routes = [Route(path, answer, methods=["GET"]) for path in (*pages, "/info")]
    routes += [Route(path, answer, methods=["POST"]) for path in functions(trial)]
    return Starlette(routes=routes)


Function = Callable[[bytes, Mapping[str, str]], Any]
"""(body, query) -> an answer for JSON."""


def functions(trial: Trial) -> dict[str, tuple[Function, int]]:
    """Path of a request -> its function, and the number of bytes that its body has at most."""
    pixels = int(np.prod(trial.shape))
    found: dict[str, tuple[Function, int]] = {"/open": (lambda b, _: trial.open(b), MAX_BYTES)}
    if trial.reconstruction is not None:
        found["/reconstruct"] = lambda b, query: reconstruct(trial, b, query), pixels
    if trial.prediction is not None:
        found["/predict"] = lambda b, _: trial.prediction(trial.image(b)), pixels
    if trial.neighbors is not None:
        found["/nearest"] = lambda b, _: trial.neighbors(trial.image(b)), pixels
    return found


def reconstruct(trial: Trial, body: bytes, query: Mapping[str, str]) -> dict[str, Any]:
    """The answer to a request of a reconstruction.

    Args:
        body: pixels.
        query: 'hidden', a digit 0 or 1 for each patch, or 'strategy', 'ratio' and 'seed'.

    Raises:
        UserError: other values.
    """
    image, made = trial.image(body), trial.reconstruction
    if not made.strategies:
        return made.draw(image, np.zeros(0, bool))
    if "hidden" in query:
        digits = query["hidden"]
        if {*digits} - {"0", "1"}:
            raise UserError("hidden: write a digit 0 or 1 for each patch")
        return made.draw(image, np.array([digit == "1" for digit in digits], bool))
    try:
        ratio, seed = float(query["ratio"]), int(query["seed"])
    except (KeyError, ValueError):
        raise UserError("ratio should be a number in [0, 1), and seed a whole number") from None
    return made.draw(image, made.sample(image, query.get("strategy", ""), ratio, seed))


async def read(request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        Refused: it has more than `limit` bytes, or another type.
    """
    if request.headers.get("content-type") != BINARY:
        raise Refused(415, f"the body must be of the type {BINARY}")
    too_large = Refused(413, f"the file has more than {limit / 2**20:.3g} MB: choose a smaller one")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def check_sender(headers: Mapping[str, str], names: Collection[str]) -> None:
    """Raises Refused unless a request is of our page, or typed into the address bar.

    Args:
        headers: of the request.
        names: of this machine, besides its addresses.
    """
    host, name = headers.get("host", ""), ""
    with contextlib.suppress(ValueError):  # no address at all
        name = urlsplit(f"//{host}").hostname or ""
    if name not in names and not is_address(name):
        raise Refused(421, f"host {host!r} is none of this server: open its own address")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise Refused(403, f"requests of {origin!r} are refused")
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise Refused(403, "requests of other pages are refused")


def own_names(host: str) -> set[str]:
    """Names of this machine that a browser may ask for: a foreign page cannot have them."""
    return {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


def is_address(name: str) -> bool:
    """Whether a name is an IP address, which needs no DNS."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host to bind to can only be reached from this machine."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to a host and port; port 0: a free one.

    Raises:
        UserError: it cannot be bound.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port} is outside [0, 65535]")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: {error.strerror}: choose another, or --port 0"
        ) from None
    return made


def serve(trial: Trial, bound: socket.socket, host: str, *, browser: bool) -> None:
    """Serves the page until Ctrl-C, and prints its address.

    Args:
        bound: a socket, see `listen`.
        host: that it is bound to.
        browser: open the page in the user's browser.
    """
    import uvicorn

    app = make_app(trial, host)
    config = uvicorn.Config(
        app, log_level="warning", limit_concurrency=WAITING, server_header=False, ws="none"
    )
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{shown}]" if ":" in shown else shown
    address = f"http://{shown}:{bound.getsockname()[1]}/"
    bound.listen()  # from now on connections wait for the server
    if trial.reconstruction is not None:  # while the user looks at the first image
        image = np.zeros(trial.shape, np.uint8)
        warm_up = functools.partial(trial.reconstruction.warm_up, image, WARM_UP)
        threading.Thread(target=warm_up, daemon=True).start()
    print(f"{address} (Ctrl-C ends it)", flush=True)
    if browser:
        webbrowser.open(address)
    uvicorn.Server(config).run(sockets=[bound])


def check_installed() -> None:
    """Raises UserError unless the packages of the server are installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"demo needs {' and '.join(missing)}: pip install {' '.join(missing)}")
