"""The rules of the house that no linter knows: the size of a function, one thought on a line, and where
Dagster's private names may stand."""

import ast
import pathlib
import re
from collections.abc import Iterator

import grimp
import pytest
from radon.complexity import cc_visit
from radon.visitors import Function

PROJECT = pathlib.Path(__file__).parents[1]
PACKAGE = "audio_assets"
TREES = (PACKAGE, "audio_assets_tests", "benchmarks", "fuzz")
INTERNALS = PROJECT / PACKAGE / "defs" / "internals"

MAX_COMPLEXITY = 12
MAX_LINES = 60
REASON = "Long because"

PRIVATE_MODULE = re.compile(r"dagster\w*(\.\w+)*\._")
DAGSTER_OBJECTS = {"context", "dg", "instance"}


def sources(*trees: str) -> Iterator[tuple[str, str]]:
    """Path (from the project's root) and text of each module of some folders."""
    for tree in trees:
        for path in sorted((PROJECT / tree).rglob("*.py")):
            yield str(path.relative_to(PROJECT)), path.read_text()


# --- the rules: each gives the lines at which a text breaks it, with what stands there ---------------------


def complex_functions(text: str) -> Iterator[tuple[int, str]]:
    """Functions of more than 12 paths by radon's count: comprehensions and each `and` count as well."""
    for block in cc_visit(text):
        if isinstance(block, Function) and block.complexity > MAX_COMPLEXITY:
            yield block.lineno, f"{block.fullname} has complexity {block.complexity}"


def long_functions(text: str) -> Iterator[tuple[int, str]]:
    """Functions of more than 60 lines, unless docstring or the comment above says `Long because …`."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        reasons = (ast.get_docstring(node) or "") + comment_above(lines, first)
        if length > MAX_LINES and REASON not in reasons:
            yield node.lineno, f"{node.name} has {length} lines"


def comment_above(lines: list[str], line: int) -> str:
    """The comment that ends right above a line, which counts from 1."""
    first = line - 1
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return "\n".join(lines[first : line - 1])


def paired_assignments(text: str) -> Iterator[tuple[int, str]]:
    """Assignments of the form `a, b = x, y`, but for those that swap or rotate the same things."""
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)):
            continue
        given = sorted(map(ast.unparse, node.value.elts))
        for target in node.targets:
            if isinstance(target, ast.Tuple) and sorted(map(ast.unparse, target.elts)) != given:
                yield node.lineno, ast.unparse(node)


def private_names(text: str) -> Iterator[tuple[int, str]]:
    """Imports of private modules of Dagster, and private attributes of its objects."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                imported = [f"{module}.{alias.name}" for alias in names]
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in DAGSTER_OBJECTS:
                if attribute.startswith("_") and not attribute.startswith("__"):
                    yield node.lineno, f"{name}.{attribute}"
                continue
            case _:
                continue
        yield from ((node.lineno, name) for name in imported if PRIVATE_MODULE.match(name))


# --- the project keeps them ---------------------------------------------------------------------------------


def test_no_function_is_complex() -> None:
    found = [f"{path}:{at} {what}" for path, text in sources(PACKAGE) for at, what in complex_functions(text)]
    assert not found, "\n".join(["", *found])


def test_a_long_function_says_why() -> None:
    found = [f"{path}:{at} {what}" for path, text in sources(*TREES) for at, what in long_functions(text)]
    assert not found, "\n".join(["", *found])


def test_two_thoughts_do_not_share_an_assignment() -> None:
    found = [f"{path}:{at} {what}" for path, text in sources(*TREES) for at, what in paired_assignments(text)]
    assert not found, "\n".join(["", *found])


def test_private_names_of_dagster_stand_in_internals_alone() -> None:
    found = [
        f"{path}:{at} {what}"
        for path, text in sources(PACKAGE)
        for at, what in private_names(text)
        if not (PROJECT / path).is_relative_to(INTERNALS)
    ]
    assert not found, "\n".join(["", *found])


def test_each_module_of_internals_has_a_test_of_its_own() -> None:
    modules = {path.stem for path in INTERNALS.glob("*.py")} - {"__init__"}
    tests = {
        path.stem.removeprefix("test_") for path in pathlib.Path(__file__).parent.glob("internals/test_*")
    }
    assert modules
    assert modules == tests


@pytest.mark.parametrize("tree", TREES)
def test_no_module_imports_the_package_that_imports_it(tree: str) -> None:
    """A circle through an `__init__`, which import-linter does not look for."""
    graph = grimp.build_graph(tree, cache_dir=None)
    found = [
        f"{module} imports {package}, and so itself"
        for package in graph.modules
        for module in graph.find_modules_that_directly_import(package)
        if module.startswith(f"{package}.") and graph.chain_exists(importer=package, imported=module)
    ]
    assert not found, "\n".join(["", *found])


# --- the rules find what they look for ----------------------------------------------------------------------

BRANCHES = "def f(x):\n" + "".join(f"    if x == {i}: return {i}\n" for i in range(MAX_COMPLEXITY))
BODY = "    pass\n" * MAX_LINES
SHORT = "    pass\n" * (MAX_LINES - 1)
METHOD = "class C:\n    " + BRANCHES.replace("\n", "\n    ")


@pytest.mark.parametrize(
    ("rule", "breaks", "keeps"),
    [
        (complex_functions, BRANCHES, BRANCHES.replace("if x == 0: ", "")),
        (complex_functions, METHOD, "class C: pass"),
        (long_functions, f"def f():\n{BODY}", f"def f():\n{SHORT}"),
        (long_functions, f"# Long.\ndef f():\n{BODY}", f"# Long because of\n# this.\ndef f():\n{BODY}"),
        (long_functions, f"def f():\n    '''Long.'''\n{BODY}", f"def f():\n    '''Long because.'''\n{BODY}"),
        (long_functions, f"# Long because\n\n@g\ndef f():\n{BODY}", f"# Long because\n@g\ndef f():\n{BODY}"),
        (paired_assignments, "a, b = x, y", "a, b = f()"),
        (paired_assignments, "a, b.c = 0, []", "a[i], b.c = b.c, a[i]"),
        (private_names, "from dagster._core.utils import f", "from dagster.core import f"),
        (private_names, "import dagster_aws._s3", "import dagster_aws.s3"),
        (private_names, "from dagster import _core", "from dagster import core"),
        (private_names, "context.instance._get()\ncontext._step.key", "context.step.key"),
    ],
)
def test_each_rule_tells_right_from_wrong(rule, breaks: str, keeps: str) -> None:
    assert list(rule(breaks))
    assert not list(rule(keeps))
