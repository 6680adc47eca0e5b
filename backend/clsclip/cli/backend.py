"""``napari-clsclip-backend``: serve segmentations to napari on this or another machine."""

from __future__ import annotations

import _thread
import argparse
import errno
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

import clsclip
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.config import BackendSettings
from clsclip.errors import BackendStartError, ClsClipError, FileError, InvalidConfigError
from clsclip.wire import TOKEN_VARIABLE, ReadyLine

if TYPE_CHECKING:
    from clsclip.service.jobs import JobQueue

ANSWER_SECONDS: Final = 2
"""How long a backend that was told to stop gives its clients to read their answers."""

STOP_SECONDS: Final = 4.0
"""How long a backend that was told to stop may take, whatever it computes."""

KEEP_ALIVE_SECONDS: Final = 30
"""How long an idle connection stays open; longer than a client keeps it."""

_USAGE_ERROR: Final = 2

_log = logging.getLogger("clsclip.backend")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. None: those of the process.

    Returns
    -------
    int
        Exit code: 0 after a regular stop, 2 if the backend cannot start.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        settings = settings_from(args, BackendSettings)
        if settings.exit_with_parent:
            threading.Thread(target=_follow_parent, name="parent", daemon=True).start()
        given = _given_token(args.token_file)
        token = given or secrets.token_urlsafe(32)
        with _listen(settings) as listener:
            address = _url(settings.host, listener.getsockname()[1])
            if given is None:
                sys.stderr.write(f"Connect to {address} with the token {token}\n")
            _warn_of_strangers(settings)
            _serve(settings, token, listener, address)
    except ClsClipError as error:
        parser.exit(_USAGE_ERROR, f"{parser.prog}: {error}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-clsclip-backend",
        description="Serve segmentations to napari on this or another machine. Prints one line "
        "of JSON with its address once it listens.",
    )
    parser.add_argument("--version", action="version", version=clsclip.__version__)
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help=f"File with the token that clients must present. Without it: {TOKEN_VARIABLE} of "
        "the environment, else a new one, which is printed.",
    )
    add_settings(parser, BackendSettings)
    return parser


def _given_token(path: Path | None) -> str | None:
    """Token of the file, else of the environment, from which it is removed; None if neither."""
    token = os.environ.pop(TOKEN_VARIABLE, "").strip()
    if path is not None:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"The token file {path} cannot be read: {error}.") from error
        if not token:
            raise InvalidConfigError(f"The token file {path} is empty. Write a token into it.")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidConfigError(
            "The token holds characters that HTTP cannot carry. Use letters, digits, - and _."
        )
    return token or None


def _listen(settings: BackendSettings) -> socket.socket:
    """Listen on the address of the settings, before anything slow is loaded."""
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except (socket.gaierror, UnicodeError) as error:
        raise BackendStartError(
            f"'{host}' is no address of this machine ({error}). "
            "Use --host 127.0.0.1 or an address of a network card."
        ) from error
    except OSError as error:
        raise BackendStartError(_why_not(host, port, error)) from error


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another program. "
            "Choose another with --port, or --port 0 for a free one."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs administrator rights. Choose one from 1024 up with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"'{host}' is no address of this machine. Use --host 127.0.0.1 or one that is."
    return f"The backend cannot listen on port {port} of {host}: {error.strerror}."


def _url(host: str, port: int) -> str:
    """Address for a client on this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - no binding
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _warn_of_strangers(settings: BackendSettings) -> None:
    try:
        private = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        private = settings.host == "localhost"
    if not private:
        _log.warning(
            "Listening on %s: images, results and the token travel unencrypted. Prefer an SSH "
            "tunnel or a proxy with TLS. Clients may call this machine %s; add names with "
            "--allowed-hosts.",
            settings.host,
            " or ".join((settings.host, *settings.allowed_hosts)),
        )


def _serve(settings: BackendSettings, token: str, listener: socket.socket, url: str) -> None:
    """Answer requests until a signal arrives."""
    import uvicorn

    from clsclip.service.app import create_app

    class Server(uvicorn.Server):
        """Says that it listens, and ends the jobs before it waits for their requests."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            line = ReadyLine(url=url, pid=os.getpid()).model_dump_json()
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            threading.Thread(target=_end_after, args=(STOP_SECONDS,), daemon=True).start()
            jobs.close()
            await super().shutdown(sockets)

    app = create_app(settings, token)
    jobs: JobQueue = app.state.jobs
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=ANSWER_SECONDS,
    )
    server = Server(config)
    try:
        server.run(sockets=[listener])
    finally:
        jobs.close()
        if not jobs.join(timeout=STOP_SECONDS - ANSWER_SECONDS):
            # An interpreter that shuts down under a computing thread may crash.
            _end_now()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the process on a signal; uvicorn raises its signals again when it has shut down."""
    raise SystemExit(0)


def _follow_parent() -> None:
    """Stop this process when the one that started it has ended.

    Standard input then closes, unless another child of that process holds its other end; but
    then, except on Windows, this process gets a new parent.
    """
    parent = os.getppid()
    closed = threading.Event()

    def read() -> None:
        # Not through sys.stdin: its lock would break the shutdown of the interpreter.
        try:
            while os.read(0, 4096):
                pass
        finally:
            closed.set()

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while not closed.wait(0.5) and os.getppid() == parent:
        pass
    _log.info("The program that started this backend has ended")
    _thread.interrupt_main(signal.SIGTERM)
    _end_after(STOP_SECONDS)


def _end_after(seconds: float) -> None:
    time.sleep(seconds)
    _log.warning("The computation does not end in %g s; ending the process", seconds)
    _end_now()


def _end_now() -> NoReturn:
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
