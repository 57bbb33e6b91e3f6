"""Recipes: what ``--data`` does. Any detector on another data set, with the recipe that goes with it."""
from __future__ import annotations

import copy
from pathlib import Path
from types import MappingProxyType

from mmdet.models import DetectionTransformer
from mmdet.registry import MODELS
from mmengine.config import Config

from mmmamba.datasets.composed import Composition, compose
from mmmamba.datasets.formats import DataFolder, announce, config_for_data, find_data
from mmmamba.errors import InputError
from mmmamba.model_config import drop_pretrained, parts, set_num_classes
from mmmamba.package_files import CONFIGS
from mmmamba.settings import class_names

RECIPES = MappingProxyType({
    'coco': 'yolov8_300e_coco.py',
    'voc': 'yolov8_300e_voc.py',
    'bccd': 'yolov8_30e_bccd.py',
    'demo': 'short_16e_demo.py',
})
"""Data set → the file of configs/_base_ with its pipelines, schedule, optimizer and evaluator."""
FOLDER_RECIPE = 'bccd'
"""The recipe for a user's own folder."""
LARGEST_STRIDE = 32
"""Images padded to multiples of this suit every model."""
WITH_MASKS = MappingProxyType({'Mosaic': 'MosaicWithMasks', 'DetTTAModel': 'InsTTAModel'})
"""What recipes for boxes have → what a recipe for masks has instead."""
SHORT = ('bccd', 'demo')
"""Data sets on which a run is some hundred iterations long."""


def under_recipe(cfg: Config, data: str | DataFolder, test_split: str = 'val') -> Config:
    """Puts the detector of a config on another data set, under that set's recipe.

    The model stays the config's. Images, augmentation, schedule, optimizer, EMA and evaluation become those of the
    data set's file in ``configs/_base_``, the same for every detector; but settings that the config lists in
    ``own_settings`` (DINO's optimizer) stay, and so do its ``custom_imports``. Heads get the data set's number of
    classes. Augmentation on batches, where the model's preprocessor has some, goes: it is part of a recipe. So
    does padding to one size (Vim's, to 1024 x 1024). A DETR gets a preprocessor that counts padding as picture, as
    in its training, and heads that do not clip boxes to the picture are replaced by those of ours that do. For a
    detector that learns masks (YOLOv8's or Mask R-CNN's) the recipe loads, augments and evaluates masks. On the small
    sets the scans start from Mamba's initialisation (``ssm_init='mamba'``), since with 'mamba_yolo' it takes longer to
    learn anything.

    Args:
        cfg: With a ``model``; not changed.
        data: A name of :data:`RECIPES`, or a data set of the user's in any format that ``find_data`` takes, or what
            that has returned: it is trained under BCCD's recipe. ``'demo'`` composes its images where they are not
            there yet.
        test_split: The split of the user's data set that tests are made on.

    Raises:
        InputError: Neither a name nor a path, a path without a data set, or one without that split; or a data set
            without masks for a detector that learns them.
    """
    folder = data if isinstance(data, DataFolder) else find_folder(data)
    name = FOLDER_RECIPE if folder else str(data)
    if test_split != 'val' and not folder:
        raise InputError(f'--split is for data of your own: the tests of --data {data} have a split of their own')
    recipe = Config.fromfile(CONFIGS / '_base_' / RECIPES[name])
    yolo_masks = cfg.model.get('bbox_head', {}).get('type') == 'YOLOv8InsHead'
    if yolo_masks or any('mask_head' in part for part in parts(cfg.model)):
        if name == 'voc':
            raise InputError('--data voc has boxes alone, and this detector learns masks')
        use_masks(recipe, small_targets=yolo_masks)
    if name == 'demo':
        compose(Path(recipe.data_root), Composition())
    recipe.model = copy.deepcopy(cfg.model)
    own_imports = cfg.get('custom_imports') or {}
    modules = own_imports.get('imports') or []
    modules = [*recipe.custom_imports.imports, *([modules] if isinstance(modules, str) else modules)]
    recipe.custom_imports = {**own_imports, 'imports': list(dict.fromkeys(modules))}
    own = cfg.get('own_settings', ())
    for key in own:
        recipe[key] = copy.deepcopy(cfg[key])
    if 'optim_wrapper' in own:
        recipe.custom_hooks = [hook for hook in recipe.custom_hooks if hook.type != 'ScaleWeightDecayHook']
    preprocessor = recipe.model.get('data_preprocessor', {})
    preprocessor.pop('batch_augments', None)
    if preprocessor.get('pad_size_divisor', 1) > LARGEST_STRIDE:
        preprocessor.pad_size_divisor = LARGEST_STRIDE
    kind = recipe.model.type
    detector = MODELS.get(kind) if isinstance(kind, str) else kind
    if detector is not None and issubclass(detector, DetectionTransformer):
        recipe.model.data_preprocessor.type = 'LetterboxPreprocessor'
    for part in parts(recipe.model):
        if isinstance(part.get('type'), str) and f'Clipped{part.type}' in MODELS:
            part.type = f'Clipped{part.type}'
        if name in SHORT and part.get('type') in ('ODMamba', 'ODSSPAFPN'):
            part.ssm_init = 'mamba'
    if folder:
        return config_for_data(recipe, folder, test_split)
    set_num_classes(recipe.model, len(class_names(recipe)))
    return recipe


def use_masks(recipe: Config, small_targets: bool) -> None:
    """Has a recipe for boxes load, augment and evaluate masks, in place.

    Args:
        recipe: It is changed.
        small_targets: Whether masks are packed as :class:`YOLOv8InsHead` takes them.
    """
    for step in parts(recipe._cfg_dict):
        if step.get('type') == 'LoadAnnotations':
            step.clear()  # its arguments say what to load
            step.type = 'LoadInstanceMasks'
        elif step.get('type') in WITH_MASKS:
            step.type = WITH_MASKS[step.type]
    for step in parts([recipe.train_dataloader, recipe.custom_hooks]):
        if small_targets and step.get('type') == 'PackDetInputs':
            step.type = 'PackMaskTargets'
    for evaluator in (recipe.val_evaluator, recipe.test_evaluator):
        evaluator.metric = ['bbox', 'segm']


def find_folder(data: str) -> DataFolder | None:
    """Returns the data set that ``data`` is the path of, and says how it was taken.

    Args:
        data: See :func:`under_recipe`.

    Returns:
        The data set, or None for a name of :data:`RECIPES`.

    Raises:
        InputError: Neither a name nor a path, or a path without a data set.
    """
    if data in RECIPES:
        return None
    if not Path(data).exists():
        raise InputError(f'--data must be one of {", ".join(RECIPES)}, or a folder (or its data.yaml or COCO file); '
                         f'there is no {data}')
    found = find_data(Path(data))
    announce(found)
    return found


def from_scratch(cfg: Config) -> Config:
    """Returns the same detector without any trained weights, and without what is meant for trained weights only.

    Pretrained initialisation goes; frozen stages, frozen norms and the backbone's smaller learning rate with it.
    """
    cfg = copy.deepcopy(cfg)
    cfg.load_from = None
    drop_pretrained(cfg.model)
    for part in parts(cfg.model):
        if 'frozen_stages' in part:
            part.update(frozen_stages=-1)
        if 'norm_eval' in part:
            part.update(norm_eval=False)
        if isinstance(part.get('norm_cfg'), dict):
            part.norm_cfg.pop('requires_grad', None)
    rates = cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    rates.get('backbone', {}).pop('lr_mult', None)
    return cfg


def default_work_dir(config: str | Path, data: str | None) -> str:
    """Returns where a run of a config goes: a folder of its own for each data set."""
    return str(Path('work_dirs', '_'.join([Path(config).stem, *([data_name(data)] if data else [])])))


def data_name(data: str) -> str:
    """Returns a name for folders and titles: a folder's is its last part; a file's has that of its folder, too."""
    if data in RECIPES:
        return data
    path = Path(data).resolve()
    return f'{path.parent.name}_{path.stem}' if path.is_file() else path.name
