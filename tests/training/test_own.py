"""A run of a user's own model finds its file again; a file knows its neighbours, a cell of a notebook its sources."""

import linecache
import sys
import textwrap

import pytest

import netdepth as nd
from netdepth.config import Component, Runtime
from netdepth.errors import BadInput
from netdepth.files.usercode import import_user
from netdepth.models import MODELS
from netdepth.registry import Registry
from netdepth.training.own import unlike_before

MODEL = """
import blocks
from torch import nn
from netdepth.models import MODELS

@MODELS.register("mine")
class Mine(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.body = blocks.body(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x))
"""
BLOCKS = """
from torch import nn

def body(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU())
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a user's file and its neighbour; a cache of its own."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache"))
    (tmp_path / "my.py").write_text(MODEL)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    return tmp_path


def known_by():
    return MODELS.hashed(Component("mine", {"width": 4}, 1))["source"]


def forget():
    """What another process starts with."""
    MODELS._entries.pop("mine", None)
    for name in [name for name in sys.modules if name.startswith("netdepth_user_")]:
        del sys.modules[name]


def test_a_run_finds_the_file_of_its_model_by_itself_and_says_what_became_of_it(own):
    runtime = Runtime(runs_root=own / "runs", imports=(str(own / "my.py"),), probes=False)
    quick = ["model=mine", "train.budget=2it", "train.eval_every=2it", "train.batch_size=32"]
    run = nd.train("baseline-mlp", dataset="mnist5k", overrides=quick, runtime=runtime, progress=False)
    assert not (run.path / "figures").exists(), "a search of fifty runs draws no fifty pictures"
    forget()
    assert run.model().net.head.out_features == 10
    said = run.dir.environment().own
    assert [(part.kind, part.name, part.file) for part in said] == [("model", "mine", str(own / "my.py"))]

    forget()
    (own / "blocks.py").write_text(BLOCKS.replace("ReLU", "Tanh"))
    with pytest.raises(BadInput, match=r"'mine' of run .*my.py, which was altered since \(or a file that it imports\)"):
        run.model()
    import_user(str(own / "my.py"))
    with pytest.raises(BadInput, match="altered since"):  # not with another network under its name either
        run.model()
    (own / "blocks.py").write_text(BLOCKS)
    assert run.model().net.head.out_features == 10

    forget()
    (own / "my.py").rename(own / "other.py")
    with pytest.raises(BadInput, match=r"which is gone; .*--import FILE.py"):
        run.model()
    import_user(str(own / "other.py"))
    assert run.model().net.head.out_features == 10

    forget()
    (own / "other.py").rename(own / "my.py")
    for record in (own / "cache" / "own").iterdir():
        record.unlink()
    with pytest.raises(BadInput, match="this account has trained nothing yet"):  # the folder may be somebody else's
        run.model()


def test_a_neighbour_enters_the_digest_and_leaves_no_trace(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "blocks", linecache)  # another module of that name
    before = list(sys.path)
    import_user(str(own / "my.py"))
    first = known_by()
    assert sys.path == before
    assert sys.modules["blocks"] is linecache
    (own / "blocks.py").write_text(BLOCKS.replace("784", "28*28"))  # as long, in the same second
    import_user(str(own / "my.py"))
    assert known_by() != first
    (own / "blocks.py").write_text(BLOCKS)
    import_user(str(own / "my.py"))
    assert known_by() == first

    (own / "hidden.py").write_text("import importlib\nimportlib.import_module('found')\n")
    (own / "found.py").write_text("")
    with pytest.raises(BadInput, match=r"cannot be followed.*write: import found"):
        import_user(str(own / "hidden.py"))
    assert not {"found", "hidden"} & set(sys.modules)


def test_an_error_shows_the_line_of_the_users_it_came_through(own):
    path = own / "wrong.py"
    path.write_text("import torch\n\n\ntorch.nn.Linear(3, 'a')\n")
    with pytest.raises(BadInput, match=r"wrong.py failed at line 4: TypeError: "):
        import_user(str(path))
    path.write_text("import blocks\n")
    (own / "blocks.py").write_text("\nx = 1 / 0\n")
    with pytest.raises(BadInput, match=r"wrong.py failed at line 2 of blocks.py: ZeroDivisionError: "):
        import_user(str(path))


# --- what was typed in --------------------------------------------------------------------------

CELLS = {
    "one": "import numpy as np\nWIDTH = 8\ndef helper(n): return n * FACTOR\nFACTOR = 2\n",
    "two": """
        class Base:
            def size(self): return helper(WIDTH)

        class Unused: pass
        """,
    "three": """
        @REGISTRY.register("mine")
        class Mine(Base):
            table = np.arange(3)
            def __init__(self, a=1): self.a = a
        """,
}


def notebook(**cells):
    """Run cells as a kernel does: in ``__main__``, each under a name of its own that `linecache` knows."""
    registry = Registry("part")
    scope = {"__name__": "__main__", "REGISTRY": registry}
    for number, text in enumerate({**CELLS, **cells}.values()):
        text, file = textwrap.dedent(text), f"<cell-{number}-{hash(text)}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), scope)
    return registry, scope


def source(**cells):
    return notebook(**cells)[0].entry("mine").source


@pytest.mark.parametrize(
    ("cells", "same"),
    [
        ({}, True),
        ({"four": "UNRELATED = 1"}, True),
        ({"one": CELLS["one"].replace("WIDTH = 8", "WIDTH = 9")}, False),
        ({"one": CELLS["one"].replace("n * FACTOR", "n + FACTOR")}, False),
        ({"four": "FACTOR = 3"}, False),  # as it is when the run begins
        ({"two": CELLS["two"].replace("helper(WIDTH)", "helper(WIDTH) + 1")}, False),
        ({"two": CELLS["two"].replace("Unused: pass", "Unused: x = 1")}, True),
        ({"three": CELLS["three"].replace("a=1", "a=2")}, False),
        ({"three": CELLS["three"].replace("arange(3)", "arange(4)")}, False),
    ],
)
def test_what_was_typed_in_is_known_by_its_source_and_all_that_it_refers_to(cells, same):
    assert (source(**cells) == source()) is same


def test_a_cell_may_be_run_again_and_no_other_module_may_take_the_name():
    registry, scope = notebook(three=CELLS["three"] * 2)
    first = registry.entry("mine").function
    exec("REGISTRY.register('mine')(Mine)", scope)
    assert registry.entry("mine").function is first
    with pytest.raises(BadInput, match="registered already"):
        exec("REGISTRY.register('mine')(Mine)", {**scope, "__name__": "another"})


def test_what_has_no_source_is_never_known_again():
    typed = "def mine(num_classes): return seed + lock\nlock = object()\nseed = 1\n"

    def known(file):
        scope = {"__name__": "__main__", "MODELS": MODELS}
        exec(compile(typed, file, "exec"), scope)
        exec("MODELS.register('mine')(mine)", scope)
        config = nd.recipes.resolve("baseline-mlp")[1]
        lines = unlike_before(nd.overrides.apply_overrides(config, ["model=mine"])[0])
        return MODELS.entry("mine").source, lines

    first, lines = known("<stdin>")
    assert lines == [
        "model 'mine' has no file, and not all of its source can be read (mine), so no earlier run of it is used "
        "again; put it into a file to have its runs found"
    ]
    linecache.cache["<cell>"] = (len(typed), None, typed.splitlines(keepends=True), "<cell>")
    second, lines = known("<cell>")
    assert "(lock)" in lines[0]
    assert len({first, second, known("<stdin>")[0], known("<cell>")[0]}) == 4


def test_what_a_file_computes_and_a_part_uses_is_part_of_its_run(own, monkeypatch):
    (own / "cfg.py").write_text("import os\nSLOPE = float(os.environ['SLOPE'])\nUNUSED = os.getpid()\n")
    (own / "blocks.py").write_text(BLOCKS.replace("\ndef", "\nfrom cfg import SLOPE\nW = 2 * 3\n\ndef").replace(
        "nn.ReLU()", "nn.LeakyReLU(SLOPE * W)"))  # fmt: skip
    monkeypatch.setenv("SLOPE", "0.5")
    import_user(str(own / "my.py"))
    assert MODELS.entry("mine").origin.values == {"SLOPE": "0.5"}
    before = known_by()
    run = nd.train("baseline-mlp", dataset="mnist5k", overrides=["model=mine", "train.budget=1it"], progress=False,
                   runtime=Runtime(runs_root=own / "runs"))  # fmt: skip
    run.model()
    forget()
    monkeypatch.setenv("SLOPE", "0.1")
    with pytest.raises(BadInput, match=r"was made with SLOPE = 0\.5.*here it has SLOPE = 0\.1"):
        nd.load(run.path).model()
    assert known_by() != before


def test_a_function_around_a_model_gives_it_values_too(own, monkeypatch):
    (own / "my.py").write_text(
        "import os\nfrom torch import nn\nfrom netdepth.models import MODELS\n\n"
        "def around(wide):\n    def mine(num_classes):\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(784, wide))\n"
        "    return mine\n\nMODELS.register('mine')(around(int(os.environ['WIDE'])))\n"
    )
    known = []
    for wide in ("4", "5", "4"):
        monkeypatch.setenv("WIDE", wide)
        import_user(str(own / "my.py"))
        known.append(MODELS.hashed(Component("mine", {}, 1))["source"])
        forget()
    assert known[0] == known[2] != known[1]


def test_values_that_follow_from_the_source_add_nothing(own):
    (own / "my.py").write_text(MODEL.replace("import blocks", "import blocks\nK = 4\nWIDE = (K, 2 * K)").replace(
        "self.head =", "self.wide = WIDE\n        self.head ="))  # fmt: skip
    import_user(str(own / "my.py"))
    origin = MODELS.entry("mine").origin
    assert not origin.values
    assert origin.source == origin.sha256
