"""Checks answer pass, or not yet with a hint, and never raise."""

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from helpers import lesson

matplotlib.use("Agg")


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **options: outputs.append((data, options))
    )
    return outputs


def test_a_check_passes_when_all_holds(shown):
    @lesson.check("All is well")
    def _():
        yield True, "never seen"
        yield 1, "never seen"

    assert shown[0][0]["text/plain"] == "pass: All is well"


def test_a_pass_explains_why(shown):
    @lesson.check("All is well")
    def _():
        """Nothing was asked."""
        yield True, "never seen"

    assert shown[0][0]["text/plain"] == "pass: All is well. Nothing was asked."


def test_a_check_gives_the_first_hint_that_fits(shown):
    @lesson.check("Two steps")
    def _():
        yield True, "first"
        yield False, "Do the <second> with `a < b`."
        yield False, "third"

    assert shown[0][0]["text/plain"] == "not yet: Two steps. Do the <second> with `a < b`."
    assert "&lt;second&gt; with <code>a &lt; b</code>." in shown[0][0]["text/html"]


@pytest.mark.parametrize("problem", [NameError("name 'twin' is not defined"), OSError("gone")])
def test_a_check_turns_what_goes_wrong_into_a_hint(shown, problem):
    @lesson.check("Robust")
    def _():
        raise problem
        yield

    text = shown[0][0]["text/plain"]
    assert text.startswith("not yet: Robust. ") and str(problem) in text


def test_links_go_through_the_proxy_where_the_browser_is_elsewhere(shown, monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    lesson.link("http://127.0.0.1:4321/page", "the page")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    lesson.link("http://127.0.0.1:4321/page", "the page")
    lesson.link("http://127.8.9.10:80/page?q=1", "the page")
    assert [data.data for data, _ in shown] == [
        "[the page](http://127.0.0.1:4321/page)",
        "[the page](/user/ann/proxy/4321/page)",
        "[the page](/user/ann/proxy/127.8.9.10:80/page?q=1)",
    ]


def test_a_figure_has_its_description_and_its_machine(shown):
    lesson.style()
    figure, axes = plt.subplots()
    table = pd.DataFrame({"rung": ["tcg", "tcg", "docker"], "value": [1.0, 2.0, 3.0]})
    lesson.dots(axes, table)
    lesson.caption(figure, "Three runs.", rung="tcg and docker")
    data, options = shown[0]
    assert data["image/png"].startswith(b"\x89PNG") and data["text/plain"] == "Three runs."
    assert options["metadata"]["image/png"]["alt"] == "Three runs."
    assert "tcg and docker" in shown[1][0].data
