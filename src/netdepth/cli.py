"""The command ``netdepth``: how it runs, answers errors, and what may be typed. What each command does: `commands`.

The parser is argparse, so that ``--help`` and a mistyped option are answered without importing
anything heavy.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from netdepth import __version__
from netdepth.config import MAX_SEED
from netdepth.errors import BadInput, NetdepthError, RankLost, choose
from netdepth.registry import REGISTRIES
from netdepth.training.parallel import only_alone, rank
from netdepth.training.signals import Terminated, signals_as_interrupts

__all__ = ["KINDS", "entry", "main"]

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
        if said_by_others:  # rank 0 reports an error that it has too; torchrun ends this process meanwhile
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
        if rank() > 0:  # only rank 0 speaks
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


# --- what may be typed ---

GROUPS = ("data", "runs")
RUN = "a run folder, or the beginning of its name"
STUDY = "a study's folder, or the beginning of its name"
DATASET = "a data set; image-folder:PATH for your own pictures"
KINDS = tuple(f"{kind}s" for kind in REGISTRIES)
"""What ``netdepth list`` takes."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose every complaint is a `BadInput`."""

    def __init__(self, **settings: Any) -> None:
        self.options: list[str] = []
        wide = functools.partial(argparse.HelpFormatter, max_help_position=32)
        super().__init__(allow_abbrev=False, formatter_class=wide, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None:
            choose(value, action.choices, str(action.metavar or action.dest).split()[0].lower())


def grammar() -> Parser:
    """The parser of the whole command line; every complaint of it is a `BadInput`."""
    parser = Parser(prog="netdepth", description="A laboratory for depth in neural networks.")
    parser.add_argument("--version", action="version", version=f"netdepth {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND [options]", parser_class=Parser)

    def add(name: str, text: str, into: Any = commands, function: str | None = None) -> Parser:
        made: Parser = into.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
        made.set_defaults(command=function or name, parser=made)
        if name not in GROUPS:  # a default of the action would override what stands before it
            _everywhere(made)
        return made

    text = "train one network and run a small depth study, on data that come with the package: one minute"
    _train_options(add("quickstart", text), False)
    train = add("train", "train a recipe with one seed or several")
    train.epilog = "Over several processes or GPUs: torchrun --nproc-per-node 2 -m netdepth train RECIPE."
    train.add_argument("recipe", metavar="RECIPE", type=_name, help="a name, file.py:function or a config.json")
    _train_options(train, True)

    _study_options(add("study", "run a depth study: many seeds, statistical tests, a verdict, a report"))

    report = add("report", "write the report of a study: report.html, and report.md with figures")
    report.add_argument("study", metavar="STUDY", type=_name, help=STUDY)
    report.add_argument("--check", action="store_true", help="write nothing; check the report against the run folders")
    report.add_argument("--out", metavar="DIR", type=_path, help="folder to write to (default: the study's folder)")
    verdict = add("verdict", "show what a study found, in sentences and a table")
    verdict.add_argument("study", metavar="STUDY", type=_name, help=STUDY)

    compare = add("compare", "compare runs (mean over seeds, with its interval) or whole studies")
    _runs(compare, "runs", f"{RUN}; or folders of studies", nargs="+")
    compare.add_argument("--html", metavar="FILE", type=_path, help="write one page about the studies")
    for style in ("markdown", "csv", "latex"):
        compare.add_argument(f"--{style}", dest="style", action="store_const", const=style, help=f"print as {style}")

    _runs(add("inspect", "show gradients and activations in a run's network, layer by layer"))
    _landscape_options(add("landscape", "draw the loss around the weights of one or more runs"))
    probe = add("probe", "test a run's features on a data set: kNN, linear SVM, logistic regression")
    _runs(probe)
    probe.add_argument("--dataset", metavar="NAME", required=True, help=DATASET)
    _overrides(probe, "change a setting, e.g. dataset.val_size=1000")
    _weights(probe)
    text = "number of images to fit to (default: 5000)"
    probe.add_argument("--images", metavar="N", type=_whole("--images", 10, 10**9), help=text)
    probe.add_argument("--all-images", action="store_true", help="fit to all training images: this may take hours")
    probe.add_argument("--fresh", action="store_true", help="ignore the earlier result and compute again")

    predict = add("predict", "classify pictures with a trained network")
    _runs(predict, help=f"{RUN}; or published weights: FILE.safetensors")
    predict.add_argument("images", metavar="IMAGE", nargs="+", type=_path, help="picture files, JPEG or PNG")
    _picture_options(predict)

    explain = add("explain", "show where a network looks (class activation maps), and check that it matters")
    _runs(explain, help=f"{RUN}; or published weights: FILE.safetensors")
    text = "picture files, or folders of them (default: the run's validation images)"
    explain.add_argument("--images", metavar="PATH", nargs="+", type=_path, help=text)
    explain.add_argument("--classes", metavar="CLASS", nargs="+", help="only these classes, a row each")
    text = "number of pictures in the mean maps and in the check (default: 200, fewer for a large network)"
    explain.add_argument("--count", metavar="N", type=_whole("--count", 1, 100_000), help=text)
    text = "file of the contact sheet; the other files go beside it"
    explain.add_argument("--out", metavar="FILE.png", type=_path, help=text)
    _device(explain)
    _picture_options(explain)

    export = add("export", "write a run's network as ONNX or safetensors, with a model card")
    _runs(export)
    export.add_argument("--to", metavar="FORMAT", required=True, help="onnx or safetensors")
    export.add_argument("--out", metavar="FILE", type=_path, help="file to write (default: in the run's export/)")
    _weights(export)

    convert = add("convert", "convert published weights (.pth, .pt) to safetensors, without running code in them")
    convert.add_argument("file", metavar="FILE.pth", type=_path, help="weights as PyTorch saves them")
    convert.add_argument(
        "--out", metavar="FILE.safetensors", type=_path, help="the new file (default: beside FILE.pth)"
    )

    data = _actions(add("data", "list, download or verify data sets"))
    add("list", "list every data set and where it is", data, "data_list")
    fetch = add("fetch", "download data sets and check their digests", data, "data_fetch")
    fetch.add_argument("names", metavar="NAME", nargs="+", help="names of data sets")
    verify = add("verify", "check the digests of the data on this machine", data, "data_verify")
    verify.add_argument("names", metavar="NAME", nargs="+", help="names of data sets")

    listing = add("list", "list recipes, models, data sets and other components", function="list_components")
    listing.add_argument("kind", metavar="KIND", nargs="?", choices=KINDS, help=f"one of {', '.join(KINDS)}")
    listing.add_argument("-v", "--verbose", action="store_true", help="show every setting: type, default, meaning")

    check = add("check", "test the components that your own file registers")
    check.add_argument("file", metavar="FILE.py", type=_name, help="a file that registers a model, a data set, ...")

    runs = _actions(add("runs", "list run folders, remove them, free disk space"))
    add("list", "list every run with its status and size", runs, "runs_list")
    rm = add("rm", "remove run folders", runs, "runs_rm")
    _runs(rm, "runs", nargs="+")
    rm.add_argument("--yes", action="store_true", help="do not ask")
    add("gc", "delete the optimizer states of finished runs to free disk space", runs, "runs_gc")

    board = add("board", "show the runs in TensorBoard")
    board.add_argument("folder", metavar="RUNS", nargs="?", type=_path, help="a folder of runs (default: all runs)")
    board.add_argument("--port", type=_whole("--port", 1, 65535), help="default: TensorBoard's own")

    sync = add("sync", "rebuild the TensorBoard or W&B copy of runs from their folders")
    _runs(sync, "runs", nargs="+")
    sync.add_argument("--to", metavar="TRACKER", required=True, help="tensorboard or wandb")
    sync.add_argument("--wandb-online", action="store_true", help="upload to Weights & Biases")

    _device(add("doctor", "check what works on this machine: device, threads, trackers, data"))
    return parser


def _actions(parser: Parser) -> Any:
    return parser.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)


def _everywhere(parser: Parser) -> None:
    """Options that every command takes."""
    parser.add_argument("--data", metavar="DIR", type=_path, help="data folder (NETDEPTH_DATA)")
    parser.add_argument("--runs", dest="runs_root", metavar="DIR", type=_path, help="runs folder (NETDEPTH_RUNS)")
    text = "number of CPU threads (default: chosen by the network's size)"
    parser.add_argument("--threads", metavar="N", type=_whole("--threads", 1, 1024), help=text)
    text = "run your own file.py first, for what it registers"
    parser.add_argument("--import", dest="imports", metavar="FILE", action="append", default=[], help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    parser.add_argument("--version", action="version", version=f"netdepth {__version__}")


def _runs(parser: Parser, name: str = "run", help: str = RUN, nargs: str | None = None) -> None:
    parser.add_argument(name, metavar="RUN", nargs=nargs, type=_name, help=help)


def _device(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0 and so on")


def _overrides(parser: Parser, text: str) -> None:
    parser.add_argument("--set", dest="overrides", metavar="PATH=VALUE", action="append", default=[], help=text)


def _weights(parser: Parser) -> None:
    text = "best or last (default: those that the run reports)"
    parser.add_argument("--weights", metavar="WHICH", choices=("best", "last"), help=text)


def _picture_options(parser: Parser) -> None:
    parser.add_argument("--invert", action="store_true", help="swap black and white (MNIST is white on black)")
    text = "class names for published weights, one per line"
    parser.add_argument("--names", metavar="FILE.txt", type=_path, help=text)


def _train_options(parser: Parser, full: bool) -> None:
    text = "one seed (default: the recipe's)"
    parser.add_argument("--seed", metavar="N", type=_whole("--seed", 0, MAX_SEED), help=text)
    _device(parser)
    parser.add_argument("--fresh", action="store_true", help="delete what the run folder holds and start again")
    if not full:
        return
    parser.add_argument("--seeds", metavar="LIST", help="5 for seeds 0 to 4, or a list: 0,3,7")
    parser.add_argument("--dataset", metavar="NAME", help=DATASET)
    _overrides(parser, "change a setting, e.g. model.hidden=[64,64]")
    parser.add_argument("--track", metavar="NAMES", default="tensorboard", help="tensorboard,wandb or none")
    text = "never open the test data: for choosing settings on validation data"
    parser.add_argument("--no-test", dest="sealed", action="store_true", help=text)
    parser.add_argument("--wandb-online", action="store_true", help="upload to Weights & Biases")


def _study_options(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=_name, help="a name, file.py:function or a study.json")
    text = "10 for seeds 0 to 9, or a list: 0,3,7; more seeds than before extend the study"
    parser.add_argument("--seeds", metavar="LIST", help=text)
    parser.add_argument("--depths", metavar="LIST", help="other depths than the recipe's, e.g. 2,8,24")
    parser.add_argument("--dataset", metavar="NAME", help=DATASET)
    _overrides(parser, "change a setting of all runs")
    text = "lr: choose the learning rate for each condition and depth, by validation loss on other seeds"
    parser.add_argument("--tune", metavar="SETTING", help=text)
    text = "finished run to start from or to learn from (default: the study trains it first)"
    parser.add_argument("--source", metavar="RUN", help=text)
    text = "number of processes (default: one per core)"
    parser.add_argument("--workers", metavar="N", type=_whole("--workers", 0, 1024), help=text)
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: its address, or auto")
    parser.add_argument("--dry-run", action="store_true", help="show what it would cost, and run nothing")
    parser.add_argument("--no-report", action="store_true", help="write no report (netdepth report writes it later)")
    _device(parser)
    parser.add_argument("--fresh", action="store_true", help="delete the study's runs and start again")


def _landscape_options(parser: Parser) -> None:
    _runs(parser, "names", nargs="+")
    text = "points per side, an odd number (default: 41, or 25 for a large network)"
    parser.add_argument("--grid", metavar="N", type=_whole("--grid", 3, 501), help=text)
    text = "half of a side's length (default: 1)"
    parser.add_argument("--radius", metavar="R", type=_number("--radius"), default=1.0, help=text)
    text = "number of training images (default: 1000, or 500 for a large network)"
    parser.add_argument("--images", metavar="N", type=_whole("--images", 1, 10**7), help=text)
    text = "seed of the random directions (default: 0)"
    parser.add_argument("--seed", metavar="N", type=_whole("--seed", 0, MAX_SEED), default=0, help=text)
    _weights(parser)
    parser.add_argument("--no-curvature", action="store_true", help="do not compute the eigenvalues of the Hessian")
    parser.add_argument("--out", metavar="FILE.png", type=_path, help="file of the picture (default: in figures/)")
    _device(parser)


def _name(text: str) -> str:
    """A RUN or RECIPE: something the file system can be asked about."""
    too_long = len(text) > 2000 or any(len(os.fsencode(part)) > 250 for part in text.split("/"))
    if too_long or not text.strip("/ ") or "\0" in text:
        raise BadInput(f"{text[:60]!r} is no usable name or path")
    return text


def _path(text: str) -> Path:
    return Path("/") if text == "/" else Path(_name(text))


def _whole(option: str, low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high:
            return int(text)
        raise BadInput(f"{option} {text[:60]!r} is not acceptable; it takes a whole number from {low} to {high}")

    return parse


def _number(option: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < float(text) < float("inf"):
                return float(text)
        raise BadInput(f"{option} {text[:60]!r} is not acceptable; it takes a number above 0")

    return parse
