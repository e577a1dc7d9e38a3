"""The command line: ``recsys`` and ``python -m recsys``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; see ``recsys --help``."""
    try:
        from recsys.cli import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.stderr.write("Error: the command line needs typer, which is not installed: pip install 'recsys[cli]'.\n")
        sys.exit(2)
    app(prog_name="recsys")


if __name__ == "__main__":
    main()
