"""Files of the repository that an installed package holds too: configs/, tokenize/, and the demo model.

In the repository configs/ and tokenize/ are beside the package; a wheel has them in it, as hafm_jax/configs and
hafm_jax/tokenize.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from hafm_jax.common.options import local_path

PACKAGE = Path(__file__).parents[1]
HOLDERS = (PACKAGE, PACKAGE.parent)  # a wheel's first: what is beside it belongs to others


def find_shipped(path: Path) -> Path:
    """The path as it is; but where nothing is there, and configs/... or hafm_jax/... is shipped, the shipped one."""
    if path.parts[:1] not in (("configs",), ("hafm_jax",)) or os.path.lexists(path):
        return path
    return next((found for holder in HOLDERS if os.path.exists(found := holder / path)), path)


def local_or_shipped(text: str) -> Path:
    """An argparse type: `find_shipped` of a path as it is given."""
    return find_shipped(local_path(text))


def load_script(name: str) -> ModuleType:
    """tokenize/NAME.py as a module. The folder is not a package in the repository, where it would be in the way of the
    standard library's module of that name."""
    path = next(p for holder in HOLDERS if (p := holder / "tokenize" / f"{name}.py").exists())
    spec = importlib.util.spec_from_file_location(f"hafm_jax.tokenize.{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def let_configs_be_imported() -> None:
    """So that a configuration can build on others: `from configs.base import get_config` finds configs/base.py of the
    working folder, else the shipped one."""
    if "configs" not in sys.modules:
        configs = ModuleType("configs")
        folders = [Path.cwd() / "configs", *(holder / "configs" for holder in HOLDERS)]
        configs.__path__ = [str(folder) for folder in folders if folder.is_dir()]
        sys.modules["configs"] = configs
