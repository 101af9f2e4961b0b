"""PyTorch's side on a GPU: the modules of torch_peer.py, eagerly and as captured CUDA graphs."""

import contextlib
import math
import time

import torch
import torch_peer
from torch import nn
from turns import HANDOVER, TURN

# Whether cuDNN, and whether matrix products may round their inputs to TF32.
SETTINGS = {"defaults": (True, False), "TF32 off": (False, False), "TF32 on": (True, True)}
WARM = 3  # steps before a capture, in which PyTorch chooses algorithms and allocates


@contextlib.contextmanager
def setting(name):
    """PyTorch's use of TF32, as long as the block lasts."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = SETTINGS[name]
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def wait(device):
    """Until the device has done all that it was told, on any stream."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(step, count, device):
    """Seconds a step of so many, from an idle device to an idle device.

    The second event is recorded only when all streams are empty, whoever's they are.
    """
    wait(device)
    if device != "cuda":
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        step()
    wait(device)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / count


def turner(step, device):
    """What takes one turn of at least 30 ms, and 10 ms before it that do not count."""
    count = 1
    while (taken := count * seconds(step, count, device)) < TURN:
        count = max(2 * count, math.ceil(count * TURN / max(taken, 1e-6)))
    before = max(1, math.ceil(count * HANDOVER / TURN))

    def turn():
        seconds(step, before, device)
        return seconds(step, count, device)

    return turn


def host_seconds(step, device, count=50):
    """Seconds that a call takes the host, which does not wait for the device."""
    wait(device)
    start = time.perf_counter()
    for _ in range(count):
        step()
    taken = (time.perf_counter() - start) / count
    wait(device)
    return taken


def steps(model, x, y, device):
    """The ways to train: name -> (train step, gradients); see ``torch_peer.run_by``.

    Eagerly, and with a GPU, as a captured graph; images in both memory formats.
    """
    inputs = torch_peer.images(model, x).to(device)
    labels = torch.from_numpy(y).long().to(device)
    ways = {}
    for name, memory_format in torch_peer.formats(inputs).items():
        given = inputs
        if memory_format is not torch.contiguous_format:
            given = inputs.contiguous(memory_format=memory_format)

        def made(memory_format=memory_format):
            module = torch_peer.translate(model).to(device)
            return module.to(memory_format=memory_format) if inputs.ndim == 4 else module

        module = made()
        train, _, gradients = torch_peer.run_by(module, module, given, labels)
        ways[f"eager, {name}"] = train, gradients
        if device == "cuda":
            ways[f"graph, {name}"] = captured(made(), given, labels), gradients
    return ways


def captured(module, inputs, labels):
    """A whole train step as one CUDA graph: forward, loss, backward, and the update."""
    trained = [p for p in module.parameters() if p.requires_grad]
    # The epsilon of the first step, as in torch_peer.py: a number in a graph stays as it is.
    epsilon = 1e-7 / math.sqrt(1 - 0.999)
    optimizer = torch.optim.Adam(trained, eps=epsilon, fused=True, capturable=True)
    module.train()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(module(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    begin = {name: value.clone() for name, value in module.state_dict().items()}
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    with torch.no_grad():  # what the warm steps have changed, where it lies
        for name, value in module.state_dict().items():
            value.copy_(begin[name])
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay():
        graph.replay()
        return loss

    return replay
