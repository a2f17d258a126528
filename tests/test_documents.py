"""What README and docs tell a reader to type works, and what they point to exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from pushpull_conv.cli import app
from pushpull_conv.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
DOCUMENTS += sorted(ROOT.glob("results/*/README.md"))
DOCUMENTS += sorted(ROOT.glob("src/pushpull_conv/pretrained/*/README.md"))


def blocks(language):
    return [
        pytest.param(block, id=f"{document.relative_to(ROOT)}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.M | re.S))
    ]


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "document", "exec"), {"__name__": "document"})


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if "extends:" in block.values[0]])
def test_recipes_are_recipes(block, tmp_path):
    (tmp_path / "mine.yaml").write_text(block)
    load_recipe(str(tmp_path / "mine.yaml"))  # builds the network of each variant


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_are_understood(block):
    """Parsed by the command line itself, short of doing it."""
    group = typer.main.get_command(app)
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["pushpull"]:
            name, *words = words[1:]
            command = group.commands[name]
            if hasattr(command, "commands"):  # a group of its own, such as data
                name, *words = words
                command = command.commands[name]
            command.make_context(name, words)


@pytest.mark.parametrize("block", blocks("sh"))
def test_make_targets_exist(block):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", block, re.M):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
    for target in targets:
        if "://" not in target:
            assert (document.parent / target).exists(), target
