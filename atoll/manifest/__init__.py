"""Manifests: the text people write for the documents of Atoll, and the text the programs print back.

One codec, driven by the proto descriptors, so there is no second schema. `parse` reads YAML or JSON and reports every
mistake at once with its line and column; `to_yaml` and `to_json` print; what was printed reads back as the same.
What a valid workload is (limits, names, quotas) is decided by admission at the global plane, not here.
"""

from atoll.manifest.documents import Document, parse
from atoll.manifest.source import ManifestError, Mark
from atoll.manifest.writer import to_json, to_yaml, tree

__all__ = ["Document", "ManifestError", "Mark", "parse", "to_json", "to_yaml", "tree"]
