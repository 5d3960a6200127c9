"""Our operators stand on members of the providers, private ones too. Each is still there, with the same parameters.

Overrides and uses are found in our source, so that a new one is covered without a line here.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import pytest
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager
from airflow.providers.docker.hooks.docker import DockerHook
from docker import APIClient
from docker_registry.hook import DockerRegistryHook
from kubernetes.client import CoreV1Api
from resilient_docker import ResilientDockerOperator
from resilient_kubernetes import ResilientKubernetesPodOperator
from resilient_kubernetes.operator import PatientPodManager

OURS = [ResilientDockerOperator, ResilientKubernetesPodOperator, PatientPodManager, DockerRegistryHook]
# Airflow wraps every constructor, and merges the default arguments of a DAG into what each of them names.
CONSTRUCTOR = "__init__"


class Use(NamedTuple):
    """A place in our source that reads or calls a member: `self.name`, `super().name`, `self.name(...)`."""

    name: str
    line: int
    call: ast.Call | None
    of_super: bool

    def __str__(self) -> str:
        return f"{'super()' if self.of_super else 'self'}.{self.name} in line {self.line} of the class"


@cache
def tree(cls: type) -> ast.ClassDef:
    """Parse the source of one class."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    return node


def assigned(node: ast.AST) -> set[str]:
    """Return the names of the attributes that code assigns, `self.name = ...`."""
    return {one.attr for one in ast.walk(node) if is_self(one) and isinstance(one.ctx, ast.Store)}


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def is_super(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "super"
    )


@cache
def upstream(cls: type) -> frozenset[str]:
    """Return the names of what our class inherits: members, and attributes that the constructors and methods assign."""
    names: set[str] = set()
    for base in cls.__mro__[1:]:
        names |= set(vars(base)) | set(getattr(base, "__annotations__", {}))
        with suppress(OSError, TypeError):  # a class of C, or one that was made at run time, has no source
            names |= assigned(tree(base))
    return frozenset(names)


def overrides(cls: type) -> list[str]:
    """Return the names of the members that our class takes the place of."""
    names = [name for name in vars(cls) if name in upstream(cls)]
    return [name for name in names if name == CONSTRUCTOR or not name.startswith(("__", "_abc_"))]


def own(cls: type) -> set[str]:
    """Return the names that are ours alone: what the class body defines, and what its constructor assigns."""
    body = {name for name in vars(cls) if name not in upstream(cls)}
    constructors = [node for node in tree(cls).body if isinstance(node, ast.FunctionDef) and node.name == CONSTRUCTOR]
    return body | {name for node in constructors for name in assigned(node)}


def uses(cls: type) -> Iterator[Use]:
    """Find where our class reads or calls what is not ours alone."""
    calls = {id(node.func): node for node in ast.walk(tree(cls)) if isinstance(node, ast.Call)}
    for node in ast.walk(tree(cls)):
        if isinstance(node, ast.Attribute) and (is_super(node) or (is_self(node) and node.attr not in own(cls))):
            yield Use(node.attr, node.lineno, calls.get(id(node)), is_super(node))


def inherited(cls: type, name: str) -> object:
    """Return a member as our class would have it without an override."""
    for base in cls.__mro__[1:]:
        if name in vars(base):
            return inspect.getattr_static(base, name)
    return None


def parameters(member: object) -> list[inspect.Parameter]:
    """Return the parameters that have a name. Both *args and **kwargs hide what they take, so they do not count."""
    hidden = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in signature(member).parameters.values() if one.kind not in hidden]


def signature(member: object) -> inspect.Signature:
    """Return the signature of a method, even under decorators; an empty one of what is not a method."""
    function = getattr(member, "__func__", member)  # of a class method or a static one
    return inspect.signature(inspect.unwrap(function)) if callable(function) else inspect.Signature()


def missing_parameters(override: object, base: object) -> list[str]:
    """Return the parameters of a base's member that an override does not take, by the same name and in the same way."""
    taken = {one.name: one for one in parameters(override)}
    return [
        one.name
        for place, one in enumerate(parameters(base))
        if one.name not in taken
        or taken[one.name].kind != one.kind
        or (one.kind != one.KEYWORD_ONLY and list(taken).index(one.name) != place)
        or taken[one.name].default != one.default
    ]


def does_not_bind(use: Use, member: object) -> str:
    """Return why a call of ours does not fit the signature of what it calls; nothing when it does."""
    assert use.call
    keywords = {keyword.arg: None for keyword in use.call.keywords if keyword.arg}
    starred = len(keywords) < len(use.call.keywords) or any(isinstance(one, ast.Starred) for one in use.call.args)
    bind = signature(member).bind_partial if starred else signature(member).bind
    try:
        bind(*[None] * (1 + len(use.call.args)), **keywords)
    except TypeError as error:
        return f"{use}: {error}"
    return ""


@pytest.mark.parametrize("cls", OURS)
def test_what_we_use_of_a_provider_is_still_there(cls: type) -> None:
    assert [str(use) for use in uses(cls) if use.name not in upstream(cls)] == []


@pytest.mark.parametrize("cls", OURS)
def test_an_override_takes_by_name_all_that_the_provider_may_pass(cls: type) -> None:
    lost = {
        name: missing_parameters(inspect.getattr_static(cls, name), inherited(cls, name))
        for name in overrides(cls)
        if name != CONSTRUCTOR
    }
    assert {name: parameters for name, parameters in lost.items() if parameters} == {}


@pytest.mark.parametrize("cls", OURS)
def test_an_override_is_of_the_same_kind(cls: type) -> None:
    """A method stays a method, and a cached property, which the provider deletes to connect anew, stays one."""
    for name in overrides(cls):
        ours, theirs = inspect.getattr_static(cls, name), inherited(cls, name)
        assert callable(ours) == callable(theirs), name
        assert callable(ours) or isinstance(ours, type(theirs)) or theirs is None, name


@pytest.mark.parametrize(
    ("cls", "attribute", "its_class"),
    [
        (ResilientDockerOperator, "hook", DockerHook),
        (ResilientDockerOperator, "cli", APIClient),
        (ResilientKubernetesPodOperator, "hook", KubernetesHook),
        (ResilientKubernetesPodOperator, "pod_manager", PodManager),
        (ResilientKubernetesPodOperator, "client", CoreV1Api),
    ],
)
def test_what_we_use_of_the_providers_other_objects_is_still_there(cls: type, attribute: str, its_class: type) -> None:
    names = {one.attr for one in ast.walk(tree(cls)) if isinstance(one, ast.Attribute) and is_self(one.value)
             and one.value.attr == attribute}  # fmt: skip
    assert names
    assert names - upstream(type("OfNobody", (its_class,), {})) == set()


@pytest.mark.parametrize("cls", OURS)
def test_our_calls_fit_what_they_call(cls: type) -> None:
    calls = [(use, inherited(cls, use.name)) for use in uses(cls) if use.call]
    assert [why for use, member in calls if (why := does_not_bind(use, member))] == []


# --- what these tests would have found


class Base:
    def method(self, last_log_time: object = None, context: object = None) -> None:
        self.attribute = context

    def other(self, pod: object, *, reraise: bool = True) -> None: ...


def test_overrides_that_lose_a_parameter_are_found() -> None:
    class Hides(Base):
        def method(self, *args: object, **kwargs: object) -> None: ...

    class Renames(Base):
        def method(self, last_log_time: object = None, the_context: object = None) -> None: ...

    class Swaps(Base):
        def method(self, context: object = None, last_log_time: object = None) -> None: ...

    class Follows(Base):
        def method(self, last_log_time: object = None, context: object = None, more: int = 0) -> None: ...

    base = inherited(Hides, "method")
    found = [missing_parameters(vars(cls)["method"], base) for cls in (Hides, Renames, Swaps, Follows)]
    assert found == [
        ["last_log_time", "context"],
        ["context"],
        ["last_log_time", "context"],
        [],
    ]


def test_uses_of_what_is_gone_and_calls_that_do_not_fit_are_found() -> None:
    class Ours(Base):
        def __init__(self) -> None:
            self.mine = 1

        def run(self) -> None:
            self.other(self.mine, reraise=False)
            self.other(self.attribute, again=True)
            self.gone(1)  # type: ignore[attr-defined]
            super().method(1, 2, 3)

    found = list(uses(Ours))
    assert [use.name for use in found if use.name not in upstream(Ours)] == ["gone"]
    fits = {str(use): does_not_bind(use, inherited(Ours, use.name)) for use in found if use.call and use.name != "gone"}
    assert [bool(why) for why in fits.values()] == [False, True, True]
