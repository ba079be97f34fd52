"""`python -m tinygrad_chat` is `tgc`."""

from tinygrad_chat.cli import main

if __name__ == "__main__":
    main()
