"""Where the computation runs, in which floating-point format, and what goes wrong there."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clsclip.errors import DeviceError


def choose_device(name: str = "auto") -> torch.device:
    """Resolve a device name.

    Parameters
    ----------
    name : str
        ``auto`` (the first CUDA GPU, else Apple's MPS, else the CPU), ``cpu``, ``cuda``,
        ``cuda:N`` or ``mps``.

    Raises
    ------
    DeviceError
        If the name is not one of these, or the device is not in this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"'{name}' is not a device. Use auto, cpu, cuda, cuda:N or mps."
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"Device '{name}' is not here: PyTorch sees {count} CUDA GPUs. Use --device cpu, "
                "or install a GPU driver that fits this PyTorch build."
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("Device 'mps' is not here: it needs an Apple GPU. Use --device cpu.")
    if device.type not in ("cpu", "mps"):
        raise DeviceError(f"Device '{name}' is not supported. Use auto, cpu, cuda, cuda:N or mps.")
    return device


def worker_device(name: str, worker: int, gpus: int) -> str:
    """Device of one of several processes that compute beside each other.

    Parameters
    ----------
    name : str
        As :func:`choose_device` takes it. One that is named is the device of all of them.
    worker : int
        Number of the process, from 0.
    gpus : int
        CUDA GPUs that PyTorch sees.

    Returns
    -------
    str
        With ``auto`` and several GPUs, these in turn: ``cuda:0``, ``cuda:1``, ...
    """
    return f"cuda:{worker % gpus}" if name == "auto" and gpus > 1 else name


def fast_dtype(device: torch.device) -> torch.dtype:
    """Floating-point format with the fastest matrix products on a device.

    bfloat16 where the hardware multiplies it natively (GPUs of compute capability 8 and above;
    CPUs with AMX or AVX512-BF16), else float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    if device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64"):
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def describe_device(name: str = "auto") -> str:
    """A device in words, e.g. ``CPU (2 threads, bfloat16)``.

    Raises
    ------
    DeviceError
        As :func:`choose_device`.
    """
    device = choose_device(name)
    dtype = str(fast_dtype(device)).removeprefix("torch.")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({dtype})"
    if device.type == "mps":
        return f"Apple GPU ({dtype})"
    return f"CPU ({torch.get_num_threads()} threads, {dtype})"


@contextmanager
def device_faults(device: torch.device) -> Iterator[None]:
    """Turn what goes wrong on a device while something is segmented into an error for people.

    Raises
    ------
    DeviceError
        If its memory runs out; what PyTorch keeps of it is given back before.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise DeviceError(
            f"The device {device} ran out of memory. Segment a smaller region, choose a smaller "
            "zoom, or start the backend or the command with --device cpu."
        ) from error
