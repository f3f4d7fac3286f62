"""Many images in one run: plates, folders, lists of files, each with an ordinary result of its own."""
