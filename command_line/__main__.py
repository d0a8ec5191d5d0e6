"""`patchcore`, also `python -m command_line`."""

from command_line.app import app


def main() -> None:
    """Run the command of the arguments, and end the process with its exit status."""
    app(prog_name="patchcore")


if __name__ == "__main__":
    main()
