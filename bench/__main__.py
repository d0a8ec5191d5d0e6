"""`python -m bench SUBCOMMAND`: measure, print a table, and write the figures with ``--json``."""

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

from bench import (
    accuracy,
    beside,
    clients,
    coreset,
    detectors,
    engine,
    fit,
    infer,
    knn,
    lines,
    load,
    observe,
    precision,
    report,
    servers,
    tiles,
)
from gateway.process.services import set_threads
from gateway.settings import Settings

COMMANDS: dict[str, ModuleType] = {
    "engine": engine,
    "knn": knn,
    "load": load,
    "coreset": coreset,
    "infer": infer,
    "precision": precision,
    "beside": beside,
    "fit": fit,
    "observe": observe,
    "detectors": detectors,
    "accuracy": accuracy,
    "servers": servers,
    "tiles": tiles,
    "lines": lines,
    "clients": clients,
}
"""Each has `HELP`, `add_arguments(parser)` and `run(args) -> (what was measured with, rows)`."""


def main() -> None:
    """Run the command: parse, measure, report."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Speed, as ratios measured in one run.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="SUBCOMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
        module.add_arguments(command)
    args = parser.parse_args()
    machine = report.machine()
    set_threads(Settings().threads)
    source, rows = COMMANDS[args.command].run(args)
    print(
        f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['has'])}; load before {machine['load']}"
    )
    print(source)
    print(report.table(rows))
    if args.json is not None:
        result = {"command": args.command, "machine": machine, "source": source, "rows": rows}
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {args.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
