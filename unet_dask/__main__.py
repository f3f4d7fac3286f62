"""``python -m unet_dask``: the command line, which knows the library and is not known by it, so it is run by name."""

from runpy import run_module

run_module("unet_dask_cli", run_name="__main__")
