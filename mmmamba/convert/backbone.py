"""Pretrained backbones: what a classifier and a detector of the references have in common."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mmmamba.convert.key_map import Names, StateDict, rename, without_wrappers

BACKBONE = 'backbone.'
OUT_NORMS: Names = {f'outnorm{stage}': f'out_norms.{stage}' for stage in range(4)}

CLASSIFIERS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    'mamba-vision': ('norm', 'head'),
    'efficient-vmamba': ('norm', 'head', 'classifier'),
    'vmamba': ('norm', 'head', 'classifier'),
    'local-mamba': ('norm', 'norm_f', 'head', 'classifier', 'cls_token', 'rope'),
    'vim': ('norm_f', 'head', 'cls_token', 'rope'),
})
"""What a detector has no use for in a reference's classifier, by system: the modules after its backbone; of Vim also
the class token and the rotary tables."""


def rename_backbone(state_dict: StateDict, names: Names, system: str) -> StateDict:
    """Renames the backbone in the weights of a classifier or of a whole mmdet detector, below ``backbone.``.

    A classifier's head is dropped (:func:`dropped` lists it). A detector's neck and heads are mmdet's own and keep
    their names.

    Args:
        state_dict: In the reference's names.
        names: Table of the backbone's modules, and of the parameters that are in none.
        system: What the user asked for.

    Raises:
        InputError: A state dict of something else.
    """
    state_dict = without_wrappers(state_dict)
    backbone, others = split(state_dict, BACKBONE)
    if not backbone:  # a classifier
        backbone, others = others, {}
    heads = set(dropped(backbone, system))
    renamed = rename({key: value for key, value in backbone.items() if key not in heads}, names, system)
    return {**{BACKBONE + key: value for key, value in renamed.items()}, **others}


def split(state_dict: StateDict, prefix: str) -> tuple[StateDict, StateDict]:
    """Returns what is below a prefix, without it, and the rest."""
    inside = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
    return inside, {key: value for key, value in state_dict.items() if not key.startswith(prefix)}


def dropped(keys: Iterable[str], system: str | None) -> list[str]:
    """Returns the keys of :data:`CLASSIFIERS` among the keys of a reference's classifier or detector."""
    modules = '|'.join(CLASSIFIERS.get(system or '', ()))
    module = re.compile(rf'((module|model)\.)*(backbone\.(net\.)?)?({modules})(\.|$)')
    return [key for key in keys if modules and module.match(key)]
