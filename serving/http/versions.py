"""Which of several loaded versions answers a request."""

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.engine.versions import Hold, Versions


class VersionOfRequest:
    """Keeps each request to one version: that of its path or its ``model``, else the live one."""

    def __init__(self, app: ASGIApp, versions: Versions) -> None:
        self.app = app
        self.versions = versions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 404."""
        hold = Hold(self.versions, scope["state"]["asked_version"])
        scope["state"]["choose_model"] = hold.choose
        try:
            await self.app(scope, receive, send)
        finally:
            hold.release()
