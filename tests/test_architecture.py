"""Who may import whom, and what no load path may call: read from the source, without running it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("metarl_envs", "metarl_agents", "zoo", "scripts")
FAMILIES = ("bayesian", "gradient", "bilevel", "context")

# Of our packages, what each may import; of metarl_envs, agents may rely on the contracts only.
OURS = {
    "metarl_envs": ("metarl_envs",),
    "metarl_agents": (
        "metarl_agents",
        "metarl_envs.core",
        "metarl_envs.wrappers",
        "metarl_envs.tabular.mdp",
    ),
    "zoo": ("zoo", "metarl_agents", "metarl_envs"),
    "scripts": ("scripts", "zoo", "metarl_agents", "metarl_envs"),
}
ENVS_MAY_USE = {"numpy", "gymnasium", "scipy"}


class Import(NamedTuple):
    """One arrow of the import graph."""

    importer: str
    imported: str
    line: int


# The rules ------------------------------------------------------------------------------------


def why_not(importer: str, imported: str, leaves: frozenset[str] = frozenset()) -> str | None:
    """Reason why this arrow is not allowed; ``None`` where it is."""
    package, target = importer.split(".")[0], imported.split(".")[0]
    if target in (*OURS, "tests"):
        allowed = OURS[package]
        if importer.startswith("metarl_agents.common.testing"):
            allowed = (*allowed, "metarl_envs.probes")
        if not any(_is_within(imported, name) for name in allowed):
            return f"{package} may import {', '.join(allowed)} of our packages"
    elif package == "metarl_envs":
        is_locomotion = _is_within(importer, "metarl_envs.locomotion")
        allowed_libraries = ENVS_MAY_USE | ({"mujoco"} if is_locomotion else set())
        if target not in allowed_libraries | set(sys.stdlib_module_names):
            return f"metarl_envs may import {', '.join(sorted(allowed_libraries))}"
    if package == target == "metarl_agents":
        return _why_not_among_agents(importer, imported, leaves)
    return None


def _why_not_among_agents(importer: str, imported: str, leaves: frozenset[str]) -> str | None:
    source, target = importer.split(".")[1:], imported.split(".")[1:]
    if not source:
        return None  # the package's own __init__ gathers the public names
    if not target:
        return "modules of metarl_agents import each other, not the package"
    if source[0] == "common" and target[0] != "common":
        return "common may import common only"
    if source[0] in FAMILIES and target[0] not in (source[0], "common"):
        return "families may import themselves and common, never each other"
    if source[0] == target[0] and source[0] in FAMILIES and len(source) > 1:
        rank, other = _rank(importer, leaves), _rank(imported, leaves)
        if rank == other == 2 and importer != imported:
            return "leaves never import leaves"
        if other > rank:
            return "the order is: pure modules, then *_meta, then leaf algorithms"
    return None


def _rank(module: str, leaves: frozenset[str]) -> int:
    """0 for a pure module, 1 for ``*_meta``, 2 for a leaf algorithm (and the family's package)."""
    if module in leaves or module.count(".") == 1:
        return 2
    return 1 if module.endswith("_meta") else 0


def _is_within(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


# Reading the source ---------------------------------------------------------------------------


def sources() -> dict[str, Path]:
    """Every module of ours, by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(
    module: str, tree: ast.AST, *, is_package: bool, known: set[str]
) -> Iterator[Import]:
    """Arrows that start at ``module``: of every import statement, wherever it stands."""
    parent = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = parent.split(".")[: parent.count(".") + 2 - node.level]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(module, full if full in known else base, node.lineno)


def all_imports() -> list[Import]:
    """The whole import graph of our packages."""
    modules = sources()
    return [
        arrow
        for module, path in modules.items()
        for arrow in imports_of(
            module, _parse(path), is_package=path.name == "__init__.py", known=set(modules)
        )
    ]


def leaf_modules() -> frozenset[str]:
    """Modules that define a class of ``ALGORITHMS``."""
    names = _algorithm_classes(_parse(ROOT / "metarl_agents/__init__.py"))
    return frozenset(
        module
        for module, path in sources().items()
        if module.startswith(tuple(f"metarl_agents.{family}." for family in FAMILIES))
        and any(isinstance(n, ast.ClassDef) and n.name in names for n in ast.walk(_parse(path)))
    )


def _algorithm_classes(tree: ast.AST) -> set[str]:
    for node in ast.walk(tree):
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        if isinstance(target, ast.Name) and target.id == "ALGORITHMS":
            return {item.id for item in ast.walk(node.value) if isinstance(item, ast.Name)}
    return set()


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


# What no load path may call -------------------------------------------------------------------

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
UNSAFE_BUILTINS = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {
    "torch.load": "torch.load unpickles",
    "joblib.load": "joblib.load unpickles",
    "pandas.read_pickle": "read_pickle unpickles",
    "yaml.load": "use yaml.safe_load",
    "yaml.load_all": "use yaml.safe_load_all",
    "yaml.full_load": "use yaml.safe_load",
    "yaml.unsafe_load": "use yaml.safe_load",
    "importlib.import_module": "no import by name",
}
# Imports by name of what the source or the user named, never a file.
IMPORTS_BY_NAME = {
    ("zoo/watch.py", "_ffmpeg"),  # an optional library, by a constant name
    ("zoo/cli.py", "main"),  # commands, from a constant table: --help stays fast
    ("metarl_agents/common/vec_env/factory.py", "_batched"),  # "module:id", as gymnasium.make
    ("metarl_agents/common/testing/process.py", "_at"),  # the class under test, in a new process
}


class Finding(NamedTuple):
    """An unsafe call or import."""

    function: str
    line: int
    reason: str


def unsafe(tree: ast.AST) -> list[Finding]:
    """Everything in ``tree`` that could run code named or held by a file."""
    names = _names_of_imports(tree)
    found: list[Finding] = []
    for function, node in _with_functions(tree):
        reasons = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else imported
            reasons += [f"imports {m}" for m in modules if m.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.Call):
            called = _dotted(node.func, names)
            if called in UNSAFE_BUILTINS and isinstance(node.func, ast.Name):
                reasons.append(f"calls {called}")
            if called in UNSAFE_CALLS:
                reasons.append(f"{called}: {UNSAFE_CALLS[called]}")
            if any(
                keyword.arg == "allow_pickle" and _is_truthy(keyword) for keyword in node.keywords
            ):
                reasons.append("allow_pickle")
        elif _dotted(node, names) in UNSAFE_CALLS.keys() - {"importlib.import_module"}:
            # Also where such a function is handed on rather than called.
            reasons.append(f"names {_dotted(node, names)}")
        found += [Finding(function, node.lineno, reason) for reason in reasons]
    return found


def _names_of_imports(tree: ast.AST) -> dict[str, str]:
    """Local name -> what it stands for: {"th": "torch", "safe_load": "yaml.safe_load"}."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def _with_functions(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield function, node
        yield from _with_functions(node, node.name if is_function else function)


def _is_truthy(keyword: ast.keyword) -> bool:
    return not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)


# The tests ------------------------------------------------------------------------------------


def test_every_import_is_allowed():
    leaves = leaf_modules()
    refused = [
        f"{arrow.importer}:{arrow.line} imports {arrow.imported}: {reason}"
        for arrow in all_imports()
        if (reason := why_not(arrow.importer, arrow.imported, leaves))
    ]
    assert not refused, "\n".join(refused)


def test_the_graph_is_read_at_all():
    arrows = {(arrow.importer, arrow.imported) for arrow in all_imports()}
    assert ("metarl_envs.checks.tasks", "metarl_envs.checks.subject") in arrows
    assert ("metarl_envs.wrappers.trial", "gymnasium.utils") in arrows
    assert len(arrows) > 100


def test_leaves_are_the_modules_of_the_table_of_algorithms():
    leaves = leaf_modules()
    assert "metarl_agents.bayesian.mtsrl" in leaves
    assert not any(module.endswith("_meta") for module in leaves)


LEAVES = frozenset({"metarl_agents.gradient.maml", "metarl_agents.gradient.promp"})


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("metarl_envs.batched.env", "torch"),
        ("metarl_envs.core", "stable_baselines3.common.vec_env"),
        ("metarl_envs.checks", "metarl_agents.common"),
        ("metarl_envs.navigation", "mujoco"),
        ("metarl_envs.core", "yaml"),
        ("metarl_envs.core", "zoo"),
        ("metarl_agents.common.collect", "metarl_envs"),
        ("metarl_agents.common.collect", "metarl_envs.distributions"),
        ("metarl_agents.common.collect", "metarl_envs.probes"),
        ("metarl_agents.bayesian.mtsrl", "metarl_envs.tabular.recommendation"),
        ("metarl_agents.common.collect", "zoo.config"),
        ("metarl_agents.common.collect", "metarl_agents.bayesian.rlsvi"),
        ("metarl_agents.common.collect", "metarl_agents"),
        ("metarl_agents.gradient.promp", "metarl_agents.bayesian.rlsvi"),
        ("metarl_agents.gradient.promp", "metarl_agents.gradient.maml"),
        ("metarl_agents.gradient.gradient_meta", "metarl_agents.gradient.maml"),
        ("metarl_agents.gradient.losses", "metarl_agents.gradient.gradient_meta"),
        ("metarl_agents.gradient.losses", "metarl_agents.gradient.maml"),
        ("metarl_agents.gradient.losses", "metarl_agents.gradient"),
        ("zoo.cli", "scripts.bench_envs"),
        ("zoo.cli", "tests.conftest"),
    ],
)
def test_forbidden_arrows_are_refused(importer, imported):
    assert why_not(importer, imported, LEAVES)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("metarl_envs.batched.env", "metarl_envs.core"),
        ("metarl_envs.batched.env", "scipy.special"),
        ("metarl_envs.batched.env", "collections.abc"),
        ("metarl_envs.locomotion.env", "mujoco"),
        ("metarl_agents.common.collect", "metarl_envs.core"),
        ("metarl_agents.common.collect", "torch"),
        ("metarl_agents.common.testing.contract", "metarl_envs.probes.finite"),
        ("metarl_agents.bilevel.exact", "metarl_envs.tabular.mdp"),
        ("metarl_agents", "metarl_agents.bayesian"),
        ("metarl_agents.gradient", "metarl_agents.gradient.maml"),
        ("metarl_agents.gradient.maml", "metarl_agents.gradient.gradient_meta"),
        ("metarl_agents.gradient.maml", "metarl_agents.gradient.losses"),
        ("metarl_agents.gradient.gradient_meta", "metarl_agents.gradient.losses"),
        ("metarl_agents.gradient.other_meta", "metarl_agents.gradient.gradient_meta"),
        ("metarl_agents.gradient.maml", "metarl_agents.common.losses"),
        ("zoo.cli", "metarl_envs.tabular.recommendation"),
        ("scripts.bench_envs", "zoo.config"),
    ],
)
def test_allowed_arrows_pass(importer, imported):
    assert why_not(importer, imported, LEAVES) is None


@pytest.mark.parametrize(
    ("statement", "imported"),
    [
        ("import a.b", "a.b"),
        ("import a.b as c", "a.b"),
        ("from a.b import c", "a.b.c"),
        ("from a.b import D", "a.b"),
        ("from . import c", "a.b.c"),
        ("from .c import D", "a.b.c"),
        ("from ..x import D", "a.x"),
        ("def f():\n    import hidden", "hidden"),
        ("if TYPE_CHECKING:\n    import hidden", "hidden"),
    ],
)
def test_imports_are_found_in_every_form(statement, imported):
    found = list(imports_of("a.b.m", ast.parse(statement), is_package=False, known={"a.b.c"}))
    assert [arrow.imported for arrow in found] == [imported]


def test_relative_imports_of_a_package_start_at_itself():
    found = imports_of("a.b", ast.parse("from .c import D"), is_package=True, known=set())
    assert [arrow.imported for arrow in found] == ["a.b.c"]


def load_path_sources() -> list[Path]:
    return [
        path
        for package in ("metarl_agents", "zoo")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def test_nothing_on_a_load_path_can_run_code_from_a_file():
    refused, imports_by_name = [], set()
    for path in load_path_sources():
        where = path.relative_to(ROOT).as_posix()
        for finding in unsafe(_parse(path)):
            if "no import by name" in finding.reason:
                imports_by_name.add((where, finding.function))
            else:
                refused.append(f"{where}:{finding.line} {finding.reason}")
    assert not refused, "\n".join(refused)
    assert imports_by_name <= IMPORTS_BY_NAME, imports_by_name - IMPORTS_BY_NAME


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import cloudpickle",
        "from dill.source import x",
        "def f():\n    import marshal",
        "eval('1')",
        "exec('1')",
        "compile('1', '', 'eval')",
        "__import__('os')",
        "import torch\ntorch.load('f')",
        "import torch as th\nth.load('f', weights_only=True)",
        "from torch import load\nload('f')",
        "from torch import load as read\nread('f')",
        "import torch as th\nf(th.load)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "from yaml import full_load\nfull_load(text)",
        "import joblib\njoblib.load('f')",
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module\nimport_module(name)",
        "import numpy as np\nnp.load('f', allow_pickle=True)",
        "import numpy as np\nnp.load('f', allow_pickle=flag)",
    ],
)
def test_the_detector_finds_planted_violations(code):
    assert unsafe(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "import copy\ncopy.deepcopy(x)",
        "policy.eval()",
        "import yaml\nyaml.safe_load(text)",
        "import json\njson.load(file)",
        "from safetensors.torch import load\nload(data)",
        "agent.load('f')",
        "import re\nre.compile('x')",
        "import numpy as np\nnp.load('f', allow_pickle=False)",
        "import importlib.metadata\nimportlib.metadata.version('torch')",
        "'pickle'",
    ],
)
def test_the_detector_lets_harmless_code_pass(code):
    assert not unsafe(ast.parse(code))


def test_imports_by_name_are_reported_with_their_function():
    code = (
        "import importlib\nclass A:\n    def f(self):\n        return importlib.import_module('x')"
    )
    assert [finding.function for finding in unsafe(ast.parse(code))] == ["f"]


def test_nothing_reads_files_outside_the_repository():
    readers = [
        str(path)
        for path in sources().values()
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.Constant) and "../shared" in str(node.value)
    ]
    assert not readers
