"""The arrow: scripts, tests → recovery_journal → projections → domain; two halves are pure."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.bootstrap import LINKED

ROOT = Path(__file__).resolve().parents[1]

DOMAIN = "recovery_journal.domain"
PROJECTIONS = "recovery_journal.projections"
PRODUCT = {DOMAIN, PROJECTIONS, "recovery_journal"}

MAY_IMPORT = {
    DOMAIN: {DOMAIN},
    PROJECTIONS: {DOMAIN, PROJECTIONS},
    "recovery_journal": PRODUCT,
    # The arrow points at all three, and the benchmarks make events and fold them.
    "scripts": {*PRODUCT, "scripts"},
    "tests": {*PRODUCT, "scripts", "tests"},
    # By these names the checkout alone has them; a user's own package may be called so.
    "domain": set(),
    "projections": set(),
}
FOLDERS = {DOMAIN: "domain", PROJECTIONS: "projections"}
PURE = {DOMAIN, PROJECTIONS}
PURE_LIBRARIES = ("msgspec", "eventsourcing.domain")
IMPURE_MODULES = {
    "asyncio",
    "importlib",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "warnings",
}
IMPURE_NAMES = {"uuid1", "uuid4", "datetime_now_with_tzinfo"}
IMPURE_BUILTINS = {"input", "open", "print"}
CLOCKS = re.compile(r"(datetime|date)\.(now|utcnow|today)$")


def imports_of(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Every module that a module imports, wherever the import stands, relative ones resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*above, *([node.module] if node.module else [])])


def layer_of(module: str) -> str | None:
    """The innermost layer that holds a module; none where it is not ours."""
    layers = [it for it in MAY_IMPORT if module == it or module.startswith(f"{it}.")]
    return max(layers, key=len, default=None)


def wrong_arrows(source: str, module: str, *, is_package: bool = False) -> list[str]:
    layer = layer_of(module)
    assert layer is not None
    return [
        f"{module} imports {imported}"
        for imported in imports_of(ast.parse(source), module, is_package=is_package)
        if layer_of(imported) not in {None, *MAY_IMPORT[layer]}
    ]


def impurities(source: str, module: str, *, is_package: bool = False) -> list[str]:
    tree = ast.parse(source)
    found = [
        imported
        for imported in imports_of(tree, module, is_package=is_package)
        if not is_pure(imported)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and CLOCKS.search(ast.unparse(node)):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_BUILTINS:
            found.append(ast.unparse(node.func))
        elif (
            getattr(node, "id", None) in IMPURE_NAMES or getattr(node, "attr", None) in IMPURE_NAMES
        ):
            found.append(ast.unparse(node))
    return [f"{module} uses {what}" for what in found]


def is_pure(imported: str) -> bool:
    if layer_of(imported) in PURE:
        return True
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names:
        return top not in IMPURE_MODULES
    return any(imported == name or imported.startswith(f"{name}.") for name in PURE_LIBRARIES)


def modules_of(layer: str) -> list[tuple[str, Path]]:
    """The modules of a layer; the launchers among the scripts have no suffix."""
    folder = ROOT / FOLDERS.get(layer, layer)
    files = [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]
    if layer == "recovery_journal":  # without the targets of its links, which some globs enter
        files = [path for path in files if path.relative_to(folder).parts[0] not in LINKED]
    if layer == "scripts":
        files += [path for path in folder.iterdir() if path.is_file() and not path.suffix]
    names = [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in sorted(files)]
    return [
        (f"{layer}.{name}".removesuffix(".__init__").replace("/", "."), path)
        for name, path in names
    ]


@pytest.mark.parametrize("layer", [it for it in MAY_IMPORT if MAY_IMPORT[it]])
def test_imports_follow_the_arrow(layer: str) -> None:
    modules = modules_of(layer)

    wrong = [
        arrow
        for module, path in modules
        for arrow in wrong_arrows(
            path.read_text(encoding="utf-8"), module, is_package=path.stem == "__init__"
        )
    ]

    assert len(modules) > 1
    assert wrong == []


LAYERS = [
    "domain",
    "projections",
    "process",
    "postgres",
    "limits",
    "inputs",
    "values",
    "errors",
    "events",
    "log",
    "read_models.tables",
    "read_models.following",
    "read_models.rebuild",
    "read_models.schema",
    "read_models.as_of",
    "library_adapter",
    "store",
    "recovery",
    "claiming",
    "monitoring",
    "restore",
    "journal",
    "opening",
    "sweeper",
    "worker",
    "cli",
    "",
]
"""Of `recovery_journal`, the lowest first: each may import itself and those before it. The last is
the package's own face."""


def rank_of(module: str) -> int:
    """The place of a module of ours among the layers."""
    within = module.removeprefix("recovery_journal").removeprefix(".")
    held = [it for it in LAYERS if it and (within == it or within.startswith(f"{it}."))]
    return LAYERS.index(max(held, key=len, default=""))


def modules_named_by(source: str, module: str) -> Iterator[str]:
    """Our modules that a module imports; `from package import module` names the module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "recovery_journal":
            yield from (f"recovery_journal.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (it for it in imports_of(node, module) if it.startswith("recovery_journal."))


def steps_up(source: str, module: str) -> list[str]:
    return [
        f"{module} imports {imported}"
        for imported in modules_named_by(source, module)
        if rank_of(imported) > rank_of(module)
    ]


def test_each_layer_of_the_package_imports_those_below_it_alone() -> None:
    modules = modules_of("recovery_journal")

    found = [
        step
        for module, path in modules
        for step in steps_up(path.read_text(encoding="utf-8"), module)
    ]

    assert {rank_of(module) for module, _ in modules} == set(range(2, len(LAYERS)))
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("recovery_journal.log.reader", "from recovery_journal.store.runs import RunStore"),
        ("recovery_journal.store.runs", "from recovery_journal.recovery import cohort"),
        ("recovery_journal.recovery.sweep", "from recovery_journal.journal import Journal"),
        (
            "recovery_journal.recovery.sweep",
            "def f():\n    import recovery_journal.claiming.claims",
        ),
        ("recovery_journal.journal", "from recovery_journal import sweeper"),
        ("recovery_journal.read_models.tables.x", "import recovery_journal.read_models.rebuild.y"),
        ("recovery_journal.worker.worker", "from recovery_journal import Journal"),
    ],
)
def test_a_step_up_is_found(module: str, source: str) -> None:
    assert len(steps_up(source, module)) == 1


@pytest.mark.parametrize("layer", sorted(PURE))
def test_the_pure_halves_touch_neither_clock_nor_world(layer: str) -> None:
    found = [
        impurity
        for module, path in modules_of(layer)
        for impurity in impurities(
            path.read_text(encoding="utf-8"), module, is_package=path.stem == "__init__"
        )
    ]

    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (f"{DOMAIN}.lease", "import recovery_journal.projections"),
        (f"{DOMAIN}.lease", "from recovery_journal import open"),
        (f"{DOMAIN}.lease", "def f():\n    import recovery_journal.leases"),
        (f"{DOMAIN}.lease", "import domain"),
        (f"{PROJECTIONS}.contexts", "from recovery_journal.log import Recorder"),
        (f"{PROJECTIONS}.contexts", "if True:\n    from scripts.bootstrap import run"),
        ("recovery_journal.journal", "from projections import catalog"),
        ("tests.worker", "from domain.lease import Fence"),
        ("recovery_journal.sweeper", "from tests.servers import PrivateServer"),
        ("recovery_journal.sweeper", "import scripts.benchmark as it"),
        ("scripts.demonstration", "from tests.servers import PrivateServer"),
    ],
)
def test_a_wrong_arrow_is_found(module: str, source: str) -> None:
    assert len(wrong_arrows(source, module)) == 1


def test_the_demonstration_uses_what_any_user_could() -> None:
    modules = [it for it in modules_of("scripts") if it[0].startswith("scripts.demonstration.")]

    layers = {
        layer_of(imported)
        for module, path in modules
        for imported in imports_of(ast.parse(path.read_text(encoding="utf-8")), module)
    }

    assert "recovery_journal" in layers
    assert layers.isdisjoint(PURE)


def test_a_right_arrow_is_left_alone() -> None:
    source = (
        f"import {DOMAIN}.lease\nfrom {PROJECTIONS} import contexts\nfrom . import log\nimport os"
    )

    assert wrong_arrows(source, "recovery_journal.sweeper") == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from pathlib import Path",
        "import logging as log",
        "from random import Random",
        "import psycopg",
        "import eventsourcing.postgres",
        "from eventsourcing import persistence",
        "from datetime import datetime\nat = datetime.now(tz=None)",
        "import datetime\nat = datetime.datetime.utcnow",
        "from uuid import uuid4\nnumber = field(default_factory=uuid4)",
        "import uuid\nnumber = uuid.uuid4()",
        "text = open('state').read()",
    ],
)
def test_an_impurity_is_found(source: str) -> None:
    assert len(impurities(source, f"{DOMAIN}.lease")) == 1


def test_arguments_and_values_are_pure() -> None:
    source = (
        "import msgspec\nfrom datetime import datetime, timedelta\n"
        "from eventsourcing.domain import event\nfrom .digest import extend\n"
        "def lost(now: datetime) -> bool:\n    return now > datetime.max - timedelta(1)"
    )

    assert impurities(source, f"{DOMAIN}.lease") == []


def test_a_relative_import_out_of_a_package_is_seen_where_it_leads() -> None:
    source = "from ..scripts import bootstrap\nfrom .. import tests"

    found = list(imports_of(ast.parse(source), "top.recovery_journal.journal"))

    assert found == ["top.scripts", "top"]


def python_in(page: str) -> Iterator[str]:
    yield from re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def beyond_the_surface(source: str) -> list[str]:
    """The inner modules that a user would have to know: all but the one name."""
    return [
        imported
        for imported in imports_of(ast.parse(source), "user")
        if imported.partition(".")[0] in MAY_IMPORT and imported != "recovery_journal"
    ]


def test_what_a_user_reads_imports_one_name_alone() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    sources = [source for page in pages for source in python_in(page.read_text(encoding="utf-8"))]

    assert sources, "the README shows an example"
    assert [found for source in sources for found in beyond_the_surface(source)] == []


@pytest.mark.parametrize(
    "line", ["import domain", "from recovery_journal.log import Recorder", "import tests.servers"]
)
def test_an_example_that_reaches_inside_is_found(line: str) -> None:
    page = f"# Title\n\n```python\nimport recovery_journal as rj\n{line}\n```\n"

    (source,) = python_in(page)

    assert len(beyond_the_surface(source)) == 1
