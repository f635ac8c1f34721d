"""How alike two embeddings are. Larger is more alike, always: distances enter negated.

An embedding may hold several *spaces* side by side, `z = [h^(1) | h^(2)]`, the outputs of a bi-projector.
With `s = <a, b>` and `d = |a - b|^2`:

| relation  | value                                          | range on unit vectors |
|-----------|------------------------------------------------|-----------------------|
| Cosine    | `s / (|a| |b|)`                                | [-1, 1]               |
| Tanimoto  | `s / (s + d) = s / (|a|^2 + |b|^2 - s)`        | [-1/3, 1]             |
| Jaccard   | `s / (s + d)`, `s` in space 1, `d` in space 2  | (0, 1], if not signed |
| Euclidean | `-sqrt(d)`                                     | [-2, 0]               |

Jaccard with equal spaces is Tanimoto, and Tanimoto of 0/1 vectors is `|A and B| / |A or B|`: the index of sets
that gives the name.

A relation says its value once, as an elementwise function of *forms* (`relatum.relations.forms`); matched rows, all
pairs and the blocks of the losses follow. Yours does, too:

    class Squared(Relation):
        forms = (UnitInner(),)

        def value(self, cosine):
            return cosine * cosine.abs()
"""

from relatum.relations.base import Relation
from relatum.relations.catalog import RELATIONS
from relatum.relations.cosine import Cosine
from relatum.relations.euclidean import Euclidean
from relatum.relations.forms import Chord, Distance, Form, Inner, Squares, UnitInner, unit
from relatum.relations.jaccard import Jaccard
from relatum.relations.tanimoto import Tanimoto
from relatum.relations.within import Within

__all__ = [
    "RELATIONS",
    "Chord",
    "Cosine",
    "Distance",
    "Euclidean",
    "Form",
    "Inner",
    "Jaccard",
    "Relation",
    "Squares",
    "Tanimoto",
    "UnitInner",
    "Within",
    "unit",
]
