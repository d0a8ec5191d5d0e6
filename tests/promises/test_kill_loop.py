"""`kill -9` of gateways in the midst of their writes: nothing acknowledged is lost, nothing is there by half."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack

import httpx
import pytest

from gateway.store.artifact_store import ArtifactStore
from tests.e2e.gateway_process import Gateway
from tests.promises.ledger import BrokenPromiseError, ManyClients, OneClient

_N_GATEWAYS = 3
_STEPS = 60
"""Of its writes, within which a gateway dies by itself: a fit takes about 25."""
_TEARS = 4
_ROUNDS_OF_A_CROWD = 10
_HANG_S = 120


class Fleet:
    """Gateways over one models folder; each that is killed is followed by another."""

    def __init__(self, start: Callable[[], AbstractContextManager[Gateway]], pool: ThreadPoolExecutor) -> None:
        self._start = start
        self._pool = pool
        self._contexts = ExitStack()
        self._alive: list[Gateway] = []
        self._coming = [pool.submit(self._started) for _ in range(_N_GATEWAYS)]

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_) -> None:
        wait(self._coming)
        self._contexts.close()

    def alive(self) -> list[Gateway]:
        """Those that serve, two at least."""
        deadline = time.monotonic() + _HANG_S
        while True:
            for coming in [coming for coming in self._coming if coming.done()]:
                self._coming.remove(coming)
                self._alive.append(coming.result())
            if len(self._alive) >= 2:
                return list(self._alive)
            assert time.monotonic() < deadline, "the gateways do not start again"
            time.sleep(0.01)

    def killed(self) -> bool:
        return any(gateway.process.poll() is not None for gateway in self._alive)

    def replace_the_killed(self) -> int:
        """Returns how many there were."""
        killed = [gateway for gateway in self._alive if gateway.process.poll() is not None]
        self._alive = [gateway for gateway in self._alive if gateway not in killed]
        self._coming += [self._pool.submit(self._started) for _ in killed]
        return len(killed)

    def _started(self) -> Gateway:
        while True:
            context = self._start()
            try:
                gateway = context.__enter__()
            except RuntimeError as error:
                if "status -9" in str(error):
                    continue  # killed while it cleaned up after one that was killed before
                raise
            self._contexts.push(context)
            return gateway


def kill_loop(launch, repository, models_dir, *, kills: int, seed: int, torn: bool = False, store=None) -> int:
    """Kill gateways while clients change ROIs through them, and look at every ROI after each kill.

    Half of the kills come from outside at a random time, half at a random step of the gateway's own writes.

    Args:
        launch: the fixture.
        repository: with the model.
        models_dir: folder or bucket that the gateways share.
        kills: at least so many.
        seed: of what is sent, where, and when it dies.
        torn: the negative control: files are replaced in place, half by half, and killed between.
        store: what looks at every ROI; by default that of the folder.

    Returns:
        How many were killed.

    Raises:
        BrokenPromiseError: an ROI is not what clients were told.
    """
    rng = random.Random(seed)
    numbers = itertools.count(1)

    def start() -> AbstractContextManager[Gateway]:
        step = str(rng.randrange(1, _TEARS if torn else _STEPS))
        command = ("-m", "tests.promises.dying", step, "torn" if torn else "whole", "gateway")
        name = f"{'torn' if torn else 'killed'} {next(numbers)}"
        return launch(name, command=command, models_dir=models_dir, model_repository=repository)

    store = store or ArtifactStore(models_dir, keep_versions=5)
    alone = [OneClient(f"alone {i}", random.Random(rng.random())) for i in range(3)]
    crowds: list[ManyClients] = []
    n_killed = 0
    with ThreadPoolExecutor(_N_GATEWAYS + 5) as pool, Fleet(start, pool) as fleet:
        for n_round in itertools.count():
            if n_round % _ROUNDS_OF_A_CROWD == 0:
                crowds.append(ManyClients(f"crowd {len(crowds)}"))
            gateways = fleet.alive()
            over = threading.Event()
            clients = [*alone, crowds[-1], crowds[-1]]
            changing = [
                pool.submit(_change_until, over, client, gateways, random.Random(rng.random())) for client in clients
            ]
            try:
                if not torn and rng.random() < 0.5:
                    time.sleep(rng.uniform(0, 0.3))
                    rng.choice(gateways).process.kill()
                _until_killed(fleet, changing)
            finally:
                over.set()
            for client in changing:
                client.result(_HANG_S)
            for roi in (*alone, *crowds):
                roi.check(store)
            n_killed += fleet.replace_the_killed()
            if n_killed >= kills:
                return n_killed
    raise AssertionError("unreachable")


def _change_until(over: threading.Event, client, gateways: list[Gateway], rng: random.Random) -> None:
    """One change after the other, at any of the gateways, until one is killed or the answer is lost."""
    while not over.is_set():
        try:
            client.change(rng.choice(gateways))
        except httpx.TransportError:
            return


def _until_killed(fleet: Fleet, changing: list[Future[None]]) -> None:
    deadline = time.monotonic() + _HANG_S
    while not fleet.killed():
        for client in changing:
            if client.done():
                client.result()
        assert time.monotonic() < deadline, "no gateway was killed"
        time.sleep(0.002)


def test_killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_is_there_by_half(
    launch, small_model_repository, tmp_path, full, record_property
):
    wanted = 200 if full else 6
    kills = kill_loop(launch, small_model_repository, tmp_path / "models", kills=wanted, seed=6)
    assert kills >= wanted
    record_property("kills", kills)


def test_the_kill_loop_notices_files_that_are_replaced_in_place(launch, small_model_repository, tmp_path):
    """The negative control: the same loop, over gateways that tear what they write."""
    with pytest.raises(BrokenPromiseError):
        kill_loop(launch, small_model_repository, tmp_path / "models", kills=20, seed=6, torn=True)
