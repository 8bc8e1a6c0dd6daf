"""Lets a CUDA build of torchvision import beside a CPU build of torch (development set-up only).

torchvision has no CPU build on PyPI. Its wheel tolerates its C++ library failing to load, except that
it registers fake kernels for two operators which then do not exist, and every import of transformers'
image processors fails with "operator torchvision::nms does not exist". Declaring the two operators
(schema only, no kernel) when torch has no CUDA makes the import succeed; calling them still raises.

``scripts/setup_dev.sh`` copies this file into the virtual environment together with a ``.pth`` line that
imports it. It is not part of the package.
"""

import sys


class _TorchvisionFinder:
    """A meta-path entry that acts once, when ``torchvision`` is first imported, and finds nothing."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(_TorchvisionFinder)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                # Dropping the Library object would take the declarations back.
                sys._torchvision_cpu_library = library


sys.meta_path.insert(0, _TorchvisionFinder)
