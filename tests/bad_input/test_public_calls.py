"""Whatever a program hands in, to whatever it may call: an answer or a typed refusal, and nothing
half-written."""

import inspect
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import recovery_journal as rj
from tests.bad_input.anything import values
from tests.bad_input.attacks import ATTACKS, FOR_OTHERS, RIGHT, Attack, InScene
from tests.bad_input.public_calls import public_calls
from tests.bad_input.scene import Scene, assert_refusal
from tests.schemas import own_schema

EXAMPLES = int(os.environ.get("RECOVERY_JOURNAL_EXAMPLES", "8"))
CALLS = public_calls()
VALUE_TYPES = sorted(
    name
    for name, call in CALLS.items()
    if inspect.isclass(call) and issubclass(call, msgspec.Struct | tuple) and name not in ATTACKS
)
LEFT_OUT = object()
TOLERANT = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)


@pytest.fixture(scope="module")
def scene(server_dsn: str) -> Iterator[Scene]:
    """One journal for all calls: what they do to it is a part of what the next one meets."""
    with own_schema(server_dsn) as schema, rj.open(server_dsn, schema=schema) as journal:
        yield Scene(journal, server_dsn)


@pytest.fixture(scope="module", autouse=True)
def _nowhere_else(server_dsn: str) -> Iterator[None]:
    """Where no server is named, it is the tests'; one that is named by halves is not there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RECOVERY_JOURNAL_DSN", server_dsn)
        patched.setenv("PGHOST", "/nowhere")
        yield


def test_every_public_call_is_attacked() -> None:
    assert {*ATTACKS, *FOR_OTHERS} - set(CALLS) == set()
    assert set(CALLS) - {*ATTACKS, *FOR_OTHERS, *VALUE_TYPES} == set()


def test_every_argument_has_something_right(scene: Scene) -> None:
    for name, attack in ATTACKS.items():
        for it in _parameters(CALLS[name]):
            known = {*attack.right, *RIGHT, *attack.fixed, *_bound(attack.of(scene))}
            assert it.name in known or it.default is not it.empty, (name, it)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_public_call_answers_or_refuses(scene: Scene, name: str) -> None:
    attack = ATTACKS[name]
    parameters = _parameters(CALLS[name])
    count = min(EXAMPLES, attack.example_count or EXAMPLES) if parameters else 1

    @settings(TOLERANT, max_examples=count)
    @given(data=st.data())
    def attacked(data: st.DataObject) -> None:
        call = attack.of(scene)
        arguments = data.draw(_arguments(parameters, attack, bound=_bound(call)))
        made = {
            name: value.make(scene) if isinstance(value, InScene) else value
            for name, value in arguments.items()
            if value is not LEFT_OUT
        }
        scene.note()
        _make(scene, call, {**made, **attack.fixed})

    attacked()


@pytest.mark.parametrize("count", [0, -1, 257, True, "2", 1.0, 10**5_000, int], ids=range(8))
def test_a_bad_number_of_processes_is_refused(scene: Scene, count: Any) -> None:
    with pytest.raises(rj.InvalidInput) as refused:
        scene.journal.rebuild(process_count=count)

    assert_refusal(refused.value)


@pytest.mark.parametrize("name", VALUE_TYPES)
def test_a_value_takes_anything_and_is_a_value(name: str) -> None:
    kind = CALLS[name]
    parameters = list(inspect.signature(kind).parameters.values())

    @settings(TOLERANT, max_examples=4)
    @given(data=st.data())
    def attacked(data: st.DataObject) -> None:
        fields = {it.name: data.draw(values()) for it in parameters}
        assert isinstance(kind(**fields), kind)  # type: ignore[arg-type]  # a class

    attacked()


def test_after_everything_the_journal_works(scene: Scene) -> None:
    lease = scene.lease()
    lease.record_step("step", 1)
    lease.hand_back()
    [claim] = [
        it
        for it in scene.journal.claim(worker_id="last", limit=1_000)
        if it.lease.attempt_id == lease.attempt_id
    ]
    claim.lease.complete()
    assert scene.journal.recovery(lease.attempt_id).stage is rj.Stage.ENDED
    rj.Follower(scene.journal).catch_up(60)
    assert all(it.is_right for it in scene.journal.check())


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a caller may pass."""
    parameters = inspect.signature(call).parameters
    return [it for name, it in parameters.items() if name != "self"]


def _bound(call: Callable[..., Any]) -> set[str]:
    """The parameters that an attack has bound already; they are varied like the others."""
    return set(call.keywords) if isinstance(call, partial) else set()


def _arguments(
    parameters: list[inspect.Parameter], attack: Attack, *, bound: set[str]
) -> st.SearchStrategy[dict[str, Any]]:
    """For each argument: left out, right, or anything at all."""
    choices: dict[str, st.SearchStrategy[Any]] = {}
    for it in parameters:
        if it.name in attack.fixed:
            continue
        options = [values()]
        right = attack.right.get(it.name, RIGHT.get(it.name, it.default))
        if it.default is not it.empty or it.name in bound:
            options += [st.just(LEFT_OUT)] * 2
        elif right is not it.empty:
            options += [st.just(right)] * 2
        if right is not it.empty:
            options.append(st.just(right))
        choices[it.name] = st.one_of(options)
    return st.fixed_dictionaries(choices)


def _make(scene: Scene, call: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        call(**arguments)
    except rj.LeaseLost as error:  # a stale write is refused and noted
        assert_refusal(error)
        scene.assert_whole(is_changed=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it has to be of our own
        assert_refusal(error)
        scene.assert_whole(is_changed=False)
    else:
        scene.assert_whole(is_changed=True)
