"""The command ``netdepth``: how it runs and answers errors. `grammar` says what may be typed, `commands` what it does.

The parser is argparse, so that ``--help`` and a mistyped option are answered without importing
anything heavy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from netdepth.errors import BadInput, NetdepthError, RankLost, choose
from netdepth.grammar import Parser, grammar
from netdepth.training.parallel import only_alone, rank
from netdepth.training.signals import Terminated, signals_as_interrupts

__all__ = ["entry", "main"]

RANK_SECONDS = 5.0
EXIT_INTERNAL, EXIT_STORAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 74, 130, 143


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; every error is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream that a test or a notebook put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with signals_as_interrupts():
            code = _run(argv)
            sys.stdout.flush()
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except NetdepthError as error:
        return _complain(str(error), error.exit_code, said_by_others=not isinstance(error, RankLost))
    except Terminated:
        return _complain("interrupted", EXIT_TERMINATED)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # else the interpreter complains when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _debug(error) or _complain(f"{where}{error.strerror or error}", EXIT_STORAGE)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (NETDEPTH_DEBUG=1 shows where)"
        return _debug(error) or _complain(text, EXIT_INTERNAL)
    return code


def _complain(text: str, code: int, said_by_others: bool = True) -> int:
    from netdepth.text import printable

    if rank() > 0:
        if said_by_others:  # what befalls rank 0 as well it says, and torchrun ends this process meanwhile
            time.sleep(RANK_SECONDS)
        text = f"rank {rank()}: {text}"
    print(f"netdepth: error: {printable(text)}", file=sys.stderr)
    return code


def _debug(error: Exception) -> int:
    if os.environ.get("NETDEPTH_DEBUG"):
        raise error
    return 0


def _run(argv: Sequence[str]) -> int:
    parser = grammar()
    args, rest = parser.parse_known_args(list(argv))
    if rest:
        _refuse(rest[0], getattr(args, "parser", parser))
    if getattr(args, "command", None) is None:
        parser.print_help()
        return 0
    from netdepth import commands, recipes
    from netdepth.text import document

    command: Callable[[argparse.Namespace], commands.Answer] = getattr(commands, args.command)
    if args.command != "train":
        only_alone(args.parser.prog)
    with contextlib.ExitStack() as held:
        if rank() > 0:  # whatever there is to say, rank 0 says it
            nowhere = held.enter_context(open(os.devnull, "w"))
            held.enter_context(contextlib.redirect_stderr(nowhere))
            held.enter_context(contextlib.redirect_stdout(nowhere))
        elif args.json:
            held.enter_context(contextlib.redirect_stdout(sys.stderr))
        for module in args.imports:
            recipes.import_user(module)
        answer = command(args)
    if args.json:
        print(document(answer.document))
    else:
        answer.show()
    return answer.code


def _refuse(word: str, parser: Parser) -> NoReturn:
    if word.partition("=")[0] in parser.options:
        raise BadInput(f"{word!r} must stand after {parser.prog!r}")
    if word.startswith("-") and word != "-":
        choose(word.partition("=")[0], parser.options, f"option of {parser.prog}:")
    raise BadInput(f"unexpected argument {word!r}; see {parser.prog} --help")
