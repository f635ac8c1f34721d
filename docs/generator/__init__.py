"""What the site makes of the package: a page for each method, the API, and drawings. A Sphinx extension."""

from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    from generator import directives, pages, reference

    app.connect("builder-inited", lambda _: pages.write(DOCS))
    app.connect("autodoc-process-docstring", reference.as_restructured, priority=100)  # before napoleon reads it
    app.connect("autodoc-process-signature", reference.short_signature)
    directives.add(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
