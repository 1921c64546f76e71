"""Files of weights for tests: a small ResNet-18 as torchvision's would be saved, and one that would run code."""

import os
import pickle

import torch

from netdepth.models import build
from support.hostile_pickles import Call

CLASSES, WIDTH = 7, 4


def network(name="resnet18", classes=CLASSES, seed=0, **settings):
    return build(name, (3, 32, 32), classes, seed=seed, width=WIDTH, **settings)


def draw_statistics(model):
    """Give every batch norm statistics that are not those of a batch."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2.0)
    return model


def weights(**settings):
    """A state dict as torchvision's network would have it."""
    return {k: v for k, v in network(**settings).state_dict().items() if not k.startswith("normalize.")}


def saved(path, content, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def hostile(path, marker, kind):
    content = {**weights(), "layer": Call(os.system, f"touch {marker}")}
    if kind == "bare":
        path.write_bytes(pickle.dumps(content, protocol=2))
        return path
    return saved(path, content, kind == "zip")
