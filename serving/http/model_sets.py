"""Select which of several loaded model sets answers a request."""

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.engine.model_sets import Lease, ModelSets


class ModelSelector:
    """Binds each request to one model set: that of its path or its ``model``, else the live one."""

    def __init__(self, app: ASGIApp, model_sets: ModelSets) -> None:
        self.app = app
        self.model_sets = model_sets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 404."""
        lease = Lease(self.model_sets, scope["state"]["requested_models"])
        scope["state"]["choose_model"] = lease.choose
        try:
            await self.app(scope, receive, send)
        finally:
            lease.release()
