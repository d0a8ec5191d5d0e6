"""``python -m export`` exports the token model, ``python -m export student-teacher`` trains a detector on OK images."""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of the first argument, by default that of the token model. Return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["student-teacher"]:
        # torch reads this once, when it is loaded. By default, waiting threads spin, and on a machine with other work a
        # training then takes three times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from export.student_teacher.command import main as train

        return train(given[1:])
    from export.token_command import main as export

    return export(given)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while torch is loading
        sys.exit(130)
