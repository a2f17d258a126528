import numpy as np
import pytest


@pytest.fixture
def pixels() -> np.ndarray:
    """Twenty pictures, uint8 [20, 32, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def labels() -> list[int]:
    """Two of each class, in the order in which class folders give them."""
    return [place // 2 for place in range(20)]
