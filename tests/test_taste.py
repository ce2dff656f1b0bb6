"""Tests of taste: the rules of the house that a machine can check."""

import ast
import builtins
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "mae_jax").rglob("*.py"))
EXTENSIONS = ROOT / "mae_jax" / "project" / "extensions"
"""Files of users, who may import all of the library."""
ALL = FILES + sorted((ROOT / "configs").glob("*.py")) + sorted((ROOT / "tests").rglob("*.py"))

# Which parts of the package a part may import, besides itself.
BASE = {"errors", "extensions", "rules", "types", "spec"}
MAY_IMPORT = {
    "errors": set(),
    "rules": {"errors"},
    "types": {"errors", "rules"},
    "extensions": {"errors"},
    "spec": {"errors", "extensions"},
    "metrics": BASE,
    "tables": BASE,
    "ops": BASE,
    "models": BASE | {"ops"},
    "masks": BASE | {"models", "ops"},
    "targets": BASE | {"models", "ops"},
    "objectives": BASE | {"ops"},
    "methods": BASE | {"ops", "models", "masks", "targets"},
    "tasks": BASE | {"ops", "models", "methods", "objectives"},
    "evals": BASE | {"data", "ops"},
    "figures": BASE | {"evals", "metrics", "ops", "tables"},
    "predictions": BASE | {"data", "evals", "ops", "paths"},
    "writers": BASE | {"json_files", "metrics", "tables", "workdir"},
    "engine": BASE | {"writers"},
    "distributed": BASE | {"engine"},
    "data": BASE,
    "experiment": BASE,
    "paths": {"errors"},
    "project": BASE | {"configs", "paths"},
    "config": BASE | {"experiment"},
    "upgrade": {"config"},
    "configs": BASE | {"models"},
    "json_files": {"errors"},
    "workdir": BASE | {"config", "json_files", "metrics", "paths", "upgrade"},
    "weights": BASE
    | {"config", "configs", "data", "engine", "methods", "models", "objectives", "ops", "paths"}
    | {"targets", "workdir"},
    "standardize": BASE | {"config", "ops"},
    "settings": BASE
    | {"config", "engine", "evals", "figures", "methods", "standardize", "weights", "writers"},
    "learner": BASE | {"engine", "evals", "methods", "ops"},
    "plan": BASE | {"engine", "run", "workdir"},
    "progress": BASE | {"data", "engine"},
    "checks": BASE | {"data", "engine", "evals"},
    "run": BASE
    | {
        "checks",
        "config",
        "data",
        "engine",
        "evals",
        "learner",
        "ops",
        "settings",
        "standardize",
        "weights",
        "writers",
    },
    "restore": BASE
    | {"checks", "config", "data", "engine", "methods", "run", "weights", "workdir"},
    "explain": BASE
    | {"data", "evals", "figures", "methods", "models", "ops", "restore", "weights", "workdir"},
    "demo": BASE
    | {"data", "engine", "explain", "figures", "masks", "methods", "onnx_convert", "ops"}
    | {"predictions", "weights", "workdir"},
    "sharing": BASE
    | {"config", "engine", "json_files", "methods", "metrics", "tables", "weights", "workdir"},
    "onnx_convert": BASE,
    "export": BASE | {"methods", "onnx_convert", "run"},
    "model": BASE | {"data", "methods", "ops", "predictions", "weights", "workdir"},
    "features": BASE | {"checks", "models", "ops", "predictions", "run"},
    "search": BASE | {"data", "evals", "figures", "predictions", "run"},
    "evaluate": BASE
    | {
        "engine",
        "evals",
        "figures",
        "learner",
        "metrics",
        "progress",
        "run",
        "tables",
        "workdir",
        "writers",
    },
    "reconstruct": BASE | {"evaluate", "figures", "run"},
    "train": BASE | {"distributed", "engine", "evaluate", "plan", "run", "workdir", "writers"},
    "sweeps": BASE
    | {
        "config",
        "distributed",
        "engine",
        "json_files",
        "metrics",
        "standardize",
        "tables",
        "weights",
        "workdir",
    },
    "bench": BASE
    | {
        "checks",
        "config",
        "data",
        "engine",
        "learner",
        "masks",
        "methods",
        "models",
        "ops",
        "run",
        "settings",
        "standardize",
        "targets",
        "tasks",
    },
    "cli": BASE
    | {
        "bench",
        "config",
        "data",
        "demo",
        "distributed",
        "engine",
        "evaluate",
        "experiment",
        "explain",
        "export",
        "features",
        "restore",
        "paths",
        "plan",
        "predictions",
        "project",
        "reconstruct",
        "run",
        "search",
        "settings",
        "sharing",
        "sweeps",
        "tables",
        "train",
        "weights",
        "workdir",
    },
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file, parsed once for all tests."""
    return ast.parse(path.read_text())


@functools.cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """All that is in it."""
    return list(ast.walk(tree))


@functools.cache
def imports_of(tree: ast.AST) -> set[str]:
    """Every module that a file imports, anywhere in it, as 'package.module'."""
    found = set()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def part_of(name: str) -> str | None:
    """'mae_jax.ops.patches' to 'ops'; None for other packages and for mae_jax itself."""
    pieces = name.split(".")
    return pieces[1] if pieces[0] == "mae_jax" and len(pieces) > 1 else None


def check_each(paths, fault):
    """Every file is looked at; those that have a fault are named together.

    Args:
        fault: of a path, a text, or None.
    """
    found = [f"{p.relative_to(ROOT)}: {text}" for p in paths if (text := fault(p))]
    assert not found, "\n".join(["", *found])


def test_imports_point_one_way():
    def fault(path):
        part = path.relative_to(ROOT / "mae_jax").parts[0].removesuffix(".py")
        if part in ("__init__", "__main__") or path.is_relative_to(EXTENSIONS):
            return None
        parts = {part_of(name) for name in imports_of(parsed(path))} - {None}
        beyond = parts - MAY_IMPORT[part] - {part, "__version__"}
        return f"may not import {sorted(beyond)}" if beyond else None

    check_each(FILES, fault)


def test_tensorflow_stays_behind_its_door():
    def fault(path):
        heavy = {name.split(".")[0] for name in imports_of(parsed(path))}
        refused = set() if path.is_relative_to(ROOT / "mae_jax" / "data") else {"tensorflow"}
        refused |= {f"{name}_datasets" for name in refused}
        if path != ROOT / "mae_jax" / "engine" / "checkpoint.py":
            refused |= {"orbax"}
        return f"may not import {sorted(heavy & refused)}" if heavy & refused else None

    check_each(FILES, fault)


def test_everything_but_the_tf_pipeline_imports_without_what_is_heavy():
    """A try to import one of them counts too, also by a library: it takes seconds where it is
    installed.
    """
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.name not in ("pipeline.py", "__main__.py") and "assets" not in str(path)
    ]
    code = (
        "import sys, importlib, traceback\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'torch', 'transformers', 'sklearn'}\n"
        "tried = []\n"
        "class Refuse:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.split('.')[0] in heavy:\n"
        "            tried.append(''.join(traceback.format_stack()))\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse)\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "assert not tried, tried[0]\n"
        "import jax\n"
        "assert not jax._src.xla_bridge.backends_are_initialized(), 'an import touched a device'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_files_open_with_what_they_are_for():
    def fault(path):
        text = path.read_text()
        if not re.match(r'(#.*\n|\s)*r?"""\s*[^"\s]', text):
            return "no docstring"
        if any(len(line) > 100 for line in text.splitlines()):
            return "a line of over 100 columns"

    check_each(ALL, fault)


def faults_of_public_things(path):
    """What is missing or too long in a file, a text each."""
    tree = parsed(path)
    if path.read_text().count("\n") > 300:
        yield "over 300 lines"
    if path.name in ("utils.py", "helpers.py", "misc.py"):
        yield "a name that says nothing"
    for node in nodes(parsed(path)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            body = lines - len((ast.get_docstring(node) or "").splitlines())
            if body > 60:
                yield f"{node.name}: {body} lines"
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    methods = [m for c in public if isinstance(c, ast.ClassDef) for m in c.body]
    for node in public + [m for m in methods if isinstance(m, ast.FunctionDef)]:
        if not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{node.name} has no docstring"


def test_public_things_are_documented_and_small():
    check_each(FILES, lambda path: "; ".join(faults_of_public_things(path)))


def test_nothing_happens_at_import():
    """Modules define things; only jax.config, prints and the like would be loose expressions."""

    def fault(path):
        for node in parsed(path).body:
            if isinstance(node, ast.Expr) and ".defvjp(" not in ast.unparse(node):
                if not isinstance(node.value, ast.Constant):
                    return f"line {node.lineno} does something"

    check_each(FILES, fault)


def test_each_make_declares_what_it_makes():
    """By its annotation, a class: a name is looked up among what makes the kind that is needed."""

    def fault(path):
        for node in parsed(path).body:
            if isinstance(node, ast.FunctionDef) and node.name == "make":
                if not isinstance(node.returns, ast.Name):
                    return "make is annotated with no class"

    check_each(FILES, fault)


def test_documents_hold_no_placeholders():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if re.fullmatch(r"\s*[A-Z_]+\s*", line)]
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_configs_ask_for_nothing_silently():
    """config.get(key, default) would hide a misspelt key."""
    for path in FILES:
        for node in nodes(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                assert not (node.func.attr == "get" and "config" in owner), f"{path}:{node.lineno}"


MAY_LOOK = {
    "data/deep.py": "imagecodecs makes its functions when they are asked for",
    "data/dicom_codecs.py": "imagecodecs makes its functions when they are asked for",
    "data/loader.py": "os.sched_getaffinity is not on a Mac",
    "data/tfds_sets.py": "features of TFDS have no base class, and not all releases all fields",
    "engine/mesh.py": "devices have a slice_index on some platforms only",
    "engine/preemption.py": "the jax module may be half imported when a signal comes",
    "experiment.py": "the signature of a function that a user wrote",
    "spec.py": "checks arguments that a user wrote, and has the defaults of configs",
}
"""Files that may ask an object what it has, and why. What is ours declares it: see types.py."""
LOOKS = {"hasattr", "getattr", "setattr", "delattr", "getattr_static", "getmembers"}
LOOKS |= {"signature", "getfullargspec", "__dict__", "__code__", "__annotations__"}


def looks(tree: ast.AST) -> set[str]:
    """The names of LOOKS that a file uses, also as attributes: inspect.signature, x.__dict__."""
    used = {node.attr for node in nodes(tree) if isinstance(node, ast.Attribute)}
    used |= {name.rpartition(".")[2] for name in imports_of(tree)}
    names = {node.id for node in nodes(tree) if isinstance(node, ast.Name)}
    return LOOKS & (used | names & vars(builtins).keys())


def test_nothing_is_asked_what_it_has():
    """A contract that is declared needs no hasattr, getattr or signature, but for strangers."""
    assert looks(ast.parse("if hasattr(x, 'classes'): y")) == {"hasattr"}
    assert looks(ast.parse("signature = inspect.signature(make)")) == {"signature"}
    assert looks(ast.parse("from inspect import signature")) == {"signature"}
    root = ROOT / "mae_jax"
    used = {p.relative_to(root).as_posix(): looks(parsed(p)) for p in FILES}
    found = {name: names for name, names in used.items() if names}
    assert found.keys() <= MAY_LOOK.keys(), {n: found[n] for n in found.keys() - MAY_LOOK.keys()}
    assert MAY_LOOK.keys() <= found.keys(), f"take out {sorted(MAY_LOOK.keys() - found.keys())}"
