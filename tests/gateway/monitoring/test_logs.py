"""The form of log lines, for any logged value."""

import json
import logging
import subprocess
import sys

import pytest

SAY = """
import logging, structlog
from gateway.monitoring import logs
from gateway.settings import Settings
logs.configure(Settings(log_format={form!r}))
said = {said}
logging.getLogger("plain").warning("%s", said)
structlog.stdlib.get_logger("bound").info("request", path=said)
"""


def lines(form: str, said: str) -> list[str]:
    """Log a value in a new process, because logging is configured per process. `said` is an expression."""
    done = subprocess.run(
        [sys.executable, "-c", SAY.format(form=form, said=said)], capture_output=True, text=True, check=True
    )
    return done.stderr.split("\n")[:-1]


@pytest.mark.parametrize("said", ["'a\\nb\\x1b[2J'", "'half \\ud83d'", "2**70", "'x' * 100_000", "object()"])
def test_every_event_is_one_line_of_json(said) -> None:
    plain, bound = (json.loads(line) for line in lines("json", said))
    assert (plain["logger"], bound["event"]) == ("plain", "request")


def test_a_path_cannot_control_the_terminal() -> None:
    told = lines("console", "'/a\\nb\\x1b[2J\\u202ec'")
    assert len(told) == 2
    assert all(character.isprintable() for line in told for character in line)
    assert logging.getLevelName(30).lower() in told[0]
