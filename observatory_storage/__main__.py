"""``python -m observatory_storage`` is the command line."""

from observatory_storage.cli import main

if __name__ == "__main__":
    main()
