"""Starts Streamlit on the dashboard, with what its pages import already loaded: the first visitor waits for nothing.

python -m dashboard.serve --server.port 8501
"""

import importlib
import sys
from pathlib import Path

APP = Path(__file__).with_name("app.py")
SLOW = ("polars", "pandas", "pyarrow", "deltalake", "dashboard.data", "dashboard.charts", "dashboard.tables")
"""What takes seconds to import; a page's own script takes milliseconds."""


def main() -> None:
    from streamlit.web import cli

    for name in SLOW:
        importlib.import_module(name)
    sys.argv = ["streamlit", "run", str(APP), *sys.argv[1:]]
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()
