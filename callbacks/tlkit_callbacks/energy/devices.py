"""Which card a process uses: from CUDA's number of a device to NVML's handle of a card.

Source: CUDA Programming Guide, "CUDA Environment Variables", ``CUDA_VISIBLE_DEVICES``.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pynvml
import torch

from tlkit_callbacks.energy.counter import Unreadable
from tlkit_callbacks.energy.nvml import Card, call

VARIABLE = "CUDA_VISIBLE_DEVICES"


def card_of(index: int) -> Card:
    """Returns the card behind ``cuda:<index>``; of a MIG device the card that it is a part of.

    Args:
        index: of the device, as CUDA counts those that it sees.

    Raises:
        Unreadable: no card is found for it.
    """
    # CUDA counts cards with the fastest first, NVML by their slots: once CUDA runs, it says itself which card it is
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        uuid = f"GPU-{getattr(torch.cuda.get_device_properties(index), 'uuid', '')}"
        if card := card_by_uuid(uuid):
            return card
    visible = os.environ.get(VARIABLE)
    token = str(index) if visible is None else dict(enumerate(tokens(visible))).get(index)
    if token is None:
        raise Unreadable(f"{VARIABLE}={visible} names no device {index}")
    try:
        return _resolve(token)
    except Unreadable as error:
        raise Unreadable(
            f"no card for '{token}'{'' if visible is None else f' of {VARIABLE}={visible}'}: {error}"
        ) from error


def card_by_uuid(uuid: str) -> Card | None:
    """Returns the card with this UUID (``GPU-…``), if this machine has it."""
    return next((_card(handle) for own, handle in _cards() if own == uuid), None)


def tokens(visible: str) -> list[str]:
    """Returns what names a device in ``CUDA_VISIBLE_DEVICES``, in order: CUDA stops at the first that is none.

    Names are numbers, ``GPU-<uuid>`` or its beginning, ``MIG-<uuid>``, and of old drivers ``MIG-GPU-<uuid>/x/y``.
    """
    found = []
    for token in visible.split(","):
        # like C's strtoul, CUDA takes the number at the beginning
        match = re.match(r"\s*(\d+|(?:GPU|MIG)-[^\s]+)", token)
        if match is None:
            break
        found.append(match[1])
    return found


def _resolve(token: str) -> Card:
    if token.isdigit():
        return _card(call(pynvml.nvmlDeviceGetHandleByIndex, int(token)))
    if old := re.fullmatch(r"MIG-(GPU-[^/]+)/\d+/\d+", token):
        return _card(_by_prefix(old[1]), shared=True)
    if token.startswith("MIG-"):
        part = call(pynvml.nvmlDeviceGetHandleByUUID, token)
        return _card(call(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, part), shared=True)
    return _card(_by_prefix(token))


def _by_prefix(prefix: str) -> Any:
    found = [handle for uuid, handle in _cards() if uuid.lower().startswith(prefix.lower())]
    if len(found) != 1:
        raise Unreadable(f"{len(found)} cards have a UUID that begins like this")
    return found[0]


def _cards() -> Iterator[tuple[str, Any]]:
    """Yields UUID and handle of each card that answers."""
    for number in range(call(pynvml.nvmlDeviceGetCount)):
        with suppress(Unreadable):
            handle = call(pynvml.nvmlDeviceGetHandleByIndex, number)
            yield call(pynvml.nvmlDeviceGetUUID, handle), handle


def _card(handle: Any, shared: bool = False) -> Card:
    uuid, name = call(pynvml.nvmlDeviceGetUUID, handle), call(pynvml.nvmlDeviceGetName, handle)
    return Card(handle, uuid, name, shared or _divided(handle))


def _divided(handle: Any) -> bool:
    """Tells whether MIG is on; then the first number of a card means one of its parts."""
    try:
        return bool(call(pynvml.nvmlDeviceGetMigMode, handle)[0])
    except Unreadable:  # cards that cannot be divided
        return False
