"""The command line from a checkout: `python cli.py …` is `connector …`."""

from connector.commands import main

if __name__ == "__main__":
    main()
