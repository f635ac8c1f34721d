"""How Sphinx builds the site: `sphinx-build -W docs build/site`. Nothing in it is loaded from a network."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Relatum"
author = "the authors of Relatum"
copyright = "the authors of Relatum, Apache-2.0"
version = release = version_of("relatum")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "generator"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["pictures/README.md", "**/__pycache__"]
nitpicky = False

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
maximum_signature_line_length = 88
copybutton_prompt_text = ""

html_theme = "furo"
html_title = "Relatum"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#0b6b75", "color-brand-content": "#0b6b75"},
    "dark_css_variables": {"color-brand-primary": "#5cc4cf", "color-brand-content": "#5cc4cf"},
    "footer_icons": [],
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
