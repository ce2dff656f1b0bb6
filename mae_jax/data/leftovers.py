"""Recognizes leftovers: files and folders that systems, editors and network drives create, with no
user data or only copies of it.

Nearly all are hidden, with a name that starts with a dot: `.DS_Store`, `._cat.jpg`, `.Trashes` of
macOS; `.goutputstream-X`, `.Trash-1000`, `.directory` of desktops; `.nfs01`, `.fuse_hidden01`,
`.cat.jpg.Xa81Bc` (rsync), `.@__thumb`, `.snapshot` of drives and copies; `.ipynb_checkpoints`,
`.git`, `.~lock.x#` of programs. The others have the names below.
"""

import re

FOLDERS = frozenset(
    (
        "__macosx",  # ZIP archives of macOS: a ._name for every file
        *("network trash folder", "temporary items", "thevolumesettingsfolder"),  # AppleShare
        "thefindbycontentfolder",
        "lost+found",  # Linux
        *("$recycle.bin", "recycler", "system volume information", "$extend"),  # Windows
        "lost.dir",  # Android
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology: thumbnails, trash, snapshots
        *("@recycle", "@recently-snapshot"),  # QNAP
        "~snapshot",  # NetApp
        *("_vti_cnf", "_vti_pvt"),  # FrontPage: a text file for every file, under the same name
        *("__pycache__", "_svn", "_gsdata_"),
    )
)
"""Names of folders, in lower case."""
FILES = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"))
"""Names of files, in lower case."""

_FILE = re.compile(
    r"~\$.*"  # locks of Microsoft Office
    r"|~syncthing~.*"
    r"|#.*#"  # Emacs
    r"|.*~"
    r"|.*\.(tmp|temp|swp|swo|bak|orig|lock)"
    r"|.*\.(part|partial|crdownload|download|opdownload|filepart|aria2|!ut|!qb)"  # downloads
    r"|.*:zone\.identifier"  # streams of NTFS
    r"|.*@syno(eastream|resource)",
    re.IGNORECASE | re.DOTALL,
)


def is_leftover(name: str, *, folder: bool) -> bool:
    """Whether a file or folder is a leftover, judged by its name.

    Args:
        name: the name, without parent folders.
        folder: whether it is a folder.
    """
    if name.startswith("."):
        return True
    if folder:
        return name.lower() in FOLDERS
    return name.lower() in FILES or _FILE.fullmatch(name) is not None


def kind(name: str, *, folder: bool) -> str:
    """The kind under which a leftover is counted: '.DS_Store', '._*', '*.part', '@eaDir/'."""
    if folder:
        return f"{name}/"
    for start in ("._", ".nfs", ".fuse_hidden", ".goutputstream", ".~lock", "~$", "~syncthing~"):
        if name.lower().startswith(start):
            return f"{start}*"
    if name.startswith(".") or name.lower() in FILES:
        return name
    for end in ("~", "#"):
        if name.endswith(end):
            return f"*{end}"
    return f"*{name[max(map(name.rfind, '.:@')) :].lower()}"
