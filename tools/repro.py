"""`dvc repro` that ends with whoever started it, such as make:  python tools/repro.py [TARGET ...]"""

import os
import sys

from mmdisaster.runs import end_with_parent

end_with_parent(os.getppid())

from dvc.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["repro", *sys.argv[1:]]))
