"""The compiled parts of the package, one for each `_*_build.py`; everything else about it stands in pyproject.toml.

One that cannot be built is left out: the package then works in pure Python, and the tests say that it is missing.
"""

from pathlib import Path

from setuptools import setup

root = Path(__file__).parent
setup(cffi_modules=[f"{path.relative_to(root)}:ffi" for path in sorted(root.glob("wghsm/*/_*_build.py"))])
