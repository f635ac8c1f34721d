"""What the site makes of the package: a page for each method, the API, and drawings. A Sphinx extension."""

import hashlib
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
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    made_by = int(hashlib.sha256(sources).hexdigest()[:8], 16)  # another one: what was read before is read anew
    return {"version": "1", "env_version": made_by, "parallel_read_safe": True, "parallel_write_safe": True}
