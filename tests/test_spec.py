"""The spec language, and the messages for names and arguments that do not exist."""

import pytest

from mae_jax import spec
from mae_jax.spec import Call
from mae_jax.types import UserError


def paint(color, *, size=3, shape="round"):
    """Stands for anything that a config calls."""
    return color, size, shape


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("", []),
        ("  ", []),
        ("flip", [Call("flip", (), {})]),
        ("flip()", [Call("flip", (), {})]),
        ("crop(32)", [Call("crop", (32,), {})]),
        ("crop((32, 48), scale=(.2, 1))", [Call("crop", ((32, 48),), {"scale": (0.2, 1)})]),
        ("vit(B)", [Call("vit", ("B",), {})]),
        ("vit(B, pool=mean)", [Call("vit", ("B",), {"pool": "mean"})]),
        ("f('a b|c', x=-1.5e-3)", [Call("f", ("a b|c",), {"x": -1.5e-3})]),
        ("f(kinds=(fog, snow))", [Call("f", (), {"kinds": ("fog", "snow")})]),
        ("a, b(1)|c", [Call("a", (), {}), Call("b", (1,), {}), Call("c", (), {})]),
        ("f(True, None, [1, 2])", [Call("f", (True, None, [1, 2]), {})]),
        ("a|b(1) | c(k=2)", [Call("a", (), {}), Call("b", (1,), {}), Call("c", (), {"k": 2})]),
        ("a.b", [Call("a.b", (), {})]),
        ("a.b(1)|a.b.c(k=2)", [Call("a.b", (1,), {}), Call("a.b.c", (), {"k": 2})]),
    ],
)
def test_parse(text, calls):
    assert spec.parse(text) == calls


@pytest.mark.parametrize(
    "text",
    [
        "f(",
        "f)",
        "a|",
        "|a",
        "a||b",
        "a b",
        "1",
        "'a'",
        "a.b(1).c",
        "a(1).b",
        "'a'.b",
        "a(1)(2)",
        "a + b",
        "f(g(1))",
        "f(x=g(1))",
        "f(1 + x)",
        "f(*values)",
        "f(x=1, x=2)",
        "f(**{'x': 1})",
        "f({[]: 1})",
        "f(lambda: 1)",
        "f(a.b)",
    ],
)
def test_text_of_another_form_is_refused(text):
    with pytest.raises(UserError, match="cannot read .*: write name"):
        spec.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "f(open('written', 'w'))",
        "f(__import__('pathlib').Path('written').touch())",
        "f(x=[open('written', 'w') for _ in 'a'])",
        "open('written', 'w').close()",
    ],
)
def test_nothing_is_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        spec.parse(text)
    assert not (tmp_path / "written").exists()


def test_a_name_is_a_name_whatever_python_makes_of_it():
    assert spec.parse("open('written', w)") == [Call("open", ("written", "w"), {})]


def test_resolve():
    assert spec.resolve("methods.mae").__name__ == "mae_jax.methods.mae"
    assert spec.resolve("data.sources.folder").__name__ == "mae_jax.data.sources.folder"


def test_resolve_names_the_nearest():
    with pytest.raises(UserError, match="methods has no 'mea': did you mean 'mae'?"):
        spec.resolve("methods.mea")


def test_resolve_lists_those_that_there_are():
    with pytest.raises(UserError) as error:
        spec.resolve("data.sources.zzz")
    assert "data sources has no 'zzz': choose array_file, captioned, coco, dicom" in str(
        error.value
    )


@pytest.mark.parametrize("name", ["methods.mae.make", "methods.nothing.make", "methods."])
def test_names_that_are_no_modules(name):
    with pytest.raises(UserError, match="has no"):
        spec.resolve(name)


def test_build_calls_make_with_the_text_and_more(tmp_path):
    (tmp_path / "a.png").touch()
    text = f"folder({str(tmp_path)!r}, channels=1)"
    assert spec.build(text, "data.sources").decoder.channels == 1
    source = spec.build(f"folder({str(tmp_path)!r})", "data.sources", channels=1)
    assert source.decoder.channels == 1
    with pytest.raises(UserError, match="'channels' is a config value of its own"):
        spec.build(text, "data.sources", channels=3)


@pytest.mark.parametrize("text", ["", "folder('x')|folder('y')"])
def test_build_wants_exactly_one(text):
    with pytest.raises(UserError, match="should name exactly one of data.sources"):
        spec.build(text, "data.sources")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folder('x', chanels=1)", "there is no 'chanels': did you mean 'channels'?"),
        ("folder()", "missing a required argument: 'path'; its arguments are path, channels"),
        ("folder('x', 1)", "too many positional arguments; its arguments are path, channels"),
        ("folder('x', path='y')", "multiple values for argument 'path'"),
        ("folder('x', where=1)", "there is no 'where': choose annotated, background"),
        ("folder('x', function=1)", "there is no 'function': choose annotated, background"),
    ],
)
def test_build_explains_wrong_arguments(text, message):
    with pytest.raises(UserError) as error:
        spec.build(text, "data.sources")
    assert message in str(error.value) and text in str(error.value)


@pytest.mark.parametrize(("name", "package"), [("mae", "models"), ("features", "evals")])
def test_modules_without_make_cannot_be_built(name, package):
    with pytest.raises(UserError, match=name):
        spec.build(name, package)


def test_call_section():
    assert spec.call_section(paint, {"color": "red", "size": 5}, "paint") == ("red", 5, "round")
    assert spec.call_section(paint, {"size": 5}, "paint", color="red") == ("red", 5, "round")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"color": 1, "sise": 2}, "config.a.paint: there is no 'sise': did you mean 'size'?"),
        ({"color": 1, "zzz": 2}, "there is no 'zzz': choose color, shape, size"),
        ({"size": 2}, "config.a.paint: missing a required argument: 'color'"),
    ],
)
def test_call_section_explains_wrong_keys(section, message):
    with pytest.raises(UserError) as error:
        spec.call_section(paint, section, "a.paint")
    assert message in str(error.value)


def test_call_section_of_the_whole_config():
    with pytest.raises(UserError, match="^config: there is no 'x'"):
        spec.call_section(paint, {"x": 1}, "")


def test_errors_inside_the_function_are_its_own():
    def broken():
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        spec.call_section(broken, {}, "broken")


def test_nearest():
    assert spec.nearest("momentun", ["momentum", "nesterov"]) == ": did you mean 'momentum'?"
    assert spec.nearest("x", ["beta", "alpha"]) == ": choose alpha, beta"
