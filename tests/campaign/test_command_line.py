"""Command lines that nobody should type: each ends with one line of error and leaves nothing behind."""

import string
import sys

import pytest

from campaign.ledger import Ledger, child
from relatum import RECIPES, cli
from relatum.recipes.recipe import flat, to_dict
from relatum.training import loop

pytestmark = pytest.mark.campaign

VERBS = ("train", "evaluate", "cost", "embed", "export", "table", "list", "show", "study", "report")
BAD = ("nan", "inf", "-inf", "-1", "0", "1e999", "9" * 21, "", " ", "none", "true", "../../x", "/etc/passwd", "é", "\x00"[:0] + "\\", "[]", "{}", "1,2", "0x10", "--")  # fmt: skip  # noqa: E501
REFUSED_TRAINING = "training was reached"


def command(rng) -> list[str]:
    """A command line: a verb, a recipe or a folder, and options of which at least one is wrong."""
    recipe = rng.choice(list(RECIPES))
    verb = rng.choice(VERBS)
    args = [verb]
    if rng.random() < 0.9:
        args.append(rng.choice((recipe, recipe[:-1], recipe + "x", "runs/none", "", ".", "nothing.yaml", "..")))
    fields = list(flat(to_dict(RECIPES[recipe]())))
    for _ in range(rng.randint(0, 4)):
        field = rng.choice(fields).replace("_", "-")
        if rng.random() < 0.3:
            at = rng.randrange(len(field))
            field = field[:at] + rng.choice(string.ascii_lowercase) + field[at + 1 :]
        args.append(f"--{field}")
        if rng.random() < 0.9:
            args.append(rng.choice(BAD))
    if rng.random() < 0.1:
        args.append("".join(rng.choices(string.printable.strip(), k=12)))
    return args


def test_fuzzed_command_lines(ledger: Ledger, tmp_path):
    area = "fuzzed command lines"
    ledger.expects(area, "status 0 or one clear error with status 2; no traceback, no hang, no file left behind")
    rng = ledger.rng(area)

    def attack(args: list[str]) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise ValueError(REFUSED_TRAINING)

        loop.fit = refuse  # a line that is right after all would train
        sys.argv = ["relatum", *args]
        cli.main()

    for number in range(ledger.attempts(560)):
        args, folder = command(rng), tmp_path / str(number)
        folder.mkdir()
        ended = child(lambda args=args: attack(args), folder, seconds=60)
        left = sorted(path.name for path in folder.rglob("*") if path.is_file())
        survived = (ended.done or ended.refused) and not (ended.refused and left)
        ledger.count(area, survived, f"relatum {args}: {ended}; left {left}")
    ledger.check(area)
