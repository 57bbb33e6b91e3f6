"""What every key map is made of: tables of module names, and renaming by them."""
from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from torch import Tensor

from mmmamba.errors import InputError

Names = dict[str, str]
"""The reference's names of modules, and of parameters that are in none, to ours; ``#`` stands for any number."""

StateDict = dict[str, Tensor]

SS2D: Names = {
    name: name
    for name in ('in_proj', 'conv2d', 'x_proj_weight', 'dt_projs_weight', 'dt_projs_bias', 'A_logs', 'Ds', 'out_norm',
                 'out_proj')
}
"""Table of the scan's layer, which all systems that scan maps name alike."""

LEAVES = frozenset({'weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'})

_FINGERPRINTS = {
    'this project (nothing to convert)': r'((module|model)\.)*(backbone\.)?stem\.',
    'mamba-yolo': r'.*\.(pw_linear|proj_conv)\.0\.|.*\.ss2d\.\d+\.',
    'mamba-vision': r'.*patch_embed\.conv_down\.',
    'efficient-vmamba': r'.*\.conv_branch\.0\.',
    'local-mamba': r'.*\.(multi_scan\.attn|mixer\.x_proj_0)\.',
    'vmamba': r'.*\.(op|self_attention)\.x_proj(\.|_weight)',
    'vim': r'.*\.mixer\.x_proj_b\.',
    'yolov8': r'.*\.m\.\d+\.cv1\.conv\.weight',
}
"""A key that only one system has; the first that matches decides."""


def under(reference: str, ours: str, names: Names) -> Names:
    """Returns the same table one level down: inside module ``reference``, which we call ``ours``."""
    return {f'{reference}.{name}': f'{ours}.{our_name}' for name, our_name in names.items()}


def repeated(count: int, reference: str, ours: str, names: Names) -> Names:
    """Returns the table once for each number from 0 to ``count - 1``, which replaces ``{}`` in both names."""
    tables = (under(reference.format(number), ours.format(number), names) for number in range(count))
    return {name: our_name for table in tables for name, our_name in table.items()}


def system_of(keys: Iterable[str]) -> str | None:
    """Guesses the system that a state dict of these keys comes from."""
    keys = list(keys)
    for system, pattern in _FINGERPRINTS.items():
        if any(map(re.compile(pattern).match, keys)):
            return system
    return None


def without_wrappers(state_dict: StateDict, yolo: bool = False) -> StateDict:
    """Takes any run of ``module.`` and ``model.`` off the keys, which whatever wrapped the model has put there.

    ``module.`` comes from (Distributed)DataParallel, ``model.`` from the class that users call to train.

    Args:
        state_dict: In any names.
        yolo: Keep the last ``model.`` if a number follows, which YOLO's own keys begin with.

    Raises:
        InputError: Two keys become one, or those of a YOLO are wrapped in two ways: it holds two models, or one twice.
    """
    wrappers = re.compile(r'((module|model)\.)*?(?=model\.[0-9]+\.)' if yolo else r'((module|model)\.)*')
    full: dict[str, str] = {}
    wrapped: dict[str, str] = {}
    for key in state_dict:
        match = wrappers.match(key)
        other = full.setdefault(key[match.end():] if match else key, key)
        if other != key:
            raise InputError(f'ambiguous state dict: {other} and {key} differ in their prefixes only')
        if yolo and match:
            wrapped.setdefault(match.group(), key)
    if len(wrapped) > 1:
        raise InputError(f'ambiguous state dict: {" and ".join(wrapped.values())} have different prefixes')
    return {bare: state_dict[key] for bare, key in full.items()}


def rename(state_dict: StateDict, names: Names, system: str) -> StateDict:
    """Returns the state dict in our names.

    Args:
        state_dict: In the reference's names.
        names: Table of all modules, and of the parameters that are in none. Numbers are taken over, and
            have to be 0, 1, 2 and so on.
        system: What the user asked for, for the error message.

    Raises:
        InputError: Tensors that the table lacks; says which other system they look like, if any. Or two of one name,
            or a number that is left out.
    """
    patterns = [(re.compile(re.escape(reference).replace(r'\#', '(0|[1-9][0-9]*)')), ours)
                for reference, ours in names.items()]
    numbers: dict[str, set[int]] = {}

    @cache
    def our_name(name: str) -> str | None:
        for pattern, ours in patterns:
            match = pattern.fullmatch(name)
            if match:
                for number in match.groups():
                    sequence, _, rest = ours.partition('#')
                    numbers.setdefault(sequence, set()).add(int(number))
                    ours = f'{sequence}{number}{rest}'
                return ours
        return None

    renamed, unknown = {}, []
    for key, value in state_dict.items():
        module, _, leaf = key.rpartition('.')
        if our_name(key):
            renamed[our_name(key)] = value
        elif our_name(module) and leaf in LEAVES:
            renamed[f'{our_name(module)}.{leaf}'] = value
        else:
            unknown.append(key)
    if unknown or not renamed:
        raise InputError(_complaint(list(state_dict), unknown, system))
    if len(renamed) < len(state_dict):
        raise InputError('ambiguous state dict: it has some tensors under two names')
    for sequence, found in numbers.items():
        if found != set(range(len(found))):
            raise InputError(f'no {system} state dict: for {sequence}# it has the numbers {sorted(found)}')
    return renamed


def _complaint(keys: list[str], unknown: list[str], system: str) -> str:
    if not keys:
        return f'no {system} state dict: it is empty'
    first = ', '.join(unknown[:3]) + (f' and {len(unknown) - 3} more' if len(unknown) > 3 else '')
    other = system_of(keys)
    hint = f'; it looks like {other}' if other not in (None, system) else ''
    return f'no {system} state dict: unknown {first}{hint}'
