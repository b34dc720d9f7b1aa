"""What every command shares: exit codes that scripts can trust, one clear line for an error, progress that suits the terminal."""

import contextlib
import logging as std_logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from absl import app, flags, logging
from tqdm import tqdm

from ebt_jax.interruption import Interrupted

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 75

T = TypeVar("T")


Leave = Callable[[int, str], None]
"""(exit code, what went wrong or "") -> None: what a process owes to others before it exits."""


def run(main: Callable[[], None], usage: str, leave: Leave = lambda code, message: None) -> None:
    """Parses flags, runs `main` and exits: 0 done, 1 failed, 2 wrong usage, 75 interrupted and safely saved.

    An error prints one line on stderr; `--verbosity=1` adds the traceback. `usage` heads `--help`.
    """
    sys.modules["__main__"].__doc__ = usage

    def guarded(argv: list[str]) -> int:
        if len(argv) > 1:
            print(f"error: unexpected argument {argv[1]!r}; every option is a flag, see --help", file=sys.stderr)
            return USAGE
        logging.use_absl_handler()
        logging.get_absl_handler().addFilter(_of_interest)
        code, message = _outcome(main)
        if message:
            print(message, file=sys.stderr)
        leave(code, message)
        if code == INTERRUPTED:  # the exception may have gone through a compiler, which then dies with the interpreter: 139 in place of 75
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code

    def parse(argv: list[str]) -> list[str]:
        try:
            return app.parse_flags_with_usage(argv)
        except SystemExit:  # absl leaves with 1 for --help and for bad flags alike
            sys.exit(DONE if any(word.lstrip("-").startswith("help") for word in argv[1:]) else USAGE)
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # a config file's own complaint, or an unknown key
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(USAGE)

    app.run(guarded, flags_parser=parse)


@contextlib.contextmanager
def wrong_usage(prefix: str = "") -> Iterator[None]:
    """A ValueError inside is about what was typed: its message, after `prefix`, ends the command with 2, and nobody tries again."""
    try:
        yield
    except ValueError as error:
        raise flags.ValidationError(f"{prefix}{error}") from error


def on_disk(*names: str) -> None:
    """Declares flags that name where something is written. A bucket there is wrong usage: it would become a local folder called gs:."""
    for name in names:
        flags.register_validator(
            name,
            lambda value: not value or "://" not in value,
            "must lie on a disk. Mount the bucket and name a place in it (launch/README.md), or choose another.",
        )


def _outcome(main: Callable[[], None]) -> tuple[int, str]:
    """Exit code and last line of what `main` came to."""
    try:
        main()
    except Interrupted as interruption:
        return INTERRUPTED, f"interrupted: {interruption}"
    except flags.Error as error:
        return USAGE, f"error: {error}"
    except Exception as error:
        if logging.get_verbosity() >= logging.DEBUG:
            traceback.print_exc()
        return FAILED, f"error: {type(error).__name__}: {error}"
    return DONE, ""


def _of_interest(record: std_logging.LogRecord) -> bool:
    """Our own lines and everybody's warnings; with --verbosity=1 all of it."""
    return (
        logging.get_verbosity() >= logging.DEBUG or record.levelno >= std_logging.WARNING or f"{os.sep}ebt_jax{os.sep}" in record.pathname
    )


def progress(iterable: Iterable[T], total: int, description: str, every: int = 0) -> Iterator[T]:
    """Yields from `iterable` with a bar on a terminal, and elsewhere a log line every `every` items (default: a tenth)."""
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=description, dynamic_ncols=True)
        return
    every = every or max(1, total // 10)
    for count, item in enumerate(iterable, start=1):
        yield item
        if count % every == 0 or count == total:
            logging.info("%s: %d of %d", description, count, total)
