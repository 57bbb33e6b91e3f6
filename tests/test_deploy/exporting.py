"""What tests of exported files share."""
from __future__ import annotations

from functools import partial

import numpy as np
import torch

from mmmamba.deploy.export import ExportOptions, Preprocessing, exported_network, make_exporter, runtime
from mmmamba.deploy.export.exporter import as_input, composed_image, on_backend

PREPROCESSING = partial(Preprocessing, 114, ('square', 'wide', 'tall'))


def export(detector, out, **options):
    """Writes a file; returns what PyTorch runs."""
    network = exported_network(detector)
    make_exporter('onnx').export(network, out, ExportOptions(**options), PREPROCESSING())
    return network


def assert_equals_pytorch(file, network):
    """Compares on another picture than the exporter does."""
    images = as_input([composed_image(64, 96, seed=5)])
    with torch.no_grad(), on_backend(network, None):
        expected = network(torch.from_numpy(images))[0].numpy()
    got = runtime.open_file(file).run(images)[0]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got[:, :4], expected[:, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], rtol=0, atol=1e-5)
