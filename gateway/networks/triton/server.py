"""One Triton server: its channel, what it serves, and how to call it."""

from collections.abc import Callable

from gateway.networks.triton.call import TritonCall
from gateway.networks.triton.channel import connect
from gateway.networks.triton.server_model import ServerModel
from gateway.networks.triton.tensor_memory import TensorMemory
from gateway.settings import Settings


class Server:
    """One server: what it serves, and how to call it."""

    def __init__(
        self,
        settings: Settings,
        address: str,
        authority: str | None,
        name: str,
        *,
        must_be_own: bool,
        on_change: Callable[[], None],
    ) -> None:
        """Connect to nothing yet.

        Args:
            settings: deadlines, encryption, shared memory.
            address: ``HOST:PORT`` or ``unix:/PATH``.
            authority: the name that was resolved to this address; None for an address of the settings.
            name: of the model on the server.
            must_be_own: refuse a model that is not in this gateway's repository, where that holds any.
            on_change: called when it is known that the server is away, is back, or serves another model.
        """
        self.address = address
        self.authority = authority
        self.state = ServerModel(
            settings,
            address,
            name,
            must_be_own=must_be_own,
            on_another=lambda: self._memory.retire(),
            on_change=on_change,
        )
        self._settings = settings
        self._memory = TensorMemory(settings, self.state)
        self.call = TritonCall(settings, name, self.state, self._memory)

    def connect(self) -> None:
        """Open the channel. See `channel.connect` for the errors raised."""
        self.state.client = connect(self._settings, self.address, self.authority)

    async def close(self) -> None:
        """Stop watching, and close the channel."""
        await self.state.close()
        await self._memory.close()
        if self.state.client is not None:
            await self.state.client.close()
