"""Labels of other tools, one module per format.

The functions that a caller needs are `guess_format`, `import_labels` and `export_labels`.
"""

from __future__ import annotations

from samif.dataset.formats.convert import Imported, import_labels
from samif.dataset.formats.export import export_labels
from samif.dataset.formats.guess import FORMATS, guess_format
from samif.dataset.formats.labels import ImportOptions

__all__ = ["FORMATS", "ImportOptions", "Imported", "export_labels", "guess_format", "import_labels"]
