"""From a reference's file to a backbone, by the tool and directly: the same weights, and every number of the file."""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from parity_weights import state_dict

import mmmamba  # noqa: F401  (registers the models)

ROOT = Path(__file__).parents[2]
SYSTEMS = {  # fixture, backbone, two of the classifier's tensors
    'mamba-vision': ('mamba_vision_t_w14_7', dict(type='MambaVision', arch='t'), ('norm.weight', 'head.weight')),
    'efficient-vmamba': ('efficient_vmamba_t', dict(type='EfficientVMamba', arch='t'),
                         ('classifier.norm.weight', 'classifier.head.weight')),
    'vmamba': ('vmamba_t_s1l8', dict(type='VMamba', arch='t'), ('classifier.norm.weight', 'classifier.head.weight')),
    'local-mamba': ('local_vmamba_t', dict(type='LocalVMamba', arch='t'),
                    ('classifier.norm.weight', 'classifier.head.weight')),
    'vim': ('vim_ti', dict(type='Vim', arch='ti', img_size=224), ('norm_f.weight', 'head.weight')),
}


def numbers(tensors) -> list[float]:
    """How many there are, their sum and that of their squares: alike however they are put into tensors."""
    tensors = [tensor.double() for tensor in tensors]
    return [sum(float(moment(tensor)) for tensor in tensors)
            for moment in (torch.numel, torch.sum, lambda tensor: tensor.square().sum())]


def pretrained(config: dict, path: Path) -> dict[str, torch.Tensor]:
    backbone = MODELS.build(dict(config, init_cfg=dict(type='Pretrained', checkpoint=str(path))))
    backbone.init_weights()
    return backbone.state_dict()


@pytest.mark.parametrize(('system', 'entry'), zip(SYSTEMS, ('state_dict', 'state_dict_ema', *['model'] * 3)))
def test_tool_and_direct_loading_agree(system, entry, tmp_path, run_script, capsys):
    fixture, config, classifier = SYSTEMS[system]
    shapes = json.loads((ROOT / f'tests/data/{fixture}.shapes.json').read_text())
    reference = {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()
                 if not key.startswith('simfp_')}  # Vim's neck
    source, converted = tmp_path / 'reference.pth', tmp_path / 'converted.pth'
    torch.save({entry: {**reference, **{name: torch.ones(3) for name in classifier}}}, source)

    tool = partial(run_script, ROOT / 'tools/model_converters/convert_weights.py')
    assert tool(system, source, converted) == 0
    printed = capsys.readouterr().out
    assert f'from its {entry}' in printed and f'without the 2 of the classifier: {", ".join(classifier)}' in printed

    direct, through_tool = pretrained(config, source), pretrained(config, converted)
    assert direct.keys() == through_tool.keys()
    assert all(torch.equal(value, through_tool[key]) for key, value in direct.items())
    assert numbers(direct.values()) == pytest.approx(numbers(reference.values()), rel=1e-12)
