"""Equations as docstrings write them, in the letters of a keyboard, set as HTML.

A docstring has to be read in a terminal: `sum_{i != j} C_ij^2`. A page can show Greek letters, raised and lowered ones.
Nothing is loaded for that (no MathJax), and what is no mathematics stays as it is: `query_key_loss` is a name.
"""

import re
from html import escape

LETTERS = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "epsilon": "ε", "theta": "θ", "phi": "φ"},
    **{"lam": "λ", "lambda": "λ", "mu": "μ", "rho": "ρ", "sigma": "σ", "tau": "τ", "psi": "ψ", "xi": "ξ", "eta": "η"},
    **{"Delta": "Δ", "sum": "∑", "sqrt": "√"},
}
"""What words become."""

SIGNS = {"->": "→", "<-": "←", "<=": "≤", ">=": "≥", "!=": "≠", "||": "‖", "...": "…"}
"""What signs become."""

SCRIPTED = {"mean", "max", "min", "log", "softmax", "var", "CE", "KL", "Var", "Cov", "sg"}
"""Words, beside single letters and Greek ones, that may carry raised and lowered letters."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_NAME = re.compile(r"[A-Za-z]\w*")
_SCRIPT = re.compile(r"[A-Za-z0-9.]+'*|[-+*]")
_STATEMENT = re.compile(r"(?P<left>\S.{0,26}?)? *(?P<sign>(?<![<>!])=) (?P<right>.*)")
_LABEL = re.compile(r" {4,}(?P<text>(?!sum)\w+(, Eq\. \(\d+\))?|\(.*\)|\w+=\"\w+\")$")
_CONTINUED = re.compile(r"(?P<sign>[-+]) +(?P<right>.*)")


def equation(text: str) -> str:
    """An indented block of a docstring as HTML; the text itself is what a screen reader says."""
    rows = [_row(line) for line in text.splitlines()]
    label = escape(" ".join(text.split()), quote=True)
    return f'<div class="equation" role="math" aria-label="{label}">\n' + "\n".join(rows) + "\n</div>"


def _row(line: str) -> str:
    """One line: its left side, its sign and its right side stand below those of the line above."""
    found = _CONTINUED.fullmatch(line.strip()) or _STATEMENT.fullmatch(line.strip())
    if found is None:
        return f'<span class="whole">{marked(line.strip())}</span>'
    left = found.groupdict().get("left") or ""
    right, label = found["right"], _LABEL.search(found["right"])
    tag = ""
    if label is not None:  # what a term is called stands far to its right
        right, tag = right[: label.start()], f'<span class="label">{marked(label["text"])}</span>'
    right = re.sub(r"(?<![,;]) {2,}", " ", right)  # terms below each other; statements are apart by a comma
    return (
        f'<span class="left">{marked(left.strip())}</span><span class="sign">{marked(found["sign"])}</span>'
        f'<span class="right">{marked(right)}{tag}</span>'
    )


def marked(text: str) -> str:
    """A piece of an equation as HTML."""
    parts, i = [], 0
    while i < len(text):
        part, i = _part(text, i)
        while i < len(text) and text[i] in "_^" and part.scripted:
            inside, i = _inside(text, i + 1)
            kind = "sub" if text[i - len(inside.raw) - 1] == "_" else "sup"
            indices = re.fullmatch(r"[a-z]{2,3}", inside.raw) and inside.raw != "out"
            part.html += f"<{kind}>{f'<i>{inside.raw}</i>' if indices else marked(inside.text)}</{kind}>"
        parts.append(part.html)
    return "".join(parts)


class _Part:
    """A letter, a word or a sign, and whether raised and lowered letters may follow it."""

    def __init__(self, html: str, scripted: bool = False) -> None:
        self.html, self.scripted = html, scripted


class _Script:
    """What stands behind `_` or `^`: as written, and without its braces."""

    def __init__(self, raw: str, text: str) -> None:
        self.raw, self.text = raw, text


def _part(text: str, i: int) -> tuple[_Part, int]:
    word = _WORD.match(text, i)
    if word is not None:
        return _word(text, i, word.group())
    for sign, shown in SIGNS.items():
        if text.startswith(sign, i):
            return _Part(shown, scripted=sign == "||"), i + len(sign)
    spaces = re.compile(r" {2,}").match(text, i)
    if spaces is not None:
        return _Part('<span class="gap"></span>'), spaces.end()
    if text[i] == "-" and not (text[i - 1 : i].isalpha() and text[i + 1 : i + 2].isalpha()):
        return _Part("−"), i + 1
    return _Part(escape(text[i]), scripted=text[i] in ")]|"), i + 1


def _word(text: str, i: int, word: str) -> tuple[_Part, int]:
    end = i + len(word)
    scripted = len(word) == 1 or word in LETTERS or word in SCRIPTED
    if text[end : end + 1] == "_" and not scripted:  # a name of the program
        name = _NAME.match(text, i)
        assert name is not None
        return _Part(f'<span class="name">{escape(name.group())}</span>'), name.end()
    primes = re.compile(r"'+(?![A-Za-z])").match(text, end)
    shown = LETTERS.get(word, word)
    article = word == "a" and re.match(r" [a-z]{2,}", text[end:])
    variable = len(shown) == 1 and shown.isalpha() and not article and text[i - 1 : i] != "'"
    html = f"<i>{shown}</i>" if variable else shown
    if primes is not None:
        return _Part(html + "′" * len(primes.group()), scripted), primes.end()
    return _Part(html, scripted), end


def _inside(text: str, i: int) -> tuple[_Script, int]:
    """What is raised or lowered: a balanced {group}, letters and digits, or one sign."""
    if text[i : i + 1] == "{":
        depth, end = 0, i
        for end in range(i, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if not depth:
                break
        return _Script(text[i : end + 1], text[i + 1 : end]), end + 1
    found = _SCRIPT.match(text, i)
    raw = found.group() if found else text[i : i + 1]
    return _Script(raw, raw), i + len(raw)
