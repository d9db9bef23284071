"""Twenty SIGKILLs at random moments, also in the middle of the writing of checkpoints: every resume works, no file is
ever half-written, and the run ends with the bits of one that nothing disturbed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("SIGKILL is POSIX's", allow_module_level=True)

from tests.training.kills import WRITING, killed_again_and_again, undisturbed

KILLS = 20
pytestmark = pytest.mark.full


@pytest.mark.parametrize("config", ["long", "long rich"])
def test_twenty_kills(config: str, tmp_path: Path) -> None:
    """lenet5 with momentum and a moving average; airbench94's recipe, with images held out and a best checkpoint."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"again with: python -m tests.training.kills --kills {KILLS} --seed {seed} --config {config!r}")
    whole = undisturbed(config, tmp_path / "whole")
    kills = killed_again_and_again(whole, tmp_path / "run", config, KILLS, random.Random(seed))
    assert len(kills) == KILLS
    assert any(kill.leftovers for kill in kills)  # a file was being written
    assert any(kill.word in WRITING for kill in kills) and any(kill.word not in WRITING for kill in kills)
