"""Controls: a safety test that passes with its promise broken proves nothing.

Each runs a check of `checks.py` against a server with one promise broken by name (the feature `mutants`), and expects
the check to notice. Promises that only a power failure breaks have their controls with the crash simulation, and those
that no request brings to the surface (`keep-failed-writes`: every transaction checks before it writes) in process.
"""

import pytest

import checks
from load import Load
from server import MUTANTS, Server
from test_sigkill import WRITERS


@pytest.fixture
def mutant(tmp_path):
    """`mutant(name)` → a running server that breaks that promise."""
    started = []

    def start(name):
        assert MUTANTS.exists(), f"{MUTANTS} is missing: ./tests/run builds it"
        server = Server(tmp_path / f"data-{len(started)}", binary=MUTANTS, env={"ELTON_MUTANT": name})
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.end()


def acknowledged_writes_survive_kills(server, rounds=20):
    """As test_sigkill has it, until it is caught."""
    load = Load(server)
    for _ in range(rounds):
        load.run(WRITERS, 40, server.kill)
        server.start()
        load.verify()


CONTROLS = [
    ("skip-precondition", checks.exactly_one_winner),
    ("repeat-number", checks.numbers_are_unique),
    ("complete-without-last-part", checks.completion_has_every_part),
    ("ignore-tags", checks.tags_keep_their_snapshot),
    ("ack-before-commit", acknowledged_writes_survive_kills),
]


@pytest.mark.parametrize("name, check", CONTROLS, ids=[name for name, _ in CONTROLS])
def test_mutant_is_caught(mutant, name, check):
    with pytest.raises(checks.Broken):
        check(mutant(name))


def test_unchecked_files_that_are_handed_over_are_caught(mutant, tmp_path):
    with pytest.raises(checks.Broken):
        checks.what_is_handed_over_is_sound(mutant("hand-over-unchecked"), tmp_path)


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_unverified_bodies_are_caught(mutant, size):
    with pytest.raises(checks.Broken):
        checks.damage_is_an_error(mutant("serve-unverified"), size)


@pytest.mark.parametrize("check", [check for _, check in CONTROLS[:4]], ids=[name for name, _ in CONTROLS[:4]])
def test_no_mutant_is_no_break(mutant, check):
    """The binary with mutants breaks nothing by itself."""
    check(mutant("none"))
