"""The site: what it makes of docstrings, that it builds without a warning, and that no link of it leads nowhere."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import relatum
from generator import drawings, methods, prose, reference
from generator.equations import equation, marked
from relatum.methods import METHODS
from relatum.recipes.catalog import RECIPES

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("z_s", "<i>z</i><sub><i>s</i></sub>"),
        ("z^a_bi", "<i>z</i><sup><i>a</i></sup><sub><i>bi</i></sub>"),
        ("beta_l / 2", "<i>β</i><sub><i>l</i></sub> / 2"),
        ("sum_{i != j} C_ij^2", "∑<sub><i>i</i> ≠ <i>j</i></sub> <i>C</i><sub><i>ij</i></sub><sup>2</sup>"),
        ("e^{s_ip/t}", "<i>e</i><sup><i>s</i><sub><i>ip</i></sub>/<i>t</i></sup>"),
        ("theta' = m theta'", "<i>θ</i>\u2032 = <i>m</i> <i>θ</i>\u2032"),
        ("|z|_2", "|<i>z</i>|<sub>2</sub>"),
        ("query_key_loss(q)", '<span class="name">query_key_loss</span>(<i>q</i>)'),
        ("-log x, same-class", "\u2212log <i>x</i>, same-class"),
        ("a < b", "<i>a</i> &lt; <i>b</i>"),
    ],
)
def test_equations_are_set(text, html):
    assert marked(text) == html


def test_lines_of_an_equation_stand_below_each_other():
    found = equation("L = CE(z, y)            task\n  + beta T^2           kd\nwith z the logits")
    assert '<span class="left"><i>L</i></span><span class="sign">=</span>' in found
    assert '<span class="label">task</span>' in found
    assert equation("L = a     b + c   d      kd").count('class="label"') == 1
    assert "<i>a</i> <i>b</i> + <i>c</i> <i>d</i><span" in equation("L = a     b + c   d      kd")
    assert '<span class="left"></span><span class="sign">+</span>' in found
    assert '<span class="whole">with <i>z</i> the logits</span>' in found


def test_no_sign_of_a_docstring_means_anything_in_markdown():
    assert prose.markdown("a_b *c* `d_e` <f>") == r"a\_b \*c\* `d_e` \<f\>"
    assert prose.cell("|x| of `a|b`") == r"\|x\| of `a\|b`"


def test_a_docstring_becomes_restructured_text_in_which_every_sign_stands_for_itself():
    assert reference.restructured("`a` of |x|, z_ and *c*.") == r"``a`` of \|x\|, z\_ and \*c\*."
    assert reference.restructured("As\n\n    J = 1\n\nhere.") == "As\n\n::\n\n    J = 1\n\nhere."
    assert "::\n\n" not in reference.restructured("Args:\n    a: one.\n\n    b: two.")


@pytest.mark.parametrize("name", METHODS)
def test_the_page_of_a_method_says_all_that_is_known_of_it(name):
    page = methods.page(name)
    for option in methods.options_of(name):
        assert f"| `{option}` |" in page
    for entry in methods.entries_of(name).values():
        assert f"### `{entry.name}`" in page
        assert entry.command in page
        for number in (*entry.published, *entry.ours):
            assert f"| {number.value:g} |" in page
    text = methods.docstring_of(METHODS[name])
    equations = [part for part in text.parts if part.kind == "equation"]
    assert page.count("```{equation}") == len(equations)
    assert not equations or "## Source" in page


def test_every_recipe_is_on_one_page():
    assert sorted(entry for name in METHODS for entry in methods.entries_of(name)) == sorted(RECIPES)


def test_every_public_name_is_in_the_reference():
    named = [name for names in reference.names().values() for name in names]
    assert sorted(named) == sorted(relatum.__all__)


def test_the_matrix_of_the_schematic_is_the_jaccard_index():
    opacities = [float(x) for x in re.findall(r'fill-opacity="([\d.]+)"', drawings.schematic())]
    wide = opacities[:36]
    assert max(wide) == max(wide[i * 7] for i in range(6)), "views of one image are most alike"


class _Links(HTMLParser):
    """The links, anchors and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("img", "script", "source", "iframe") and "src" in given:
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") not in ("canonical",) and "href" in given:
            self.loaded.append(given["href"])


def broken(site: Path) -> list[str]:
    """Links and loaded files of a built site that lead nowhere, and what it loads from outside."""
    pages = {path: _Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    found.append(f"{path.name} loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids
            ):
                found.append(f"{path.name}: {link}")
    for sheet in site.rglob("*.css"):
        for url in re.findall(r"(?:url\(|@import)\s*['\"]?(\w+:)?//", sheet.read_text(encoding="utf-8")):
            found.append(f"{sheet.name} loads {url}")
    return found


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.html").write_text('<h1 id="here">x</h1>')
    good = '<a href="other.html#here"></a><a href="https://example.org/away"></a><img src="data:image/png;base64,">'
    (tmp_path / "index.html").write_text(good)
    assert broken(tmp_path) == []
    bad = '<a href="gone.html"></a><a href="other.html#gone"></a><script src="https://example.org/x.js"></script>'
    (tmp_path / "index.html").write_text(good + bad)
    assert len(broken(tmp_path)) == 3


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning is an error."""
    pytest.importorskip("furo")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.docs
def test_the_site_builds_and_every_link_leads_somewhere(site):
    assert broken(site) == []
    for name in METHODS:
        assert (site / "methods" / f"{name}.html").exists()


def _heard(tab) -> list[str]:
    """What a page complains of, and what it asks a network for, from now on."""
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url))
    return said


@pytest.mark.docs
def test_pages_fit_a_phone_and_a_desk_and_ask_no_network(site):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    sync_api = pytest.importorskip("playwright.sync_api")
    if chromium is None:
        pytest.skip("there is no chromium")
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (390, 1360):
            tab = browser.new_page(viewport={"width": width, "height": 844})
            said = _heard(tab)
            for name in pages:
                tab.goto((site / name).as_uri())
                wide = tab.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} is {wide} pixels wide where {width} are there"
            assert said == []
        browser.close()
