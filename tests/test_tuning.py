"""Tuning one's own objective: what `Study` and `minimize` promise, and what they make of every bad result."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_space

from metahpo_jax import driver
from metahpo_jax.base import Proposer, Status, no_candidates
from metahpo_jax.errors import ConfigError, MetaHPOError, ObjectiveError, SpaceError, StoreError, StudyError
from metahpo_jax.objectives import user_function
from metahpo_jax.proposers import random, resume_best, sobol
from metahpo_jax.spaces import Choice, Float, Int, Space
from metahpo_jax.tuning import Prior, Result, Study, Trial, minimize

SPACE = tiny_space()
GP_SPACE = Space(lr=Float(1e-4, 1, log=True), depth=Int(1, 4), opt=Choice("sgd", "adam"))  # one model for all tests
RANDOM, SOBOL = random(SPACE), sobol(SPACE)
PROPOSERS = {"random": RANDOM, "sobol": SOBOL, "resume_best": resume_best(RANDOM, width=3)}


def loss_of(config: dict[str, Any]) -> float:
    return abs(math.log10(config["learning_rate"]) + 2.0) + config.get("momentum", 0.5)


def drive(study: Study, trials: int) -> list[Trial]:
    asked = []
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, loss_of(trial.config))
        asked.append(trial)
    return asked


def coordinates(trials: list[Trial]) -> np.ndarray:
    return np.stack([t.u for t in trials])


# --- ask and tell ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROPOSERS)
def test_a_study_proposes_what_the_driver_does(name: str) -> None:
    study = Study(SPACE, PROPOSERS[name], key=7, budget=12, max_fidelity=9.0)
    asked = drive(study, 12)
    history = driver.search_on_host(
        jax.random.key(7), PROPOSERS[name], user_function(loss_of, SPACE), SPACE.context(budget=12, max_fidelity=9.0),
        no_candidates(SPACE.size), steps=12,
    )  # fmt: skip
    for field in ("trial", "u", "active", "fidelity", "loss", "status"):
        ours, theirs = (np.asarray(getattr(h, field))[:12] for h in (study.history, history))
        np.testing.assert_array_equal(ours, theirs, err_msg=field)
    assert [t.number for t in asked] == np.asarray(history.trial)[:12].tolist()


def test_an_int_is_the_seed_of_the_same_key() -> None:
    a, b, c = (drive(Study(SPACE, RANDOM, key=k), 2) for k in (3, jax.random.key(3), 4))
    np.testing.assert_array_equal(coordinates(a), coordinates(b))
    assert not np.array_equal(coordinates(a), coordinates(c))


def test_results_are_told_in_any_order_by_trial_or_number() -> None:
    study = Study(SPACE, RANDOM)
    trials = study.ask_batch(4)
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert {r.status for r in study.trials} == {"PENDING"}
    study.tell(trials[2], 0.5, cost=3.0)
    study.tell(0, np.float32(0.25))
    study.tell(np.int64(3), jnp.asarray(0.75))  # pyright: ignore[reportArgumentType]
    study.tell(1, status=Status.FAILED, reason="no memory")
    assert [(r.number, r.loss, r.status) for r in study.trials if r.number != 1] == [
        (0, 0.25, "OK"), (2, 0.5, "OK"), (3, 0.75, "OK")
    ]  # fmt: skip
    failed = study.trials[1]
    assert math.isnan(failed.loss) and (failed.status, failed.reason) == ("FAILED", "no memory")
    assert study.best.number == 0 and study.best.config == trials[0].config
    assert study.trials[2].cost == 3.0
    np.testing.assert_array_equal(np.asarray(study.history.loss)[:4], np.asarray([0.25, np.nan, 0.5, 0.75], np.float32))


def test_a_promoted_trial_is_told_once_per_fidelity() -> None:
    study = Study(SPACE, PROPOSERS["resume_best"], max_fidelity=9.0)
    asked = drive(study, 4)
    assert [t.fidelity for t in asked] == [3.0, 3.0, 3.0, 9.0]
    assert asked[3].number in {0, 1, 2} and study.best.fidelity == 9.0, "the best is one that ran to the end"
    stopped = study.tell(study.ask(), 0.1, status=Status.STOPPED, fidelity=1.0)
    assert (stopped.status, stopped.fidelity, stopped.loss) == ("STOPPED", 1.0, 0.1)


def test_what_the_caller_does_to_a_configuration_stays_with_the_caller() -> None:
    study = Study(SPACE, RANDOM)
    trial = study.ask()
    before = dict(trial.config)
    trial.config.clear()
    study.tell(trial, 1.0).config.clear()
    study.trials[0].config.clear()
    assert study.best.config == before


def other_study(study: Study) -> None:
    study.tell(Study(SPACE, RANDOM, key=99).ask(), 1.0)


# what is done to a study that has asked for trials 0 and 1 and been told 0 -> (error, words of its sentence)
MISUSE: dict[str, tuple[Callable[[Study], Any], type[MetaHPOError], list[str]]] = {
    "told twice": (lambda s: s.tell(0, 1.0), StudyError, ["trial 0", "before", "OK", "0.5"]),
    "unknown trial": (lambda s: s.tell(7, 1.0), StudyError, ["trial 7", "0 to 1"]),
    "negative trial": (lambda s: s.tell(-1, 1.0), StudyError, ["trial", "-1"]),
    "trial of another type": (lambda s: s.tell("1", 1.0), StudyError, ["trial", "str"]),  # pyright: ignore[reportArgumentType]
    "trial of another study": (other_study, StudyError, ["another study"]),
    "loss and failure": (lambda s: s.tell(1, 1.0, status=Status.FAILED), StudyError, ["trial 1", "FAILED"]),
    "pending as a result": (lambda s: s.tell(1, 1.0, status=Status.PENDING), StudyError, ["status", "PENDING"]),
    "status of another type": (lambda s: s.tell(1, 1.0, status="ok"), StudyError, ["status", "'ok'"]),  # pyright: ignore[reportArgumentType]
    "no loss": (lambda s: s.tell(1), ObjectiveError, ["trial 1", "Status.FAILED"]),
    "text": (lambda s: s.tell(1, "1.5"), ObjectiveError, ["trial 1", "str"]),
    "complex": (lambda s: s.tell(1, 1j), ObjectiveError, ["complex"]),
    "bool": (lambda s: s.tell(1, True), ObjectiveError, ["bool"]),
    "array": (lambda s: s.tell(1, np.ones(2)), ObjectiveError, ["array", "return the loss itself"]),
    "negative cost": (lambda s: s.tell(1, 1.0, cost=-1.0), ObjectiveError, ["trial 1", "cost", "-1"]),
    "fidelity of nothing": (lambda s: s.tell(1, 1.0, fidelity=0.0), ObjectiveError, ["trial 1", "fidelity"]),
    "empty batch": (lambda s: s.ask_batch(0), ConfigError, ["size", "at least 1", "0"]),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_refused_and_changes_nothing(case: str) -> None:
    act, kind, words = MISUSE[case]
    study = Study(SPACE, RANDOM)
    study.tell(study.ask(), 0.5)
    study.ask()
    before = study.history
    with pytest.raises(kind) as caught:
        act(study)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    chex.assert_trees_all_equal(before, study.history)
    assert study.tell(1, 0.25).status == "OK", "the trial can still be told"


def test_no_best_before_a_loss() -> None:
    study = Study(SPACE, RANDOM)
    with pytest.raises(StudyError, match="no best trial yet"):
        _ = study.best
    study.tell(study.ask(), status=Status.FAILED, reason="no memory")
    study.tell(study.ask(), math.nan)
    with pytest.raises(StudyError, match=r"all 2 trials failed.*no memory"):
        _ = study.best


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"key": -1}, ["key", "-1"]),
        ({"key": 2**32}, ["key", "2**32"]),
        ({"key": 0.5}, ["key", "float"]),
        ({"key": jax.random.split(jax.random.key(0))}, ["key", "(2,)"]),
        ({"budget": 0}, ["budget", "0"]),
        ({"max_fidelity": math.inf}, ["max_fidelity", "inf"]),
        ({"max_fidelity": -1.0}, ["max_fidelity", "-1"]),
        ({"descriptor": "abc"}, ["descriptor", "str"]),
        ({"descriptor": [[1.0]]}, ["descriptor", "(1, 1)"]),
        ({"proposer": random}, ["proposer", "random(space)"]),
        ({"prior": RANDOM}, ["prior", "proposer="]),
        ({"prior": Prior("p", SPACE, random), "proposer": RANDOM}, ["not both"]),
        ({"space": {"x": 1}}, ["space", "dict"]),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], words: list[str]) -> None:
    settings: dict[str, Any] = {"space": SPACE} | arguments
    with pytest.raises(ConfigError) as caught:
        Study(**settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def counted(proposer: Proposer, traces: int) -> Proposer:
    """The same proposer, which fails when it is traced more often than that."""
    ask: Any = chex.assert_max_traces(proposer.ask, n=traces)
    tell: Any = chex.assert_max_traces(proposer.tell, n=traces)
    return proposer._replace(ask=ask, tell=tell)


def test_a_study_compiles_once_per_doubling() -> None:
    drive(Study(SPACE, counted(RANDOM, 2), budget=16), 32)


def test_a_second_study_of_a_proposer_compiles_nothing() -> None:
    proposer = counted(RANDOM, 1)
    for key in range(3):
        drive(Study(SPACE, proposer, key=key, budget=8), 3)


# --- a file and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROPOSERS)
def test_ten_trials_and_ten_more_equal_twenty(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "key": jax.random.key(5),
        "budget": 10,
        "max_fidelity": 9.0,
        "descriptor": [0.1, math.nan],
    }
    whole, half = (Study(SPACE, PROPOSERS[name], **settings) for _ in range(2))
    drive(whole, 20)
    drive(half, 10)
    half.save(tmp_path / "study.json")
    again = Study.load(tmp_path / "study.json", SPACE, PROPOSERS[name])
    drive(again, 10)
    chex.assert_trees_all_equal(whole.history, again.history)
    for ours, theirs in zip(again.trials, whole.trials, strict=True):
        assert ours == theirs
    whole.save(tmp_path / "whole.json")
    again.save(tmp_path / "again.json")
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "again.json").read_bytes()


def test_a_model_resumes_bit_by_bit_with_trials_pending_and_failed(tmp_path: Path) -> None:
    def some(study: Study, numbers: range) -> None:
        for number in numbers:
            trial = study.ask()
            if number == 1:
                study.tell(trial, math.nan)
            elif number != 3:
                study.tell(trial, trial.config["lr"])

    whole, half = (Study(GP_SPACE, budget=8) for _ in range(2))
    some(whole, range(5))
    some(half, range(5))
    half.save(tmp_path / "study.json")
    again = Study.load(tmp_path / "study.json", GP_SPACE)
    assert [r.status for r in again.trials] == ["OK", "DIVERGED", "OK", "PENDING", "OK"]
    for study in (whole, again):
        study.tell(3, 0.1)
        some(study, range(5, 8))
    chex.assert_trees_all_equal(whole.history, again.history)


def test_another_proposer_goes_on_from_the_recorded_trials(tmp_path: Path) -> None:
    study = Study(SPACE, RANDOM)
    drive(study, 3)
    study.ask()
    study.save(tmp_path / "study.json")
    again = Study.load(tmp_path / "study.json", SPACE, SOBOL)
    chex.assert_trees_all_equal(study.history, again.history)
    assert again.ask().number == 4 and len(again) == 5
    assert again.tell(3, 0.5).config == study.trials[3].config


def test_a_study_of_another_space_is_refused(tmp_path: Path) -> None:
    Study(SPACE, RANDOM).save(tmp_path / "study.json")
    other = Space(learning_rate=Float(1e-4, 2.0, log=True), depth=Int(1, 3))
    with pytest.raises(SpaceError, match=r"study\.json was made for another space.*'depth' is missing"):
        Study.load(tmp_path / "study.json", other)


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return edit


# what happens to the file of a study with one told and one pending trial -> words of the error
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], list[str]]] = {
    "truncated": (lambda d: d[:-20], ["not valid JSON"]),
    "empty": (lambda d: b"", ["not valid JSON"]),
    "not UTF-8": (lambda d: b"\xff" + d, ["not valid JSON"]),
    "NaN": (lambda d: d.replace(b'"loss": 0.5', b'"loss": NaN'), ["not valid JSON", "NaN"]),
    "some other JSON": (lambda d: b"[]", ["not a study"]),
    "newer version": (edited(lambda c: c.update(version=2)), ["version 2", "expected 1"]),
    "bad space": (edited(lambda c: c.update(space={})), ["Space"]),
    "key of another length": (edited(lambda c: c["key"].update(data=[1, 2, 3])), ["key", "3 words"]),
    "unknown key": (edited(lambda c: c["key"].update(implementation="dice")), ["key", "dice"]),
    "bad budget": (edited(lambda c: c.update(budget=0)), ["budget", "0"]),
    "no events": (edited(lambda c: c.pop("events")), ["events", "nothing"]),
    "event of another type": (edited(lambda c: c["events"].append(3)), ["event 3", "int"]),
    "missing coordinate": (edited(lambda c: c["events"][0]["u"].pop()), ["event 0", "'u'", "4 numbers"]),
    "coordinate outside": (edited(lambda c: c["events"][0]["u"].__setitem__(0, 1.5)), ["event 0", "'u'", "1.5"]),
    "unknown status": (edited(lambda c: c["events"][1].update(status="GOOD")), ["event 1", "'status'", "GOOD"]),
    "no loss": (edited(lambda c: c["events"][1].update(loss=None)), ["event 1", "'loss'", "None"]),
    "long whole number": (edited(lambda c: c["events"][1].update(loss=10**400)), ["event 1", "'loss'"]),
    "told before asked": (edited(lambda c: c["events"][1].update(row=1)), ["event 1", "'row'"]),
    "told twice": (edited(lambda c: c["events"].append(c["events"][1])), ["event 3", "'row'"]),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_refused(case: str, tmp_path: Path) -> None:
    study = Study(SPACE, RANDOM)
    study.tell(study.ask(), 0.5)
    study.ask()
    path = tmp_path / "study.json"
    study.save(path)
    damage, words = DAMAGE[case]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError) as caught:
        Study.load(path, SPACE, RANDOM)
    assert all(word in str(caught.value) for word in ["study.json", *words]), str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(StoreError, match=r"cannot be read|regular file"):
            Study.load(path, SPACE, RANDOM)
    with pytest.raises(StoreError, match="cannot be written"):
        Study(SPACE, RANDOM).save(tmp_path)


# --- minimize --------------------------------------------------------------------------------------------------------


def test_three_lines_tune_a_function() -> None:
    best = minimize(lambda c: (c["depth"] - 2) ** 2 + abs(math.log10(c["lr"]) + 2), GP_SPACE, trials=8)
    assert isinstance(best, Result) and len(best.trials) == len(best.study) == 8
    assert best.loss == min(r.loss for r in best.trials) and best.config["depth"] in range(1, 5)
    assert "loss=" in repr(best) and "'opt'" in repr(best) and "8 trials" in repr(best)


def test_minimize_is_a_function_of_its_key() -> None:
    seen: list[list[dict[str, Any]]] = []
    for key in (1, 1, 2):
        seen.append([r.config for r in minimize(loss_of, SPACE, 5, proposer=RANDOM, key=key).trials])
    assert seen[0] == seen[1] != seen[2]


def test_the_function_may_take_the_fidelity() -> None:
    got = []

    def objective(config: dict[str, Any], fidelity: float, verbose: bool = False) -> float:
        got.append(fidelity)
        return 1.0

    minimize(objective, SPACE, 4, proposer=PROPOSERS["resume_best"], max_fidelity=9.0)
    assert got == [3.0, 3.0, 3.0, 9.0]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def raises(error: BaseException) -> Callable[[], Any]:
    def call() -> Any:
        raise error

    return call


# what an objective does in its second trial -> (status, words of the reason)
HOSTILE: dict[str, tuple[Callable[[], Any], str, list[str]]] = {
    "NaN": (lambda: math.nan, "DIVERGED", ["nan"]),
    "infinite": (lambda: math.inf, "DIVERGED", ["inf"]),
    "minus infinity": (lambda: -math.inf, "DIVERGED", ["-inf"]),
    "beyond float32": (lambda: 1e300, "DIVERGED", ["inf"]),
    "10**400": (lambda: 10**400, "DIVERGED", ["inf"]),
    "None": (lambda: None, "FAILED", ["NoneType"]),
    "text": (lambda: "1.5", "FAILED", ["str"]),
    "complex": (lambda: 1 + 2j, "FAILED", ["complex"]),
    "tuple": (lambda: (0.5, {}), "FAILED", ["tuple", "return the loss itself"]),
    "mapping": (lambda: {"loss": 0.5}, "FAILED", ["dict", "return the loss itself"]),
    "array": (lambda: np.zeros(3), "FAILED", ["ndarray", "return the loss itself"]),
    "JAX array": (lambda: jnp.zeros((1,), jnp.float32), "FAILED", ["return the loss itself"]),
    "bool": (lambda: True, "FAILED", ["bool"]),
    "exception": (raises(ValueError("no luck")), "FAILED", ["ValueError", "no luck"]),
    "exception that cannot be printed": (raises(Unprintable()), "FAILED", ["Unprintable", "cannot be printed"]),
    "sys.exit": (raises(SystemExit(3)), "FAILED", ["SystemExit", "3"]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_result_fails_its_trial_and_the_study_goes_on(case: str, tmp_path: Path) -> None:
    act, status, words = HOSTILE[case]
    calls: list[int] = []

    def objective(config: dict[str, Any]) -> Any:
        calls.append(len(calls))
        return act() if len(calls) == 2 else 0.5 + len(calls)

    result = minimize(objective, SPACE, 4, proposer=RANDOM)
    assert len(calls) == 4 and result.loss == 1.5
    record = result.trials[1]
    assert record.status == status and math.isnan(record.loss)
    assert all(word in record.reason for word in words), record.reason
    assert [r.status for r in result.trials] == ["OK", status, "OK", "OK"]
    result.study.save(tmp_path / "study.json")
    assert Study.load(tmp_path / "study.json", SPACE, RANDOM).trials[1].reason == record.reason


@pytest.mark.parametrize(
    "number", [np.float64(0.5), np.float32(0.5), np.asarray(0.5), jnp.asarray(0.5, jnp.float32), 1]
)
def test_every_kind_of_real_number_is_a_loss(number: Any) -> None:
    assert minimize(lambda c: number, SPACE, 1, proposer=RANDOM).loss == float(number)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda: 1.0, ["all 3 trials failed", "TypeError"]),
        (lambda a, b, c: 1.0, ["all 3 trials failed", "TypeError"]),
        (lambda c: c["momentums"], ["all 3 trials failed", "KeyError", "momentums"]),
        (lambda c: math.nan, ["all 3 trials failed", "nan"]),
    ],
)
def test_when_all_trials_fail_the_first_reason_is_told(fn: Callable[..., Any], words: list[str]) -> None:
    with pytest.raises(ObjectiveError) as caught:
        minimize(fn, SPACE, 3, proposer=RANDOM)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_without_catch_the_exception_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        minimize(lambda c: 1 / 0, SPACE, 3, proposer=RANDOM, catch=False)


def interrupted_at(trial: int) -> Callable[[dict[str, Any]], float]:
    calls: list[int] = []

    def objective(config: dict[str, Any]) -> float:
        calls.append(len(calls))
        if len(calls) == trial:
            raise KeyboardInterrupt
        return float(len(calls))

    return objective


def test_control_c_keeps_what_was_found() -> None:
    result = minimize(interrupted_at(3), SPACE, 10, proposer=RANDOM)
    assert result.interrupted and result.loss == 1.0 and "interrupted" in repr(result)
    assert [(r.status, r.reason) for r in result.trials] == [("OK", ""), ("OK", ""), ("FAILED", "KeyboardInterrupt: ")]
    assert not np.asarray(result.study.history.pending).any()
    with pytest.raises(KeyboardInterrupt):
        minimize(interrupted_at(1), SPACE, 10, proposer=RANDOM)


@pytest.mark.parametrize("trials", [0, -3, 2.5, True, "10", None])
def test_a_number_of_trials_that_is_none_is_refused(trials: Any) -> None:
    with pytest.raises(ConfigError, match="trials must be a whole number of at least 1"):
        minimize(loss_of, SPACE, trials, proposer=RANDOM)


def test_an_objective_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fn must be a function.*float"):
        minimize(0.5, SPACE, 3)  # pyright: ignore[reportArgumentType]


def test_progress_is_on_stderr_and_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    records = []
    minimize(loss_of, SPACE, 3, proposer=RANDOM, on_trial=records.append)
    assert capsys.readouterr() == ("", "") and [r.number for r in records] == [0, 1, 2]
    minimize(loss_of, SPACE, 3, proposer=RANDOM, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "tuning" in err and "3/3" in err


# --- priors ----------------------------------------------------------------------------------------------------------


def test_a_prior_makes_the_proposer() -> None:
    prior = Prior("halton", SPACE, sobol)
    with_prior = minimize(loss_of, SPACE, 4, prior=prior, key=2)
    without = minimize(loss_of, SPACE, 4, proposer=SOBOL, key=2)
    assert [r.config for r in with_prior.trials] == [r.config for r in without.trials]
    assert [t.number for t in Study(SPACE, prior=prior).ask_batch(2)] == [0, 1]


@pytest.mark.parametrize(
    ("space", "difference"),
    [
        (Space(lr=Float(0, 1)), "'lr' is missing; 'learning_rate' is unknown"),
        (Space.of({n: SPACE[n] for n in reversed(SPACE.names)}), "the order is learning_rate"),
        (Space.of({n: SPACE[n] for n in SPACE} | {"width": Int(8, 64, log=True)}), "'width' is"),
    ],
)
def test_a_prior_of_another_space_is_refused_by_name(space: Space, difference: str) -> None:
    with pytest.raises(SpaceError, match="prior 'tabular' was made for another space") as caught:
        minimize(lambda c: 0.0, space, 3, prior=Prior("tabular", SPACE, random))
    assert difference in str(caught.value)
