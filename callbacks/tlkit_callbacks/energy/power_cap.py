"""Limit the power of a card, and put back what was there however the process ends."""

import atexit
import json
import logging
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from tlkit.errors import UserError
from tlkit.runs import write_text
from tlkit_callbacks.energy.counter import Unreadable
from tlkit_callbacks.energy.devices import card_by_uuid
from tlkit_callbacks.energy.nvml import Card, Denied

log = logging.getLogger("tlkit")


def directory() -> Path:
    """Returns where this user's caps in force are noted: ``$XDG_STATE_HOME/tlkit/power_caps``.

    It outlives the process, and unlike a cache nobody clears it.
    """
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tlkit" / "power_caps"


def check_cap(card: Card, watts: float) -> None:
    """Refuses a cap that the card or the driver would refuse; changes nothing.

    Args:
        card: to cap.
        watts: of the cap.

    Raises:
        UserError: the run has only a part of the card, the cap is outside the card's limits, or may not be set.
    """
    if card.shared:
        raise UserError(
            f"expected a whole card to cap, got a part of {card.name} (MIG): a cap would slow down the others' work; "
            "leave power_cap_watts out"
        )
    try:
        least, greatest = card.limits()
    except Unreadable as error:
        raise UserError(f"expected a card whose power can be capped, got {card.label}: {error}") from error
    if not least <= watts * 1000 <= greatest:
        raise UserError(
            f"expected power_cap_watts from {least / 1000:g} to {greatest / 1000:g} W, the limits of {card.label}, got "
            f"{watts:g}"
        )
    try:
        card.set_limit(card.limit())  # as it is: only to see whether it is allowed
    except Unreadable as error:
        raise _refused(card, watts, error) from error


class PowerCap:
    """A cap on one card; only one process at a time may hold it.

    The limit that was there is written to a file before it is changed. The file's lock tells whether the process that
    wrote it lives: the system frees it even after SIGKILL. Who finds a file without an owner puts the limit back.

    Args:
        card: to cap.
        watts: of the cap.
    """

    def __init__(self, card: Card, watts: float) -> None:
        self._card = card
        self._cap = round(watts * 1000)
        self._note = directory() / f"{card.uuid}.json"
        self._lock = _lock_of(self._note)

    def apply(self) -> None:
        """Caps the card and reads back what it took.

        Raises:
            UserError: another process caps the card, the cap is refused, or there is no place for the note.
        """
        watts = self._cap / 1000
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"expected a card that nobody caps, got {self._card.label}, {_owner(self._note)}"
            ) from error
        except OSError as error:
            raise UserError(
                f"expected a place to note the power limit to put back, got {error}; set XDG_STATE_HOME"
            ) from error
        atexit.register(self.restore)
        try:
            _put_back(self._card, self._note)  # what a killed process left
            prior = self._card.limit()
            owner = {"host": socket.gethostname(), "pid": os.getpid()}
            write_text(self._note, json.dumps({"prior": prior, "cap": self._cap} | owner))
            self._card.set_limit(self._cap)
            taken = self._card.limit()
        except Unreadable as error:
            self.restore()
            raise _refused(self._card, watts, error) from error
        if taken != self._cap:
            self.restore()
            raise UserError(f"expected {self._card.label} to take {watts:g} W, it took {taken / 1000:g} W")
        log.info("%s is capped at %g W; before: %g W", self._card.label, watts, prior / 1000)

    def restore(self) -> None:
        """Puts back the limit that was there. Idempotent."""
        if self._lock.is_locked:
            _put_back(self._card, self._note)
            self._lock.release()
        atexit.unregister(self.restore)


def recover() -> None:
    """Puts back the limits of all cards of this machine that killed processes of this user left capped."""
    for note in sorted(directory().glob("*.json")):
        card, lock = card_by_uuid(note.stem), _lock_of(note)
        if card is None:
            continue
        try:
            lock.acquire(timeout=0)
        except Timeout:  # its owner lives
            continue
        try:
            _put_back(card, note)
        finally:
            lock.release()


def _put_back(card: Card, note: Path) -> None:
    """Puts back what a note says, if there is one; it goes only when that is done."""
    if not note.exists():
        return
    saved = json.loads(note.read_text())
    prior = saved["prior"] / 1000
    try:
        if card.limit() == saved["cap"]:  # else somebody else has set it since, or the driver was loaded anew
            card.set_limit(saved["prior"])
            log.info("the power limit of %s is %g W again", card.label, prior)
    except Unreadable as error:
        log.warning(
            "the power limit of %s could not be put back: %s; do it with `sudo nvidia-smi -i %s -pl %g`",
            *(card.label, error, card.uuid, prior),
        )
        return
    note.unlink()


def _refused(card: Card, watts: float, error: Unreadable) -> UserError:
    reason = f"the power limit of {card.label} cannot be set: {error}"
    if not isinstance(error, Denied):
        return UserError(reason)
    return UserError(
        f"{reason}; setting it takes root (CAP_SYS_ADMIN). Run as root, or have it set beforehand with "
        f"`sudo nvidia-smi -i {card.uuid} -pl {watts:g}` (administrators do so in a prolog of the batch system or "
        "allow this one command in sudoers) and leave power_cap_watts out: the limit in force is recorded anyway"
    )


def _lock_of(note: Path) -> FileLock:
    return FileLock(note.with_suffix(".lock"), thread_local=False)


def _owner(note: Path) -> str:
    try:
        saved = json.loads(note.read_text())
        return f"capped at {saved['cap'] / 1000:g} W by process {saved['pid']} on {saved['host']}"
    except OSError:
        return "which another process is about to cap"
