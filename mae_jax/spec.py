"""The spec language, "name(1, k=2)|other(size=32)", which names modules and their arguments.

Strings of this form choose encoders, transforms, sources and evaluators in configs. They are parsed
with `ast`, never evaluated: arguments are Python literals or bare words, which are strings: vit(B)
is vit('B'). A name with a dot is the user's own module, see `extensions`.
"""

import ast
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from types import ModuleType, UnionType
from typing import Any, NamedTuple

import mae_jax
from mae_jax import extensions
from mae_jax.errors import UserError, nearest

MAX_INT, MAX_FLOAT = 2**63 - 1, 3.4028234e38
"""The largest values of int64 and float32."""

KINDS = ("methods", "tasks", "models", "masks", "targets", "objectives", "evals", "figures")
KINDS += ("data", "weights", "writers", "explain")
"""Packages of the library: a name with a dot that does not begin with one is an extension."""


class Call(NamedTuple):
    """One "name(args)" of a spec string."""

    name: str
    args: tuple
    kwargs: dict[str, Any]


def parse(text: str) -> list[Call]:
    """Parses a spec string.

    Args:
        text: "name" or "name(1, key=2)"; several are separated by "|" or ",". Empty: no calls.

    Raises:
        UserError: the text is not of this form.
    """
    try:
        tree = ast.parse(text.strip() or "()", mode="eval").body
        return [] if isinstance(tree, ast.Tuple) and not tree.elts else _calls(tree)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        quotes = ", and a path in quotes, folder('photos/a')" if "/" in text else ""
        form = f"write name(value, key=value)|name(...){quotes}"
        raise UserError(f"cannot read {text!r}: {form}") from error


def _calls(node: ast.expr) -> list[Call]:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _calls(left) + _calls(right)
        case ast.Tuple(elts=parts) if parts:
            return [call for part in parts for call in _calls(part)]
        case ast.Name() | ast.Attribute():
            return [Call(_name(node), (), {})]
        case ast.Call(func=func, args=args, keywords=keywords):
            kwargs = {keyword.arg: _value(keyword.value) for keyword in keywords}
            if None in kwargs or len(kwargs) < len(keywords):
                raise ValueError(ast.unparse(node))
            return [Call(_name(func), tuple(_value(arg) for arg in args), kwargs)]
    raise ValueError(ast.unparse(node))


def _name(node: ast.expr) -> str:
    """'vit', 'my_project.my_encoder'."""
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError(ast.unparse(node))


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def resolve(name: str) -> ModuleType:
    """The module `mae_jax.<name>`, e.g. resolve('methods.mae').

    Raises:
        UserError: there is no such module; suggests the nearest, or lists all.
    """
    module = mae_jax
    for leaf in name.split("."):
        if leaf not in _modules(module):
            raise UserError(f"{_words(module)} has no {leaf!r}{nearest(leaf, _modules(module))}")
        module = importlib.import_module(f"{module.__name__}.{leaf}")
    return module


def build(text: str, package: str, kind: type = object, /, **more) -> Any:
    """Builds the object that a spec string of one call names, with `make` of its module.

    Args:
        text: e.g. 'vit(B, patch=16)'.
        package: package of the module, e.g. 'models'.
        kind: required type of the result. Modules that make something else are not offered.
        more: further keyword arguments, which the string must not set.

    Raises:
        UserError: not exactly one call, an unknown name, or arguments that `make` does not accept.
    """
    calls = parse(text)
    if len(calls) != 1:
        known = ", ".join(choices(resolve(package), kind))
        raise UserError(f"{text!r} should name exactly one of {package}: {known}")
    make = maker(calls[0].name, package, kind)
    for name in more.keys() & calls[0].kwargs:
        raise UserError(f"{text}: {name!r} is a config value of its own: set it there")
    made = call(text, make, *calls[0].args, **more, **calls[0].kwargs)
    return extensions.check_made(made, kind, calls[0].name)


def build_all(text: str, package: str, kind: type) -> list[Any]:
    """Builds all objects that a spec string names, in order; see `build`."""
    return [
        extensions.check_made(call(name, maker(name, package, kind), *args, **kwargs), kind, name)
        for name, args, kwargs in parse(text)
    ]


def check_spec(text: str, package: str) -> None:
    """Checks a spec string as `build` does, without building anything. An empty one passes."""
    for name, args, kwargs in parse(text):
        bind(text, maker(name, package), *args, **kwargs)


def maker(name: str, package: str, kind: type = object) -> Callable:
    """The `make` function that a name in a config refers to.

    Args:
        name: 'mae', a module of the package; 'tasks.finetune', a task where a method is expected;
            or 'my_project.my_method', an extension.
        package: 'methods', 'data.sources', ...
        kind: type of what it returns.

    Raises:
        UserError: there is no such module with a `make` of this kind; suggests those that are.
    """
    if is_extension(name):
        return extensions.find_make(name)
    prefix, _, leaf = name.rpartition(".")
    if prefix not in ("", package) and (prefix, package) != ("tasks", "methods"):
        raise UserError(
            f"{name!r} is none of {package}, and {name.partition('.')[0]!r} is a package of the "
            "library: rename the folder if it is your own"
        )
    parent = resolve(prefix or package)
    make = _make(parent, leaf, kind) if leaf in _modules(parent) else None
    if make is None:
        raise UserError(f"{_words(parent)} has no {leaf!r}{nearest(leaf, choices(parent, kind))}")
    return make


def arguments(name: str, package: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the `make` that a name refers to: the defaults, updated by `given`."""
    known = parameters(name, package).values()
    return {p.name: p.default for p in known if p.default is not p.empty} | dict(given)


def parameters(name: str, package: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the `make` that a name refers to, in order."""
    return inspect.signature(maker(name, package)).parameters


def is_extension(name: str) -> bool:
    """Whether a name refers to the user's own module: it has a dot and no prefix of KINDS."""
    return "." in name and name.partition(".")[0] not in KINDS


def choices(package: ModuleType, kind: type = object) -> list[str]:
    """The names of the modules in a package that have a `make` of this kind."""
    return sorted(name for name in _modules(package) if _make(package, name, kind))


def _make(package: ModuleType, leaf: str, kind: type) -> Callable | None:
    """The `make` of a module in a package; None if none is annotated to return `kind`."""
    make = vars(importlib.import_module(f"{package.__name__}.{leaf}")).get("make")
    fits = make and issubclass(inspect.signature(make).return_annotation, kind)
    return make if fits else None


def _modules(package: ModuleType) -> list[str]:
    """The names of the modules in a package."""
    return [m.name for m in pkgutil.iter_modules(package.__spec__.submodule_search_locations or [])]


def _words(package: ModuleType) -> str:
    """'mae_jax.data.sources' to 'data sources'."""
    return package.__name__.partition(".")[2].replace(".", " ")


def call(where: str, function: Callable, /, *args, **kwargs) -> Any:
    """Calls a function with arguments that a user wrote.

    Args:
        where: the spec or the config section with the arguments, for the message.

    Raises:
        UserError: an unknown, missing or surplus argument, or one of another type.
    """
    bind(where, function, *args, **kwargs)
    return function(*args, **kwargs)


def bind(where: str, function: Callable, /, *args, **kwargs) -> None:
    """Checks arguments like `call`, without calling the function.

    Raises:
        UserError: see `call`.
    """
    signature = inspect.signature(function)
    known = signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for name in kwargs:
        if name not in known and not takes_any:
            raise UserError(f"{where}: there is no {name!r}{nearest(name, known)}")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = f"its arguments are {', '.join(known)}" if known else "it takes none"
        raise UserError(f"{where}: {error}; {takes}") from error
    for name, value in bound.arguments.items():
        _check_type(where, name, value, known[name].annotation)


def _check_type(where: str, name: str, value: Any, annotation: Any) -> None:
    """Raises UserError if a value does not match an annotation of basic types, or is a number that
    float32 or int64 cannot represent.
    """
    if not _matches(value, annotation):
        raise UserError(f"{where}: {name}={value!r} should be of type {_kind(annotation)}")
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if type(number) is float and not abs(number) <= MAX_FLOAT:  # nor NaN
            raise UserError(f"{where}: {name}={value!r} must be finite in float32")
        if type(number) is int and abs(number) > MAX_INT:
            raise UserError(f"{where}: {name}={value!r} is too large: it must fit in 64 bits")


def _matches(value: Any, annotation: Any) -> bool:
    """Whether a value matches an annotation of basic types; True for other annotations."""
    if isinstance(annotation, UnionType):
        return any(_matches(value, one) for one in typing.get_args(annotation))
    if annotation is float:
        return type(value) in (int, float)
    if annotation in (int, str, bool, type(None)):
        return type(value) is annotation
    origin, of = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(_matches(item, of[0]) for item in value)
    if origin is tuple and ... not in of:
        fits = isinstance(value, (list, tuple)) and len(value) == len(of)
        return fits and all(map(_matches, value, of))
    return True


def _kind(annotation: Any) -> str:
    """An annotation in words: 'int', 'int or str', 'tuple of float', '(float, float)'."""
    if isinstance(annotation, UnionType):
        return " or ".join(map(_kind, typing.get_args(annotation)))
    origin, of = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Sequence:
        return f"tuple of {_kind(of[0])}"
    if origin is tuple:
        return f"({', '.join(map(_kind, of))})"
    if annotation is type(None):
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def call_section(function: Callable, section: Mapping[str, Any], where: str, /, **more) -> Any:
    """Calls a function with a config section and `more` as keyword arguments.

    Raises:
        UserError: the section has a key that the function does not accept, or lacks a required one.
    """
    return call(f"config.{where}".rstrip("."), function, **dict(section), **more)


def bind_section(function: Callable, section: Mapping[str, Any], where: str, /, **more) -> None:
    """Checks arguments like `call_section`, without calling the function."""
    bind(f"config.{where}".rstrip("."), function, **dict(section), **more)


def check_choice(name: str, value: str, allowed: Collection[str]) -> None:
    """Raises UserError unless a value is one of those allowed."""
    if value not in allowed:
        raise UserError(f"{name} {value!r} is unknown: choose {', '.join(allowed)}")
