"""Steps that several modules of tests take."""

import importlib.util


def refused(result, *words):
    """The call of `pushpull` must have ended with exit code 2 and one line that has all the words."""
    code, _, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err, err


def load_script(path):
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
