"""Learning rates, who decays, and what Muon takes."""

import pytest
import torch
from torch import nn

from lightgen_model.config import debug
from lightgen_model.model import LightGen
from pipeline.config import OptimizerConfig
from pipeline.optimizers import build_optimizers, decay_groups, learning_rate

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=3, decay="cosine")


def test_the_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(OPTIMIZER, step, 23) for step in range(23)]
    assert rates[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert rates[3] == pytest.approx(1e-2)
    assert rates[13] == pytest.approx(0.5e-2)
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)
    constant = OptimizerConfig(learning_rate=1e-4)
    assert {learning_rate(constant, step, 9) for step in range(9)} == {1e-4}


def test_vectors_and_the_head_are_not_decayed() -> None:
    model = nn.Module()
    model.body, model.head = nn.Linear(2, 3), nn.Linear(3, 2)
    decayed, plain = decay_groups(list(model.named_parameters()), 0.02)
    assert [p.shape for p in decayed["params"]] == [(3, 2)]
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0.0


def test_muon_has_the_matrices_in_blocks_and_adamw_the_rest() -> None:
    model = LightGen(debug())
    adamw, muon = build_optimizers(model, OptimizerConfig(kind="muon", learning_rate=1e-3))
    assert isinstance(muon, torch.optim.Muon)
    names = {parameter: name for name, parameter in model.named_parameters()}
    taken = [names[p] for group in muon.param_groups for p in group["params"]]
    rest = [names[p] for group in adamw.param_groups for p in group["params"]]
    assert sorted([*taken, *rest]) == sorted(names.values())
    assert "encoder_blocks.0.attn.qkv.weight" in taken
    assert {"text_in.weight", "encoder_positions", "head.net.final.linear.weight"} <= set(rest)
    (head,) = [g for g in muon.param_groups if names[g["params"][0]].startswith("head.")]
    assert head["weight_decay"] == 0.0


def test_muon_without_matrices_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.kind: muon"):
        build_optimizers(nn.Linear(2, 2), OptimizerConfig(kind="muon", learning_rate=1e-3))
