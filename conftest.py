"""Which modules doctests are looked for in."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("triton") else ["src/pushpull_conv/kernels/fused.py"]
# pytest loads these by itself; looked through for doctests, two of them would be one module of one name.
collect_ignore_glob = ["tests/conftest.py", "tests/*/conftest.py"]
