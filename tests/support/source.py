"""The modules of the package and what each imports, as ``tools/structure.py`` reads them."""

import runpy
from pathlib import Path

STRUCTURE = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "structure.py"))
MODULES = STRUCTURE["modules"]()


def imports_of(name: str) -> set[str]:
    """The modules that the module ``name`` imports, also inside functions, for annotations, and by a string."""
    module = MODULES[name]
    found: set[str] = module.imports | module.annotations | module.by_name
    return found
