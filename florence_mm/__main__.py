"""``python -m florence_mm``: the command ``florence-mm``."""

import sys

from florence_mm.commands.main import main

if __name__ == '__main__':
    sys.exit(main(prog='python -m florence_mm'))
