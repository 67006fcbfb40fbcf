"""How much a device's memory holds, and whether it has run out."""

import os

import torch


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU or of the machine; 8 GiB where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return 8 << 30


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory has run out; PyTorch's allocator for CPUs says so only in its message."""
    out = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return out or "can't allocate memory" in str(error)
