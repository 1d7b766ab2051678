"""The wheel's layout: `domain` and `projections` go below `recovery_journal`, imports follow.

A user's own code may well have a package called `domain`, so the wheel has one name at its top.
Imports are found by the parser and changed where the parser says they stand; text that merely
looks like an import is never touched.
"""

import ast
import codecs
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TOP = "recovery_journal"
PREFIX = b"recovery_journal."
MOVED = ("domain", "projections")
LOOKUPS = ("__import__", "import_module", "find_spec", "files")
LEFT_OUT = ("__pycache__", ".pyc", ".pyo")

FROM = re.compile(rb"from(?:[ \t\f]|\\\r?\n)+")
"""Between `from` and a module's name the grammar allows nothing but blanks and joined lines."""
NAMED_BY_TEXT = re.compile(rf"(?:{'|'.join(MOVED)})(?:\.\w+)*:[\w.]+")
"""A topic such as `domain.lease:Fence`: a name that only running code would look up."""

Place = Callable[[int, int], int]


class CannotMove(Exception):
    """A module names a moved package in a way that cannot be followed."""

    def __init__(self, path: Path, line: int, found: str) -> None:
        super().__init__(
            f"cannot move {path}: found {found} in line {line}, needed an import statement "
            "that names the package; write one"
        )


class WheelLayout(BuildHookInterface[Any]):
    """Puts the three packages into the wheel as one; an editable install keeps them apart."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Lay out the files anew and have them included instead of the checkout's."""
        if version == "editable":
            return
        self.laid_out = Path(tempfile.mkdtemp(prefix="wheel-layout-"))
        lay_out(Path(self.root), self.laid_out)
        build_data["force_include"][str(self.laid_out / TOP)] = TOP

    def finalize(
        self,
        version: str,
        build_data: dict[str, Any],  # noqa: ARG002 - the builder says more than we ask
        artifact_path: str,  # noqa: ARG002 - likewise
    ) -> None:
        """Remove the laid-out copy."""
        if version != "editable":
            shutil.rmtree(self.laid_out)


def lay_out(checkout: Path, target: Path) -> None:
    """Copy the three packages of a checkout into one below the target, imports rewritten."""
    for package, place in ((TOP, TOP), *((name, f"{TOP}/{name}") for name in MOVED)):
        if (target / place).exists():
            raise CannotMove(checkout / place, 1, f"a package in the place of {package}")
        for path in files_of(checkout / package):
            copy = target / place / path.relative_to(checkout / package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            copy.write_bytes(rewritten(content, path) if path.suffix == ".py" else content)


def files_of(package: Path) -> Iterator[Path]:
    """Everything of a package that is shipped: modules, SQL, typing markers, corpora."""
    for path in sorted(package.rglob("*")):
        if path.is_file() and not any(part.endswith(LEFT_OUT) for part in path.parts):
            yield path


def rewritten(content: bytes, path: Path) -> bytes:
    """The module with every import of a moved package naming its place in the wheel."""
    insertions: list[tuple[int, bytes]] = []
    place = places_in(content)
    for node in ast.walk(ast.parse(content, str(path))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and is_moved(node.module or ""):
            start = FROM.match(content, place(node.lineno, node.col_offset))
            assert start is not None, "an absolute import names a module after `from`"
            insertions.append((start.end(), PREFIX))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                insertions.extend(insertions_for(alias, place))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if NAMED_BY_TEXT.fullmatch(node.value):
                raise CannotMove(path, node.lineno, f"the text {node.value!r}")
        elif isinstance(node, ast.Call) and (found := named_by_call(node)):
            raise CannotMove(path, node.lineno, found)
    for at, text in sorted(insertions, reverse=True):
        content = content[:at] + text + content[at:]
    return content


def insertions_for(alias: ast.alias, place: Place) -> Iterator[tuple[int, bytes]]:
    """`import domain.x` must go on binding the name `domain`, and nothing else."""
    if not is_moved(alias.name):
        return
    assert alias.end_lineno is not None
    assert alias.end_col_offset is not None
    yield place(alias.lineno, alias.col_offset), PREFIX
    if alias.asname is None:
        top = alias.name.partition(".")[0]
        bound = f" as {top}" if top == alias.name else f", {TOP}.{top} as {top}"
        yield place(alias.end_lineno, alias.end_col_offset), bound.encode()


def named_by_call(call: ast.Call) -> str | None:
    """A moved package looked up by its name while the program runs."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    for argument in call.args:
        if name in LOOKUPS and isinstance(argument, ast.Constant) and is_moved(argument.value):
            return f"{name}({argument.value!r})"
    return None


def is_moved(module: object) -> bool:
    """Whether a dotted name lies in a package that moves."""
    return isinstance(module, str) and module.partition(".")[0] in MOVED


def places_in(content: bytes) -> Place:
    """From the parser's line and column, which count bytes, to a place in the file."""
    # Not splitlines(): it also splits at form feeds, which are no line ends to the parser.
    starts = [0, *(end.end() for end in re.finditer(rb"\r\n|\r|\n", content))]
    mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0

    def place(line: int, column: int) -> int:
        return starts[line - 1] + column + (mark if line == 1 else 0)

    return place
