"""How annotations are checked under pytest: by beartype, which takes an int where a float is wanted, as Python does."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
