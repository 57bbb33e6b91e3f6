"""What tests of exported files share."""
from __future__ import annotations

from functools import partial

import numpy as np
import torch

from mmmamba.deploy.export import ExportOptions, Preprocessing, Suppression, exported_network, make_exporter, runtime
from mmmamba.deploy.export.exporter import as_input, composed_image, on_backend

NMS = Suppression(score_thr=0.1, iou_threshold=0.5, max_per_img=20)
PREPROCESSING = partial(Preprocessing, 114, ('square', 'wide', 'tall'))


def export(detector, out, name='onnx', **options):
    """Writes a file by the exporter of this name; returns what PyTorch runs."""
    network = exported_network(detector)
    make_exporter(name).export(network, out, ExportOptions(**options), PREPROCESSING())
    return network


def run_pytorch(network, images):
    """Returns the first output for an array of images, as an array."""
    with torch.no_grad(), on_backend(network, None):
        return network(torch.from_numpy(images))[0].numpy()


def assert_equals_pytorch(file, network):
    """Compares on another picture than the exporter does."""
    images = as_input([composed_image(64, 96, seed=5)])
    expected = run_pytorch(network, images)
    got = runtime.open_file(file).run(images)[0]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got[:, :4], expected[:, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], rtol=0, atol=1e-5)
