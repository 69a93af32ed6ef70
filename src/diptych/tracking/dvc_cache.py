"""What DVC keeps: content by its md5, whole folders and what lies in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc_data.hashfile.tree import Tree


class DvcCache:
    """The cache of a project, for reading."""

    def __init__(self, root: Path) -> None:
        """Find the cache that a project's DVC is set up for.

        Args:
            root: The project's main folder.
        """
        from dvc.repo import Repo

        with Repo(str(root)) as repo:
            self._objects = repo.cache.local

    def hash_within(self, folder_md5: str, path: Path) -> str | None:
        """Return DVC's md5 of what lies at a path in a kept folder; None if it is not kept."""
        tree = self._tree(folder_md5)
        key: Any = path.parts  # of any length, other than its type says
        found = None if tree is None else tree.get_obj(self._objects, key)
        return None if found is None else str(found.oid)

    def object_path(self, md5: str) -> Path:
        """Return where a file or folder is kept, if it is."""
        return Path(self._objects.oid_to_path(md5))

    def objects(self, md5: str) -> list[tuple[str, Path]]:
        """Return the md5 of a file or folder and of all that is in it, each with its place there.

        What is in a folder is not known if its own object is missing or damaged.
        """
        tree = self._tree(md5) if md5.endswith(".dir") else None
        inside = [(entry.value, Path(*parts)) for parts, _, entry in tree or ()]
        return [(md5, Path()), *inside]

    def show(self, md5: str, place: Path) -> bool:
        """Make a kept file or folder visible at a place, by links; False if not all is kept."""
        if not md5.endswith(".dir"):
            source = Path(self._objects.oid_to_path(md5))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source)
            return source.is_file()
        tree = self._tree(md5)
        return tree is not None and all(
            self.show(entry.value, place.joinpath(*parts)) for parts, _, entry in tree
        )

    def _tree(self, md5: str) -> "Tree | None":
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree
        from dvc_objects.errors import ObjectFormatError

        try:
            return Tree.load(self._objects, HashInfo("md5", md5))
        except (FileNotFoundError, ObjectFormatError):
            return None


def dvc_md5(path: Path) -> str:
    """Return what DVC calls the md5 of a file or, with all its files' names, of a folder.

    Raises:
        OSError: when it cannot be read.
    """
    from dvc_data.hashfile.hash import file_md5
    from dvc_data.hashfile.tree import Tree

    if not path.is_dir():
        return str(file_md5(str(path)))
    entries = [
        {Tree.PARAM_RELPATH: file.relative_to(path).as_posix(), "md5": file_md5(str(file))}
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    tree = Tree.from_list(entries, hash_name="md5")
    tree.digest()
    return str(tree.oid)
