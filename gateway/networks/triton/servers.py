"""The Triton servers behind ``GATEWAY_TRITON_URL``: each takes its turn while it serves the model that is asked for.

gRPC's own ``round_robin`` is one channel over several connections. It does not tell which server answered, and an
answer of Triton does not carry a fingerprint. Its health checks need ``grpc.health.v1.Health/Watch``, which Triton
answers with UNIMPLEMENTED. So each server has a channel of its own here, what it serves is known for each connection,
and whether it is healthy is asked of the model itself.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from gateway.errors import EngineUnavailableError, GatewayError, ModelMismatchError
from gateway.monitoring import metrics
from gateway.networks.model_description import ModelDescription
from gateway.networks.triton.addresses import DNS, resolve
from gateway.networks.triton.server import Server
from gateway.networks.triton.server_model import RETRY_AFTER_S, ServedModel, changed
from gateway.settings import Settings

log = logging.getLogger(__name__)

_RESOLVE_S = 5.0
_RESOLVE_DOWN_S = 1.0
_STATES = ("used", "other_model", "unreachable")


class Servers:
    """Finds the servers, and hands out turns. Used on the event loop only."""

    def __init__(self, settings: Settings, name: str, *, must_be_own: bool) -> None:
        """Connect to nothing yet.

        Args:
            settings: where the servers are.
            name: of the model there.
            must_be_own: refuse a model that is not in this gateway's repository, where that holds any.
        """
        self._settings = settings
        self._name = name
        self._must_be_own = must_be_own
        self._names = [target for target in settings.triton_targets if target.startswith(DNS)]
        self._model: ModelDescription | None = None
        """The model that was used last."""
        self._unresolved = ""
        self._started = False
        self._resolving: asyncio.Task[None] | None = None
        self._leaving: dict[asyncio.Task[None], Server] = {}
        self._others: dict[str, str] = {}
        """Fingerprint by address, of servers that serve another model than the one in use."""
        self.all: list[Server] = []
        """In the order of the setting."""
        self._turns: deque[Server] = deque()
        for target in settings.triton_targets:
            if target not in self._names:
                self._use(self._server(target, None))

    async def start(self) -> None:
        """Open the channels and ask once; then keep watching, whether or not a server answered.

        Raises:
            ImportError: the triton extra is not installed.
            OSError: the file of certificates cannot be read.
            ValueError: the file of certificates is missing, or an address is malformed.
        """
        for server in self.all:
            server.connect()
        await self._resolve()
        await self._ask(self.all, lambda: False)
        self._started = True
        for server in self.all:
            server.state.watch()
        if self._names:
            self._resolving = asyncio.create_task(self._keep_resolving(), name="triton addresses")

    async def close(self) -> None:
        """Close all connections."""
        leaving = list(self._leaving.values())
        tasks = [*self._leaving, *([] if self._resolving is None else [self._resolving])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in (*self.all, *leaving)))

    @property
    def known(self) -> ServedModel | None:
        """What a server serves now; while all are away, what one served last.

        Where servers disagree, it is the model that was in use before, as long as one server has it.
        """
        now = [served for server in self.all if (served := server.state.served) is not None]
        if not now:
            return next((last for server in self.all if (last := server.state.last) is not None), None)
        found = next((each for each in now if self._model and each.model.same_model_as(self._model)), now[0])
        self._model = found.model
        return found

    @property
    def is_ready(self) -> bool:
        """Whether a server serves the model."""
        return any(server.state.served is not None for server in self.all)

    @property
    def reason(self) -> str | None:
        """Why no server serves the model; None if one does."""
        if self.is_ready:
            return None
        return "; ".join(filter(None, (*(server.state.reason for server in self.all), self._unresolved)))

    @property
    def model(self) -> ModelDescription:
        """The model in use: it stays the same as long as a server has it.

        Raises:
            EngineUnavailableError: no server has answered yet.
            ModelMismatchError: the servers' models are not in this gateway's repository.
        """
        if not self.is_ready and (mismatch := self._mismatch) is not None:
            raise mismatch
        known = self.known
        if known is None:
            raise self.unavailable()
        return known.model

    def turns(self, model: ModelDescription, batch: int) -> Iterator[tuple[Server, ServedModel]]:
        """Give each server that serves `model` now once, first the one whose last turn is longest ago.

        Args:
            model: the model to ask.
            batch: number of images.
        """
        tried: set[Server] = set()
        while (turn := self._next(model, batch, tried)) is not None:
            server = turn[0]
            tried.add(server)
            self._turns.remove(server)
            self._turns.append(server)
            yield turn

    def _next(self, model: ModelDescription, batch: int, tried: set[Server]) -> tuple[Server, ServedModel] | None:
        for server in self._turns:
            served = server.state.current
            if (
                server not in tried
                and served is not None
                and served.model.same_model_as(model)
                and served.max_batch >= batch
            ):
                return server, served
        return None

    async def find(self, model: ModelDescription) -> int:
        """Wait until a server is known to serve `model`. Asks the others again.

        Returns:
            Number of images that each of its servers takes in one batch.

        Raises:
            EngineUnavailableError: no server answers.
            ModelMismatchError: the servers serve other models.
        """
        if not self._batches(model):
            unknown = [server for server in self.all if server.state.current is None]
            await self._ask(unknown, lambda: bool(self._batches(model)))
        if batches := self._batches(model):
            return min(batches)
        for server in self.all:
            if (other := server.state.current) is not None:
                raise changed(model, other.model)
        raise self._mismatch or self.unavailable()

    def number_of(self, model: ModelDescription) -> int:
        """Return how many servers are known to serve `model`."""
        return len(self._batches(model))

    async def ask(self) -> None:
        """Ask all servers, until one has answered that it serves the model."""
        answered: list[ServedModel] = []
        await self._ask(self.all, lambda: bool(answered), answered)

    def _batches(self, model: ModelDescription) -> list[int]:
        known = (server.state.current for server in self.all)
        return [served.max_batch for served in known if served is not None and served.model.same_model_as(model)]

    async def _ask(
        self, servers: list[Server], enough: Callable[[], bool], answered: list[ServedModel] | None = None
    ) -> None:
        async def ask(server: Server) -> None:
            with suppress(GatewayError):
                served = await server.state.ask()
                if answered is not None:
                    answered.append(served)

        pending = {asyncio.create_task(ask(server), name="triton ask") for server in servers}
        try:
            while pending and not enough():
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pending:  # the question itself goes on
                task.cancel()

    @property
    def _mismatch(self) -> ModelMismatchError | None:
        """That of the first server, if every server has another model than this gateway's."""
        found = [server.state.mismatch for server in self.all]
        return found[0] if found and None not in found else None

    def unavailable(self) -> EngineUnavailableError:
        """Return the error for a request that cannot be served now."""
        return EngineUnavailableError(f"the engine is not ready: {self.reason}", retry_after_s=RETRY_AFTER_S)

    def _server(self, address: str, authority: str | None) -> Server:
        return Server(
            self._settings, address, authority, self._name, must_be_own=self._must_be_own, on_change=self._tell
        )

    def _use(self, server: Server) -> None:
        self.all.append(server)
        self._turns.append(server)

    def _tell(self) -> None:
        """Log the servers that disagree, and set the metric of the token model."""
        known = self.known
        states = dict.fromkeys(_STATES, 0)
        others: dict[str, str] = {}
        for server in self.all:
            served = server.state.served
            if served is None:
                states["unreachable" if server.state.mismatch is None else "other_model"] += 1
            elif known is not None and not served.model.same_model_as(known.model):
                states["other_model"] += 1
                others[server.address] = served.model.fingerprint
            else:
                states["used"] += 1
        if known is not None and others != self._others:
            for address, fingerprint in others.items():
                log.warning(
                    "Triton at %s serves model %s, not %s of the other servers: requests for that model go to them",
                    address,
                    fingerprint[:16],
                    known.model.fingerprint[:16],
                )
        self._others = others
        if self._must_be_own:
            for state, count in states.items():
                metrics.TRITON_SERVERS.labels(state).set(count)

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(_RESOLVE_S if self.is_ready else _RESOLVE_DOWN_S)
            try:
                await self._resolve()
            except (OSError, ValueError) as error:
                log.error("GATEWAY_TRITON_URL: no connection to a new address: %s", error)

    async def _resolve(self) -> None:
        """Ask for the addresses of all names; use the new ones, and leave those that are gone.

        Raises:
            OSError, ValueError: see `start`.
        """
        found: dict[str, str] = {}
        for name in self._names:
            try:
                found.update(await resolve(name))
            except OSError as error:  # the addresses of before may still answer
                if not self._unresolved:
                    log.error("GATEWAY_TRITON_URL: %s: %s", name, error)
                self._unresolved = f"{name}: {error}"
                return
        self._unresolved = ""
        if not self._names:
            return
        for server in [each for each in self.all if each.authority is not None and each.address not in found]:
            log.info("Triton at %s: the address is gone", server.address)
            self.all.remove(server)
            self._turns.remove(server)
            task = asyncio.create_task(self._leave(server), name="leave triton")
            self._leaving[task] = server
            task.add_done_callback(lambda done: self._leaving.pop(done, None))
        known = {server.address for server in self.all}
        for address, authority in found.items():
            if address not in known:
                server = self._server(address, authority)
                server.connect()
                self._use(server)
                if self._started:
                    server.state.watch()
        self._tell()

    async def _leave(self, server: Server) -> None:
        """Close the connection after every request that may use it has reached its deadline."""
        await asyncio.sleep(max(self._settings.triton_timeout_s, self._settings.triton_fit_timeout_s))
        await server.close()
