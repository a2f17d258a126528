"""Where the reference vectors lie."""

import functools
import os
from pathlib import Path

import pytest
from vectors import load_vectors


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    folder = os.environ.get("PUSHPULL_REFERENCE")
    if not folder or not (Path(folder) / "draws.json").is_file():
        pytest.skip("the reference vectors are absent; PUSHPULL_REFERENCE names their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def vectors(reference_folder):
    """Load the vectors of a profile, once."""
    return functools.cache(lambda profile: load_vectors(reference_folder, profile))
