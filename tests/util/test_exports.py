"""Public names of what lives in private modules: classes and functions get the module that users import them from."""

import pytest

from resilience._util.exports import set_public_module


def made() -> dict[str, object]:
    """The globals of a module: a class, a function, and values that have no module of their own."""

    class Kind: ...

    def function() -> None: ...

    return {"Kind": Kind, "function": function, "NUMBER": 7, "one": Kind(), "module": pytest}


def test_classes_and_functions_get_the_public_module() -> None:
    namespace = made()

    set_public_module("shop", ["Kind", "function"], namespace)

    assert [getattr(namespace[name], "__module__", None) for name in ("Kind", "function")] == ["shop", "shop"]


def test_what_is_not_named_keeps_its_module() -> None:
    namespace = made()

    set_public_module("shop", ["Kind"], namespace)

    assert getattr(namespace["function"], "__module__", None) == __name__


def test_other_values_are_left_alone() -> None:
    namespace = made()

    set_public_module("shop", ["NUMBER", "one", "module"], namespace)

    assert "__module__" not in vars(namespace["one"])
    assert not hasattr(pytest, "__module__")
    assert namespace["NUMBER"] == 7


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="Missing"):
        set_public_module("shop", ["Missing"], made())
