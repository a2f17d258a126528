"""Steps that several modules of tests take."""

import importlib.util
from pathlib import Path

import pytest

from pushpull_conv.errors import InputError


class Killed(BaseException):
    """As SIGKILL would: nothing in the package catches it."""


def refused(result, *words):
    """The call of `pushpull` must have ended with exit code 2 and one line that has all the words."""
    code, _, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err, err


def refuses(call, message, *args, **kwargs):
    """The call must raise an `InputError` of one line that ``message``, a pattern, matches."""
    with pytest.raises(InputError, match=message) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


def files(folder: Path) -> dict[str, bytes]:
    """The content of all files in a folder, by their place in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load_script(path):
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
