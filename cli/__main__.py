"""``python -m unet_dask_cli``."""

from . import main

main()
