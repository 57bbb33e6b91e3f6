"""The model zoo: what is known of every config, and weights by name.

What is listed stands in ``configs/*/metafile.yml`` (MIM's format, with what is published under ``Published``) and in
``configs/weights.yml`` (what the models' authors released).
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from mmmamba.convert import SYSTEMS, read_checkpoint, system_of, write_checkpoint
from mmmamba.downloads import local_file
from mmmamba.errors import InputError, did_you_mean
from mmmamba.package_files import CONFIGS


@dataclass(frozen=True)
class ZooModel:
    """A config on COCO.

    Attributes:
        name: Of its file.
        config: The file.
        collection: The model's family, as its authors call it.
        parameters: Of the detector.
        flops: Of one image, 2 for a multiply-add, those of the scans included; None where they are not stated.
        image_size: Height and width in pixels that the FLOPs are of.
        published: AP that others report for this detector, by metric: ``'box AP'``, ``'mask AP'``.
        ours: AP that this package reached.
    """
    name: str
    config: Path
    collection: str
    parameters: int | None
    flops: int | None
    image_size: tuple[int, int] | None
    published: dict[str, float]
    ours: dict[str, float]


@dataclass(frozen=True)
class ZooWeights:
    """A file of weights that its authors offer.

    Attributes:
        name: What ``--weights`` takes.
        address: Of the file.
        code: Of the repository that it belongs to.
        licence: Of the weights.
        trained_on: ``'ImageNet-1K'``, a classifier, of which the backbone is used; or ``'COCO'``, a detector.
    """
    name: str
    address: str
    code: str
    licence: str
    trained_on: str


def zoo_models() -> list[ZooModel]:
    """Returns the configs on COCO, in the order of the index that MIM reads."""
    index = yaml.safe_load((CONFIGS.parent / 'model-index.yml').read_text(encoding='utf-8'))
    models = []
    for metafile in index['Import']:
        content = yaml.safe_load((CONFIGS.parent / metafile).read_text(encoding='utf-8'))
        for entry in content['Models']:
            meta = entry.get('Metadata', {})
            size = meta.get('Image Size')
            ours = {name: value for result in entry.get('Results', ()) for name, value in result['Metrics'].items()}
            models.append(ZooModel(
                entry['Name'], CONFIGS.parent / entry['Config'], entry['In Collection'], meta.get('Parameters'),
                meta.get('FLOPs'), tuple(size) if size else None, entry.get('Published', {}), ours))
    return models


def zoo_weights() -> dict[str, ZooWeights]:
    """Returns what authors offer, by name."""
    found = {}
    for source in yaml.safe_load((CONFIGS / 'weights.yml').read_text(encoding='utf-8')):
        for kind, trained_on in (('Backbones', 'ImageNet-1K'), ('Detectors', 'COCO')):
            for name, address in source[kind].items():
                found[name] = ZooWeights(name, address, source['Code'], source['Licence'], trained_on)
    return found


def locate_weights(name: str) -> str:
    """Returns where weights are, a path or an HTTP address, without downloading; arguments as :func:`find_weights`."""
    if Path(name).expanduser().is_file() or '://' in name:
        return name
    known = zoo_weights()
    if name in known:
        return known[name].address
    hint = did_you_mean(name, known, 2, otherwise='; mmmamba zoo lists them')
    raise InputError(f'{name}: no such file, and no weights of that name{hint}')


def find_weights(name: str) -> Path:
    """Returns a file of weights in the names of this package.

    Args:
        name: A file, which is returned as it is; or its HTTP address; or a name of ``configs/weights.yml``. What is
            not a file is downloaded once, and converted if it has the names of a reference implementation.

    Raises:
        InputError: There is no such file or name, it cannot be downloaded, or it is not what it should be.
    """
    address = locate_weights(name)
    file = local_file(address)
    if file == Path(address).expanduser():
        return file
    converted = Path(torch.hub.get_dir(), 'checkpoints', f'{file.name}.mmmamba.pth')
    if converted.is_file() and converted.stat().st_mtime >= file.stat().st_mtime:
        return converted
    weights = read_checkpoint(file).state_dict
    system = system_of(weights)
    if system not in SYSTEMS:
        return file
    write_checkpoint(converted, SYSTEMS[system](weights), dict(converted_from=system, address=address))
    return converted
