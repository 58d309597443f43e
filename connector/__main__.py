"""`python -m connector …` is `connector …`."""

from connector.commands import main

if __name__ == "__main__":
    main()
