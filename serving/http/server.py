"""The uvicorn server, with graceful shutdown."""

import logging
import socket
import time
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from serving.engine.engine import Engine

logger = logging.getLogger(__name__)

# Seconds without a request after which a draining server may end. A request that has been sent but
# not yet read would otherwise find its connection reset.
QUIET = 1.0
# Seconds to send responses after the queue is empty.
LAST_ANSWERS = 5
# Longer than load balancers keep idle connections (60 s), so that they close them, not we.
KEEP_ALIVE = 75
# Most connections that wait to be accepted; uvicorn's default.
BACKLOG = 2048


class Server(uvicorn.Server):
    """Drains on SIGTERM: refuses new work, finishes the queue within the grace period, exits.

    A second signal exits immediately.

    The port stays open meanwhile, so that ``/health`` can report it. It also ends if the models
    cannot be loaded, or if the model thread ends and ``exit_when_unhealthy`` is set.
    """

    def __init__(self, app: ASGIApp, engine: Engine, exit_when_unhealthy: bool = False) -> None:
        config = uvicorn.Config(
            app,
            http="h11",  # it limits headers
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=LAST_ANSWERS,
        )
        super().__init__(config)
        self.engine = engine
        self.exit_when_unhealthy = exit_when_unhealthy
        self._deadline: float | None = None
        self._quiet_since: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT."""
        if self._deadline is not None:
            self.force_exit = self.should_exit = True
            return
        self._deadline = time.monotonic() + self.engine.limits.grace

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        state, reason = self.engine.health()
        if self._deadline is not None:
            if state in ("ready", "loading"):
                logger.info("shutting down: finishing %d queued texts", self.engine.waiting)
                self.engine.drain()
            if self._is_quiet():
                self.should_exit = True
            elif time.monotonic() > self._deadline:
                logger.warning("the grace period is over: rejecting the queued requests")
                self.engine.stop()
                self.should_exit = True
        elif self.engine.start_error is not None:
            self.should_exit = True
        elif state == "unhealthy" and self.exit_when_unhealthy:
            logger.critical("shutting down: %s", reason)
            self.should_exit = True
        return await super().on_tick(counter)

    def _is_quiet(self) -> bool:
        """Whether no request has been queued or in progress for a while."""
        now = time.monotonic()
        if not self.engine.idle or self.server_state.tasks:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        return self._quiet_since is not None and now - self._quiet_since >= QUIET


def listen(host: str, port: int) -> socket.socket:
    """Open the port before any model is loaded; clients that connect meanwhile wait.

    Raises:
        ValueError: It is in use, or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With TCP named, asyncio turns off Nagle's algorithm, which costs 40 ms per response.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        opened.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"port: {host}:{port} cannot be used ({reason}); give another --port or --host"
        ) from None
    return opened
