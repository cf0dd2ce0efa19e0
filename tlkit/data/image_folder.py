"""Any folder of class folders."""

import hashlib
import logging
from pathlib import Path

from typing_extensions import override

from tlkit.data.file_images import FileImages, Listing, class_folders, files_below
from tlkit.errors import UserError

log = logging.getLogger(__name__)


class ImageFolder(FileImages):
    """Images as ``root/<class>/…``, or as ``root/train/<class>/…`` and ``root/test/<class>/…`` (or ``val``).

    Without a test side, a fifth of each class's files is held out: those whose names' sha256 comes first. So neither
    their order nor the images beside them in the folder decide, and the test side stays when the root is moved.
    """

    def __init__(self, root: str, test_fraction: float = 0.2, skip_broken: bool = False) -> None:
        """Stores the arguments.

        Args:
            root: the folder. Every file in it that is not hidden is taken for an image.
            test_fraction: share of each class's files to hold out if the folder has no test side, rounded, at least
                one file.
            skip_broken: leave out files that cannot be read, and say how many, instead of refusing them.

        Raises:
            UserError: there is no such folder, or the fraction is not between 0 and 1.
        """
        super().__init__(root, skip_broken)
        if not 0 < test_fraction < 1:
            raise UserError(f"expected test_fraction of ImageFolder between 0 and 1, got {test_fraction}")
        self.test_fraction = test_fraction

    @override
    def list_files(self) -> Listing:
        """Returns the files by class folder.

        Raises:
            UserError: there are no class folders, or the sides have different ones.
        """
        train = self.root / "train" if (self.root / "train").is_dir() else self.root
        classes = class_folders(train)
        if not classes:
            raise UserError(
                f"expected one folder per class in {train}, got none; name another with --data.dataset.root"
            )
        files = [(name, label) for label, one in enumerate(classes) for name in files_below(self.root, train / one)]
        sides = [self.root / side for side in ("test", "val") if train != self.root and (self.root / side).is_dir()]
        if not sides:
            held_out = self._held_out(files, len(classes))
            return Listing(classes, [f for f in files if f not in held_out], [f for f in files if f in held_out])
        if len(sides) > 1:
            log.info("%s has both test and val: test is tested on; validation is carved from train", self.root)
        return Listing(classes, files, self._side(sides[0], classes))

    def _side(self, folder: Path, classes: list[str]) -> list[tuple[str, int]]:
        """Returns the files of the test side, which must have the classes of the training side."""
        if (got := class_folders(folder)) != classes:
            extra, missing = sorted(set(got) - set(classes)), sorted(set(classes) - set(got))
            raise UserError(
                f"expected the same class folders in {folder} as in train, got {len(got)} for {len(classes)}; "
                f"missing: {missing[:5]}, unknown: {extra[:5]}"
            )
        return [(name, label) for label, one in enumerate(classes) for name in files_below(self.root, folder / one)]

    def _held_out(self, files: list[tuple[str, int]], classes: int) -> set[tuple[str, int]]:
        """Returns the files to test on."""
        chosen: set[tuple[str, int]] = set()
        groups: list[list[tuple[str, int]]] = [[] for _ in range(classes)]
        for file in files:
            groups[file[1]].append(file)
        for group in groups:
            group.sort(key=lambda file: hashlib.sha256(Path(file[0]).name.encode("utf-8", "surrogateescape")).digest())
            chosen.update(group[: max(1, round(self.test_fraction * len(group)))])
        return chosen
