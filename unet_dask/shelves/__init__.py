"""What others put into an OME-Zarr image beside its levels: label images into ``labels/``, tables into ``tables/``.

Such a group, a shelf, lists what it holds. Whatever is put there is made outside of the store, moved to its name in
one step and listed after that; so a reader finds all of it or nothing, whenever a writer is killed. The image itself
is never touched.
"""
