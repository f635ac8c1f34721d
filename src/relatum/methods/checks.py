"""Options of methods, refused by name where they are out of range: before any work is lost."""


def at_least_zero(name: str, value: float) -> float:
    """`value`, the weight of a loss term or another number that may be 0 to switch something off.

    Raises:
        ValueError: for a negative number, or what is no number.
    """
    if not value >= 0:
        raise ValueError(f"{name} is {value}; expected a number >= 0, 0 to switch the term off.")
    return value


def positive(name: str, value: float, such_as: float) -> float:
    """`value`, a number above 0 such as a temperature.

    Raises:
        ValueError: for 0 and below, or what is no number.
    """
    if not value > 0:
        raise ValueError(f"{name} is {value}; expected a positive number such as {such_as}.")
    return value


def share(name: str, value: float, such_as: float, *, below_one: bool = False) -> float:
    """`value`, a share in [0, 1], or in [0, 1) where all of it would leave nothing.

    Raises:
        ValueError: for a number outside, or what is no number.
    """
    if not 0 <= value <= 1 or (below_one and value == 1):
        raise ValueError(f"{name} is {value}; expected a share in [0, 1{')' if below_one else ']'} such as {such_as}.")
    return value
