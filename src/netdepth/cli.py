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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from netdepth import __version__
from netdepth.config import DEFAULT_TRACKERS, MAX_SEED
from netdepth.errors import BadInput, NetdepthError, RankLost, StorageError, choose
from netdepth.overrides import COMMON
from netdepth.registry import REGISTRIES
from netdepth.training.parallel import only_alone, rank, world_size
from netdepth.training.signals import Terminated, signals_as_interrupts

__all__ = ["KINDS", "entry", "main"]

RANK_SECONDS = 5.0
EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143


def entry() -> NoReturn:
    """The console script."""
    code = main(sys.argv[1:])
    if code and world_size() > 1:
        # All is saved and said. The interpreter's own end waits for threads of torch.distributed, whose other ends may
        # be gone; torchrun kills what has not ended 30 s after its signal.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


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
        return _debug(error) or _complain(f"{where}{error.strerror or error}", StorageError.exit_code)
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
    from netdepth import commands
    from netdepth.text import document

    if args.command != "train":
        only_alone(args.parser.prog)
    with contextlib.ExitStack() as held:
        if rank() > 0:  # only rank 0 speaks
            nowhere = held.enter_context(open(os.devnull, "w"))
            held.enter_context(contextlib.redirect_stderr(nowhere))
            held.enter_context(contextlib.redirect_stdout(nowhere))
        elif args.json:
            held.enter_context(contextlib.redirect_stdout(sys.stderr))
        if args.imports:
            from netdepth.recipes import import_user

            for module in args.imports:
                import_user(module)
        answer = commands.command(args.command)(args)
    if args.json:
        print(document(answer.document))
    else:
        answer.show()
    return answer.code


def _refuse(word: str, parser: Parser) -> NoReturn:
    if word.partition("=")[0] in parser.options:
        raise BadInput(f"{word!r} must stand after {parser.prog!r}")
    if word.startswith("-") and word != "-":
        choose(word.partition("=")[0], parser.options, f"option of {parser.prog}:", never=DISCARDING)
    raise BadInput(f"unexpected argument {word!r}; see {parser.prog} --help")


# --- what may be typed ---

GROUPS = ("data", "runs")
RUN = "a run folder, or the beginning of its name"
STUDY = "a study's folder, or the beginning of its name"
DATASET = "a data set; your own: image-folder:PATH, arrays:FILE.npz, csv:FILE, idx:FOLDER, parquet:PATH"
NAMES = "names of data sets"
OR_WEIGHTS = f"{RUN}; or published weights: FILE.safetensors"
DISCARDING = ("--fresh", "--yes")
"""Options that discard something: nobody is to be led to one of them by a mistyped word."""
KINDS = (*(f"{kind}s" for kind in REGISTRIES), "settings")
"""What ``netdepth list`` takes."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose every complaint is a `BadInput`."""

    def __init__(self, **settings: Any) -> None:
        self.options: list[str] = []
        wide = functools.partial(argparse.HelpFormatter, max_help_position=32)
        super().__init__(allow_abbrev=False, formatter_class=wide, **settings)

    def word(self, name: str, metavar: str, text: str | None, many: bool = False, **settings: Any) -> None:
        """A word that stands without an option; ``many`` are one or more."""
        self.add_argument(name, metavar=metavar, help=text, nargs="+" if many else None, **{"type": _name, **settings})

    def option(
        self, name: str, metavar: str | None, text: str, whole: tuple[int, int] | None = None, **settings: Any
    ) -> None:
        """An option with a value; ``whole`` are the least and the largest of whole numbers."""
        if whole is not None:
            settings["type"] = functools.partial(_whole, name, *whole)
        self.add_argument(name, metavar=metavar, help=text, **settings)

    def flag(self, name: str, text: str, **settings: Any) -> None:
        """An option without a value."""
        self.add_argument(name, help=text, **{"action": "store_true", **settings})

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None:
            word = str(action.metavar or action.dest).split()[0].lower()
            choose(value, action.choices, action.option_strings[0] if action.option_strings else word)


def grammar() -> Parser:
    """The parser of the whole command line; every complaint of it is a `BadInput`."""
    parser = Parser(prog="netdepth", description="A laboratory for depth in neural networks.")
    parser.epilog = "A network, optimizer, data set, metric or study of your own: docs/your-own.md."
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
    train.word("recipe", "RECIPE", "a name, file.py:function or a config.json")
    _train_options(train, True)

    _study_options(add("study", "run a depth study: many seeds, statistical tests, a verdict, a report"))

    report = add("report", "write the page of a run, or the report of a study (report.html; report.md with figures)")
    report.word("name", "RUN|STUDY", "a folder of a run or of a study, or the beginning of its name")
    report.flag("--check", "write nothing; check the report of a study against the run folders")
    report.option("--out", "DIR", "folder to write to (default: that of the run or the study)", type=_path)
    add("verdict", "show what a study found, in sentences and a table").word("study", "STUDY", STUDY)

    compare = add("compare", "compare runs (mean over seeds, with its interval) or whole studies")
    compare.word("runs", "RUN", f"{RUN} or of those of one configuration; or folders of studies", many=True)
    compare.option("--html", "FILE", "write one page about the studies", type=_path)
    text = 'JSON file with the seeds that each study must have, as {"anna": [100, 101]}'
    compare.option("--seeds-from", "FILE", text, type=_path)
    compare.flag("--flat", "a line per run: the seeds of a configuration are not folded")
    for style in ("markdown", "csv", "latex"):
        compare.flag(f"--{style}", f"print as {style}", dest="style", action="store_const", const=style)

    inspect = add("inspect", "show gradients and activations in a run's network, layer by layer")
    inspect.word("run", "RUN", RUN)
    _landscape_options(add("landscape", "draw the loss around the weights of one or more runs"))
    probe = add("probe", "test a run's features on a data set: kNN, linear SVM, logistic regression")
    probe.word("run", "RUN", OR_WEIGHTS)
    probe.option("--dataset", "NAME", DATASET, required=True)
    _overrides(probe, "change a setting, e.g. dataset.val_size=1000")
    _weights(probe)
    probe.option("--images", "N", "number of images to fit to (default: 5000)", whole=(10, 10**9))
    probe.flag("--all-images", "fit to all training images: this may take hours")
    probe.flag("--fresh", "ignore the earlier result and compute again")

    predict = add("predict", "classify pictures with a trained network")
    predict.word("run", "RUN", OR_WEIGHTS)
    predict.word("images", "IMAGE", "picture files, JPEG or PNG", many=True, type=_path)
    _picture_options(predict)

    explain = add("explain", "show where a network looks (class activation maps), and check that it matters")
    explain.word("run", "RUN", OR_WEIGHTS)
    text = "picture files, or folders of them (default: the run's validation images)"
    explain.option("--images", "PATH", text, nargs="+", type=_path)
    explain.option("--classes", "CLASS", "only these classes, a row each", nargs="+")
    text = "number of pictures in the mean maps and in the check (default: 200, fewer for a large network)"
    explain.option("--count", "N", text, whole=(1, 100_000))
    explain.option("--out", "FILE.png", "file of the contact sheet; the other files go beside it", type=_path)
    _device(explain)
    _picture_options(explain)

    export = add("export", "write a run's network as ONNX or safetensors, with a model card")
    export.word("run", "RUN", OR_WEIGHTS)
    export.option("--to", "FORMAT", "onnx or safetensors", required=True)
    export.option("--out", "FILE", "file to write (default: in the run's export/)", type=_path)
    _weights(export)

    convert = add("convert", "convert published weights (.pth, .pt) to safetensors, without running code in them")
    convert.word("file", "FILE.pth", "weights as PyTorch saves them", type=_path)
    convert.option("--out", "FILE.safetensors", "the new file (default: beside FILE.pth)", type=_path)
    text = "CIFAR ResNets, skips without weights: zeros on both sides, at the end; none: a plain net (default: both)"
    convert.option("--skip", "KIND", text, choices=("both", "end", "none"), default="both")
    text = "CIFAR ResNets: cifar10, cifar100, imagenet, mnist or none (default: by classes and channels)"
    known = ("cifar10", "cifar100", "imagenet", "mnist", "none")
    convert.option("--normalization", "NAME", text, choices=known)

    data = _actions(add("data", "list, download or verify data sets"))
    listed = add("list", "list every data set and where it is", data, "data_list")
    listed.add_argument(
        "-v", "--verbose", action="store_true", help="show each file: sha256 and addresses, to fetch by hand"
    )
    fetch = add("fetch", "download data sets and check their digests", data, "data_fetch")
    verify = add("verify", "check the digests of the data on this machine", data, "data_verify")
    for action in (fetch, verify):
        action.word("names", "NAME", NAMES, many=True, type=str)

    listing = add("list", "list recipes, models, data sets and other components", function="list_components")
    listing.add_argument("kind", metavar="KIND", nargs="?", choices=KINDS, help=f"one of {', '.join(KINDS)}")
    listing.add_argument("-v", "--verbose", action="store_true", help="show every setting: type, default, meaning")

    check = add("check", "test the components that your own file registers")
    check.word("file", "FILE.py", "a file that registers a model, a data set, ...")

    runs = _actions(add("runs", "list run folders, remove them, free disk space"))
    _list_options(
        add("list", "list the runs, a line per configuration: status, validation loss, size", runs, "runs_list")
    )
    rm = add("rm", "remove runs, all seeds of a configuration, or studies", runs, "runs_rm")
    rm.word("runs", "NAME", f"{RUN} or of those of one configuration; its fingerprint; or a study's folder", many=True)
    rm.flag("--yes", "do not ask: for scripts")
    add("gc", "delete the optimizer states of finished runs to free disk space", runs, "runs_gc")

    board = add("board", "show the runs in TensorBoard")
    board.add_argument("folder", metavar="RUNS", nargs="?", type=_path, help="a folder of runs (default: all runs)")
    board.option("--port", None, "default: TensorBoard's own", whole=(1, 65535))

    sync = add("sync", "rebuild a tracker's copy of runs or studies (TensorBoard, W&B) from their folders")
    sync.word("runs", "RUN", f"{RUN}; or a study's, for all its runs", many=True)
    sync.option("--to", "TRACKER", "the tracker; netdepth list trackers shows them all", required=True)
    sync.flag("--wandb-online", "upload to Weights & Biases")

    _device(add("doctor", "check what works on this machine: device, threads, trackers, data"))
    return parser


def _actions(parser: Parser) -> Any:
    return parser.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)


def _everywhere(parser: Parser) -> None:
    """Options that every command takes."""
    parser.option("--data", "DIR", "data folder (NETDEPTH_DATA)", type=_path)
    parser.option("--runs", "DIR", "runs folder (NETDEPTH_RUNS)", dest="runs_root", type=_path)
    parser.option("--threads", "N", "number of CPU threads (default: chosen by the network's size)", whole=(1, 1024))
    text = "run your own file.py first, so that its components are known"
    parser.option("--import", "FILE", text, dest="imports", action="append", default=[])
    parser.flag("--json", "print one JSON document on stdout and nothing else")
    parser.add_argument("--version", action="version", version=f"netdepth {__version__}")


def _device(parser: Parser) -> None:
    parser.option("--device", None, "auto, cpu, cuda, cuda:0 and so on", default="auto")


def _overrides(parser: Parser, text: str) -> None:
    parser.option("--set", "PATH=VALUE", text, dest="overrides", action="append", default=[])


def _common(parser: Parser, names: Iterable[str]) -> None:
    """Settings with an option of their own; each is one of `COMMON`."""
    for name in names:
        metavar = {"optimizer": "NAME", "lr": "RATE"}.get(name, "N")
        whole = {"epochs": (1, 10**9), "batch_size": (1, 2**20), "width": (1, 10**6), "depth": (1, 10**6)}.get(name)
        parser.option(f"--{name.replace('_', '-')}", metavar, f"sets {COMMON[name]}", whole=whole)


def _weights(parser: Parser) -> None:
    parser.option("--weights", "WHICH", "best or last (default: those that the run reports)", choices=("best", "last"))


def _picture_options(parser: Parser) -> None:
    parser.flag("--invert", "swap black and white (MNIST is white on black)")
    parser.option("--names", "FILE.txt", "class names for published weights, one per line", type=_path)


def _train_options(parser: Parser, full: bool) -> None:
    parser.option("--seed", "N", "one seed (default: the recipe's)", whole=(0, MAX_SEED))
    _device(parser)
    parser.flag("--fresh", "delete what the run folder holds and start again")
    if not full:
        return
    parser.option("--seeds", "LIST", "5 for seeds 0 to 4, or a list: 0,3,7")
    parser.option("--name", "NAME", "what to call the runs (default: the recipe and what differs from it)")
    parser.option("--dataset", "NAME", DATASET)
    _common(parser, COMMON)
    _overrides(parser, "change any setting, e.g. model.hidden=[64,64]; netdepth list settings shows them all")
    parser.flag("--no-test", "never open the test data: for choosing settings on validation data", dest="sealed")
    _trackers(parser, ",".join(DEFAULT_TRACKERS))


def _trackers(parser: Parser, default: str) -> None:
    text = f"trackers, separated by commas (netdepth list trackers shows them); or none (default: {default})"
    parser.option("--track", "NAMES", text, default=default)
    parser.flag("--wandb-online", "upload to Weights & Biases")


def _study_options(parser: Parser) -> None:
    parser.word("recipe", "RECIPE", "a name, file.py:function or a study.json")
    parser.option("--seeds", "LIST", "10 for seeds 0 to 9, or a list: 0,3,7; more seeds extend it (--max-looks)")
    text = "how many times the study may be judged while seeds are added, e.g. 2; open for any number (default: once)"
    parser.option("--max-looks", "N", text)
    parser.option("--depths", "LIST", "other depths than the recipe's, e.g. 2,8,24")
    parser.option("--levels", "LIST", "the same for a study of something else, e.g. 16,64 or adam,sgd")
    parser.option("--dataset", "NAME", DATASET)
    _common(parser, ("epochs", "lr", "batch_size", "optimizer"))
    _overrides(parser, "change a setting of all runs; netdepth list settings shows them all")
    text = "lr: choose the learning rate for each condition and depth, by validation loss on other seeds"
    parser.option("--tune", "SETTING", text)
    parser.option("--source", "RUN", "finished run to start from or to learn from (default: the study trains it first)")
    text = "train N random finished runs of RECIPE (here a study's or runs' folder) again and compare them"
    parser.option("--replay", "N", text, whole=(1, 10**6))
    parser.option("--replay-seed", "N", "which runs (default: nobody can know before)", whole=(0, MAX_SEED))
    parser.option("--workers", "N", "number of processes (default: one per core)", whole=(0, 1024))
    parser.option("--ray", "ADDRESS", "run on a Ray cluster: its address, or auto")
    parser.flag("--dry-run", "show what it would cost, and run nothing")
    parser.flag("--no-report", "write no report (netdepth report writes it later)")
    _trackers(parser, "none")
    _device(parser)
    parser.flag("--fresh", "delete the study's runs and start again")


def _list_options(parser: Parser) -> None:
    parser.flag("--flat", "a line per run: the seeds of a configuration are not folded")
    text = "val_loss or val_accuracy (best first), age, epochs, name, seconds, size (default: by folder)"
    parser.option("--sort", "KEY", text)
    text = "only runs that fit: status=completed, 'lr<0.01', model=cnn, recipe=base*; may be repeated"
    parser.option("--filter", "TEXT", text, dest="filters", action="append", default=[])
    parser.option("--best", "N", "only the N best by validation loss (or --sort val_accuracy)", whole=(1, 10**6))
    parser.flag("--csv", "print as CSV, with the settings that differ as columns")


def _landscape_options(parser: Parser) -> None:
    parser.word("names", "RUN", RUN, many=True)
    text = "points per side, an odd number (default: 41, or 25 for a large network)"
    parser.option("--grid", "N", text, whole=(3, 501))
    parser.option("--radius", "R", "half of a side's length (default: 1)", type=_radius, default=1.0)
    text = "number of training images (default: 1000, or 500 for a large network)"
    parser.option("--images", "N", text, whole=(1, 10**7))
    parser.option("--seed", "N", "seed of the random directions (default: 0)", whole=(0, MAX_SEED), default=0)
    _weights(parser)
    parser.flag("--no-curvature", "do not compute the eigenvalues of the Hessian")
    parser.option("--out", "FILE.png", "file of the picture (default: in figures/)", type=_path)
    _device(parser)


def _name(text: str) -> str:
    """A RUN or RECIPE: text that can be the name of a file."""
    too_long = len(text) > 2000 or any(len(os.fsencode(part)) > 250 for part in text.split("/"))
    if too_long or not text.strip("/ ") or "\0" in text:
        raise BadInput(f"{text[:60]!r} cannot be a name or a path")
    return text


def _path(text: str) -> Path:
    return Path("/") if text == "/" else Path(_name(text))


def _whole(option: str, low: int, high: int, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high:
        return int(text)
    raise BadInput(f"{option} {text[:60]!r} is not acceptable; it takes a whole number from {low} to {high}")


def _radius(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise BadInput(f"--radius {text[:60]!r} is not acceptable; it takes a number above 0")
