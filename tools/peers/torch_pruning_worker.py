"""The same ResNet50, written in plain PyTorch, with Torch-Pruning: run by tools/benchmark_peers.py."""

import sys
from importlib import metadata

import torch
import torch_pruning as tp
from measuring import Stopwatch, answer, narrowed
from torch import nn

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


class Bottleneck(nn.Module):
    """As in keras.applications: the stride in the first conv, biases everywhere."""

    def __init__(self, channels: int, filters: int, stride: int, project: bool):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, filters, 1, stride), nn.BatchNorm2d(filters), nn.ReLU()),
            *(nn.Conv2d(filters, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()),
            *(nn.Conv2d(filters, 4 * filters, 1), nn.BatchNorm2d(4 * filters)),
        )
        shortcut = (nn.Conv2d(channels, 4 * filters, 1, stride), nn.BatchNorm2d(4 * filters)) if project else ()
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Sequential:
    stem = [nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks, channels = [], 64
    for stage, (filters, count) in enumerate(STAGES):
        for block in range(count):
            stride = 2 if stage and not block else 1
            blocks.append(Bottleneck(channels, filters, stride, project=not block))
            channels = 4 * filters
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)).eval()


def weighted(model) -> list:
    return [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def widths(model) -> list[int]:
    return [module.weight.shape[0] for module in weighted(model)]


def cost(model, images) -> dict:
    """Multiply-accumulates and parameters as the other workers count them: moving averages are parameters."""
    found = []
    hooks = [
        module.register_forward_hook(lambda m, _, y: found.append(m.weight.numel() * y.shape[2:].numel()))
        for module in weighted(model)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    buffers = sum(b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return {"flops": sum(found), "params": sum(p.numel() for p in model.parameters()) + buffers}


def prune(model, images, target: float) -> int:
    """Its pruner has rates and no FLOPs target: small steps until its own count says that the target is met.

    Returns:
      The steps.
    """
    pruner = tp.pruner.BasePruner(
        model,
        images,
        importance=tp.importance.MagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=0.95,
        iterative_steps=50,
        ignored_layers=[model[-1]],
    )
    allowed = (1 - target) * tp.utils.count_ops_and_params(model, images)[0]
    for step in range(1, 51):
        pruner.step()
        if tp.utils.count_ops_and_params(model, images)[0] <= allowed:
            return step
    return 50


def prune_to_one_channel(model, images) -> None:
    """Leaves one channel of every group that its graph finds and says may be pruned."""
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=images)
    for group in list(graph.get_all_groups(ignored_layers=[model[-1]])):
        module, function = group[0].dep.target.module, group[0].dep.handler
        one = graph.get_pruning_group(module, function, idxs=list(range(1, graph.get_out_channels(module))))
        if graph.check_pruning_group(one):
            one.prune()


if __name__ == "__main__":
    torch.manual_seed(0)
    images = torch.zeros(1, 3, 224, 224)
    model, lowest = resnet50(), resnet50()
    whole, before = cost(model, images), widths(model)
    with Stopwatch() as watch:
        steps = prune(model, images, float(sys.argv[1]))
    prune_to_one_channel(lowest, images)
    answer(
        version=metadata.version("torch-pruning"),
        runs_on=f"PyTorch {torch.__version__}",
        seconds=watch.seconds,
        peak_bytes=watch.peak_bytes,
        whole=whole,
        left=cost(model, images),
        lowest=cost(lowest, images),
        layers=len(before),
        prunable=narrowed(before, widths(lowest)),
        removes=True,
        how=f"in {steps} steps until the target is met",
    )
