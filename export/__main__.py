"""``python -m export``: the token model; ``python -m export student-teacher``: a detector trained on OK images."""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, or the token model's; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["student-teacher"]:
        # Read once, when torch is loaded. By default a thread that waits for another one spins, and a training on a
        # machine that has other work to do as well then takes three times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from export.student_teacher.command import main as train

        return train(given[1:])
    from export.token_command import main as export

    return export(given)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while torch is still being loaded
        sys.exit(130)
