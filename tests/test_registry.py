"""The registry: schemas from signatures, defaults, refusals, what enters the fingerprint."""

from typing import Annotated, Literal

import pytest

import netdepth
from netdepth.config import Component, type_name
from netdepth.errors import BadInput
from netdepth.registry import REGISTRIES, Registry


def make():
    registry = Registry("thing")

    @registry.register("box", version=2, added=("lid",))
    def box(
        context,
        *,
        width: Annotated[int, "units"],
        scale: Annotated[float, "factor"] = 1.0,
        kind: Annotated[Literal["plain", "fancy"], "look"] = "plain",
        sizes: Annotated[list[int] | None, "sizes"] = None,
        lid: Annotated[bool, "closed"] = False,
    ):
        """A box."""
        return context, width, scale, kind, sizes, lid

    return registry


def test_resolve_fills_defaults_checks_types_and_sets_the_version():
    registry = make()
    resolved = registry.resolve(Component("box", {"width": 3, "scale": 2}))
    assert resolved.args == {"width": 3, "scale": 2.0, "kind": "plain", "sizes": None, "lid": False}
    assert type(resolved.args["scale"]) is float
    assert resolved.version == 2
    assert registry.resolve(resolved) == resolved
    assert registry.build(resolved, "ctx") == ("ctx", 3, 2.0, "plain", None, False)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("bix", {}, ["'bix'", "did you mean 'box'"]),
        ("box", {}, ["needs width"]),
        ("box", {"widht": 3}, ["'widht'", "did you mean 'width'"]),
        ("box", {"width": "3"}, ["thing.width = '3'", "a whole number"]),
        ("box", {"width": True}, ["width = True"]),
        ("box", {"width": 3, "kind": "fance"}, ["'fance'", "did you mean 'fancy'"]),
        ("box", {"width": 3, "sizes": [1, "2"]}, ["sizes[1] = '2'"]),
        ("box", {"width": 3, "scale": float("nan")}, ["scale = nan"]),
        ("box", {"width": 3, "scale": 10**400}, ["scale"]),
        ("box", {"width": None}, ["width = None"]),
    ],
)
def test_refusals_name_the_value_and_the_good_ones(name, args, words):
    with pytest.raises(BadInput) as error:
        make().resolve(Component(name, args))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_another_version_is_refused():
    with pytest.raises(BadInput, match="version 2 here, the config asks for version 1"):
        make().resolve(Component("box", {"width": 1}, 1))


def test_duplicates_are_refused():
    twice = make().register("box")
    with pytest.raises(BadInput, match="registered already"):
        twice(lambda: None)


def test_a_younger_setting_at_its_default_stays_out_of_the_fingerprint():
    registry = make()
    plain = registry.hashed(registry.resolve(Component("box", {"width": 3})))
    lidded = registry.hashed(registry.resolve(Component("box", {"width": 3, "lid": True})))
    assert "lid" not in plain["args"]
    assert "kind" in plain["args"]
    assert lidded["args"]["lid"] is True


def test_type_names_read_like_words():
    assert type_name(list[int] | None) == "list of int or null"
    assert type_name(int | float | None) == "number or null"
    assert type_name(Literal["a", "b"]) == "'a' | 'b'"


def test_a_users_source_enters_the_fingerprint_and_ours_does_not(tmp_path):
    from netdepth.models import MODELS
    from netdepth.recipes import import_user

    assert "source" not in MODELS.hashed(MODELS.resolve(Component("mlp", {"hidden": [8]})))
    code = (
        "from netdepth.registry import Registry\nTHINGS = Registry('thing')\n@THINGS.register('mine')\ndef mine(): {}\n"
    )
    digests = []
    for body in ("return 1", "return 2"):
        path = tmp_path / "mine.py"
        path.write_text(code.format(body))
        registry = import_user(str(path)).THINGS
        digests.append(registry.hashed(registry.resolve(Component("mine")))["source"])
    assert digests[0] != digests[1]


def test_plain_parameters_with_defaults_are_settings_too_of_the_type_they_show():
    registry = Registry("thing")

    @registry.register("bag")
    class Bag:
        """A bag."""

        def __init__(self, context, size: float | Registry = 1, *, names=("a",), weight=0, look=None, made=print):
            self.seen = (context, size, names, weight, look)

    assert [setting.name for setting in registry.entry("bag").fields] == ["size", "names", "weight", "look"]
    assert registry.build(Component("bag"), "ctx").seen == ("ctx", 1.0, ("a",), 0, None)
    given = {"size": 2, "names": ["b", "c"], "weight": 0.5, "look": "new"}
    assert registry.build(Component("bag", given), "ctx").seen == ("ctx", 2.0, ("b", "c"), 0.5, "new")
    with pytest.raises(BadInput, match=r"thing\.size = 'big' is not acceptable; it takes a number"):
        registry.resolve(Component("bag", {"size": "big"}))
    with pytest.raises(BadInput, match=r"thing\.weight = 'big' is not acceptable; it takes a number$"):
        registry.resolve(Component("bag", {"weight": "big"}))
    with pytest.raises(BadInput, match="setting of thing 'bag': 'made'"):
        registry.resolve(Component("bag", {"made": "x"}))


def test_every_registry_is_offered_by_the_package():
    assert {kind: getattr(netdepth, place.partition(":")[2]).kind for kind, place in REGISTRIES.items()} == {
        kind: kind for kind in REGISTRIES
    }
