"""Keep the bytecode of what Python imports from zip archives, as it does of files.

Each task of Ansible's brings its modules as source in an archive, and has them compiled anew. A
local server gets thousands of tasks in a day of tests. Real servers go without this.
"""

import marshal
import os
import sys
import zipimport
from _imp import source_hash

FOLDER = "/var/cache/zip_bytecode"  # root's, who alone can add to it
compile_source = zipimport._compile_source


def code_of(path: str, source: bytes) -> object:
    """Return the code of a module in an archive, compiled once for each version of its source."""
    module = path.partition(".zip/")[2].replace("/", ".")
    file = f"{FOLDER}/{module}-{source_hash(0, source).hex()}.{sys.implementation.cache_tag}"
    try:
        with open(file, "rb") as stored:
            return marshal.load(stored)
    except (OSError, EOFError, ValueError):
        code = compile_source(path, source)
    try:
        with open(f"{file}.{os.getpid()}", "wb") as new:
            marshal.dump(code, new)
        os.replace(new.name, file)
    except OSError:
        pass  # not root
    return code


zipimport._compile_source = code_of
