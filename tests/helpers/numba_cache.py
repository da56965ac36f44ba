"""A cache of numba's for each worker of pytest-xdist; import this before librosa.

Two processes that compile librosa's functions at once can leave a cache that crashes whoever reads it later
(https://github.com/numba/numba/issues/10128; seen with numba 0.68.1).
"""

import os
from pathlib import Path

_FOLDER = Path(os.environ.get("NUMBA_CACHE_DIR", Path(__file__).parents[2] / ".pytest_cache" / "numba"))
os.environ["NUMBA_CACHE_DIR"] = str(_FOLDER / os.environ.get("PYTEST_XDIST_WORKER", "alone"))
