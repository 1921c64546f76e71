"""The page of a study in a real browser: it renders, asks for nothing, runs nothing, fits a phone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image
from support.browser import Browser, find_browser
from support.made_study_folders import Ending, make_study, small_spec, telling

from netdepth.report.page import write_report

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title='taken'</script><img src=http://example.test/x onerror=\"document.title='taken'\">"
PHONE = 360


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return find_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with every kind of run, and hostile names wherever a name can stand."""

    def ending(condition: str, depth: int, seed: int) -> Ending:
        states = {(4, 0): "failed", (4, 1): "no run", (8, 2): "unfinished"}
        lost = Ending(float("nan"), float("nan"), float("nan"), 1e9, "diverged")
        state = states.get((depth, seed), "completed") if condition != "plain" else "completed"
        return lost if (condition, depth, seed) == ("plain", 8, 1) else dataclasses.replace(
            telling(condition, depth, seed), state=state
        )  # fmt: skip

    depth, condition = small_spec().scientific
    levels = {"plain": {"model.shortcut": "none"}, f"residual {HOSTILE}": {"model.shortcut": "identity"}}
    spec = small_spec(
        question=f"Does depth help here {HOSTILE}?",
        scientific=(depth, dataclasses.replace(condition, levels=levels)),
        primary=tuple(item for item in small_spec().primary if item.condition == "plain"),
    )
    return write_report(make_study(tmp_path_factory.mktemp("study"), spec, ending))


def test_nothing_is_requested_and_nothing_executes(browser: Browser, page: Path) -> None:
    shown, asked = browser.served(page.read_text())
    assert asked == ["127.0.0.1/page.html"]
    assert "<title>Unfinished: made: Does depth help here &lt;script&gt;" in shown
    assert "&lt;script&gt;document.title='taken'" in shown
    # The instruments work: the same names in a page that does not escape them do both.
    control, asked = browser.served(f"<title>as it was</title>{HOSTILE}")
    assert "example.test/x" in asked
    assert "<title>taken</title>" in control


def test_every_figure_is_drawn_and_fits_a_phone(browser: Browser, page: Path) -> None:
    script = """doc => {
        doc.querySelectorAll('details').forEach(part => part.open = true);
        const wide = [...doc.body.querySelectorAll('*')].filter(e => !e.closest('.scroll') && !e.closest('svg'))
            .filter(e => e.getBoundingClientRect().right > doc.documentElement.clientWidth + 0.5);
        const boxes = [...doc.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect());
        const texts = [...doc.querySelectorAll('figure svg text')].filter(e => e.textContent.trim());
        return {
            page: [doc.documentElement.scrollWidth, doc.documentElement.clientWidth],
            wide: wide.map(e => e.tagName + '.' + e.className),
            figures: boxes.map(box => [box.width, box.height]),
            smallest: Math.min(...texts.map(e => e.getBoundingClientRect().height)),
            scroll: [...doc.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length,
        }; }"""
    found = browser.measure(page, PHONE, script)
    assert found["page"] == [PHONE, PHONE], "no scrolling of the page to the side"
    assert found["wide"] == []
    assert len(found["figures"]) == 14
    assert all(250 < width <= PHONE and height > 150 for width, height in found["figures"])
    assert found["smallest"] >= 9, "the text in the figures can be read"
    assert found["scroll"] > 0, "wide tables scroll in their own box"
    desktop = browser.measure(page, 1280, script)
    assert desktop["page"] == [1280, 1280]
    assert desktop["wide"] == []


def test_every_verdict_is_seen_on_a_phone_without_scrolling_to_the_side(browser: Browser, tmp_path: Path) -> None:
    depths = (2, 4, 8, 16, 24, 32, 48)
    axis, condition = small_spec().scientific
    spec = small_spec(scientific=(axis.of_depths(depths), condition))
    page = write_report(make_study(tmp_path, spec, lambda condition, depth, seed: telling(condition, 8, seed)))
    script = """doc => [...doc.querySelectorAll('.grid .chip')].map(e => [e.getBoundingClientRect().right,
        getComputedStyle(e, '::before').content])"""
    found = browser.measure(page, 360, script)
    assert len(found) == 3 * len(depths)
    assert max(right for right, _ in found) < 360
    assert [text for _, text in found[:7]] == [f'"depth {depth}"' for depth in depths]


def test_dark_and_light_differ_and_both_can_be_read(browser: Browser, page: Path) -> None:
    script = """doc => {
        const style = name => getComputedStyle(doc.querySelector(name));
        return [style('body').backgroundColor, style('body').color, style('figure svg text').fill,
            style('figure').backgroundColor]; }"""
    light, dark = (browser.measure(page, 800, script, scheme=scheme) for scheme in ("light", "dark"))
    assert all(one != other for one, other in zip(light, dark, strict=True))
    for paper, ink, text, panel in (light, dark):
        assert contrast(paper, ink) >= 7
        assert contrast(panel, text) >= 4.5  # WCAG 2.2, 1.4.3


def test_the_first_screen_has_the_answer(browser: Browser, page: Path, tmp_path: Path) -> None:
    script = "doc => ['.short', '.grid'].map(name => doc.querySelector(name).getBoundingClientRect().top)"
    assert max(browser.measure(page, 1280, script)) < 800
    pictures = {}
    for scheme in ("light", "dark"):
        path = browser.picture(page.as_uri(), tmp_path / f"{scheme}.png", (1280, 800), scheme=scheme)
        with Image.open(path) as image:
            pictures[scheme] = image.convert("L")
            assert image.size == (1280, 800)
    light, dark = (image.getpixel((5, 5)) for image in pictures.values())
    assert light > 200 > 60 > dark
    assert len(pictures["light"].getcolors(256) or []) > 50, "something is on it"


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two CSS colours, WCAG 2.2."""
    levels = sorted(luminance(text) for text in (one, other))
    return (levels[1] + 0.05) / (levels[0] + 0.05)


def luminance(text: str) -> float:
    channels = [int(part) / 255 for part in text.strip("rgb()").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
