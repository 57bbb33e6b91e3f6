"""mmdet's EMA with the configured numbers is the recipe's."""
import math

import pytest
import torch
from mmdet.models.layers import ExpMomentumEMA
from torch import nn


@pytest.mark.parametrize('momentum, gamma', [(1e-4, 2000)])
def test_decay_is_the_recipes(momentum, gamma):
    model = nn.BatchNorm1d(3)
    average = ExpMomentumEMA(model, momentum=momentum, gamma=gamma, update_buffers=True)
    average.update_parameters(model)  # mmengine's first update copies
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for iteration in range(1, 300):
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn_like(value))
        average.update_parameters(model)
        # After n updates the recipe uses 0.9999 (1 - exp(-n / 2000)); the copy counts as the first of them.
        decay = 0.9999 * (1 - math.exp(-(iteration + 1) / 2000))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-4)
