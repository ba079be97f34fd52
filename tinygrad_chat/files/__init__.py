"""Files and folders: how they are opened, listed, locked and written, and where caches are.

opening.py  open regular files of bounded size, without following links inside our folders and without blocking;
            an unreadable file is an error, never treated as absent
locks.py    exclusive locks on folders, one process each
holding.py  find a folder again that is moved while a process works in it
writing.py  atomic writes of files and folders
places.py   user paths, the cache folder, and which folders are runs
"""

from tinygrad_chat.files.holding import HeldFolder, hold
from tinygrad_chat.files.locks import exclusive_lock, expect_free, is_locked, try_lock
from tinygrad_chat.files.opening import (
    UnfitFileError,
    expect_plain,
    explained,
    folder_is_there,
    is_folder,
    is_there,
    list_folder,
    open_plain,
    plain_lines,
    read_plain,
    status_of,
)
from tinygrad_chat.files.places import CACHE_VARIABLE, cache_folder, is_run, real_path, user_path
from tinygrad_chat.files.writing import (
    PARTIAL,
    fsync_file,
    fsync_folder,
    is_partial,
    keep_aside,
    partial_file,
    partial_folder,
    remove_folder_atomic,
    remove_partials,
    rename_folder_atomic,
    write_atomic,
    write_folder_atomic,
)

__all__ = [
    "CACHE_VARIABLE",
    "PARTIAL",
    "HeldFolder",
    "UnfitFileError",
    "cache_folder",
    "exclusive_lock",
    "expect_free",
    "expect_plain",
    "explained",
    "folder_is_there",
    "fsync_file",
    "fsync_folder",
    "hold",
    "is_folder",
    "is_locked",
    "is_partial",
    "is_run",
    "is_there",
    "keep_aside",
    "list_folder",
    "open_plain",
    "partial_file",
    "partial_folder",
    "plain_lines",
    "read_plain",
    "real_path",
    "remove_folder_atomic",
    "remove_partials",
    "rename_folder_atomic",
    "status_of",
    "try_lock",
    "user_path",
    "write_atomic",
    "write_folder_atomic",
]
