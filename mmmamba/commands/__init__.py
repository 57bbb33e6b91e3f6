"""What ``mmmamba NAME`` runs: a module each, with ``main()``. Files of the same names in ``tools/`` run it, too."""
from types import MappingProxyType

COMMANDS = MappingProxyType({
    'check-data': 'find what is wrong with a data set, before training does',
    'train': 'train a detector',
    'test': 'measure the AP of a checkpoint or of an exported file',
    'predict': 'detect objects in images, videos, cameras and streams',
    'export': 'write a detector for ONNX Runtime, OpenVINO or PyTorch without MMDetection',
    'cam': 'draw where a layer of a detector looks in a picture',
    'compare': 'train and test several detectors under the same conditions, with a report',
    'mmdet': 'run a tool of MMDetection: browse_dataset, print_config, analyze_logs and others',
    'zoo': 'list the models, their AP, and the weights that there are',
    'info': 'describe this installation, or a model',
})
"""Name of a command, which is that of its module, with dashes → what it does."""


def module_of(name: str) -> str:
    """Returns the module that a command runs."""
    return f'mmmamba.commands.{name.replace("-", "_")}'
