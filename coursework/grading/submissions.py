"""Finding submissions in a folder and reading their bytes, without trusting what lies there."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

MOST = 20 << 20                        # bytes of one notebook; larger ones are not opened
SUFFIXES = (".ipynb", ".py")


@dataclass(frozen=True)
class Submission:
    """One student's file; `problem` says why it cannot be read, if so."""

    student: str
    data: bytes = b""
    suffix: str = ""
    problem: str = ""

    @property
    def digest(self) -> str:
        """A fingerprint of the file."""
        return hashlib.sha256(self.data + self.suffix.encode() + self.problem.encode()).hexdigest()


def find(folder: Path) -> list[tuple[str, Path]]:
    """Students and their files or folders, sorted: `ada.ipynb`, `ada.py`, `ada.zip` or a folder `ada/`."""
    entries = sorted(Path(folder).iterdir(), key=lambda p: p.name)
    found = [(p.name if p.is_dir() and not p.is_symlink() else p.stem, p) for p in entries
             if not p.name.startswith((".", "__"))]
    seen: dict = {}
    for student, path in found:
        seen.setdefault(student, []).append(path)
    return [(student if len(paths) == 1 else path.name, path) for student, paths in seen.items() for path in paths]


def read(student: str, path: Path, wanted: str = "") -> Submission:
    """Read one submission; whatever is wrong with it is said in `problem`, nothing is raised.

    Parameters
    ----------
    student : str
    path : Path
        The file or folder.
    wanted : str
        Name of the assignment: in a folder with several notebooks, the one of that name counts.
    """
    try:
        if path.is_symlink():
            return Submission(student, problem="it is a symbolic link, which is not followed")
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix in SUFFIXES and ".ipynb_checkpoints" not in p.parts
                      and not any(part.is_symlink() for part in [p, *p.parents] if part.is_relative_to(path))]
            chosen = [p for p in inside if p.stem == wanted] or [p for p in inside if p.suffix == ".ipynb"] or inside
            if len(chosen) != 1:
                return Submission(student, problem=f"the folder holds {len(chosen) or 'no'} notebooks"
                                  + (f", none of them called {wanted}" if chosen else ""))
            path = chosen[0]
        if path.suffix == ".zip":
            return _zipped(student, path, wanted)
        if path.suffix not in SUFFIXES:
            return Submission(student, problem=f"it is a {path.suffix or 'file without ending'}, expected .ipynb, .py, .zip or a folder")
        return Submission(student, _bytes(path), path.suffix)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as error:
        return Submission(student, problem=str(error) or type(error).__name__)


def _bytes(path: Path) -> bytes:
    """A regular file's bytes, not through a link."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not an ordinary file")
        if about.st_size > MOST:
            raise ValueError(f"it has {about.st_size / 1e6:.0f} MB; at most {MOST >> 20} are read")
        return file.read(MOST + 1)


def _zipped(student: str, path: Path, wanted: str) -> Submission:
    if path.stat().st_size > MOST:
        raise ValueError(f"it has {path.stat().st_size / 1e6:.0f} MB; at most {MOST >> 20} are read")
    with zipfile.ZipFile(path) as archive:
        inside = [i for i in archive.infolist() if i.filename.endswith(SUFFIXES) and "__MACOSX" not in i.filename
                  and ".ipynb_checkpoints" not in i.filename]
        chosen = [i for i in inside if Path(i.filename).stem == wanted] or inside
        if len(chosen) != 1:
            return Submission(student, problem=f"the archive holds {len(chosen) or 'no'} notebooks")
        with archive.open(chosen[0]) as file:
            data = file.read(MOST + 1)              # never more, whatever the archive says of itself
    if len(data) > MOST:
        raise ValueError(f"the notebook inside has more than {MOST >> 20} MB")
    return Submission(student, data, Path(chosen[0].filename).suffix)
