"""Which modules doctests are looked for in."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("triton") else ["src/pushpull_conv/kernels/fused.py"]
