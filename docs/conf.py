"""Sphinx settings of the documentation: `make docs` builds it into build/docs, and any warning stops the build."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import attncap  # noqa: E402

project = "attncap"
author = "attncap authors"
version = release = attncap.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",  # docs/_ext/mathml.py
    "sphinx_copybutton",
    "sphinx_argparse_cli",
    "command_line",  # docs/_ext/command_line.py
    "generated",  # docs/_ext/generated.py: notebooks, API pages and drawings
]
exclude_patterns = ["_ext", "_templates"]

# Markdown and notebooks. Notebooks are shown as they are committed: tests/integration/test_notebooks.py runs them.
nb_execution_mode = "off"
nb_merge_streams = True  # lines that a cell prints one after the other are one block
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = [
    "mystnb.unknown_mime_type",  # saved widgets of progress bars have no text form
    "ref.python",  # two classes may have an attribute of one name
]

# The docstrings write code in single backticks, and sections as Google's style guide has them.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Reference", "notes_style"), ("Call arguments", "params_style")]
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature shows them
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries = False

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"attncap {release}"
html_static_path = ["_static"]
html_css_files = ["attncap.css"]
html_show_sphinx = False
html_show_copyright = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
