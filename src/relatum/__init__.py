"""Relatum trains image encoders from how images relate.

The public names stand in `__init__.pyi`, where type checkers and editors read them, and are loaded when they are first
used: torch and timm cost seconds, and `relatum --help` must not wait.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
